// SPDX-License-Identifier: MIT
// What was given to a future that nobody looks at goes back, and cancel() is final between a result
// and its callback.
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/as_completed.hpp"
#include "pawl/async/event.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/shield.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait.hpp"
#include "pawl/async/wait_for.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/thrown.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Future;
using pawl::Permit;
using pawl::Queue;

namespace {

void pass(EventLoop& loop) { loop.run_once(pawl::Duration::zero()); }

/// All that is in the queue.
template <typename Item>
std::vector<Item> drained(Queue<Item>& queue) {
  std::vector<Item> all;
  while (std::optional<Item> item = queue.get_nowait()) all.push_back(std::move(*item));
  return all;
}

using Numbers = std::vector<int>;

/// A way to carry an item behind other futures: cancelling what it gives, or dropping it.
struct Way {
  const char* name;
  /// Gets one item of the queue, and gives what ends that.
  std::function<std::function<void()>(EventLoop&, Queue<int>&)> start;
};

template <typename Value>
std::function<void()> canceller(Future<Value> future) {
  return [future = std::move(future)] { future.cancel(); };
}
template <typename Value>
std::function<void()> dropper(Future<Value> future) {
  auto kept = std::make_shared<Future<Value>>(std::move(future));
  return [kept] { *kept = {}; };
}

std::vector<Way> ways() {
  const auto many = [](EventLoop& loop, Queue<int>& queue) {
    return pawl::gather(loop, std::vector<Future<int>>{queue.get()});
  };
  const auto outcomes = [](EventLoop& loop, Queue<int>& queue) {
    return pawl::gather(loop, std::vector<Future<int>>{queue.get()}, pawl::return_exceptions);
  };
  return {
      {"a future that is dropped", [](EventLoop&, auto& queue) { return dropper(queue.get()); }},
      {"a callback that is cancelled",
       [](EventLoop&, auto& queue) {
         return canceller(queue.get([](std::error_code, std::optional<int>) { FAIL("called"); }));
       }},
      {"a then that is cancelled",
       [](EventLoop&, auto& queue) {
         return canceller(queue.get().then([](int) { FAIL("called"); }));
       }},
      {"a wait_for that is cancelled and dropped",
       [](EventLoop&, auto& queue) {
         auto limited = std::make_shared<Future<int>>(pawl::wait_for(queue.get(), 1h));
         return std::function<void()>([limited] {
           limited->cancel();
           *limited = {};
         });
       }},
      {"a shield that is dropped",
       [](EventLoop&, auto& queue) { return dropper(pawl::shield(queue.get())); }},
      {"a wait_for of a shield of a wait_for",
       [](EventLoop&, auto& queue) {
         return dropper(pawl::wait_for(pawl::shield(pawl::wait_for(queue.get(), 1h)), 1h));
       }},
      {"a gather that is dropped",
       [=](EventLoop& loop, auto& queue) { return dropper(many(loop, queue)); }},
      {"a gather that gives outcomes",
       [=](EventLoop& loop, auto& queue) { return dropper(outcomes(loop, queue)); }},
      {"a wait_for of a gather",
       [=](EventLoop& loop, auto& queue) {
         return dropper(pawl::wait_for(many(loop, queue), 1h));
       }},
      {"a gather of two types",
       [](EventLoop& loop, auto& queue) {
         return dropper(pawl::gather(loop, queue.get(), pawl::make_ready_future(loop, 1)));
       }},
      {"a wait that is dropped",
       [](EventLoop& loop, auto& queue) {
         return dropper(pawl::wait(loop, std::vector<Future<int>>{queue.get()}));
       }},
      {"as_completed",
       [](EventLoop& loop, auto& queue) {
         return dropper(pawl::as_completed(loop, std::vector<Future<int>>{queue.get()})[0]);
       }},
      {"a then that gives the future on",
       [](EventLoop& loop, auto& queue) {
         return dropper(pawl::make_ready_future(loop).then([&] { return queue.get(); }));
       }},
  };
}

}  // namespace

