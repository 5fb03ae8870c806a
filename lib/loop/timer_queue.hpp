// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "loop/callback_pool.hpp"
#include "pawl/core/time.hpp"

namespace pawl {

/// The timers of one loop, in the order of their deadlines, equal ones in the order of adding.
///
/// A hierarchical timing wheel (Varghese and Lauck, 1987) with the nanosecond as its tick: a
/// deadline is a number of eleven digits of six bits, and lies in the bucket of the highest digit
/// in which it differs from the wheel's time. A bucket is a ring of links through the slots, in the
/// order of adding; so adding and cancelling take no memory and no search, buckets are in order,
/// and what is equal stays together in order. When the time enters a bucket, it is dealt out to the
/// levels below; one that is past altogether is sorted at once.
///
/// Threads: the loop's.
class TimerQueue {
 public:
  explicit TimerQueue(CallbackPool& pool);
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  /// Enters `slot` under its `when`. It has one of the slot's references until `pop_due` or
  /// `unlink`.
  void add(CallbackSlot* slot) {
    const std::uint64_t deadline = ticks(slot->when);
    const std::uint64_t key = std::max(deadline, time_);
    const std::uint64_t difference = (key ^ time_) | 1;  // | 1: the lowest level even for "now"
    const std::size_t level =
        (63U - static_cast<unsigned>(__builtin_clzll(difference))) / digit_bits;
    const std::size_t digit = (key >> (level * digit_bits)) % buckets_in_level;
    Bucket& bucket = buckets_[level * buckets_in_level + digit];
    CallbackLink* last = bucket.previous;
    slot->next = &bucket;
    slot->previous = last;
    last->next = slot;
    bucket.previous = slot;
    bucket.earliest = std::min(bucket.earliest, deadline);
    if (__builtin_expect(last == &bucket, false)) mark_used(level, digit);
  }

  /// Takes a timer out of its bucket. False when it is in none: `collect` found it, it has had its
  /// run, or it is no timer at all; the `next` of a slot in use is null outside of buckets.
  static bool unlink(CallbackSlot* slot) {
    CallbackLink* next = slot->next;
    if (next == nullptr) return false;
    CallbackLink* previous = slot->previous;
    next->previous = previous;
    previous->next = next;
    slot->next = nullptr;
    if (__builtin_expect(next == previous, false)) mark_empty(*static_cast<Bucket*>(next));
    return true;
  }

  /// One that `collect` found is cancelled; `pop_due` gives its reference up.
  void forget_due() { --live_due_; }

  /// True exactly when no timer is pending.
  bool empty() const { return levels_ == 0 && live_due_ == 0; }

  /// The earliest deadline, or something before it when it was cancelled.
  std::optional<TimePoint> next_deadline() const;

  /// Finds out which timers are due at `now`: at least `budget` of them, when there are so many.
  void collect(TimePoint now, std::size_t budget);

  /// True exactly when there is something for `pop_due` to look at.
  bool has_due() const { return next_due_ < due_.size(); }

  /// Takes the next one that `collect` found; null when there is no more.
  CallbackSlot* pop_due();

  /// Destroys what `collect` found, unrun.
  void clear_due();

 private:
  static constexpr unsigned digit_bits = 6;
  static constexpr std::size_t level_count = 11;
  static constexpr std::size_t buckets_in_level = std::size_t{1} << digit_bits;
  static constexpr std::size_t kept_due = 4096;
  static constexpr std::size_t few_due = 64;  // where std::stable_sort is as fast as a radix sort

  /// With nothing in it, a ring of itself.
  struct Bucket : CallbackLink {
    std::uint64_t earliest = UINT64_MAX;  // something before the first deadline, or that one
    TimerQueue* queue = nullptr;
  };
  struct Due {
    std::uint64_t deadline;
    CallbackSlot* slot;
  };

  static std::uint64_t ticks(TimePoint when) {
    const auto count = when.time_since_epoch().count();
    return count < 0 ? 0 : static_cast<std::uint64_t>(count);
  }
  /// Where the earliest timers are; something must be in some bucket.
  std::size_t first_bucket() const;
  std::uint64_t bucket_start(std::size_t index) const;
  void mark_used(std::size_t level, std::size_t digit) {
    occupied_[level] |= std::uint64_t{1} << digit;
    levels_ |= std::uint64_t{1} << level;
  }
  static void mark_empty(Bucket& bucket);
  static Due due_of(CallbackLink* link) {
    auto* slot = static_cast<CallbackSlot*>(link);
    return Due{ticks(slot->when), slot};
  }
  static bool is_earlier(const Due& a, const Due& b) { return a.deadline < b.deadline; }
  void take_as_due(Bucket& bucket, std::size_t level);
  void append_to_due(const Bucket& bucket);
  void sort_due(std::size_t from, std::size_t level);
  void deal_out(Bucket& bucket);
  void drop_taken();

  CallbackPool& pool_;
  std::uint64_t time_ = 0;    // no timer in a bucket is before it, but for those added too late
  std::uint64_t levels_ = 0;  // bit n: level n has a timer
  std::array<std::uint64_t, level_count> occupied_{};  // bit n: bucket n of the level has a timer
  std::array<Bucket, level_count * buckets_in_level> buckets_;  // level by level
  std::vector<Due> due_;        // in the order of running; those before next_due_ were taken
  std::vector<Due> from_back_;  // empty but within append_to_due
  std::size_t next_due_ = 0;
  std::size_t live_due_ = 0;  // those of the others that are still pending
};

}  // namespace pawl
