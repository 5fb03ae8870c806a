// SPDX-License-Identifier: MIT
// Allocations, and chains that are long.
#include <catch2/catch.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "pawl/async/gather.hpp"
#include "pawl/async/make_future.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait_for.hpp"
#include "support/allocation_counter.hpp"
#include "support/sanitizers.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Future;
using pawl::Promise;

namespace {

constexpr int long_chain = 1'000'000;

/// The last link of a chain of `then`s that each add one.
Future<int> chain(Future<int> first, int links) {
  for (int i = 0; i < links; ++i) first = first.then([](int value) { return value + 1; });
  return first;
}

/// How many allocations the second run of `work` takes, when the pools are filled.
template <typename Work>
long allocations(Work work) {
  work();
  const AllocationCounter counter;
  work();
  return counter.count();
}

/// A capture of which a chain of owners is made.
struct Owner {
  Future<std::unique_ptr<Owner>> next;
};

}  // namespace

TEST_CASE("A million chained thens run on a flat stack") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto last = chain(promise.future(), long_chain);
  promise.set_result(0);
  loop.run();
  CHECK(last.result() == long_chain);
}

TEST_CASE("A million chained thens pass an error by on a flat stack") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto last = chain(promise.future(), long_chain);
  promise.set_exception(pawl::Errc::aborted);
  loop.run();
  CHECK(last.error() == pawl::Errc::aborted);
}

TEST_CASE("A million chained thens are cancelled on a flat stack") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto last = chain(promise.future(), long_chain);
  last.cancel();
  CHECK(promise.cancelled());
}

TEST_CASE("A million chained thens are destroyed with their loop on a flat stack") {
  Future<int> last;
  {
    EventLoop loop;
    Promise<int> promise(loop);
    last = chain(promise.future(), long_chain);
    promise.set_result(1);
  }
  CHECK(last.error() == pawl::Errc::loop_closed);
}

TEST_CASE("A chain of futures that own each other is destroyed on a flat stack") {
  EventLoop loop;
  Future<std::unique_ptr<Owner>> first;
  for (int i = 0; i < long_chain / 10; ++i) {
    first = pawl::make_ready_future(loop, std::make_unique<Owner>(Owner{std::move(first)}));
  }
  first = {};
  SUCCEED();
}

TEST_CASE("A million futures that are each returned by a then end on a flat stack") {
  EventLoop loop;
  Promise<int> promise(loop);
  Future<int> last = promise.future();
  for (int i = 0; i < long_chain / 10; ++i) {
    last = pawl::make_ready_future(loop).then([last] { return last; });
  }
  loop.run();
  promise.set_result(3);
  loop.run();
  CHECK(last.result() == 3);
}

TEST_CASE("When the pools are filled, futures, thens and callbacks take no allocation") {
  EventLoop loop;
  CHECK(allocations([&] {
          Promise<int> promise(loop);
          const auto end = promise.future().then([](int value) { return value + 1; });
          end.add_done_callback([](const Future<int>& done) { CHECK(done.result() == 2); });
          promise.set_result(1);
          loop.run();
        }) <= 2);  // Catch's own, for the CHECK
  CHECK(allocations([&] {
          Promise<void> promise(loop);
          const auto end = promise.future().then([] { return 1; });
          end.add_done_callback([] {});
          promise.set_result();
          loop.run();
        }) == 0);
}

TEST_CASE("What the library makes futures of takes one allocation at most") {
  EventLoop loop;
  pawl::Semaphore semaphore(loop, 1);
  CHECK(allocations([&] {
          const auto slept = pawl::sleep(loop, 1h);
          pawl::wait_for(slept, 1h).cancel();
          loop.run();
        }) == 0);
  CHECK(allocations([&] {
          const auto future = pawl::make_future<int>(
              loop, [&](auto done) { return loop.call_soon([done] { done({}, 1); }); });
          loop.run();
        }) == 0);
  CHECK(allocations([&] {
          const auto first = semaphore.acquire();
          const auto second = semaphore.acquire();
          second.cancel();
          loop.run();
        }) == 0);
  std::vector<Promise<void>> promises;
  std::vector<Future<void>> futures;
  CHECK(allocations([&] {
          promises.clear();
          promises.reserve(10);
          std::vector<Future<void>> all;
          all.reserve(10);
          for (int i = 0; i < 10; ++i) all.push_back(promises.emplace_back(loop).future());
          const auto gathered = pawl::gather(loop, std::move(all));
          for (auto& each : promises) each.set_result();
          loop.run();
        }) == 2);  // the vector of futures, and the gather's waiters
}

TEST_CASE("A task's steps take no allocation") {
  EventLoop loop;
  int steps = 0;
  const auto task = pawl::make_task(loop, "stepper", [&](pawl::Task<>&) {
    return ++steps == 2000 ? pawl::Next::done() : pawl::Next::yield();
  });
  while (steps < 1000) loop.run_once();
  const AllocationCounter counter;
  loop.run();
  CHECK(counter.count() == 0);
}

TEST_CASE("A pending future gives all of its memory back with the loop") {
  const HeldBytes held;
  {
    EventLoop loop;
    std::vector<Future<int>> kept;
    Promise<int> promise(loop);
    for (int i = 0; i < 1000; ++i) kept.push_back(chain(promise.future(), 10));
    pawl::sleep(loop, 1h);
  }
  CHECK(held.count() == 0);
}
