// SPDX-License-Identifier: MIT
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::TimePoint;
using pawl::TimerHandle;

TEST_CASE("A loop with nothing but one one-shot timer waits for it and ends") {
  EventLoop loop;
  int fired = 0;
  const TimePoint start = loop.time();
  loop.call_later(5ms, [&] { ++fired; });
  loop.run();
  CHECK(fired == 1);
  CHECK(loop.time() - start >= 5ms);
}

TEST_CASE("100,000 timers with random deadlines fire in order and never early") {
  struct Fired {
    TimePoint when;
    int number;
  };
  EventLoop loop;
  std::mt19937 random(1);
  std::vector<Fired> fired;
  fired.reserve(100'000);
  int early = 0;
  const TimePoint start = loop.time();
  for (int i = 0; i < 100'000; ++i) {
    const TimePoint when = start + random() % 20'000 * 10us;  // some five times each
    loop.call_at(when, [&, when, i] {
      if (std::chrono::steady_clock::now() < when) ++early;
      fired.push_back(Fired{when, i});
    });
  }
  loop.run();
  CHECK(early == 0);
  REQUIRE(fired.size() == 100'000);
  CHECK(std::is_sorted(fired.begin(), fired.end(), [](const Fired& a, const Fired& b) {
    return std::pair(a.when, a.number) < std::pair(b.when, b.number);
  }));
}

TEST_CASE("Timers with one deadline fire in the order of their creation") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const TimePoint when = clock.now() + 1s;
  std::vector<int> order;
  for (int i = 0; i < 500; ++i) {
    loop.call_at(when, [&order, i] { order.push_back(2 * i); });
    loop.call_later(1s, [&order, i] { order.push_back(2 * i + 1); });
  }
  clock.advance(1s);
  loop.run_once(Duration::zero());
  CHECK(order.size() == 1000);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("One deadline that is reached in different passes keeps the order of creation") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const TimePoint when = clock.now() + 1h;
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) {
    loop.call_at(when, [&order, i] { order.push_back(i); });
    clock.advance(36s);  // nearer each time, down to the deadline itself
    loop.run_once(Duration::zero());
  }
  loop.run_once(Duration::zero());
  CHECK(order.size() == 100);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("A nanosecond more or less makes a difference") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::string fired;
  loop.call_later(3ns, [&] { fired += '3'; });
  loop.call_later(1ns, [&] { fired += '1'; });
  loop.call_later(2ns, [&] { fired += '2'; });
  loop.run_once(Duration::zero());
  CHECK(fired.empty());
  clock.advance(2ns);
  loop.run_once(Duration::zero());
  CHECK(fired == "12");
  clock.advance(1ns);
  loop.run_once(Duration::zero());
  CHECK(fired == "123");
}

TEST_CASE("A delay counts from the call, not from the beginning of the pass") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  TimerHandle timer;
  TimePoint called_at{};
  loop.call_soon([&] {
    clock.advance(10s);
    called_at = clock.now();
    timer = loop.call_later(1s, [] {});
  });
  loop.run_once(Duration::zero());
  CHECK(timer.when() == called_at + 1s);
}

TEST_CASE("A clock that jumps a century fires everything in order") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::vector<Duration> order;
  for (const Duration delay : {Duration(24h * 365 * 99), Duration(1ns), Duration(1h), Duration(3s),
                               Duration(24h * 365), Duration(1ms)}) {
    loop.call_later(delay, [&order, delay] { order.push_back(delay); });
  }
  clock.advance(24h * 365 * 100);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(order.size() == 6);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("A delay of zero or less means the next pass") {
  EventLoop loop;
  for (const Duration delay : {Duration::zero(), Duration(-1), Duration(-1h), Duration::min()}) {
    int fired = 0;
    loop.call_soon([&] {
      loop.call_later(delay, [&] { ++fired; });
      CHECK(fired == 0);
    });
    loop.run_once(Duration::zero());
    CHECK(fired == 0);
    CHECK_FALSE(loop.run_once(Duration::zero()));
    CHECK(fired == 1);
  }
}

