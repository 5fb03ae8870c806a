// SPDX-License-Identifier: MIT
// A loop inside a foreign one: next_deadline(), Selector::fileno() and run_once(0).
#include <poll.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <random>
#include <string>

#include "pawl/loop/event_loop.hpp"
#include "support/later.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Interest;
using pawl::TimePoint;

namespace {

/// What a foreign loop does in one of its rounds. It would wait for ten seconds at most.
void host_once(EventLoop& loop) {
  Duration wait = 10s;
  if (const auto deadline = loop.next_deadline()) wait = std::min(wait, *deadline - loop.time());
  wait = std::max(wait, Duration::zero());
  timespec timeout{};
  timeout.tv_sec = static_cast<decltype(timeout.tv_sec)>(wait / 1s);
  timeout.tv_nsec = static_cast<decltype(timeout.tv_nsec)>((wait % 1s).count());
  pollfd entry{loop.selector().fileno(), POLLIN, 0};
  ::ppoll(&entry, 1, &timeout, nullptr);
  loop.run_once(Duration::zero());
}

/// True exactly when the selector can be nested by a descriptor of its own.
bool has_fileno() { return EventLoop().selector().fileno() >= 0; }

class Counter final : public pawl::IoHandler {
 public:
  void on_ready(Interest) override { ++calls; }
  std::string describe() const override { return "counter"; }
  int calls = 0;
};

}  // namespace

TEST_CASE("next_deadline() is none when only descriptors can bring something to do") {
  EventLoop loop;
  const Pipe pipe;
  CHECK_FALSE(loop.next_deadline());
  loop.add_reader(pipe.reader.get(), [] {});
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("next_deadline() is the earliest timer's") {
  EventLoop loop;
  const TimePoint now = loop.time();
  loop.call_at(now + 3h, [] {});
  CHECK(loop.next_deadline() == now + 3h);
  loop.call_at(now + 1h, [] {});
  loop.call_at(now + 2h, [] {});
  CHECK(loop.next_deadline() == now + 1h);
  loop.call_at(TimePoint::max(), [] {});
  CHECK(loop.next_deadline() == now + 1h);
}

TEST_CASE("next_deadline() is now when something is ready or overdue") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  SECTION("a callback of call_soon") {
    loop.call_soon([] {});
  }
  SECTION("an overdue timer") {
    loop.call_at(clock.now() - 1h, [] {});
  }
  SECTION("a timer that became due") {
    loop.call_later(1s, [] {});
    clock.advance(2s);
  }
  REQUIRE(loop.next_deadline());
  CHECK(*loop.next_deadline() <= clock.now());
}

TEST_CASE("next_deadline() is early, never late, after a cancellation") {
  EventLoop loop;
  const TimePoint now = loop.time();
  pawl::Handle first = loop.call_at(now + 1h, [] {});
  pawl::Handle second = loop.call_at(now + 2h, [] {});
  first.cancel();
  REQUIRE(loop.next_deadline());
  CHECK(*loop.next_deadline() <= now + 2h);
  second.cancel();
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("next_deadline() is no earlier than the only timer, whatever was due before") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::mt19937_64 random(1);
  int early = 0;
  int late = 0;
  for (int i = 0; i < 10'000; ++i) {
    const Duration span(static_cast<std::int64_t>(random() >> (random() % 24 + 40)));
    const TimePoint when = clock.now() + Duration(1) + span;
    const bool is_cancelled = random() % 4 == 0;
    pawl::Handle timer = loop.call_at(when, [] {});
    if (*loop.next_deadline() < when) ++early;
    if (*loop.next_deadline() > when) ++late;
    if (is_cancelled) timer.cancel();
    clock.set(when);
    loop.run_once(Duration::zero());
  }
  CHECK(early == 0);  // else run() would spin
  CHECK(late == 0);
}

TEST_CASE("A host that waits until next_deadline() runs timers on time and never early") {
  EventLoop loop;
  int fired = 0;
  int early = 0;
  const TimePoint start = loop.time();
  for (int i = 0; i < 20; ++i) {
    const TimePoint when = start + i * 500us;
    loop.call_at(when, [&, when] {
      ++fired;
      if (loop.time() < when) ++early;
    });
  }
  int rounds = 0;
  while (fired < 20) {
    host_once(loop);
    ++rounds;
  }
  CHECK(early == 0);
  CHECK(rounds <= 60);  // it waits; it doesn't spin
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("A host that waits for the selector's descriptor is told of readiness") {
  if (!has_fileno()) return;
  EventLoop loop;
  const SocketPair pair;
  int calls = 0;
  loop.add_reader(pair.ours.get(), [&] {
    ++calls;
    drain(pair.ours.get());
  });
  loop.call_later(2ms, [&] { write_byte(pair.theirs.get()); });
  for (int i = 0; i < 10 && calls == 0; ++i) host_once(loop);
  CHECK(calls == 1);
}

TEST_CASE("A host is told of what other threads post, of signals and of stop", "[threads]") {
  if (!has_fileno()) return;
  EventLoop loop;
  bool is_done = false;
  const TimePoint start = loop.time();
  SECTION("a post") {
    const Later later([&] { loop.call_soon_threadsafe([&] { is_done = true; }); });
    while (!is_done && loop.time() - start < 5s) host_once(loop);
  }
  SECTION("a post before the first round") {
    loop.call_soon_threadsafe([&] { is_done = true; });
    host_once(loop);
  }
  SECTION("a post between two rounds") {
    host_once((loop.call_soon([] {}), loop));
    loop.call_soon_threadsafe([&] { is_done = true; });
    host_once(loop);
  }
  SECTION("a post by a callback") {
    loop.call_soon([&] { loop.call_soon_threadsafe([&] { is_done = true; }); });
    host_once(loop);
    host_once(loop);
  }
  SECTION("a signal") {
    loop.add_signal_handler(SIGUSR1, [&] { is_done = true; });
    ::raise(SIGUSR1);
    host_once(loop);
  }
  SECTION("stop") {
    const Later later([&] { loop.stop(); });
    host_once(loop);
    is_done = loop.time() - start < 5s;
  }
  CHECK(is_done);
  CHECK(loop.time() - start < 5s);
}

TEST_CASE("next_deadline() tells the kernel of changed interests") {
  if (!has_fileno()) return;
  EventLoop loop;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  Counter handler;
  loop.add_handler(pair.ours.get(), Interest::none, handler);
  loop.modify_handler(pair.ours.get(), Interest::read);
  const TimePoint start = loop.time();
  host_once(loop);
  CHECK(handler.calls == 1);
  CHECK(loop.time() - start < 5s);
  loop.remove_handler(pair.ours.get());
}

TEST_CASE("A loop may be nested in another loop") {
  if (!has_fileno()) return;
  EventLoop outer;
  EventLoop inner;
  const SocketPair pair;
  int calls = 0;
  inner.add_reader(pair.ours.get(), [&] {
    ++calls;
    inner.remove_reader(pair.ours.get());
    outer.stop();
  });
  outer.add_reader(inner.selector().fileno(), [&] { inner.run_once(Duration::zero()); });
  outer.call_later(1ms, [&] { write_byte(pair.theirs.get()); });
  outer.run();
  CHECK(calls == 1);
}