TEST_CASE(
    "An item that nobody looked at goes back to its place, whatever carries it, in any pass") {
  for (const Way& way : ways()) {
    for (int passes = 0; passes < 6; ++passes) {
      for (const bool is_put_first : {false, true}) {
        INFO(way.name << ", after " << passes << " passes, put first: " << is_put_first);
        VirtualClock clock;
        EventLoop loop(options_on(clock));
        Queue<int> queue(loop);
        if (is_put_first) REQUIRE(queue.put_nowait(1));
        const std::function<void()> end = way.start(loop, queue);
        if (!is_put_first) {
          pass(loop);
          pass(loop);
          REQUIRE(queue.put_nowait(1));
        }
        REQUIRE(queue.put_nowait(2));
        const bool is_callback = std::string(way.name).find("cancelled") != std::string::npos &&
                                 std::string(way.name).find("wait_for") == std::string::npos;
        if (is_callback && passes > 0) continue;  // it has been called then
        for (int i = 0; i < passes; ++i) pass(loop);
        end();
        // In the very pass where nothing is on its way any more; else in the next ones.
        for (int i = 0; i < 6; ++i) pass(loop);
        CHECK(drained(queue) == Numbers{1, 2});
      }
    }
  }
}

TEST_CASE("What goes back is there at once for who gets next") {
  EventLoop loop;
  Queue<int> queue(loop);
  SECTION("from a callback") {
    const auto waiting =
        queue.get([](std::error_code, std::optional<int>) { FAIL("was cancelled"); });
    queue.put_nowait(1);
    CHECK(waiting.cancel());
    CHECK(waiting.cancelled());
  }
  SECTION("from a wait_for") {
    const auto waiting = pawl::wait_for(queue.get(), 1h);
    queue.put_nowait(1);
    CHECK(waiting.cancel());
  }
  SECTION("from a wait_for of a future that is held, and let go later") {
    Future<int> item = queue.get();
    const auto waiting = pawl::wait_for(item, 1h);
    queue.put_nowait(1);
    CHECK(waiting.cancel());
    CHECK(queue.empty());  // the item is the future's
    item = {};
  }
  SECTION("from a gather") {
    const auto waiting = pawl::gather(loop, std::vector<Future<int>>{queue.get()});
    queue.put_nowait(1);
    CHECK(waiting.cancel());
  }
  SECTION("from a task") {
    const auto task =
        pawl::make_task(loop, "getter", [&](auto&) { return pawl::Next::future(queue.get()); });
    pass(loop);
    queue.put_nowait(1);
    task->cancel();
  }
  queue.put_nowait(2);
  CHECK(drained(queue) == Numbers{1, 2});
}

TEST_CASE("Items that go back in any order are got in the order in which they came") {
  EventLoop loop;
  Queue<std::unique_ptr<int>> queue(loop);
  std::vector<Future<std::unique_ptr<int>>> held;
  for (int i = 0; i < 4; ++i) held.push_back(pawl::shield(queue.get()));
  for (int i = 0; i < 5; ++i) queue.put_nowait(std::make_unique<int>(i));
  for (int i = 0; i < 3; ++i) pass(loop);
  for (const int index : {1, 3, 0, 2}) held[static_cast<std::size_t>(index)] = {};
  Numbers got;
  for (auto& item : drained(queue)) got.push_back(*item);
  CHECK(got == Numbers{0, 1, 2, 3, 4});
}

TEST_CASE("An item that was looked at doesn't come back, behind however many futures") {
  EventLoop loop;
  Queue<int> queue(loop);
  Future<int> item = queue.get();
  Future<int> copy = pawl::shield(pawl::shield(item));
  Future<std::vector<int>> gathered = pawl::gather(loop, std::vector<Future<int>>{queue.get()});
  queue.put_nowait(1);
  queue.put_nowait(2);
  for (int i = 0; i < 5; ++i) pass(loop);
  CHECK(copy.result() == 1);
  CHECK(gathered.result() == Numbers{2});
  item = {};
  copy = {};
  gathered = {};
  CHECK(queue.empty());
}

