// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "loop/callback_pool.hpp"

namespace pawl {

/// The callbacks of `call_soon`, first in, first out; each holds one of its slot's references.
///
/// Two arrays: one is run from front to back, the other is appended to meanwhile; they change
/// places when the first is through. One that is cancelled stays behind until the queue comes to
/// it. Such ones are swept out before an array would grow for their sake.
///
/// Threads: the loop's.
class ReadyQueue {
 public:
  explicit ReadyQueue(CallbackPool& pool) : pool_(pool) {}
  ReadyQueue(const ReadyQueue&) = delete;
  ReadyQueue& operator=(const ReadyQueue&) = delete;

  /// True exactly when nothing in it is to be run.
  bool empty() const { return running_.size() + later_.size() == stale_; }

  /// There must be room.
  void push(CallbackSlot* slot) { *later_.end++ = slot; }
  /// True exactly when there is no room for one more.
  bool is_full() const { return later_.end == later_.limit; }
  __attribute__((noinline, cold)) void make_room() {
    if (!is_full()) return;
    if (stale_ > later_.size() / 2) sweep();
    if (later_.size() > later_.capacity() / 2) grow();
  }

  /// A callback in it is cancelled.
  void forget() { ++stale_; }

  /// What is in it now, up to `budget`, is what `take` gives.
  void begin_batch(std::size_t budget) {
    const std::size_t from_running = std::min(running_.size(), budget);
    batch_end_ = running_.begin + from_running;
    from_later_ = std::min(later_.size(), budget - from_running);
  }

  /// True exactly when something of the batch is left for `take`.
  bool has_batch() const { return running_.begin != batch_end_ || from_later_ != 0; }

  /// The next one of the batch, with the queue's reference to it; null when there is no more.
  CallbackSlot* take() {
    for (;;) {
      if (running_.begin == batch_end_) {
        if (from_later_ == 0) return nullptr;
        turn_over();
      }
      CallbackSlot* slot = *running_.begin++;
      if (__builtin_expect(slot->status == CallbackStatus::pending, true)) return slot;
      --stale_;
      pool_.release(slot);
    }
  }

  /// Destroys everything, unrun. What dies may push.
  void clear() {
    while (running_.size() + later_.size() > 0) {
      if (running_.size() == 0) turn_over();
      pool_.abandon(*running_.begin++);
    }
    stale_ = 0;
  }

 private:
  /// Slots from `begin` to `end`, and room up to `limit`.
  struct Array {
    explicit Array(std::size_t capacity)
        : memory(new CallbackSlot*[capacity]),
          begin(memory.get()),
          end(begin),
          limit(begin + capacity) {}

    std::unique_ptr<CallbackSlot*[]> memory;
    CallbackSlot** begin;
    CallbackSlot** end;
    CallbackSlot** limit;

    std::size_t size() const { return static_cast<std::size_t>(end - begin); }
    std::size_t capacity() const { return static_cast<std::size_t>(limit - memory.get()); }
  };

  /// What was pushed is run now; what was run makes room for what is pushed.
  void turn_over() {
    running_.begin = running_.end = running_.memory.get();
    std::swap(running_, later_);
    batch_end_ = running_.begin + std::exchange(from_later_, 0);
  }

  void grow() {
    Array bigger(2 * later_.capacity());
    bigger.end = std::copy(later_.begin, later_.end, bigger.begin);
    later_ = std::move(bigger);
  }

  /// Of those that the batch counts on, some may go.
  void sweep() {
    CallbackSlot** kept_end = later_.begin;
    std::size_t kept_of_batch = 0;
    for (CallbackSlot** each = later_.begin; each != later_.end; ++each) {
      const bool is_of_batch = static_cast<std::size_t>(each - later_.begin) < from_later_;
      if ((*each)->status == CallbackStatus::pending) {
        *kept_end++ = *each;
        if (is_of_batch) ++kept_of_batch;
      } else {
        --stale_;
        pool_.release(*each);
      }
    }
    later_.end = kept_end;
    from_later_ = kept_of_batch;
  }

  CallbackPool& pool_;
  Array running_{64};
  Array later_{64};
  CallbackSlot** batch_end_ = running_.begin;  // in running_: take() gives what is before it
  std::size_t from_later_ = 0;                 // and so many of later_ then
  std::size_t stale_ = 0;                      // cancelled ones in both
};

}  // namespace pawl
