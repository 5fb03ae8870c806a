// SPDX-License-Identifier: MIT
// run, run_forever, run_for, run_once and stop.
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/environment.hpp"
#include "support/later.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::LoopOptions;
using pawl::TimePoint;

TEST_CASE("The selector that PAWL_SELECTOR names is the one in use") {
  const char* forced = std::getenv("PAWL_SELECTOR");
  const std::string expected(forced != nullptr ? forced : pawl::available_selectors().front());
  EventLoop loop;
  CHECK(loop.selector().name() == expected);
}

TEST_CASE("The selector that the options name goes before PAWL_SELECTOR") {
  const ScopedVariable variable("PAWL_SELECTOR", "nonsense");
  for (const char* name : {"select", "poll", "epoll"}) {
    LoopOptions options;
    options.selector = name;
    EventLoop loop(options);
    CHECK(loop.selector().name() == name);
  }
}

TEST_CASE("A selector that nobody knows is an invalid argument") {
  LoopOptions options;
  options.selector = "nonsense";
  CHECK_THROWS_AS(EventLoop(options), std::invalid_argument);
  const ScopedVariable variable("PAWL_SELECTOR", "nonsense");
  CHECK_THROWS_AS(EventLoop(), std::invalid_argument);
}

TEST_CASE("run() of an empty loop returns at once") {
  EventLoop loop;
  loop.run();
  loop.run_for(1h);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("run() returns when nothing is left that could run") {
  EventLoop loop;
  const SocketPair pair;
  int steps = 0;
  loop.add_reader(pair.ours.get(), [&] {
    ++steps;
    loop.remove_reader(pair.ours.get());
    loop.call_later(1ms, [&] {
      ++steps;
      loop.call_soon([&] { ++steps; });
    });
  });
  write_byte(pair.theirs.get());
  loop.run();
  CHECK(steps == 3);
}

TEST_CASE("run_forever() waits for other threads even when there is nothing else", "[threads]") {
  EventLoop loop;
  bool ran = false;
  const Later later([&] {
    loop.call_soon_threadsafe([&] {
      ran = true;
      loop.stop();
    });
  });
  loop.run_forever();
  CHECK(ran);
}

TEST_CASE("A loop that runs can't be run again from inside") {
  EventLoop loop;
  int refused = 0;
  loop.call_soon([&] {
    CHECK(loop.is_running());
    CHECK_THROWS_AS(loop.run(), std::logic_error);
    CHECK_THROWS_AS(loop.run_forever(), std::logic_error);
    CHECK_THROWS_AS(loop.run_for(1ms), std::logic_error);
    CHECK_THROWS_AS(loop.run_once(Duration::zero()), std::logic_error);
    CHECK(loop.is_running());
    ++refused;
  });
  loop.call_later(1ms, [&] { ++refused; });
  CHECK_FALSE(loop.is_running());
  loop.run();
  CHECK_FALSE(loop.is_running());
  CHECK(refused == 2);
}

TEST_CASE("A loop may run inside another one's callback") {
  EventLoop outer;
  EventLoop inner;
  std::string order;
  outer.call_soon([&] {
    inner.call_later(1ms, [&] { order += 'i'; });
    inner.run();
    order += 'o';
  });
  outer.run();
  CHECK(order == "io");
}

TEST_CASE("stop() before run() ends it after one pass that doesn't wait") {
  EventLoop loop;
  int ran = 0;
  loop.call_soon([&] { ++ran; });
  loop.call_later(1h, [&] { ++ran; });
  loop.stop();
  SECTION("run") { loop.run(); }
  SECTION("run_forever") { loop.run_forever(); }
  SECTION("run_for") { loop.run_for(1h); }
  SECTION("run_once") { loop.run_once(); }
  CHECK(ran == 1);
}

TEST_CASE("stop() before run() of an empty loop is used up by it") {
  EventLoop loop;
  loop.stop();
  loop.run();
  bool ran = false;
  loop.call_later(1ms, [&] { ran = true; });
  loop.run();
  CHECK(ran);
}

TEST_CASE("Each stop() ends one run()") {
  EventLoop loop;
  int ticks = 0;
  loop.call_every(1ms, [&] {
    ++ticks;
    loop.stop();
    loop.stop();
  });
  for (int expected = 1; expected <= 3; ++expected) {
    loop.run();
    CHECK(ticks == expected);
  }
}

TEST_CASE("stop() from a signal's callback ends run()") {
  EventLoop loop;
  loop.add_signal_handler(SIGUSR1, [&] { loop.stop(); });
  loop.call_later(1ms, [] { ::raise(SIGUSR1); });
  loop.run_forever();
  SUCCEED();
}

namespace {
std::atomic<EventLoop*> stopped_by_handler{nullptr};
}  // namespace

TEST_CASE("stop() from a bare signal handler ends run()", "[threads]") {
  EventLoop loop;
  stopped_by_handler = &loop;
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = [](int) { stopped_by_handler.load()->stop(); };
  ::sigaction(SIGUSR1, &action, &old);
  {
    const Later later([] { ::kill(::getpid(), SIGUSR1); });
    loop.run_forever();
  }
  ::sigaction(SIGUSR1, &old, nullptr);
  SUCCEED();
}

TEST_CASE("run_once(0) only looks") {
  EventLoop loop;
  const Pipe pipe;
  int fired = 0;
  CHECK_FALSE(loop.run_once(Duration::zero()));
  loop.call_later(1h, [&] { ++fired; });
  loop.add_reader(pipe.reader.get(), [&] { ++fired; });
  CHECK(loop.run_once(Duration::zero()));
  CHECK(loop.run_once(Duration(-1)));
  CHECK(loop.run_once(Duration::min()));
  CHECK(fired == 0);
}

TEST_CASE("run_once() waits for its timeout, also when there is nothing to wait for") {
  EventLoop loop;
  const TimePoint start = loop.time();
  CHECK_FALSE(loop.run_once(3ms));
  CHECK(loop.time() - start >= 3ms);
  loop.call_later(1h, [] {});
  CHECK(loop.run_once(3ms));
  CHECK(loop.time() - start >= 6ms);
}

TEST_CASE("run_once() waits for its timeout also when the last pass had posts to run") {
  EventLoop loop;
  bool ran = false;
  loop.call_soon_threadsafe([&] { ran = true; });
  loop.run_once(Duration::zero());
  REQUIRE(ran);
  const TimePoint start = loop.time();
  loop.run_once(3ms);
  CHECK(loop.time() - start >= 3ms);
}

TEST_CASE("run_once() without a timeout waits for the one thing that there is") {
  EventLoop loop;
  int ran = 0;
  SECTION("a timer") {
    loop.call_later(3ms, [&] { ++ran; });
    CHECK_FALSE(loop.run_once());
  }
  SECTION("a descriptor") {
    const pawl::UniqueFd timer = timer_fd(3'000'000);
    loop.add_reader(timer.get(), [&] {
      ++ran;
      loop.remove_reader(timer.get());
    });
    CHECK_FALSE(loop.run_once());
  }
  SECTION("one of two timers") {
    loop.call_later(3ms, [&] { ++ran; });
    loop.call_later(1h, [&] { ++ran; });
    CHECK(loop.run_once());
  }
  CHECK(ran == 1);
}

TEST_CASE("run_once() waits no longer than until the next timer") {
  EventLoop loop;
  bool fired = false;
  loop.call_later(2ms, [&] { fired = true; });
  CHECK_FALSE(loop.run_once(1h));
  CHECK(fired);
}

TEST_CASE("run_once() tells whether something is left that could run") {
  EventLoop loop;
  loop.call_soon([&] { loop.call_soon([] {}); });
  CHECK(loop.run_once());
  CHECK_FALSE(loop.run_once());
  pawl::Handle cancelled;
  loop.call_soon([&] { (cancelled = loop.call_soon([] {})).cancel(); });
  CHECK_FALSE(loop.run_once());
  loop.call_soon([&] { loop.call_later(1h, [] {}).cancel(); });
  CHECK_FALSE(loop.run_once());
  loop.call_soon([&] { loop.call_soon_threadsafe([] {}); });
  CHECK(loop.run_once());
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("run_for() ends when its time is over") {
  EventLoop loop;
  int ticks = 0;
  loop.call_every(1ms, [&] { ++ticks; });
  const TimePoint start = loop.time();
  loop.run_for(10ms);
  CHECK(loop.time() - start >= 10ms);
  CHECK(ticks >= 1);
  const int before = ticks;
  loop.run_for(10ms);
  CHECK(ticks > before);
}

TEST_CASE("run_for() ends earlier when nothing is left, or when it is stopped") {
  EventLoop loop;
  int fired = 0;
  loop.call_later(1ms, [&] { ++fired; });
  loop.run_for(1h);
  CHECK(fired == 1);
  loop.call_every(1ms, [&] { loop.stop(); });
  loop.run_for(1h);
  loop.run_for(Duration::max());
  SUCCEED();
}

TEST_CASE("run_for() of no time makes one pass") {
  for (const Duration duration : {Duration::zero(), Duration(-1), Duration::min()}) {
    EventLoop loop;
    int ran = 0;
    loop.call_soon([&] {
      ++ran;
      loop.call_soon([&] { ++ran; });
    });
    loop.run_for(duration);
    CHECK(ran == 1);
  }
}

TEST_CASE("run_for() is over as soon as its end is reached") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int ran = 0;
  loop.call_soon([&] {
    ++ran;
    clock.advance(5ms);  // the end, to the nanosecond
    loop.call_soon([&] {
      ++ran;
      clock.advance(1ns);
    });
  });
  loop.run_for(5ms);
  CHECK(ran == 1);
}

TEST_CASE("time() goes on during a pass, pass_time() stands still") {
  EventLoop loop;
  bool checked = false;
  loop.call_soon([&] {
    const TimePoint pass = loop.pass_time();
    const TimePoint start = loop.time();
    CHECK(pass <= start);
    while (loop.time() == start) {
    }
    CHECK(loop.pass_time() == pass);
    checked = true;
  });
  const TimePoint before = loop.time();
  loop.run();
  CHECK(checked);
  CHECK(loop.pass_time() >= before);
}

TEST_CASE("A thousand loops come and go without a trace") {
  for (int i = 0; i < 1000; ++i) {
    EventLoop loop;
    if (i % 3 == 0) loop.call_soon([] {});
    if (i % 3 == 1) loop.run();
  }
  SUCCEED();
}

TEST_CASE("Many loops live side by side in one thread") {
  std::vector<std::unique_ptr<EventLoop>> loops;
  int ran = 0;
  for (int i = 0; i < 20; ++i) {
    loops.push_back(std::make_unique<EventLoop>());
    loops.back()->call_later(1ms, [&] { ++ran; });
  }
  for (const auto& loop : loops) loop->run();
  CHECK(ran == 20);
}
