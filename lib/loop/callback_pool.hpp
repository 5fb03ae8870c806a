// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/handle.hpp"
#include "pawl/loop/timer_handle.hpp"

namespace pawl {

class ReadyQueue;
class TimerQueue;

/// What kind of thing a callback waits for; why_alive() prints it.
enum class CallbackKind : std::uint8_t { soon, timer, repeating_timer, reader, writer, signal };

/// A place in a ring, of the timers in one bucket; or, `next` alone, in the list of the free slots.
struct CallbackLink {
  CallbackLink* next = nullptr;
  CallbackLink* previous = nullptr;
};

/// One callback that a loop is going to run, at an address that stays.
///
/// Cancelling a timer touches its first 40 bytes and its neighbours' links, when the captures are
/// trivial: memory, not instructions, is what it costs.
struct CallbackSlot : CallbackLink, CallbackTicket {
  CallbackKind kind = CallbackKind::soon;
  std::uint16_t index_in_chunk = 0;
  Function<void()> callback;
  const char* file = "";
  Duration interval{};  // of a repeating timer
  int line = 0;

  Place place() const { return Place{file, line}; }
  bool is_timer() const {
    return kind == CallbackKind::timer || kind == CallbackKind::repeating_timer;
  }
};
static_assert(sizeof(CallbackSlot) == 112, "a pending timer is promised to cost 128 bytes");

/// The slots of one loop: made in chunks, reused at once, kept until the last ticket is gone.
///
/// Threads: the loop's.
class CallbackPool {
 public:
  static constexpr std::size_t slots_in_chunk = 256;

  CallbackPool() = default;
  CallbackPool(const CallbackPool&) = delete;
  CallbackPool& operator=(const CallbackPool&) = delete;

  /// Destroys every callback and, now or with the last ticket, the pool itself.
  void close();

  /// A pending slot with one reference, the loop's. Throws `std::logic_error` on an empty callback.
  CallbackSlot* take(CallbackKind kind, Function<void()>&& callback, Place place) {
    if (__builtin_expect(!callback, false)) throw_empty_callback(place);
    CallbackSlot* slot = take_unfilled(kind, place);
    ::new (&slot->callback) Function<void()>(std::move(callback));  // that of a free one is empty
    return slot;
  }

  /// Sees to it that the next slot can be taken without an allocation.
  void make_room() {
    if (free_ == nullptr) grow();
  }
  /// True exactly when taking a slot takes an allocation.
  bool is_exhausted() const { return free_ == nullptr; }

  /// As `take`, but for the callback.
  CallbackSlot* take_unfilled(CallbackKind kind, Place place) {
    CallbackSlot* slot = take_free();
    slot->references = 1;
    slot->status = CallbackStatus::pending;
    slot->kind = kind;
    slot->file = place.file;
    slot->line = place.line;
    return slot;
  }

  template <typename Ticket>
  static Ticket ticket(CallbackSlot* slot) {
    ++slot->references;
    return Ticket(slot);
  }

  [[noreturn]] static void throw_empty_callback(Place place);

  /// Gives one reference up.
  void release(CallbackSlot* slot) {
    if (--slot->references == 0) recycle(slot);
  }

  /// Cancels it and gives the loop's reference up.
  void discard(CallbackSlot* slot) {
    cancel(slot);
    release(slot);
  }

  /// The loop goes before the callback could run: destroys it and gives the loop's reference up.
  void abandon(CallbackSlot* slot) {
    if (slot->status == CallbackStatus::pending) slot->status = CallbackStatus::done;
    slot->callback.reset();
    release(slot);
  }

  /// Keeps a slot for the length of a scope, whatever becomes of it meanwhile.
  class Hold {
   public:
    Hold(CallbackPool& pool, CallbackSlot* slot) : pool_(pool), slot_(slot) { ++slot->references; }
    ~Hold() { pool_.release(slot_); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    CallbackPool& pool_;
    CallbackSlot* slot_;
  };

  /// What `Handle::cancel` does.
  static void cancel(CallbackSlot* slot);
  /// What the last `Handle` does.
  static void drop(CallbackSlot* slot) { pool_of(slot).recycle(slot); }

  /// Told when one of theirs is cancelled.
  void set_queues(TimerQueue* timers, ReadyQueue* ready) {
    timers_ = timers;
    ready_ = ready;
  }

  /// Calls `visit(slot)` for each callback that is pending.
  template <typename Visit>
  void for_each_pending(Visit visit) const {
    for (const auto& chunk : chunks_) {
      for (CallbackSlot& slot : chunk->slots) {
        if (slot.status == CallbackStatus::pending) visit(slot);
      }
    }
  }

 private:
  struct Chunk {
    CallbackSlot slots[slots_in_chunk];  // first, so that a slot finds its chunk
    CallbackPool* pool = nullptr;
  };

  ~CallbackPool() = default;
  static CallbackPool& pool_of(const CallbackSlot* slot) {
    const CallbackSlot* first = slot - slot->index_in_chunk;
    return *reinterpret_cast<const Chunk*>(first)->pool;
  }
  CallbackSlot* take_free() {
    if (__builtin_expect(free_ == nullptr, false)) grow();
    CallbackSlot* slot = free_;
    free_ = static_cast<CallbackSlot*>(slot->next);
    __builtin_prefetch(free_, 1);
    return slot;
  }
  void recycle(CallbackSlot* slot) {
    slot->status = CallbackStatus::free;
    slot->next = free_;
    free_ = slot;
    if (__builtin_expect(is_closed_, false)) count_down();
  }
  __attribute__((noinline, cold)) void count_down() {
    if (--used_ == 0) delete this;
  }
  bool discard_pending();
  __attribute__((noinline, cold)) void grow();

  std::vector<std::unique_ptr<Chunk>> chunks_;
  CallbackSlot* free_ = nullptr;  // the first of the list
  TimerQueue* timers_ = nullptr;
  ReadyQueue* ready_ = nullptr;
  bool is_closed_ = false;
  std::size_t used_ = 0;  // slots that still have a ticket; counted when it is closed
};

}  // namespace pawl
