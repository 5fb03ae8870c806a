// SPDX-License-Identifier: MIT
#include "pawl/loop/idle_timer.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "pawl/loop/event_loop.hpp"
#include "support/allocation_counter.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::IdleTimer;

namespace {

/// A loop on a virtual clock, with one idle timer of ten seconds.
struct Fixture {
  VirtualClock clock;
  EventLoop loop{options_on(clock)};
  int fired = 0;
  IdleTimer timer{loop, 10s, [this] { ++fired; }};

  /// Lets time pass and makes a pass.
  void pass_after(Duration span) {
    clock.advance(span);
    loop.run_once(Duration::zero());
  }
};

}  // namespace

TEST_CASE("An idle timer stands still until it is started") {
  Fixture fixture;
  CHECK_FALSE(fixture.timer.is_running());
  fixture.timer.touch();
  fixture.pass_after(1h);
  CHECK(fixture.fired == 0);
  CHECK(fixture.loop.why_alive().empty());
}

TEST_CASE("An idle timer that nothing touches fires once, on time") {
  Fixture fixture;
  fixture.timer.start();
  CHECK(fixture.timer.is_running());
  fixture.pass_after(10s - 1ns);
  CHECK(fixture.fired == 0);
  fixture.pass_after(1ns);
  CHECK(fixture.fired == 1);
  CHECK_FALSE(fixture.timer.is_running());
  fixture.pass_after(1h);
  CHECK(fixture.fired == 1);
}

TEST_CASE("Each touch puts an idle timer off to its full time after that pass") {
  Fixture fixture;
  fixture.timer.start();
  for (int i = 0; i < 50; ++i) {
    fixture.pass_after(9s);
    fixture.timer.touch();
  }
  CHECK(fixture.fired == 0);
  fixture.pass_after(10s - 1ns);
  CHECK(fixture.fired == 0);
  fixture.pass_after(1ns);
  CHECK(fixture.fired == 1);
}

TEST_CASE("Touching an idle timer costs no allocation and makes no timer") {
  Fixture fixture;
  fixture.timer.start();
  const auto deadline = fixture.loop.next_deadline();
  const AllocationCounter allocations;
  for (int i = 0; i < 1000; ++i) fixture.timer.touch();
  CHECK(allocations.count() == 0);
  CHECK(fixture.loop.next_deadline() == deadline);
}

TEST_CASE("Starting an idle timer that is running only touches it") {
  Fixture fixture;
  fixture.timer.start();
  fixture.pass_after(6s);
  fixture.timer.start();
  fixture.pass_after(6s);
  CHECK(fixture.fired == 0);
  fixture.pass_after(4s);
  CHECK(fixture.fired == 1);
}

TEST_CASE("An idle timer that is stopped doesn't fire, and may be started again") {
  Fixture fixture;
  fixture.timer.start();
  fixture.pass_after(5s);
  fixture.timer.stop();
  CHECK_FALSE(fixture.timer.is_running());
  CHECK(fixture.loop.why_alive().empty());
  fixture.pass_after(1h);
  CHECK(fixture.fired == 0);
  fixture.timer.start();
  fixture.pass_after(9s);
  CHECK(fixture.fired == 0);
  fixture.pass_after(1s);
  CHECK(fixture.fired == 1);
}

TEST_CASE("An idle timer counts from its start, however old the pass is") {
  Fixture fixture;
  fixture.clock.advance(1h);  // since the last pass
  fixture.timer.start();
  fixture.pass_after(10s - 1ns);
  CHECK(fixture.fired == 0);
  fixture.pass_after(1ns);
  CHECK(fixture.fired == 1);
}

TEST_CASE("An idle timer may be started again from its own callback") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int fired = 0;
  std::optional<IdleTimer> timer;
  timer.emplace(loop, 10s, [&] {
    CHECK_FALSE(timer->is_running());
    if (++fired < 3) timer->start();
  });
  timer->start();
  for (int i = 0; i < 10; ++i) {
    clock.advance(10s);
    loop.run_once(Duration::zero());
  }
  CHECK(fired == 3);
}

TEST_CASE("An idle timer may be destroyed in its own callback") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::unique_ptr<IdleTimer> timer;
  bool lived_on = false;
  timer = std::make_unique<IdleTimer>(loop, 1s, [&, token = std::make_shared<int>(7)] {
    timer.reset();
    lived_on = *token == 7;
  });
  timer->start();
  clock.advance(1s);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(lived_on);
}

TEST_CASE("An idle timer that is destroyed never fires, and frees its callback") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  bool fired = false;
  {
    IdleTimer timer(loop, 1s, [&fired, token = std::move(token)] { fired = true; });
    timer.start();
  }
  CHECK(watch.expired());
  clock.advance(1h);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK_FALSE(fired);
}

TEST_CASE("What an idle timer's callback throws leaves run(), and it can be started again") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int calls = 0;
  IdleTimer timer(loop, 1s, [&] {
    if (++calls == 1) throw std::runtime_error("oops");
  });
  timer.start();
  clock.advance(1s);
  CHECK_THROWS_WITH(loop.run_once(Duration::zero()), "oops");
  CHECK_FALSE(timer.is_running());
  timer.start();
  clock.advance(1s);
  loop.run_once(Duration::zero());
  CHECK(calls == 2);
}

TEST_CASE("An idle timer of any length does what it can") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  for (const Duration timeout : {Duration::zero(), Duration(-1), Duration::min()}) {
    int fired = 0;
    IdleTimer timer(loop, timeout, [&] { ++fired; });
    timer.start();
    CHECK(fired == 0);
    loop.run_once(Duration::zero());
    CHECK(fired == 1);
  }
  bool fired = false;
  IdleTimer timer(loop, Duration::max(), [&] { fired = true; });
  timer.start();
  clock.advance(24h * 365 * 100);
  timer.touch();
  loop.run_once(Duration::zero());
  CHECK_FALSE(fired);
}

TEST_CASE("An idle timer is named by why_alive() with its place") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const std::string place = "idle_timer.cpp:" + std::to_string(__LINE__ + 1);
  IdleTimer timer(loop, 10s, [] {});
  timer.start();
  CHECK_THAT(loop.why_alive(), Catch::Contains(place));
}
