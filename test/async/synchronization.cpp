// SPDX-License-Identifier: MIT
// Lock, Semaphore and Event.
#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/event.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait_for.hpp"

using namespace std::chrono_literals;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::Lock;
using pawl::Next;
using pawl::Permit;
using pawl::Semaphore;
using pawl::Task;

TEST_CASE("A lock lets one in at a time, first come, first served") {
  EventLoop loop;
  Lock lock(loop);
  std::string order;
  std::vector<std::unique_ptr<Task<>>> tasks;
  int inside = 0;
  for (const char name : {'a', 'b', 'c'}) {
    tasks.push_back(pawl::make_task(
        loop, std::string(1, name),
        [&, name, step = 0, turn = Future<Permit>(), permit = Permit()](Task<>&) mutable {
          switch (step++) {
            case 0: turn = lock.acquire(); return Next::future(turn);
            case 1:
              permit = std::move(turn.result());
              CHECK(inside++ == 0);
              order += name;
              return Next::yield();
            default:
              --inside;
              permit.release();
              return Next::done();
          }
        }));
  }
  loop.run();
  CHECK(order == "abc");
  CHECK_FALSE(lock.locked());
}

TEST_CASE("A lock that nobody holds is given at once, and callbacks come through the loop") {
  EventLoop loop;
  Lock lock(loop);
  bool called = false;
  {
    const Future<Permit> turn = lock.acquire();
    CHECK(turn.done());
    CHECK(lock.locked());
    CHECK_FALSE(lock.try_acquire());
    lock.acquire([&](std::error_code error, Permit permit) {
      CHECK_FALSE(error);
      CHECK(permit);
      CHECK(lock.locked());
      called = true;
    });
  }
  CHECK_FALSE(called);
  loop.run();
  CHECK(called);
  CHECK_FALSE(lock.locked());
  CHECK(lock.try_acquire());
  CHECK_FALSE(lock.locked());
}

TEST_CASE("A permit gives its turn back once") {
  EventLoop loop;
  Semaphore semaphore(loop, 2);
  Permit one = semaphore.try_acquire();
  Permit two = semaphore.try_acquire();
  CHECK(semaphore.locked());
  one.release();
  one.release();
  CHECK_FALSE(one);
  Permit three = semaphore.try_acquire();
  CHECK(three);
  CHECK_FALSE(semaphore.try_acquire());
  two = std::move(three);  // gives its own back
  CHECK_FALSE(semaphore.locked());
  CHECK(two);
}

TEST_CASE("A semaphore lets as many in as it was made for") {
  EventLoop loop;
  Semaphore semaphore(loop, 3);
  int inside = 0;
  int most = 0;
  int done = 0;
  std::vector<Permit> held;
  for (int i = 0; i < 10; ++i) {
    semaphore.acquire([&](std::error_code, Permit permit) {
      most = std::max(most, ++inside);
      held.push_back(std::move(permit));
      loop.call_later(1ms, [&] {
        --inside;
        ++done;
        held.erase(held.begin());
      });
    });
  }
  loop.run();
  CHECK(most == 3);
  CHECK(done == 10);
}

TEST_CASE("A lock holder that is destroyed lets the next in") {
  EventLoop loop;
  Lock lock(loop);
  auto holder = pawl::make_task(loop, "holder",
                                [permit = lock.try_acquire()](Task<>&) { return Next::sleep(1h); });
  const Future<Permit> next = lock.acquire();
  loop.run_once(pawl::Duration::zero());
  CHECK_FALSE(next.done());
  holder.reset();
  CHECK(next.done());
  loop.run();
}

TEST_CASE("A lock holder that is cancelled lets the next in") {
  EventLoop loop;
  Lock lock(loop);
  const auto holder = pawl::make_task(
      loop, "holder", [permit = lock.try_acquire()](Task<>&) { return Next::sleep(1h); });
  const Future<Permit> next = lock.acquire();
  loop.run_once(pawl::Duration::zero());
  holder->cancel();
  CHECK(next.done());
}

