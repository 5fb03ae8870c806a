// SPDX-License-Identifier: MIT
#include "loop/callback_pool.hpp"

#include <stdexcept>

#include "loop/ready_queue.hpp"
#include "loop/timer_queue.hpp"

namespace pawl {

void Handle::cancel() {
  if (ticket_ != nullptr) CallbackPool::cancel(static_cast<CallbackSlot*>(ticket_));
}

void Handle::recycle(CallbackTicket* ticket) noexcept {
  CallbackPool::drop(static_cast<CallbackSlot*>(ticket));
}

void CallbackPool::throw_empty_callback(Place place) {
  throw std::logic_error("pawl: an empty callback was registered at " + to_string(place));
}

void CallbackSlot::reset_callback() { callback().reset(); }

void CallbackPool::grow() {
  std::unique_ptr<Chunk> chunk(new Chunk);  // not make_unique, which would clear it first
  chunk->pool = this;
  chunks_.push_back(std::move(chunk));
  for (std::size_t i = slots_in_chunk; i-- > 0;) {
    CallbackSlot& slot = chunks_.back()->slot(i);
    slot.index_in_chunk = static_cast<std::uint8_t>(i);
    slot.next = free_;
    free_ = &slot;
  }
}

void CallbackPool::forget_used() {
  if (--used_ == 0) delete this;
}

void CallbackPool::cancel(CallbackSlot* slot) {
  // Most are timers in a bucket. The fewer instructions they take, the more of them are on their
  // way through the processor at once, and wait for memory at the same time.
  if (!TimerQueue::unlink(slot)) return cancel_elsewhere(slot);
  slot->status = CallbackStatus::cancelled;
  slot->destroy_callback();
  if (--slot->references == 0) drop(slot);
}

void CallbackPool::cancel_elsewhere(CallbackSlot* slot) {
  if (slot->status == CallbackStatus::running) {
    // A one-shot that is running has had its run; what can still be kept from happening is a next.
    const bool runs_again = slot->kind != CallbackKind::soon && slot->kind != CallbackKind::timer;
    if (runs_again) slot->status = CallbackStatus::cancelled;
    return;
  }
  if (slot->status != CallbackStatus::pending) return;
  slot->status = CallbackStatus::cancelled;
  if (slot->is_timer()) pool_of(slot).timers_->forget_due();
  if (slot->kind == CallbackKind::soon) pool_of(slot).ready_->forget();
  // Whoever holds the loop's reference lets it go.
  slot->destroy_callback();
}

void CallbackPool::close() {
  while (discard_pending()) {
    // What dies may have posted something.
  }
  for (const auto& chunk : chunks_) {
    for (std::size_t i = 0; i < slots_in_chunk; ++i) {
      const CallbackSlot& slot = chunk->slot(i);
      if (slot.status != CallbackStatus::free) ++used_;
    }
  }
  is_closed_ = true;
  if (used_ == 0) delete this;
}

bool CallbackPool::discard_pending() {
  bool found = false;
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    for (std::size_t k = 0; k < slots_in_chunk; ++k) {
      CallbackSlot& slot = chunks_[i]->slot(k);
      if (slot.status != CallbackStatus::pending) continue;
      found = true;
      if (slot.is_timer()) TimerQueue::unlink(&slot);
      abandon(&slot);
    }
  }
  return found;
}

}  // namespace pawl
