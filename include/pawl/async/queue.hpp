// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/async/turn_state.hpp"
#include "pawl/async/waiter_queue.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// Hands items from those who put to those who get, first in, first out.
///
/// Owns:     the items. Destroying it fails whoever waits with `Errc::broken_promise`.
/// Threads:  the loop's. The loop must outlive it.
/// Promises: an item isn't lost: one that was given to a future which is cancelled or dropped
/// before
///           anybody looked at it goes back to its place, at once, also when that future is behind
///           a `wait_for`, a `shield` or a `gather`. What goes back needs no memory. (An `Item`
///           whose move throws may be lost then.)
template <typename Item>
class Queue {
 public:
  /// At most `max_size` items, besides those that went back; 0: any number.
  explicit Queue(EventLoop& loop, std::size_t max_size = 0)
      : core_(std::make_shared<Core>(FutureCore::hub_of(loop), max_size)) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue() { core_->close(Errc::broken_promise); }

  /// A future that is done when the item is in the queue, at once when there is room. Cancelling
  /// one that waits takes the item back; dropping it doesn't. Fails with `Errc::queue_shut_down`.
  Future<void> put(Item item, Place place = Place::here()) {
    return core_->put(std::move(item), place);
  }
  /// False, and `item` is untouched, when there is no room, or the queue is shut down.
  bool put_nowait(Item&& item) { return core_->put_nowait(item); }
  bool put_nowait(const Item& item) {
    Item copy(item);
    return core_->put_nowait(copy);
  }

  /// A future for the next item. Fails with `Errc::queue_shut_down` when there won't be one.
  Future<Item> get(Place place = Place::here()) { return core_->get(core_, place); }
  /// Calls `callback(std::error_code, std::optional<Item>)` with it. The future that this gives is
  /// done when that has returned. Cancelling it keeps it from being called, also when the item has
  /// come already, which then goes back.
  template <typename Callable>
  Future<void> get(Callable callback, Place place = Place::here()) {
    auto call = [callback = std::move(callback)](FutureState<Item>& done) mutable {
      const std::error_code error = done.error();
      std::optional<Item> got;
      if (!error) got.emplace(std::move(done.value()));
      callback(error, std::move(got));
    };
    return call_when_done(get(place), std::move(call), place);
  }
  /// None when the queue is empty.
  std::optional<Item> get_nowait() { return core_->get_nowait(); }

  std::size_t size() const { return core_->items.size(); }
  bool empty() const { return core_->items.empty(); }
  /// True exactly when a `put` would have to wait.
  bool full() const { return core_->is_full(); }
  std::size_t max_size() const { return core_->max_size; }

  /// Takes no more items. Those that are in it can still be got; when there are none, whoever waits
  /// to get fails, and whoever waits to put fails at once.
  void shutdown() {
    FutureCore::refuse_wrong_thread(core_->hub, "Queue::shutdown");
    core_->close(Errc::queue_shut_down);
  }

 private:
  struct Core;

  /// An item and when it came. Nodes of lists move between these without memory.
  struct Entry {
    explicit Entry(Item&& with) : item(std::move(with)) {}
    std::uint64_t number = 0;
    std::optional<Item> item;
  };
  using Entries = std::list<Entry>;

  class PutState : public QueuedState<void> {
   public:
    using QueuedState<void>::QueuedState;
    Entries entry;  // while it waits

   protected:
    void on_cancel() noexcept override {
      QueuedState<void>::on_cancel();
      entry.clear();
    }
    void on_dispose() noexcept override {
      entry.clear();
      QueuedState<void>::on_dispose();
    }
  };

  class GetState : public QueuedState<Item> {
   public:
    GetState(FutureHub& hub, Place place, std::shared_ptr<Core> of)
        : QueuedState<Item>(hub, place), core_(std::move(of)) {
      if constexpr (std::is_nothrow_move_constructible_v<Item>) this->make_returnable();
    }
    /// Gives it the item of the first of `entries`, and keeps the place for its return.
    void take(Entries& entries) noexcept {
      entry_.splice(entry_.begin(), entries, entries.begin());
      try {
        this->set_value(std::move(*entry_.front().item));
      } catch (...) {  // of a move that throws
        this->fail(std::current_exception());
      }
    }

   protected:
    void on_look() noexcept override { entry_.clear(); }
    void on_dispose() noexcept override {
      const std::shared_ptr<Core> core = std::move(core_);
      if constexpr (std::is_nothrow_move_constructible_v<Item>) {
        if (this->status() == FutureStatus::fulfilled && !this->is_looked_at()) {
          entry_.front().item.emplace(std::move(this->value()));
          core->put_back(entry_);
        }
      }
      QueuedState<Item>::on_dispose();
    }

   private:
    std::shared_ptr<Core> core_;
    Entries entry_;  // empty, from when it has the item until somebody looks at that
  };

  struct Core {
    Core(FutureHub& hub_of, std::size_t limit) : hub(hub_of), max_size(limit) {}

    bool is_full() const { return max_size != 0 && items.size() >= max_size; }

    Future<void> put(Item&& item, Place place) {
      auto* state = make_state<PutState>(hub, place);
      return start_future<void>(state, [&] {
        if (closed) return state->fail(closed);
        state->entry.emplace_back(std::move(item));
        if (is_full() && getters.empty()) return putters.push(*state);
        enter(state->entry);
        state->set_value();
      });
    }
    bool put_nowait(Item& item) {
      FutureCore::refuse_wrong_thread(hub, "Queue::put_nowait");
      if (closed || (is_full() && getters.empty())) return false;
      Entries entry;
      entry.emplace_back(std::move(item));
      enter(entry);
      return true;
    }
    /// Takes it in, or hands it on to whoever waits.
    void enter(Entries& entry) noexcept {
      entry.front().number = ++last_number;
      if (GetState* getter = getters.pop_wanted()) return getter->take(entry);
      items.splice(items.end(), entry);
    }
    Future<Item> get(const std::shared_ptr<Core>& self, Place place) {
      auto* state = make_state<GetState>(hub, place, self);
      return start_future<Item>(state, [&] {
        if (!items.empty()) {
          state->take(items);
          refill();
        } else if (closed) {
          state->fail(closed);
        } else {
          getters.push(*state);
        }
      });
    }
    std::optional<Item> get_nowait() {
      FutureCore::refuse_wrong_thread(hub, "Queue::get_nowait");
      if (items.empty()) return std::nullopt;
      std::optional<Item> item = std::move(items.front().item);
      items.pop_front();
      refill();
      return item;
    }
    /// There is room again, for who waits to put.
    void refill() noexcept {
      while (!is_full()) {
        PutState* putter = putters.pop();
        if (putter == nullptr) return;
        enter(putter->entry);
        putter->set_value();
      }
    }
    /// In front of what came after it.
    void put_back(Entries& entry) noexcept {
      if (GetState* getter = getters.pop_wanted()) return getter->take(entry);
      auto place = items.begin();
      while (place != items.end() && place->number < entry.front().number) ++place;
      items.splice(place, entry);
    }
    void close(std::error_code error) noexcept {
      if (!closed) closed = error;
      putters.fail_all(error);
      getters.fail_all(error);
    }

    FutureHub& hub;
    const std::size_t max_size;
    Entries items;
    std::uint64_t last_number = 0;
    WaiterQueue<GetState> getters;  // there are some only while there are no items
    WaiterQueue<PutState> putters;
    std::error_code closed;  // why nothing more may be put; none while it may
  };

  std::shared_ptr<Core> core_;
};

}  // namespace pawl
