// SPDX-License-Identifier: MIT
#include "pawl/net/output_queue.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "loop/scratch.hpp"
#include "net/output_cork.hpp"

namespace pawl {
namespace {

constexpr std::size_t full_piece = 64 * 1024;  // small writes are put together up to here
constexpr std::size_t big_write = 16 * 1024;   // from here on a piece of its own is cheaper

}  // namespace

OutputQueue::OutputQueue() = default;
OutputQueue::~OutputQueue() = default;

std::uint64_t OutputQueue::Piece::size() const {
  return is_file() ? attachment->length : bytes.size();
}

// Without memory for it, nothing has changed.
void OutputQueue::add_copy(std::string_view bytes, Scratch& scratch) {
  std::string copy = scratch.take_buffer();
  copy.assign(bytes);
  pieces_.push_back(Piece{std::move(copy), nullptr});
}

/// Takes along what lies in the read buffer. False when the cork isn't to be had, or there is more
/// than that.
bool OutputQueue::enter_cork(Scratch& scratch) {
  if (!empty() && !is_corked()) return false;
  cork_ = scratch.take_cork();
  if (cork_ == nullptr) return false;
  if (is_corked()) std::memcpy(cork_, corked_, memory_bytes_);
  corked_ = cork_;
  return true;
}

void OutputQueue::settle(Scratch& scratch) {
  if (!is_corked()) return;
  if (memory_bytes_ != 0) add_copy(corked(), scratch);
  corked_ = nullptr;
  give_back_cork(scratch);
}

void OutputQueue::append_piece(std::string_view bytes, Scratch& scratch) {
  if (bytes.empty()) return;
  settle(scratch);
  if (bytes.size() < big_write && fits_into_last(bytes.size())) {
    pieces_.back().bytes.append(bytes);
  } else {
    add_copy(bytes, scratch);
  }
  memory_bytes_ += bytes.size();
}

/// A piece of its own isn't moved again to make room for a small write behind it.
bool OutputQueue::fits_into_last(std::size_t bytes) const {
  if (first_ == pieces_.size() || pieces_.back().attachment != nullptr) return false;
  const std::string& last = pieces_.back().bytes;
  const std::size_t together = last.size() + bytes;
  return together <= full_piece && (last.size() < big_write || together <= last.capacity());
}

void OutputQueue::append(std::string&& bytes, Scratch& scratch) {
  if (bytes.size() < big_write) return append(std::string_view(bytes), scratch);
  settle(scratch);
  const std::size_t size = bytes.size();
  pieces_.push_back(Piece{std::move(bytes), nullptr});
  memory_bytes_ += size;
}

void OutputQueue::append_file(UniqueFd file, std::uint64_t offset, std::uint64_t length,
                              Scratch& scratch) {
  if (length == 0) return;
  settle(scratch);
  std::unique_ptr<Attachment> range(new Attachment{std::move(file), offset, length, {}});
  pieces_.push_back(Piece{{}, std::move(range)});
  file_bytes_ += length;
}

void OutputQueue::append_fds(std::string_view bytes, std::vector<UniqueFd> fds, Scratch& scratch) {
  settle(scratch);
  std::unique_ptr<Attachment> passengers(new Attachment{{}, 0, 0, std::move(fds)});
  pieces_.push_back(Piece{std::string(bytes), std::move(passengers)});
  memory_bytes_ += bytes.size();
}

std::string_view OutputQueue::piece(std::size_t index) const {
  if (is_corked() && index == 0) return corked();
  if (first_ + index >= pieces_.size()) return {};
  std::string_view bytes = pieces_[first_ + index].bytes;
  if (index == 0 && !bytes.empty()) bytes.remove_prefix(static_cast<std::size_t>(offset_));
  return bytes;
}

OutputQueue::Attachment* OutputQueue::attachment(std::size_t index) const {
  if (first_ + index >= pieces_.size()) return nullptr;
  return pieces_[first_ + index].attachment.get();
}

bool OutputQueue::has_attachments() const {
  for (std::size_t i = first_; i < pieces_.size(); ++i) {
    if (pieces_[i].is_file()) return true;
    if (pieces_[i].attachment != nullptr && !pieces_[i].attachment->fds.empty()) return true;
  }
  return false;
}

/// True when nothing of the first piece is left.
bool OutputQueue::consume_first(std::uint64_t bytes) {
  Piece& piece = pieces_[first_];
  if (piece.is_file()) {
    piece.attachment->offset += bytes;
    piece.attachment->length -= bytes;
    file_bytes_ -= bytes;
    return piece.attachment->length == 0;
  }
  memory_bytes_ -= static_cast<std::size_t>(bytes);
  offset_ += bytes;
  return offset_ == piece.bytes.size();
}

void OutputQueue::consume_pieces(std::uint64_t bytes, Scratch& scratch) {
  while (bytes > 0) {
    const std::uint64_t part = std::min(bytes, pieces_[first_].size() - offset_);
    bytes -= part;
    if (!consume_first(part)) return;
    offset_ = 0;
    Piece gone = std::move(pieces_[first_++]);
    scratch.give_back(std::move(gone.bytes));
  }
  if (first_ == pieces_.size()) {
    pieces_.clear();
    first_ = 0;
  } else if (first_ > 64 && first_ > pieces_.size() / 2) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

}  // namespace pawl