TEST_CASE("What comes back goes to who waits, before what comes later") {
  EventLoop loop;
  Queue<int> queue(loop);
  Numbers got;
  const auto note = [&](std::error_code, std::optional<int> item) { got.push_back(*item); };
  const auto first = queue.get([](std::error_code, std::optional<int>) { FAIL("cancelled"); });
  queue.get(note);
  queue.get(note);
  queue.put_nowait(1);
  first.cancel();
  queue.put_nowait(2);
  loop.run();
  CHECK(got == Numbers{1, 2});
}

TEST_CASE("A callback whose owner cancels in the pass of the result isn't called") {
  EventLoop loop;
  struct Owner {
    Future<void> waiting;
    ~Owner() { waiting.cancel(); }
  };
  auto owner = std::make_unique<Owner>();
  int called = 0;
  const auto capture = std::make_shared<int>(1);
  const auto check = [&] {
    CHECK(capture.use_count() > 1);
    owner.reset();
    CHECK(capture.use_count() == 1);  // captures are freed at once
    loop.run();
    CHECK(called == 0);
  };
  SECTION("Event::wait") {
    pawl::Event event(loop);
    owner->waiting = event.wait([&, copy = capture](std::error_code) { ++called; });
    event.set();
    check();
  }
  SECTION("Event::wait on one that is set") {
    pawl::Event event(loop);
    event.set();
    owner->waiting = event.wait([&, copy = capture](std::error_code) { ++called; });
    check();
  }
  SECTION("Lock::acquire") {
    pawl::Lock lock(loop);
    owner->waiting = lock.acquire([&, copy = capture](std::error_code, Permit) { ++called; });
    check();
    CHECK(lock.try_acquire());
  }
  SECTION("Semaphore::acquire behind another one") {
    pawl::Semaphore semaphore(loop, 1);
    Permit held = semaphore.try_acquire();
    owner->waiting = semaphore.acquire([&, copy = capture](std::error_code, Permit) { ++called; });
    held.release();
    check();
    CHECK(semaphore.try_acquire());
  }
  SECTION("Queue::get") {
    Queue<int> queue(loop);
    owner->waiting =
        queue.get([&, copy = capture](std::error_code, std::optional<int>) { ++called; });
    queue.put_nowait(1);
    check();
    CHECK(queue.size() == 1);
  }
  SECTION("Queue::get of one that was shut down") {
    Queue<int> queue(loop);
    owner->waiting =
        queue.get([&, copy = capture](std::error_code, std::optional<int>) { ++called; });
    queue.shutdown();
    check();
  }
}

TEST_CASE("A turn that was given and cancelled is the next one's in the order of the line") {
  EventLoop loop;
  pawl::Lock lock(loop);
  Permit held = lock.try_acquire();
  std::string order;
  const auto turn = [&](char name) {
    return lock.acquire([&order, name](std::error_code, const Permit&) { order += name; });
  };
  const auto first = turn('a');
  turn('b');
  turn('c');
  held.release();
  first.cancel();
  turn('d');
  CHECK(lock.locked());
  loop.run();
  CHECK(order == "bcd");
}

TEST_CASE("A callback may cancel itself and those that are due in its pass") {
  EventLoop loop;
  pawl::Event event(loop);
  std::string order;
  std::vector<Future<void>> waiting(3);
  waiting[0] = event.wait([&](std::error_code) {
    order += "a";
    for (auto& each : waiting) each.cancel();
  });
  waiting[1] = event.wait([&](std::error_code) { order += "b"; });
  waiting[2] = event.wait([&](std::error_code) { order += "c"; });
  event.wait([&](std::error_code) { order += "d"; });
  event.set();
  loop.run();
  CHECK(order == "ad");
  for (const auto& each : waiting) CHECK(each.cancelled());
}

