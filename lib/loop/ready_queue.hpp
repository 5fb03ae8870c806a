// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "loop/callback_pool.hpp"

namespace pawl {

/// A ring of callbacks, first in, first out; each holds one of its slot's references.
///
/// One that is cancelled stays behind until the queue comes to it. Such ones are swept out before
/// the ring would grow for their sake.
///
/// Threads: the loop's.
class ReadyQueue {
 public:
  explicit ReadyQueue(CallbackPool& pool) : pool_(pool) {}
  ReadyQueue(const ReadyQueue&) = delete;
  ReadyQueue& operator=(const ReadyQueue&) = delete;

  /// True exactly when nothing in it is to be run.
  bool empty() const { return tail_ - head_ == stale_; }

  void push(CallbackSlot* slot) {
    if (__builtin_expect(tail_ - head_ == capacity_, false)) make_room();
    ring_[tail_++ & (capacity_ - 1)] = slot;
  }

  /// A callback in it is cancelled.
  void forget() { ++stale_; }

  /// What is in it now, up to `budget`, is what `take` gives.
  void begin_batch(std::size_t budget) { batch_ = std::min(tail_ - head_, budget); }

  /// The next one of the batch, with the queue's reference to it; null when there is no more.
  CallbackSlot* take() {
    while (batch_ > 0) {
      --batch_;
      CallbackSlot* slot = ring_[head_++ & (capacity_ - 1)];
      if (__builtin_expect(slot->status == CallbackStatus::pending, true)) return slot;
      --stale_;
      pool_.release(slot);
    }
    return nullptr;
  }

  /// Destroys everything, unrun. What dies may push.
  void clear() {
    while (head_ != tail_) pool_.abandon(ring_[head_++ & (capacity_ - 1)]);
    stale_ = 0;
  }

 private:
  __attribute__((noinline, cold)) void make_room() {
    if (stale_ > capacity_ / 2) return sweep();
    const std::size_t bigger_capacity = capacity_ == 0 ? 64 : 2 * capacity_;
    std::unique_ptr<CallbackSlot*[]> bigger(new CallbackSlot*[bigger_capacity]);
    const std::size_t count = tail_ - head_;
    for (std::size_t i = 0; i < count; ++i) bigger[i] = ring_[(head_ + i) & (capacity_ - 1)];
    ring_ = std::move(bigger);
    capacity_ = bigger_capacity;
    head_ = 0;
    tail_ = count;
  }

  void sweep() {
    const std::size_t batch_end = head_ + batch_;
    std::size_t kept_end = head_;
    for (std::size_t i = head_; i != tail_; ++i) {
      if (i == batch_end) batch_ = kept_end - head_;
      CallbackSlot* slot = ring_[i & (capacity_ - 1)];
      if (slot->status == CallbackStatus::pending) {
        ring_[kept_end++ & (capacity_ - 1)] = slot;
      } else {
        pool_.release(slot);
      }
    }
    if (batch_end == tail_) batch_ = kept_end - head_;
    tail_ = kept_end;
    stale_ = 0;
  }

  CallbackPool& pool_;
  std::unique_ptr<CallbackSlot*[]> ring_;
  std::size_t capacity_ = 0;  // 0 or a power of two, so that a mask wraps the counters
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
  std::size_t stale_ = 0;  // cancelled ones in the ring
  std::size_t batch_ = 0;  // those that take() still gives
};

}  // namespace pawl
