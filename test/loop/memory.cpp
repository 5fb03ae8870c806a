// SPDX-License-Identifier: MIT
// What the loop takes from the heap: nothing in the steady state, and never without bound.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <new>
#include <random>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::TimerHandle;

namespace {

constexpr int million = 1'000'000;

}  // namespace

TEST_CASE("A pending timer costs at most 128 bytes, its callback included") {
  const HeldBytes held;
  {
    EventLoop loop;
    const long before = held.count();
    std::mt19937_64 random(1);
    const std::array<std::uint64_t, 3> captured{1, 2, 3};
    std::uint64_t sum = 0;
    for (int i = 0; i < million; ++i) {
      const Duration delay(static_cast<std::int64_t>(random() % 3'600'000'000'000));
      loop.call_later(delay, [captured, &sum] { sum += captured[0]; });
    }
    CHECK(held.count() - before <= 128L * million);
  }
  CHECK(held.count() == 0);
}

TEST_CASE("A million timers that are added and cancelled leave memory as it was") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::mt19937_64 random(1);
  std::vector<TimerHandle> window(1000);
  const auto add_and_cancel = [&](int count) {
    for (int i = 0; i < count; ++i) {
      TimerHandle& timer = window[static_cast<std::size_t>(random() % window.size())];
      timer.cancel();
      timer =
          loop.call_later(Duration(static_cast<std::int64_t>(random() % 60'000'000'000)), [] {});
      if (i % 1000 == 0) {
        clock.advance(1us);
        loop.run_once(Duration::zero());
      }
    }
  };
  add_and_cancel(100'000);
  const HeldBytes held;
  add_and_cancel(million);
  CHECK(held.count() < 256 * 1024);
}

TEST_CASE("A million timers added and cancelled between two passes leave memory as it was") {
  EventLoop loop;
  const HeldBytes held;
  for (int i = 0; i < million; ++i) {
    TimerHandle timer = loop.call_later(1h + Duration(i), [] {});
    timer.cancel();
  }
  CHECK(held.count() < 256 * 1024);
}

TEST_CASE(
    "Timers that are cancelled in the pass in which they are due leave their memory to others") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::vector<TimerHandle> timers(1000);
  const auto add_and_cancel_all = [&] {
    loop.call_later(1s, [&] {
      for (TimerHandle& timer : timers) timer.cancel();
    });
    for (TimerHandle& timer : timers) timer = loop.call_later(1s, [] {});
    clock.advance(1s);
    CHECK_FALSE(loop.run_once(Duration::zero()));
    CHECK_FALSE(loop.run_once(Duration::zero()));
  };
  for (int round = 0; round < 5; ++round) add_and_cancel_all();
  const HeldBytes held;
  for (int round = 0; round < 100; ++round) add_and_cancel_all();
  CHECK(held.count() < 64 * 1024);
}

TEST_CASE("Timers cancelled in any order leave their memory to the next ones") {
  EventLoop loop;
  std::mt19937_64 random(1);
  std::vector<TimerHandle> timers(100'000);
  const auto add_and_cancel_all = [&] {
    for (TimerHandle& timer : timers) {
      const Duration delay(static_cast<std::int64_t>(random() % 3'600'000'000'000));
      timer = loop.call_later(1min + delay, [] {});
    }
    std::shuffle(timers.begin(), timers.end(), random);
    for (TimerHandle& timer : timers) timer.cancel();
  };
  add_and_cancel_all();
  const HeldBytes held;
  for (int round = 0; round < 5; ++round) {
    add_and_cancel_all();
    CHECK_FALSE(loop.next_deadline());
    CHECK_FALSE(loop.run_once(Duration::zero()));
  }
  CHECK(held.count() < 64 * 1024);
}

TEST_CASE("A loop that runs out of memory loses no timer and keeps their order") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  loop.run_once(Duration::zero());
  const pawl::TimePoint start = clock.now();
  std::vector<Duration> fired;
  fired.reserve(30'000);
  const auto add = [&](Duration delay) {
    loop.call_at(start + delay, [&fired, delay] { fired.push_back(delay); });
  };
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) add(Duration(random() % 1'000'000'000));
  const auto fails = [](long after, auto work) {
    const OutOfMemory limit(after);
    try {
      work();
    } catch (const std::bad_alloc&) {
      return true;
    }
    return false;
  };
  CHECK(fails(0, [&] {
    for (;;) add(1s);  // as many as there are slots
  }));
  clock.advance(2s);
  int failures = 0;
  while (fails(failures, [&] { loop.run_once(Duration::zero()); })) ++failures;
  CHECK(failures > 3);
  const std::size_t added = 10'000 + 240;  // 40 chunks of 256
  loop.run();
  CHECK(fired.size() == added);
  CHECK(std::is_sorted(fired.begin(), fired.end()));
}

TEST_CASE("A loop that can't be made for want of memory leaves none behind") {
  const auto make = [](long after) {
    const OutOfMemory limit(after);
    try {
      const EventLoop loop;
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  };
  CHECK(make(1000));  // and what is made once for all loops
  const HeldBytes held;
  long after = 0;
  while (!make(after)) ++after;
  CHECK(after > 5);
  CHECK(held.count() == 0);
}

TEST_CASE("A million callbacks of call_soon that are added and cancelled leave memory as it was") {
  EventLoop loop;
  const HeldBytes held;
  int ran = 0;
  SECTION("in one pass") {
    for (int i = 0; i < million; ++i) loop.call_soon([&] { ++ran; }).cancel();
  }
  SECTION("in a callback, beside others") {
    loop.call_soon([&] {
      for (int i = 0; i < million; ++i) {
        pawl::Handle handle = loop.call_soon([&] { ++ran; });
        if (i % 100'000 != 0) handle.cancel();
      }
    });
    loop.run_once(Duration::zero());
    CHECK(held.count() < 256 * 1024);
    loop.run();
    CHECK(ran == 10);
  }
  SECTION("in many passes") {
    for (int pass = 0; pass < 1000; ++pass) {
      for (int i = 0; i < 1000; ++i) loop.call_soon([&] { ++ran; }).cancel();
      loop.run_once(Duration::zero());
    }
  }
  CHECK(held.count() < 256 * 1024);
}

TEST_CASE("A flood that is over gives most of its memory back") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  long ran = 0;
  const HeldBytes held;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100'000; ++i) {
      loop.call_later(Duration(i), [&] { ++ran; });
      loop.call_soon([&] { ++ran; });
    }
    clock.advance(1s);
    while (loop.run_once(Duration::zero())) {
    }
  }
  CHECK(ran == 600'000);
  // The slots are kept for the next flood; one that is no bigger takes nothing more.
  const long after = held.count();
  for (int i = 0; i < 100'000; ++i) {
    loop.call_later(Duration(i), [&] { ++ran; });
    loop.call_soon([&] { ++ran; });
  }
  clock.advance(1s);
  while (loop.run_once(Duration::zero())) {
  }
  CHECK(held.count() <= after + 64 * 1024);
}

TEST_CASE("call_soon doesn't allocate in the steady state") {
  EventLoop loop;
  int ran = 0;
  const auto round = [&] {
    for (int i = 0; i < 500; ++i) loop.call_soon([&] { ++ran; });
    loop.run_once(Duration::zero());
  };
  for (int i = 0; i < 10; ++i) round();
  const AllocationCounter allocations;
  for (int i = 0; i < 100; ++i) round();
  CHECK(allocations.count() == 0);
  CHECK(ran == 55'000);
}

TEST_CASE("A timer that is added and fires doesn't allocate in the steady state") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int ran = 0;
  const auto round = [&] {
    for (int i = 0; i < 100; ++i) loop.call_later(i * 100us, [&] { ++ran; });
    for (int i = 0; i < 10; ++i) {
      clock.advance(1ms);
      loop.run_once(Duration::zero());
    }
  };
  for (int i = 0; i < 1000; ++i) round();
  const AllocationCounter allocations;
  for (int i = 0; i < 1000; ++i) round();
  CHECK(allocations.count() == 0);
  CHECK(ran == 200'000);
}

TEST_CASE("A repeating timer doesn't allocate in the steady state") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  int ran = 0;
  loop.call_every(1ms, [&] { ++ran; });
  const auto round = [&] {
    clock.advance(1ms);
    loop.run_once(Duration::zero());
  };
  for (int i = 0; i < 100; ++i) round();
  const AllocationCounter allocations;
  for (int i = 0; i < 10'000; ++i) round();
  CHECK(allocations.count() == 0);
  CHECK(ran == 10'100);
}

TEST_CASE("Calling readers and writers doesn't allocate in the steady state") {
  EventLoop loop;
  std::vector<SocketPair> pairs(20);
  int calls = 0;
  for (const SocketPair& pair : pairs) {
    loop.add_reader(pair.ours.get(), [&] {
      ++calls;
      drain(pair.ours.get());
      loop.call_soon([&] { write_byte(pair.theirs.get()); });
    });
    loop.add_writer(pair.ours.get(), [&] { ++calls; });
    write_byte(pair.theirs.get());
  }
  for (int i = 0; i < 20; ++i) loop.run_once(Duration::zero());
  const AllocationCounter allocations;
  const int before = calls;
  for (int i = 0; i < 200; ++i) loop.run_once(Duration::zero());
  CHECK(allocations.count() == 0);
  CHECK(calls - before >= 20 * 200);
}

TEST_CASE("Adding and removing readers doesn't allocate in the steady state") {
  EventLoop loop;
  const SocketPair pair;
  const auto round = [&] {
    loop.add_reader(pair.ours.get(), [] {});
    loop.run_once(Duration::zero());
    loop.remove_reader(pair.ours.get());
    loop.run_once(Duration::zero());
  };
  for (int i = 0; i < 20; ++i) round();
  const AllocationCounter allocations;
  for (int i = 0; i < 200; ++i) round();
  CHECK(allocations.count() == 0);
}

TEST_CASE("call_soon_threadsafe doesn't allocate in the steady state") {
  EventLoop loop;
  int ran = 0;
  const auto round = [&] {
    for (int i = 0; i < 100; ++i) loop.call_soon_threadsafe([&] { ++ran; });
    loop.run_once(Duration::zero());
  };
  for (int i = 0; i < 20; ++i) round();
  const AllocationCounter allocations;
  for (int i = 0; i < 200; ++i) round();
  CHECK(allocations.count() == 0);
  CHECK(ran == 22'000);
}
