// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include "pawl/core/api.hpp"
#include "pawl/net/framing.hpp"

namespace pawl {

/// Cuts a stream of bytes into messages. It does no I/O: feed it from anywhere.
///
///     while (parser.next(input) == MessageParser::Status::message) use(parser.message());
///
/// Owns:     what it has of a message that isn't complete yet, and nothing else. A message that
///           lies whole in the input isn't copied.
/// Promises: what it gives doesn't depend on how the stream was cut into pieces.
/// Fails:    by `Status::failed` and `error()`, for good: nothing says where the next message would
///           begin.
class PAWL_API MessageParser {
 public:
  enum class Status : std::uint8_t {
    message,  ///< one is complete
    more,     ///< the input is used up; it takes more to tell
    ended,    ///< the stream ended between two messages
    failed,   ///< see `error()`
  };

  explicit MessageParser(Framing framing) : framing_(std::move(framing)) {}

  /// Takes the next message off the front of `input`, or all of it into the message that isn't
  /// complete. Throws `std::logic_error` when `exactly(0)` has given its message and wasn't
  /// followed by another framing: that would never end.
  Status next(std::string_view& input);
  /// The stream is over. `message`: the last one (of `until_end`), and then `ended`. `failed` with
  /// `Errc::unexpected_end`: a message has begun, `partial()` is what there is of it.
  Status finish();

  /// What `next` or `finish` gave. Valid until the next call, and while the input is.
  std::string_view message() const { return message_; }
  /// The beginning of a message that isn't complete, without its prefix.
  std::string_view partial() const { return is_given_ ? std::string_view() : buffer_; }
  std::error_code error() const { return error_; }

  /// How the next message is framed. Throws `std::logic_error` in the middle of one (`is_between()`
  /// is false): `take_back` first.
  void set_framing(Framing framing);
  const Framing& framing() const { return framing_; }
  /// True exactly when nothing of the next message has come.
  bool is_between() const { return is_given_ || (buffer_.empty() && prefix_size_ == 0); }
  /// True exactly when the next message needs no bytes to be complete.
  bool is_due() const;
  /// What has come of a message that isn't complete, byte by byte, its prefix too; it is forgotten
  /// here.
  std::string take_back();

 private:
  Status next_delimited(std::string_view& input);
  Status next_prefixed(std::string_view& input);
  Status next_sized(std::string_view& input, std::uint64_t bytes);
  Status next_rest(std::string_view& input);
  std::size_t straddling(std::string_view input) const;
  Status give(std::string_view message);
  Status give_up_to(std::string_view& input, std::size_t bytes, std::size_t skipped);
  Status fail(std::error_code error);
  void begin();

  Framing framing_;
  std::string buffer_;  // of the message that isn't complete, or the one that was given
  std::string_view message_;
  std::array<unsigned char, 8> prefix_{};
  unsigned prefix_size_ = 0;   // bytes of it that have come
  std::uint64_t length_ = 0;   // what a complete prefix says
  bool is_given_ = false;      // true exactly from a message until the next call
  bool is_exhausted_ = false;  // true exactly after exactly(0) gave its message
  bool has_ended_ = false;     // true exactly after finish()
  std::error_code error_;
};

}  // namespace pawl
