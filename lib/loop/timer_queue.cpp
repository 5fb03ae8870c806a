// SPDX-License-Identifier: MIT
#include "loop/timer_queue.hpp"

#include <memory>
#include <new>

namespace pawl {
namespace {

std::size_t lowest_bit(std::uint64_t bits) {
  return static_cast<std::size_t>(__builtin_ctzll(bits));
}

}  // namespace

TimerQueue::TimerQueue(CallbackPool& pool) : pool_(pool) {
  for (Bucket& bucket : buckets_) {
    bucket.next = bucket.previous = &bucket;
    bucket.queue = this;
  }
}

std::size_t TimerQueue::first_bucket() const {
  const std::size_t level = lowest_bit(levels_);
  return level * buckets_in_level + lowest_bit(occupied_[level]);
}

std::uint64_t TimerQueue::bucket_start(std::size_t index) const {
  const std::size_t shift = index / buckets_in_level * digit_bits;
  const std::size_t upper_shift = shift + digit_bits;
  const std::uint64_t upper = upper_shift >= 64 ? 0 : time_ >> upper_shift << upper_shift;
  return upper | std::uint64_t{index % buckets_in_level} << shift;
}

std::optional<TimePoint> TimerQueue::next_deadline() const {
  if (empty()) return std::nullopt;
  std::uint64_t earliest = next_due_ < due_.size() ? due_[next_due_].deadline : UINT64_MAX;
  if (levels_ != 0) earliest = std::min(earliest, buckets_[first_bucket()].earliest);
  const auto count = std::min<std::uint64_t>(earliest, INT64_MAX);
  return TimePoint(Duration(static_cast<std::int64_t>(count)));
}

void TimerQueue::collect(TimePoint now, std::size_t budget) {
  const std::uint64_t until = ticks(now);
  if (next_due_ != 0 && due_.size() - next_due_ < budget) drop_taken();
  while (due_.size() < budget) {
    const std::size_t index = levels_ == 0 ? 0 : first_bucket();
    const std::uint64_t start = levels_ == 0 ? UINT64_MAX : bucket_start(index);
    if (start > until) {
      // No timer lies between the wheel's time and now, so no bucket changes when it moves there.
      time_ = std::max(time_, until);
      return;
    }
    const std::size_t level = index / buckets_in_level;
    const std::uint64_t last = start + ((std::uint64_t{1} << (level * digit_bits)) - 1);
    if (last <= until) {
      take_as_due(buckets_[index], level);
      time_ = std::max(time_, start);  // not before: without memory its timers are still there
    } else {
      time_ = std::max(time_, start);
      deal_out(buckets_[index]);
    }
  }
}

void TimerQueue::mark_empty(Bucket& bucket) {
  TimerQueue& queue = *bucket.queue;
  const auto index = static_cast<std::size_t>(&bucket - queue.buckets_.data());
  const std::size_t level = index / buckets_in_level;
  bucket.earliest = UINT64_MAX;
  queue.occupied_[level] &= ~(std::uint64_t{1} << index % buckets_in_level);
  if (queue.occupied_[level] == 0) queue.levels_ &= ~(std::uint64_t{1} << level);
}

void TimerQueue::take_as_due(Bucket& bucket, std::size_t level) {
  const std::size_t before = due_.size();
  try {
    append_to_due(bucket);
  } catch (...) {  // out of memory: all are still in the bucket
    from_back_.clear();
    due_.erase(due_.begin() + static_cast<std::ptrdiff_t>(before), due_.end());
    throw;
  }
  bucket.next = bucket.previous = &bucket;
  mark_empty(bucket);
  for (std::size_t i = before; i < due_.size(); ++i) due_[i].slot->next = nullptr;
  live_due_ += due_.size() - before;
  const auto begin = due_.begin() + static_cast<std::ptrdiff_t>(before);
  if (!std::is_sorted(begin, due_.end(), is_earlier)) sort_due(before, level);
}

void TimerQueue::append_to_due(const Bucket& bucket) {
  // From both ends: a link may be as far as memory is, and so two are on their way at a time.
  CallbackLink* front = bucket.next;
  CallbackLink* back = bucket.previous;
  for (;; front = front->next, back = back->previous) {
    due_.push_back(due_of(front));
    if (front == back) break;
    from_back_.push_back(due_of(back));
    if (front->next == back) break;
  }
  due_.insert(due_.end(), from_back_.rbegin(), from_back_.rend());
  from_back_.clear();
  if (from_back_.capacity() > kept_due) from_back_ = {};
}

void TimerQueue::sort_due(std::size_t from, std::size_t level) {
  const auto begin = due_.begin() + static_cast<std::ptrdiff_t>(from);
  const std::size_t count = due_.size() - from;
  std::unique_ptr<Due[]> sorted;
  // In the lowest level, beside what is due now, lies what was late when it was added.
  if (count >= few_due && level > 0) sorted.reset(new (std::nothrow) Due[count]);
  if (sorted == nullptr) {
    std::stable_sort(begin, due_.end(), is_earlier);
    return;
  }
  // In the digits of its level and above a bucket's deadlines are equal: a radix sort by the bytes
  // below, from the lowest, is the faster one for many.
  for (std::size_t shift = 0; shift < level * digit_bits; shift += 8) {
    const auto byte_of = [=](const Due& due) -> std::size_t {
      return static_cast<std::uint8_t>(due.deadline >> shift);
    };
    std::array<std::size_t, 257> place{};
    for (auto due = begin; due != due_.end(); ++due) ++place[byte_of(*due) + 1];
    for (std::size_t i = 1; i < place.size(); ++i) place[i] += place[i - 1];
    for (auto due = begin; due != due_.end(); ++due) sorted[place[byte_of(*due)]++] = *due;
    std::copy_n(sorted.get(), count, begin);
  }
}

void TimerQueue::deal_out(Bucket& bucket) {
  while (bucket.next != &bucket) {
    auto* slot = static_cast<CallbackSlot*>(bucket.next);
    unlink(slot);
    add(slot);
  }
}

CallbackSlot* TimerQueue::pop_due() {
  constexpr std::size_t ahead = 8;
  while (next_due_ < due_.size()) {
    if (next_due_ + 2 * ahead < due_.size()) {
      __builtin_prefetch(due_[next_due_ + 2 * ahead].slot, 1);
      const CallbackSlot& near = *due_[next_due_ + ahead].slot;  // asked for as long ago
      const auto* body = reinterpret_cast<const char*>(&near.body());
      __builtin_prefetch(body, 1);
      __builtin_prefetch(body + 64, 1);
    }
    CallbackSlot* slot = due_[next_due_++].slot;
    if (slot->status == CallbackStatus::pending) {
      --live_due_;
      return slot;
    }
    pool_.release(slot);
  }
  return nullptr;
}

void TimerQueue::clear_due() {
  while (next_due_ < due_.size()) pool_.abandon(due_[next_due_++].slot);
}

void TimerQueue::drop_taken() {
  if (next_due_ == due_.size() && due_.capacity() > kept_due) due_ = {};
  const std::size_t taken = std::min(next_due_, due_.size());
  due_.erase(due_.begin(), due_.begin() + static_cast<std::ptrdiff_t>(taken));
  next_due_ = 0;
}

}  // namespace pawl