TEST_CASE("A moment that has passed means the next pass") {
  EventLoop loop;
  for (const TimePoint when :
       {TimePoint::min(), TimePoint(Duration(-1)), TimePoint{}, loop.time() - 1s}) {
    int fired = 0;
    const TimerHandle timer = loop.call_at(when, [&] { ++fired; });
    CHECK(timer.when() == when);
    CHECK_FALSE(loop.run_once());
    CHECK(fired == 1);
  }
}

TEST_CASE("Timers that are due when they are made wait for the next pass, whoever makes them") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const Pipe pipe;
  write_byte(pipe.writer.get());
  int fired = 0;
  const auto make_due_ones = [&] {
    loop.call_later(Duration::zero(), [&] { ++fired; });
    loop.call_at(clock.now() - 1h, [&] { ++fired; });
    loop.call_at(TimePoint::min(), [&] { ++fired; });
  };
  SECTION("a reader") {
    loop.add_reader(pipe.reader.get(), [&] {
      make_due_ones();
      loop.remove_reader(pipe.reader.get());
    });
  }
  SECTION("a timer") { loop.call_later(Duration::zero(), make_due_ones); }
  SECTION("a callback of call_soon") { loop.call_soon(make_due_ones); }
  SECTION("a callback of call_soon_threadsafe") { loop.call_soon_threadsafe(make_due_ones); }
  CHECK(loop.run_once(Duration::zero()));
  CHECK(fired == 0);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(fired == 3);
}

TEST_CASE("A timer further away than the clock can count waits at the end of the clock") {
  EventLoop loop;
  bool fired = false;
  const auto fire = [&] { fired = true; };
  TimerHandle timers[] = {
      loop.call_later(Duration::max(), fire),
      loop.call_later(Duration::max() - 1ns, fire),
      loop.call_at(TimePoint::max(), fire),
      loop.call_every(Duration::max(), fire),
  };
  for (const TimerHandle& timer : timers) CHECK(timer.when() == TimePoint::max());
  CHECK(loop.run_once(1ms));
  loop.run_for(1ms);
  CHECK_FALSE(loop.why_alive().empty());
  for (TimerHandle& timer : timers) timer.cancel();
  loop.run();
  CHECK_FALSE(fired);
}

TEST_CASE("Timers fire at the end of the clock too") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int fired = 0;
  loop.call_later(Duration::max(), [&] { ++fired; });
  clock.set(TimePoint::max() - 1ns);
  loop.call_later(1h, [&] { ++fired; });
  TimerHandle repeating = loop.call_every(1h, [&] { ++fired; });
  loop.run_once(Duration::zero());
  CHECK(fired == 0);
  clock.set(TimePoint::max());
  loop.run_once(Duration::zero());
  CHECK(fired == 3);
  repeating.cancel();
  CHECK_FALSE(loop.run_once(Duration::zero()));
}

TEST_CASE("call_every keeps its beat however late its callback is") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const TimePoint start = clock.now();
  std::vector<Duration> ticks;
  TimerHandle timer = loop.call_every(10ms, [&] {
    ticks.push_back(clock.now() - start);
    clock.advance(3ms);
  });
  for (int n = 1; n <= 50; ++n) {
    CHECK(timer.when() == start + n * 10ms);
    clock.set(timer.when() - 1ns);
    loop.run_once(Duration::zero());
    clock.set(timer.when() + 4ms);  // not on time
    loop.run_once(Duration::zero());
  }
  REQUIRE(ticks.size() == 50);
  for (int n = 1; n <= 50; ++n) CHECK(ticks[static_cast<std::size_t>(n - 1)] == n * 10ms + 4ms);
}

