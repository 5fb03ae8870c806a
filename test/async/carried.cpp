// SPDX-License-Identifier: MIT
// Many at once who get items of one queue, or turns of one semaphore, behind all kinds of futures,
// which end in any pass: nothing is lost, nothing comes twice, and order stays. Dice from a seed.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "pawl/async/gather.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/shield.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait_for.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Future;
using pawl::Permit;

namespace {

constexpr int seeds = 150;
constexpr int steps = 60;
constexpr std::size_t ways = 8;

class Dice {
 public:
  explicit Dice(int seed) : random_(static_cast<std::minstd_rand::result_type>(seed + 1)) {}
  std::size_t below(std::size_t bound) { return random_() % bound; }
  bool one_in(std::size_t count) { return below(count) == 0; }

 private:
  std::minstd_rand random_;
};

/// Somebody who waits for a `Value`, behind whatever.
struct Carrier {
  std::function<void()> cancel;
  std::function<void()> look;  // takes what is there, if anything is
  std::shared_ptr<void> held;  // whose end is the carrier's
};

template <typename Value>
using Take = std::function<void(Value&&)>;

/// What is held is looked at by `look`, and given to `take` then.
template <typename Held, typename Value>
Carrier carrier(Future<Held> future, Take<Value> take) {
  auto held = std::make_shared<Future<Held>>(std::move(future));
  const auto look = [held, take] {
    if (!held->valid() || !held->done() || held->error()) return;
    if constexpr (std::is_same_v<Held, Value>) {
      take(std::move(held->result()));
    } else {
      for (Value& each : held->result()) take(std::move(each));
    }
    *held = {};  // once
  };
  return {[held] { held->valid() && held->cancel(); }, look,
          std::shared_ptr<void>(held.get(), [held](void*) { *held = {}; })};
}

/// Whoever calls back takes at once.
Carrier caller(const Future<void>& future) {
  return {[future] { future.cancel(); }, [] {}, std::make_shared<Future<void>>(future)};
}

/// `source` has `get` or `acquire`, as `start(callback...)`.
template <typename Value, typename Start>
Carrier start(std::size_t way, EventLoop& loop, Start start, const Take<Value>& take) {
  using Values = std::vector<Future<Value>>;
  const auto many = [](Future<Value> one) {
    Values all;
    all.push_back(std::move(one));
    return all;
  };
  switch (way) {
    case 0: return carrier(start(), take);
    case 1: return carrier(pawl::wait_for(start(), 2s), take);
    case 2: return carrier(pawl::shield(start()), take);
    case 3: return carrier(pawl::gather(loop, many(start())), take);
    case 4: return carrier(pawl::wait_for(pawl::shield(pawl::wait_for(start(), 3s)), 1s), take);
    case 5: return caller(start().then([take](Value&& value) { take(std::move(value)); }));
    case 6: {
      auto got = std::make_shared<std::optional<Future<Value>>>();
      auto task = pawl::make_task(loop, "carrier", [=](pawl::Task<>&) {
        if (!*got) return pawl::Next::future(got->emplace(start()));
        if (!(*got)->error()) take(std::move((*got)->result()));
        return pawl::Next::done();
      });
      auto held = std::make_shared<std::unique_ptr<pawl::Task<>>>(std::move(task));
      return {[held] { (*held)->cancel(); }, [] {}, held};
    }
    default:
      return caller(start([take](std::error_code error, auto value) {
        if (error) return;
        if constexpr (std::is_same_v<Value, Permit>) {
          take(std::move(value));
        } else {
          take(std::move(*value));
        }
      }));
  }
}

/// The carriers that are on their way.
class Crowd {
 public:
  explicit Crowd(Dice& dice) : dice_(dice) {}
  void add(Carrier carrier) { all_.push_back(std::move(carrier)); }
  void look_at_one() {
    if (!all_.empty()) all_[dice_.below(all_.size())].look();
  }
  /// Cancels it, or drops it, or both.
  void end_one() {
    if (all_.empty()) return;
    const std::size_t index = dice_.below(all_.size());
    const Carrier ending = std::move(all_[index]);
    all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(index));
    if (!dice_.one_in(3)) ending.cancel();
  }
  void end_all() {
    while (!all_.empty()) end_one();
  }

