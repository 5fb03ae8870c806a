// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop/receive_batch.hpp"

namespace pawl {

/// Memory that a loop's connections share, so that an idle one holds none.
///
/// Threads: the loop's.
class Scratch {
 public:
  static constexpr std::size_t read_bytes = 64 * 1024;
  static constexpr std::size_t cork_bytes = 16 * 1024;

  /// What is read goes here, and is valid until the callback that gets it returns.
  char* read_buffer() {
    if (read_buffer_ == nullptr) read_buffer_.reset(new char[read_bytes]);
    return read_buffer_.get();
  }
  /// The same, when it has been made.
  char* made_read_buffer() { return read_buffer_.get(); }

  /// True exactly when the bytes lie there.
  bool is_in_read_buffer(const char* bytes) const {
    const auto start = reinterpret_cast<std::uintptr_t>(read_buffer_.get());
    return reinterpret_cast<std::uintptr_t>(bytes) - start < read_bytes;
  }

  /// A buffer for what is written in one callback and leaves when that returns: null while it is
  /// lent. Of `cork_bytes`.
  char* take_cork() {
    if (is_cork_lent_) return nullptr;
    if (cork_ == nullptr) cork_.reset(new char[cork_bytes]);
    is_cork_lent_ = true;
    return cork_.get();
  }
  void give_back_cork() { is_cork_lent_ = false; }

  /// The same for datagrams.
  ReceiveBatch& receive_batch(unsigned count, std::size_t bytes) {
    receive_batch_.prepare(count, bytes);
    return receive_batch_;
  }

  /// An empty buffer for output; one that was used before when there is one.
  std::string take_buffer() {
    if (buffers_.capacity() == 0) buffers_.reserve(kept_buffers);
    if (buffers_.empty()) return {};
    std::string buffer = std::move(buffers_.back());
    buffers_.pop_back();
    return buffer;
  }

  /// For ends, which want no memory.
  void give_back(std::string&& buffer) noexcept {
    if (buffers_.size() >= buffers_.capacity() || buffer.capacity() > kept_bytes) return;
    buffer.clear();
    buffers_.push_back(std::move(buffer));
  }

 private:
  static constexpr std::size_t kept_buffers = 64;
  static constexpr std::size_t kept_bytes = 64 * 1024;

  std::unique_ptr<char[]> read_buffer_;
  std::unique_ptr<char[]> cork_;
  bool is_cork_lent_ = false;
  std::vector<std::string> buffers_;
  ReceiveBatch receive_batch_;
};

}  // namespace pawl