TEST_CASE("call_every skips the ticks that it missed") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const TimePoint start = clock.now();
  int fired = 0;
  TimerHandle timer = loop.call_every(10ms, [&] { ++fired; });
  clock.advance(1'000'000'007ms);
  for (int i = 0; i < 3; ++i) loop.run_once(Duration::zero());
  CHECK(fired == 1);
  CHECK(timer.when() == start + 1'000'000'010ms);

  TimerHandle slow = loop.call_every(10ms, [&] { clock.advance(35ms); });
  const TimePoint second_start = clock.now();
  clock.set(slow.when());
  loop.run_once(Duration::zero());
  CHECK(slow.when() == second_start + 50ms);
}

TEST_CASE("call_every of a nanosecond neither stops the loop nor itself") {
  EventLoop loop;
  int ticks = 0;
  loop.call_every(1ns, [&] { ++ticks; });
  loop.call_later(5ms, [&] { loop.stop(); });
  loop.run();
  CHECK(ticks > 1);
}

TEST_CASE("call_every takes no interval that isn't positive") {
  EventLoop loop;
  const std::string place = "timers.cpp:" + std::to_string(__LINE__ + 1);
  CHECK_THROWS_WITH(loop.call_every(Duration::zero(), [] {}), Catch::Contains(place));
  CHECK_THROWS_AS(loop.call_every(Duration(-1), [] {}), std::logic_error);
  CHECK_THROWS_AS(loop.call_every(Duration::min(), [] {}), std::logic_error);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("call_every ends when it is cancelled inside its own callback") {
  EventLoop loop;
  int ticks = 0;
  TimerHandle timer;
  timer = loop.call_every(1ms, [&] {
    if (++ticks == 3) timer.cancel();
  });
  loop.run();
  CHECK(ticks == 3);
  CHECK(timer.cancelled());
}

TEST_CASE("Repeating timers of different intervals interleave by their deadlines") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::string order;
  loop.call_every(2ms, [&] { order += '2'; });
  loop.call_every(3ms, [&] { order += '3'; });
  for (int i = 0; i < 12; ++i) {
    clock.advance(1ms);
    loop.run_once(Duration::zero());
  }
  // At 6 and at 12 ms both are due: first the one that was entered first for that moment.
  CHECK(order == "2323223232");
}

TEST_CASE("A timer may cancel another one that is due in the same pass") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::string order;
  TimerHandle second;
  loop.call_later(1ms, [&] {
    order += 'a';
    second.cancel();
  });
  second = loop.call_later(2ms, [&] { order += 'b'; });
  loop.call_later(3ms, [&] { order += 'c'; });
  clock.advance(3ms);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(order == "ac");
  CHECK(second.cancelled());
}

TEST_CASE("Of timers with one deadline any may be cancelled, the others keep their order") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const TimePoint when = clock.now() + 1h;
  std::string order;
  std::vector<TimerHandle> timers;
  for (char name = 'a'; name <= 'h'; ++name) {
    timers.push_back(loop.call_at(when, [&order, name] { order += name; }));
  }
  SECTION("the first ones") {
    for (const std::size_t i : {0U, 1U}) timers[i].cancel();
    loop.call_at(when, [&order] { order += 'z'; });
    clock.set(when);
    CHECK_FALSE(loop.run_once(Duration::zero()));
    CHECK(order == "cdefghz");
  }
  SECTION("the last ones") {
    for (const std::size_t i : {7U, 6U}) timers[i].cancel();
    loop.call_at(when, [&order] { order += 'z'; });
    clock.set(when);
    CHECK_FALSE(loop.run_once(Duration::zero()));
    CHECK(order == "abcdefz");
  }
  SECTION("all of them, before another comes") {
    for (const std::size_t i : {3U, 0U, 7U, 4U, 5U, 1U, 6U, 2U}) timers[i].cancel();
    CHECK_FALSE(loop.next_deadline());
    loop.call_at(when, [&order] { order += 'z'; });
    CHECK(loop.next_deadline() == when);
    clock.set(when);
    CHECK_FALSE(loop.run_once(Duration::zero()));
    CHECK(order == "z");
  }
}

TEST_CASE("A loop whose timers are all cancelled ends") {
  EventLoop loop;
  std::vector<TimerHandle> timers;
  for (int i = 0; i < 1000; ++i) timers.push_back(loop.call_later(1h, [] {}));
  timers.push_back(loop.call_every(1h, [] {}));
  for (TimerHandle& timer : timers) timer.cancel();
  CHECK_FALSE(loop.next_deadline());
  loop.run();
}
