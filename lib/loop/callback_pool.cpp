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

void CallbackPool::grow() {
  std::unique_ptr<Chunk> chunk(new Chunk);  // not make_unique, which would clear it first
  chunk->pool = this;
  chunks_.push_back(std::move(chunk));
  for (std::size_t i = slots_in_chunk; i-- > 0;) {
    CallbackSlot& slot = chunks_.back()->slots[i];
    slot.index_in_chunk = static_cast<std::uint16_t>(i);
    slot.next = free_;
    free_ = &slot;
  }
}

void CallbackPool::cancel(CallbackSlot* slot) {
  if (slot->status == CallbackStatus::running) {
    // A one-shot that is running has had its run; what can still be kept from happening is a next.
    const bool runs_again = slot->kind != CallbackKind::soon && slot->kind != CallbackKind::timer;
    if (runs_again) slot->status = CallbackStatus::cancelled;
    return;
  }
  if (slot->status != CallbackStatus::pending) return;
  slot->status = CallbackStatus::cancelled;
  // The pool is looked up where it is needed: for a timer in a bucket, which is most, it isn't.
  const bool is_unlinked = slot->is_timer() && TimerQueue::unlink(slot);
  if (slot->is_timer() && !is_unlinked) pool_of(slot).timers_->forget_due();
  if (slot->kind == CallbackKind::soon) pool_of(slot).ready_->forget();
  slot->callback.reset();
  // Of what is in no bucket, whoever holds the loop's reference lets it go.
  if (is_unlinked && --slot->references == 0) drop(slot);
}

void CallbackPool::close() {
  while (discard_pending()) {
    // What dies may have posted something.
  }
  for (const auto& chunk : chunks_) {
    for (const CallbackSlot& slot : chunk->slots) {
      if (slot.status != CallbackStatus::free) ++used_;
    }
  }
  is_closed_ = true;
  if (used_ == 0) delete this;
}

bool CallbackPool::discard_pending() {
  bool found = false;
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    for (CallbackSlot& slot : chunks_[i]->slots) {
      if (slot.status != CallbackStatus::pending) continue;
      found = true;
      if (slot.is_timer()) TimerQueue::unlink(&slot);
      abandon(&slot);
    }
  }
  return found;
}

}  // namespace pawl