 private:
  Dice& dice_;
  std::vector<Carrier> all_;
};

void pass(EventLoop& loop) { loop.run_once(pawl::Duration::zero()); }

}  // namespace

TEST_CASE("Each item of a queue is got once, whoever ends in whatever pass") {
  for (int seed = 0; seed < seeds; ++seed) {
    INFO("seed " << seed);
    Dice dice(seed);
    VirtualClock clock;
    EventLoop loop(options_on(clock));
    pawl::Queue<int> queue(loop, dice.below(4));
    std::vector<int> taken;
    std::set<int> expected;
    std::vector<std::pair<int, Future<void>>> puts;
    Crowd crowd(dice);
    const Take<int> take = [&](int&& item) { taken.push_back(item); };
    const auto get = [&](auto... callback) { return queue.get(std::move(callback)...); };
    for (int step = 0; step < steps; ++step) {
      switch (dice.below(8)) {
        case 0:
        case 1: crowd.add(start<int>(dice.below(ways), loop, get, take)); break;
        case 2:
          if (queue.put_nowait(step)) expected.insert(step);
          break;
        case 3:
          expected.insert(step);
          puts.emplace_back(step, queue.put(step));
          break;
        case 4: crowd.end_one(); break;
        case 5: crowd.look_at_one(); break;
        case 6:
          if (dice.one_in(2)) clock.advance(1s);
          if (!puts.empty() && dice.one_in(2)) {
            const auto& [item, future] = puts[dice.below(puts.size())];
            if (future.cancel()) expected.erase(item);  // it is back with who put it
          }
          if (const std::optional<int> item = queue.get_nowait()) taken.push_back(*item);
          break;
        default: pass(loop);
      }
    }
    crowd.end_all();
    // What was only dropped still gets its turn, and hands it on.
    for (int i = 0; i < steps; ++i) pass(loop);
    std::vector<int> rest;
    while (const std::optional<int> item = queue.get_nowait()) rest.push_back(*item);
    taken.insert(taken.end(), rest.begin(), rest.end());
    std::sort(taken.begin(), taken.end());
    REQUIRE(taken == std::vector<int>(expected.begin(), expected.end()));
  }
}

TEST_CASE("Each turn of a semaphore is somebody's or free, whoever ends in whatever pass") {
  for (int seed = 0; seed < seeds; ++seed) {
    INFO("seed " << seed);
    Dice dice(seed);
    VirtualClock clock;
    EventLoop loop(options_on(clock));
    const std::size_t value = 1 + dice.below(3);
    pawl::Semaphore semaphore(loop, value);
    std::vector<Permit> held;
    Crowd crowd(dice);
    const Take<Permit> take = [&](Permit&& permit) {
      held.push_back(std::move(permit));
      CHECK(held.size() <= value);
    };
    const auto acquire = [&](auto... callback) {
      return semaphore.acquire(std::move(callback)...);
    };
    for (int step = 0; step < steps; ++step) {
      switch (dice.below(6)) {
        case 0:
        case 1: crowd.add(start<Permit>(dice.below(ways), loop, acquire, take)); break;
        case 2:
          if (!held.empty()) held.pop_back();
          if (dice.one_in(4)) clock.advance(1s);
          break;
        case 3: crowd.end_one(); break;
        case 4: crowd.look_at_one(); break;
        default: pass(loop);
      }
    }
    crowd.end_all();
    // What was only dropped still gets its turn, and hands it on.
    for (int i = 0; i < steps; ++i) pass(loop);
    while (held.size() < value) {
      Permit permit = semaphore.try_acquire();
      REQUIRE(permit);
      held.push_back(std::move(permit));
    }
    REQUIRE(semaphore.locked());
  }
}
