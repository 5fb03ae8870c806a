// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/async/waiter_queue.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// Hands items from those who put to those who get, first in, first out.
///
/// Owns:     the items. Destroying it fails whoever waits with `Errc::broken_promise`.
/// Threads:  the loop's. The loop must outlive it.
/// Promises: an item isn't lost: one that was given to a future that nobody looked at before it was
///           dropped goes back to the front.
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
  /// Calls `callback(std::error_code, std::optional<Item>)` with it. Cancelling the future that
  /// this gives keeps it from being called.
  template <typename Callable>
  Future<Item> get(Callable callback, Place place = Place::here()) {
    Future<Item> item = get(place);
    item.add_done_callback([callback = std::move(callback)](const Future<Item>& done) mutable {
      if (done.cancelled()) return;
      const std::error_code error = done.error();
      std::optional<Item> got;
      if (!error) got.emplace(std::move(done.result()));
      callback(error, std::move(got));
    });
    return item;
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
  void shutdown() { core_->close(Errc::queue_shut_down); }

 private:
  struct Core;

  class PutState : public QueuedState<void> {
   public:
    PutState(FutureHub& hub, Place place, Item&& with)
        : QueuedState<void>(hub, place), item(std::move(with)) {}
    std::optional<Item> item;

   protected:
    void on_cancel() noexcept override {
      QueuedState<void>::on_cancel();
      item.reset();
    }
    void on_dispose() noexcept override {
      item.reset();
      QueuedState<void>::on_dispose();
    }
  };

  class GetState : public QueuedState<Item> {
   public:
    GetState(FutureHub& hub, Place place, std::shared_ptr<Core> of)
        : QueuedState<Item>(hub, place), core_(std::move(of)) {}

   protected:
    void on_dispose() noexcept override {
      if (this->status() == FutureStatus::fulfilled && !this->is_looked_at()) {
        core_->put_back(std::move(this->value()));
      }
      core_.reset();
      QueuedState<Item>::on_dispose();
    }

   private:
    std::shared_ptr<Core> core_;
  };

  struct Core {
    Core(FutureHub& hub_of, std::size_t limit) : hub(hub_of), max_size(limit) {}

    bool is_full() const { return max_size != 0 && items.size() >= max_size; }

    Future<void> put(Item&& item, Place place) {
      auto* state = make_state<PutState>(hub, place, std::move(item));
      Future<void> future(state);
      if (closed) {
        state->fail(closed);
      } else if (put_nowait(*state->item)) {
        state->set_value();
      } else {
        putters.push(*state);
      }
      return future;
    }
    bool put_nowait(Item& item) {
      if (closed || (is_full() && getters.empty())) return false;
      if (GetState* getter = getters.pop_wanted()) {
        getter->set_value(std::move(item));
        return true;
      }
      if (is_full()) return false;
      items.push_back(std::move(item));
      return true;
    }
    Future<Item> get(const std::shared_ptr<Core>& self, Place place) {
      auto* state = make_state<GetState>(hub, place, self);
      Future<Item> future(state);
      if (std::optional<Item> item = get_nowait()) {
        state->set_value(std::move(*item));
      } else if (closed) {
        state->fail(closed);
      } else {
        getters.push(*state);
      }
      return future;
    }
    std::optional<Item> get_nowait() {
      std::optional<Item> item;
      if (items.empty()) return item;
      item.emplace(std::move(items.front()));
      items.pop_front();
      while (!is_full()) {
        PutState* putter = putters.pop();
        if (putter == nullptr) break;
        items.push_back(std::move(*putter->item));
        putter->set_value();
      }
      return item;
    }
    void put_back(Item&& item) {
      if (GetState* getter = getters.pop_wanted()) {
        getter->set_value(std::move(item));
      } else {
        items.push_front(std::move(item));
      }
    }
    void close(std::error_code error) noexcept {
      if (!closed) closed = error;
      putters.fail_all(error);
      getters.fail_all(error);
    }

    FutureHub& hub;
    const std::size_t max_size;
    std::deque<Item> items;
    WaiterQueue<GetState> getters;  // there are some only while there are no items
    WaiterQueue<PutState> putters;
    std::error_code closed;  // why nothing more may be put; none while it may
  };

  std::shared_ptr<Core> core_;
};

}  // namespace pawl
