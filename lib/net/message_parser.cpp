// SPDX-License-Identifier: MIT
// Traps: a delimiter may be cut in the middle, and a part of it may repeat itself; a length may be
// larger than memory.
#include "pawl/net/message_parser.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "pawl/core/error.hpp"

namespace pawl {
namespace {

constexpr std::size_t kept_bytes = 4096;  // of the buffer, from one message to the next

}  // namespace

void MessageParser::set_framing(Framing framing) {
  if (!is_between()) {
    throw std::logic_error("MessageParser: set_framing in the middle of a message");
  }
  framing_ = std::move(framing);
  is_exhausted_ = false;
}

bool MessageParser::is_due() const {
  const bool is_empty = framing_.kind_ == Framing::Kind::exactly && framing_.bytes_ == 0;
  return is_empty && !is_exhausted_ && !error_;
}

std::string MessageParser::take_back() {
  if (is_given_) return {};  // its bytes are still in use
  std::string bytes(reinterpret_cast<const char*>(prefix_.data()), prefix_size_);
  bytes += std::exchange(buffer_, {});
  prefix_size_ = 0;
  return bytes;
}

/// Forgets the message that was given.
void MessageParser::begin() {
  if (!std::exchange(is_given_, false)) return;
  message_ = {};
  prefix_size_ = 0;
  if (buffer_.capacity() > kept_bytes) {
    std::string().swap(buffer_);  // assigning an empty one would keep the memory
  } else {
    buffer_.clear();
  }
}

MessageParser::Status MessageParser::next(std::string_view& input) {
  begin();
  if (error_) return Status::failed;
  switch (framing_.kind_) {
    case Framing::Kind::until:
    case Framing::Kind::lines: return next_delimited(input);
    case Framing::Kind::prefixed: return next_prefixed(input);
    case Framing::Kind::until_end: return next_rest(input);
    case Framing::Kind::exactly: break;
  }
  if (is_exhausted_) {
    throw std::logic_error("MessageParser: exactly(0) again and again would never end");
  }
  const Status status = next_sized(input, framing_.bytes_);
  is_exhausted_ = status == Status::message && framing_.bytes_ == 0;
  return status;
}

/// How many bytes at the end of the buffer begin a delimiter that `input` completes; 0 for none.
std::size_t MessageParser::straddling(std::string_view input) const {
  const std::string_view delimiter = framing_.delimiter_;
  const std::string_view before = buffer_;
  // The longest first: that is the delimiter that begins first.
  for (std::size_t k = std::min(delimiter.size() - 1, before.size()); k > 0; --k) {
    const std::string_view rest = delimiter.substr(k);
    if (input.substr(0, rest.size()) != rest) continue;
    if (before.substr(before.size() - k) == delimiter.substr(0, k)) return k;
  }
  return 0;
}

MessageParser::Status MessageParser::next_delimited(std::string_view& input) {
  const std::size_t delimiter_size = framing_.delimiter_.size();
  if (const std::size_t before = straddling(input)) {
    input.remove_prefix(delimiter_size - before);
    buffer_.resize(buffer_.size() - before);
    return give(buffer_);
  }
  const std::size_t end = input.find(framing_.delimiter_);
  if (end != std::string_view::npos) return give_up_to(input, end, delimiter_size);
  // What may be the beginning of the delimiter, or the "\r" of a line, isn't the message's yet.
  const bool is_line = framing_.kind_ == Framing::Kind::lines;
  const std::size_t doubtful = is_line ? 1 : delimiter_size - 1;
  const std::size_t total = buffer_.size() + input.size();
  buffer_.append(input);
  input = {};
  const bool is_too_long = total > doubtful && total - doubtful > framing_.limit_;
  return is_too_long ? fail(Errc::message_too_long) : Status::more;
}

/// The message ends behind `bytes` of the input, and `skipped` more don't belong to it.
MessageParser::Status MessageParser::give_up_to(std::string_view& input, std::size_t bytes,
                                                std::size_t skipped) {
  const std::string_view rest = input.substr(0, bytes);
  input.remove_prefix(bytes + skipped);
  if (buffer_.empty()) return give(rest);
  buffer_.append(rest);
  return give(buffer_);
}

MessageParser::Status MessageParser::next_prefixed(std::string_view& input) {
  const LengthPrefix prefix = framing_.prefix_;
  const bool was_known = prefix_size_ == prefix.bytes;
  while (prefix_size_ < prefix.bytes && !input.empty()) {
    prefix_[prefix_size_++] = static_cast<unsigned char>(input.front());
    input.remove_prefix(1);
  }
  if (prefix_size_ < prefix.bytes) return Status::more;
  for (unsigned i = 0; !was_known && i < prefix.bytes; ++i) {
    const unsigned place = prefix.order == ByteOrder::big ? i : prefix.bytes - 1 - i;
    length_ = (i == 0 ? 0 : length_ << 8) | prefix_[place];
  }
  return next_sized(input, length_);
}

MessageParser::Status MessageParser::next_sized(std::string_view& input, std::uint64_t bytes) {
  if (bytes > framing_.limit_) return fail(Errc::message_too_long);
  const std::size_t missing = static_cast<std::size_t>(bytes) - buffer_.size();
  if (input.size() >= missing) return give_up_to(input, missing, 0);
  // Room is taken as bytes come, not as a peer says that they will.
  buffer_.append(input);
  input = {};
  return Status::more;
}

MessageParser::Status MessageParser::next_rest(std::string_view& input) {
  const bool is_too_long = input.size() > framing_.limit_ - buffer_.size();
  if (is_too_long) return fail(Errc::message_too_long);
  buffer_.append(input);
  input = {};
  return Status::more;
}

MessageParser::Status MessageParser::finish() {
  begin();
  if (error_) return Status::failed;
  if (framing_.kind_ == Framing::Kind::until_end && !std::exchange(has_ended_, true)) {
    return give(buffer_);
  }
  has_ended_ = true;
  return is_between() ? Status::ended : fail(Errc::unexpected_end);
}

MessageParser::Status MessageParser::give(std::string_view message) {
  const bool is_line = framing_.kind_ == Framing::Kind::lines;
  if (is_line && !message.empty() && message.back() == '\r') message.remove_suffix(1);
  if (message.size() > framing_.limit_) return fail(Errc::message_too_long);
  message_ = message;
  is_given_ = true;
  return Status::message;
}

MessageParser::Status MessageParser::fail(std::error_code error) {
  error_ = error;
  return Status::failed;
}

}  // namespace pawl
