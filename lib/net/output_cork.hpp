// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <utility>

#include "loop/scratch.hpp"
#include "pawl/net/output_queue.hpp"

// The way of most writes: into the buffer that the loop's connections share, and out of it when the
// callback returns. Inline, because every message goes this way.

namespace pawl {

inline bool OutputQueue::append_to_cork(std::string_view bytes, std::size_t room,
                                        Scratch& scratch) {
  if (memory_bytes_ + bytes.size() > room) return false;
  if (cork_ == nullptr) {
    if (bytes_ != 0 || bytes.empty()) return false;
    cork_ = scratch.take_cork();
    if (cork_ == nullptr) return false;
  }
  std::memcpy(cork_ + memory_bytes_, bytes.data(), bytes.size());
  bytes_ = memory_bytes_ += bytes.size();
  return true;
}

inline void OutputQueue::uncork(Scratch& scratch) {
  scratch.give_back_cork(std::exchange(cork_, nullptr));
  bytes_ = 0;
  memory_bytes_ = 0;
}

inline void OutputQueue::append(std::string_view bytes, Scratch& scratch) {
  if (!append_to_cork(bytes, Scratch::cork_bytes, scratch)) append_piece(bytes, scratch);
}

inline void OutputQueue::consume(std::uint64_t bytes, Scratch& scratch) {
  if (cork_ == nullptr) return consume_pieces(bytes, scratch);
  if (bytes == bytes_) return uncork(scratch);
  settle(scratch);
  consume_pieces(bytes, scratch);
}

}  // namespace pawl
