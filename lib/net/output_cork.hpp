// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>

#include "loop/scratch.hpp"
#include "pawl/net/output_queue.hpp"

// The way of most writes: into a buffer that the loop's connections share, and out of it when the
// callback returns. What is written back lies in such a buffer already. Inline, because every
// message goes this way.

namespace pawl {

inline bool OutputQueue::borrow(std::string_view bytes, std::size_t room, const Scratch& scratch) {
  const bool fits = bytes.size() - 1 < room;  // nor is it empty
  if (!fits || !scratch.is_in_read_buffer(bytes.data())) {
    return false;
  }
  corked_ = bytes.data();
  memory_bytes_ = bytes.size();
  return true;
}

inline bool OutputQueue::append_to_cork(std::string_view bytes, std::size_t room,
                                        Scratch& scratch) {
  if (memory_bytes_ + bytes.size() > room) return false;
  if (cork_ == nullptr) {
    if (bytes.empty() || !enter_cork(scratch)) return false;
  }
  std::memcpy(cork_ + memory_bytes_, bytes.data(), bytes.size());
  memory_bytes_ += bytes.size();
  return true;
}

inline void OutputQueue::leave_read_buffer(Scratch& scratch) {
  const bool is_borrowed = is_corked() && cork_ == nullptr;
  if (is_borrowed && !enter_cork(scratch)) settle(scratch);
}

inline void OutputQueue::give_back_cork(Scratch& scratch) {
  if (cork_ == nullptr) return;
  cork_ = nullptr;
  scratch.give_back_cork();
}

inline void OutputQueue::uncork(Scratch& scratch) {
  corked_ = nullptr;
  memory_bytes_ = 0;
  give_back_cork(scratch);
}

inline void OutputQueue::append(std::string_view bytes, Scratch& scratch) {
  if (!append_to_cork(bytes, Scratch::cork_bytes, scratch)) append_piece(bytes, scratch);
}

inline void OutputQueue::consume(std::uint64_t bytes, Scratch& scratch) {
  if (!is_corked()) return consume_pieces(bytes, scratch);
  if (bytes == memory_bytes_) return uncork(scratch);
  corked_ += bytes;
  memory_bytes_ -= static_cast<std::size_t>(bytes);
  settle(scratch);
}

}  // namespace pawl