TEST_CASE("A callback that throws has had its turn, and those behind it come") {
  EventLoop loop;
  Queue<int> queue(loop);
  Numbers got;
  const auto first = queue.get([&](std::error_code, std::optional<int> item) {
    got.push_back(*item);
    throw Thrown();
  });
  queue.get([&](std::error_code, std::optional<int> item) { got.push_back(*item); });
  queue.put_nowait(1);
  queue.put_nowait(2);
  CHECK_THROWS_AS(loop.run(), Thrown);
  loop.run();
  CHECK(got == Numbers{1, 2});
  CHECK(first.done());
  CHECK(queue.empty());
}

TEST_CASE("A time limit that ends in the pass of the item loses neither") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  Queue<int> queue(loop);
  SECTION("the item comes from a timer before it") {
    loop.call_later(1s, [&] { queue.put_nowait(1); });
    const auto item = pawl::wait_for(queue.get(), 1s);
    clock.advance(1s);
    for (int i = 0; i < 4; ++i) pass(loop);
    CHECK(item.result() == 1);
    CHECK(queue.empty());
  }
  SECTION("the item comes from a timer behind it") {
    const auto item = pawl::wait_for(queue.get(), 1s);
    loop.call_later(1s, [&] { queue.put_nowait(1); });
    clock.advance(1s);
    for (int i = 0; i < 4; ++i) pass(loop);
    CHECK(item.error() == pawl::Errc::timed_out);
    CHECK(queue.size() == 1);
  }
  SECTION("the limit is behind another one") {
    loop.call_later(1s, [&] { queue.put_nowait(1); });
    Future<int> item = pawl::wait_for(pawl::wait_for(queue.get(), 1h), 1s);
    clock.advance(1s);
    for (int i = 0; i < 4; ++i) pass(loop);
    const bool has_item = item.error() == std::error_code();
    item = {};
    for (int i = 0; i < 4; ++i) pass(loop);
    CHECK(queue.size() == (has_item ? 0U : 1U));
  }
}

TEST_CASE("A gather that fails gives back what its other children had") {
  EventLoop loop;
  Queue<int> queue(loop);
  pawl::Promise<int> promise(loop);
  const auto gathered = pawl::gather(loop, std::vector<Future<int>>{queue.get(), promise.future()});
  queue.put_nowait(1);
  for (int i = 0; i < 3; ++i) pass(loop);
  promise.set_exception(pawl::Errc::aborted);
  for (int i = 0; i < 3; ++i) pass(loop);
  CHECK(gathered.error() == pawl::Errc::aborted);
  CHECK(queue.size() == 1);
}

TEST_CASE("Items whose loop goes are destroyed once, wherever they are") {
  const auto counted = std::make_shared<int>(1);
  {
    EventLoop loop;
    Queue<std::shared_ptr<int>> queue(loop);
    Future<std::shared_ptr<int>> held = pawl::shield(queue.get());
    queue.get([](std::error_code, std::optional<std::shared_ptr<int>>) {});
    const auto limited = pawl::wait_for(queue.get(), 1h);
    for (int i = 0; i < 4; ++i) queue.put_nowait(counted);
    pass(loop);
  }
  CHECK(counted.use_count() == 1);
}

TEST_CASE("A future that is waited for while it is being cancelled calls back once") {
  EventLoop loop;
  struct Waiter {
    Future<void> future;
    std::function<void()> callback;
    ~Waiter() {
      if (future.valid()) future.add_done_callback(callback);
    }
  };
  int called = 0;
  auto waiter = std::make_unique<Waiter>();
  Waiter& late = *waiter;
  const Future<void> source = pawl::sleep(loop, 1h);
  const Future<void> chain = source.then([waiter = std::move(waiter)] {});
  late.future = source;
  late.callback = [&] { ++called; };
  source.add_done_callback([&] { ++called; });
  const auto gathered = pawl::gather(loop, std::vector<Future<void>>{chain, source});
  gathered.cancel();
  loop.run();
  CHECK(called == 2);
  CHECK(source.cancelled());
}
