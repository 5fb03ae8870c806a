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
enum class CallbackKind : std::uint8_t {
  soon,
  timer,
  repeating_timer,
  moving_timer,
  reader,
  writer,
  signal
};

/// A place in a ring, of the timers in one bucket; or, `next` alone, in the list of the free slots.
struct CallbackLink {
  CallbackLink* next = nullptr;
  CallbackLink* previous = nullptr;
};

/// What a slot has for the run of its callback, and to tell where it comes from.
struct CallbackBody {
  Function<void()> callback;
  const char* file = "";
  Duration interval{};  // of a repeating timer; of a moving one, until its next run; zero: none
  int line = 0;
};

/// One callback that a loop is going to run, at an address that stays.
///
/// What a timer costs among many is memory, not instructions. So all that it takes to cancel one
/// lies in half of a cache line, its neighbours' links likewise; the rest is in its body.
struct alignas(32) CallbackSlot : CallbackLink, CallbackTicket {
  CallbackKind kind = CallbackKind::soon;
  bool dies_as_nothing = true;  // true exactly when its callback has no captures to destroy
  std::uint8_t index_in_chunk = 0;

  inline CallbackBody& body();
  inline const CallbackBody& body() const;
  Function<void()>& callback() { return body().callback; }
  Place place() const { return Place{body().file, body().line}; }
  bool is_timer() const {
    return kind >= CallbackKind::timer && kind <= CallbackKind::moving_timer;
  }

  /// Destroys the callback. One that dies as nothing is left where it is: its memory may be far.
  void destroy_callback() {
    if (__builtin_expect(!dies_as_nothing, false)) reset_callback();
  }
  __attribute__((noinline, cold)) void reset_callback();
};

/// Eight slots in four cache lines, and their bodies in the ten behind them. Apart they'd be two
/// streams through memory, and adding a million timers would wait for one of them.
struct alignas(64) CallbackGroup {
  static constexpr std::size_t size = 8;

  CallbackSlot slots[size];  // first, so that a slot finds its group
  CallbackBody bodies[size];

  static CallbackGroup* of(CallbackSlot* slot) {
    return reinterpret_cast<CallbackGroup*>(slot - slot->index_in_chunk % size);
  }
};
static_assert(sizeof(CallbackSlot) == 32, "it is meant to lie in half of a cache line");
static_assert(sizeof(CallbackGroup) <= 112 * CallbackGroup::size,
              "a pending timer is promised to cost 128 bytes");

CallbackBody& CallbackSlot::body() {
  return CallbackGroup::of(this)->bodies[index_in_chunk % CallbackGroup::size];
}

const CallbackBody& CallbackSlot::body() const { return const_cast<CallbackSlot*>(this)->body(); }

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
  /// For whoever owns it.
  struct Close {
    void operator()(CallbackPool* pool) const { pool->close(); }
  };

  /// A pending slot with one reference, the loop's. Throws `std::logic_error` on an empty callback.
  /// Always inline: saving its arguments for a call would cost a tenth of what it does.
  __attribute__((always_inline)) CallbackSlot* take(CallbackKind kind, Function<void()>&& callback,
                                                    Place place) {
    if (__builtin_expect(!callback, false)) throw_empty_callback(place);
    CallbackSlot* slot = take_unfilled(kind, place, callback.dies_as_nothing());
    // That of a free slot is empty or dies as nothing, so there is nothing to destroy.
    ::new (&slot->body().callback) Function<void()>(std::move(callback));
    return slot;
  }

  /// Sees to it that the next slot can be taken without an allocation.
  void make_room() {
    if (free_ == nullptr) grow();
  }
  /// True exactly when taking a slot takes an allocation.
  bool is_exhausted() const { return free_ == nullptr; }

  /// As `take`, but for the callback, of which it needs to know how it dies.
  CallbackSlot* take_unfilled(CallbackKind kind, Place place, bool dies_as_nothing) {
    CallbackSlot* slot = take_free();
    CallbackBody& body = slot->body();
    slot->dies_as_nothing = dies_as_nothing;
    slot->next = nullptr;
    slot->references = 1;
    slot->status = CallbackStatus::pending;
    slot->kind = kind;
    body.file = place.file;
    body.line = place.line;
    return slot;
  }

  template <typename Ticket>
  static Ticket ticket(CallbackSlot* slot) {
    ++slot->references;
    return Ticket(slot);
  }

  static CallbackSlot* slot_of(const Handle& ticket) {
    return static_cast<CallbackSlot*>(ticket.ticket_);
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
    slot->destroy_callback();
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

  /// A slot that is discarded again, unless somebody takes it from here.
  class Taken {
   public:
    Taken(CallbackPool& pool, CallbackSlot* slot) : pool_(pool), slot_(slot) {}
    ~Taken() {
      if (slot_ != nullptr) pool_.discard(slot_);
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    CallbackSlot* take() { return std::exchange(slot_, nullptr); }

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
      for (std::size_t i = 0; i < slots_in_chunk; ++i) {
        CallbackSlot& slot = chunk->slot(i);
        if (slot.status == CallbackStatus::pending) visit(slot);
      }
    }
  }

 private:
  struct Chunk {
    CallbackGroup groups[slots_in_chunk / CallbackGroup::size];  // first: a slot finds its chunk
    CallbackPool* pool = nullptr;

    CallbackSlot& slot(std::size_t i) {
      return groups[i / CallbackGroup::size].slots[i % CallbackGroup::size];
    }
  };

  ~CallbackPool() = default;
  static CallbackPool& pool_of(CallbackSlot* slot) {
    CallbackGroup* first = CallbackGroup::of(slot) - slot->index_in_chunk / CallbackGroup::size;
    return *reinterpret_cast<Chunk*>(first)->pool;
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
    if (__builtin_expect(is_closed_, false)) forget_used();
  }
  static void cancel_elsewhere(CallbackSlot* slot);
  bool discard_pending();
  __attribute__((noinline, cold)) void grow();
  __attribute__((noinline, cold)) void forget_used();

  std::vector<std::unique_ptr<Chunk>> chunks_;
  CallbackSlot* free_ = nullptr;  // the first of the list
  TimerQueue* timers_ = nullptr;
  ReadyQueue* ready_ = nullptr;
  bool is_closed_ = false;
  std::size_t used_ = 0;  // slots that still have a ticket; counted when it is closed
};

}  // namespace pawl