TEST_CASE("One who waits for a lock and is cancelled leaves the line") {
  EventLoop loop;
  Lock lock(loop);
  Permit held = lock.try_acquire();
  const Future<Permit> first = lock.acquire();
  bool called = false;
  const Future<void> second = lock.acquire([&](std::error_code, Permit) { called = true; });
  const Future<Permit> third = lock.acquire();
  first.cancel();
  second.cancel();
  held.release();
  CHECK(third.done());
  CHECK(first.cancelled());
  loop.run();
  CHECK_FALSE(called);
}

TEST_CASE("A turn that was given to a waiter that is destroyed meanwhile goes to the next") {
  EventLoop loop;
  Lock lock(loop);
  Permit held = lock.try_acquire();
  std::optional<Future<Permit>> first = lock.acquire();
  { const Future<Permit> dropped_while_it_waits = lock.acquire(); }
  const Future<Permit> last = lock.acquire();
  held.release();
  CHECK(first->done());
  first.reset();
  CHECK(last.done());
}

TEST_CASE("A task that is cancelled in the pass in which its turn came gives it to the next") {
  EventLoop loop;
  Lock lock(loop);
  Permit held = lock.try_acquire();
  const auto task = pawl::make_task(loop, "late", [&, turn = Future<Permit>()](Task<>&) mutable {
    turn = lock.acquire();
    return Next::future(turn);
  });
  loop.run_once(pawl::Duration::zero());
  const Future<Permit> next = lock.acquire();
  held.release();
  CHECK_FALSE(next.done());
  task->cancel();
  loop.run();
  CHECK(next.done());
}

TEST_CASE("wait_for limits the wait for a lock, and leaves the line") {
  EventLoop loop;
  Lock lock(loop);
  Permit held = lock.try_acquire();
  const auto turn = pawl::wait_for(lock.acquire(), 1ms);
  loop.run();
  CHECK(turn.error() == Errc::timed_out);
  held.release();
  CHECK_FALSE(lock.locked());
}

TEST_CASE("A lock that is destroyed fails those who wait, and its permits stay valid") {
  EventLoop loop;
  auto lock = std::make_unique<Lock>(loop);
  Permit held = lock->try_acquire();
  const Future<Permit> turn = lock->acquire();
  std::error_code told;
  lock->acquire([&](std::error_code error, Permit) { told = error; });
  lock.reset();
  CHECK(turn.error() == Errc::broken_promise);
  CHECK_FALSE(told);
  loop.run();
  CHECK(told == Errc::broken_promise);
  held.release();
}

TEST_CASE("A lock may be destroyed by the callback that holds it") {
  EventLoop loop;
  auto lock = std::make_unique<Lock>(loop);
  bool called = false;
  lock->acquire([&](std::error_code, Permit) {
    lock.reset();
    called = true;
  });
  loop.run();
  CHECK(called);
}

TEST_CASE("100,000 who wait for a lock get it one after the other on a flat stack") {
  EventLoop loop;
  Lock lock(loop);
  int turns = 0;
  Permit held = lock.try_acquire();
  for (int i = 0; i < 100'000; ++i) {
    lock.acquire([&](std::error_code, Permit) { ++turns; });
  }
  held.release();
  loop.run();
  CHECK(turns == 100'000);
}

TEST_CASE("An event lets all go that wait, in order, and all that come later") {
  EventLoop loop;
  pawl::Event event(loop);
  std::string order;
  event.wait([&](std::error_code) { order += "a"; });
  const auto cancelled = event.wait([&](std::error_code) { order += "!"; });
  event.wait([&](std::error_code) { order += "b"; });
  cancelled.cancel();
  loop.run();
  CHECK(order.empty());
  event.set();
  CHECK(event.is_set());
  CHECK(order.empty());
  CHECK(event.wait().done());
  loop.run();
  CHECK(order == "ab");
  event.clear();
  CHECK_FALSE(event.wait().done());
}

TEST_CASE("An event that is destroyed fails those who wait") {
  EventLoop loop;
  std::optional<pawl::Event> event(loop);
  const Future<void> waiting = event->wait();
  event.reset();
  CHECK(waiting.error() == Errc::broken_promise);
}
