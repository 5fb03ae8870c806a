// SPDX-License-Identifier: MIT
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/allocation_counter.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Handle;
using pawl::ScopedHandle;
using pawl::TimePoint;
using pawl::TimerHandle;

namespace {

/// Says what becomes of a callback: how often it ran, and whether its captures live.
struct Probe {
  int runs = 0;
  std::shared_ptr<int> token = std::make_shared<int>(0);
  std::weak_ptr<int> watch = token;

  auto callback() {
    return [this, captured = std::move(token)] { ++runs; };
  }
  bool is_freed() const { return watch.expired(); }
};

}  // namespace

TEST_CASE("A callback that is cancelled never runs and is freed at once") {
  EventLoop loop;
  Probe probe;
  Handle handle;
  SECTION("of call_soon") { handle = loop.call_soon(probe.callback()); }
  SECTION("of call_later") { handle = loop.call_later(1ms, probe.callback()); }
  SECTION("of call_at") { handle = loop.call_at(TimePoint::min(), probe.callback()); }
  SECTION("of call_every") { handle = loop.call_every(1ms, probe.callback()); }
  CHECK_FALSE(handle.cancelled());
  CHECK_FALSE(probe.is_freed());
  const Handle copy = handle;
  handle.cancel();
  CHECK(probe.is_freed());
  CHECK(handle.cancelled());
  CHECK(copy.cancelled());
  handle.cancel();
  CHECK(handle.cancelled());
  loop.run();
  CHECK(probe.runs == 0);
}

TEST_CASE("Callbacks with captures to destroy and without share their slots") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  std::mt19937 random(1);
  const auto shared = std::make_shared<int>(0);
  std::vector<pawl::Handle> handles(1000);  // of more than one chunk of slots
  std::vector<bool> owns(handles.size());
  int mistakes = 0;
  const auto add = [&](std::size_t i) {
    const auto number = random() % 6;
    const auto delay = Duration(random() % 1000);
    owns[i] = number % 2 == 0;
    auto& handle = handles[i];
    const auto fire = [&mistakes, &handle] { mistakes += handle.cancelled() ? 1 : 0; };
    const auto fire_and_forget = [&owns, i, fire, shared] {
      owns[i] = false;
      fire();
    };
    if (number == 0) handle = loop.call_later(delay, fire_and_forget);
    if (number == 1) handle = loop.call_later(delay, fire);
    if (number == 2) handle = loop.call_every(delay + 1ns, [shared] {});
    if (number == 3) handle = loop.call_every(delay + 1ns, fire);
    if (number == 4) handle = loop.call_soon(fire_and_forget);
    if (number == 5) handle = loop.call_soon(fire);
  };
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 100; ++i) {
      const std::size_t index = random() % handles.size();
      handles[index].cancel();
      owns[index] = false;
      if (i % 4 != 0) add(index);
    }
    CHECK(shared.use_count() == 1 + std::count(owns.begin(), owns.end(), true));
    clock.advance(Duration(random() % 100));
    loop.run_once(Duration::zero());
    CHECK(shared.use_count() == 1 + std::count(owns.begin(), owns.end(), true));
  }
  CHECK(mistakes == 0);
  for (pawl::Handle& handle : handles) handle.cancel();
  CHECK(shared.use_count() == 1);
  CHECK_FALSE(loop.run_once(Duration::zero()));
}

TEST_CASE("Cancelling what has run does nothing") {
  EventLoop loop;
  Probe probe;
  Handle handle;
  SECTION("of call_soon") { handle = loop.call_soon(probe.callback()); }
  SECTION("of call_later") { handle = loop.call_later(Duration::zero(), probe.callback()); }
  loop.run();
  CHECK(probe.runs == 1);
  CHECK(probe.is_freed());
  CHECK_FALSE(handle.cancelled());
  handle.cancel();
  handle.cancel();
  CHECK_FALSE(handle.cancelled());
}

TEST_CASE("A one-shot callback that cancels itself is too late, and freed when it returns") {
  EventLoop loop;
  Handle handle;
  const auto token = std::make_shared<int>(0);
  bool lived_on = false;
  const auto cancel_itself = [&handle, &lived_on, captured = std::weak_ptr<int>(token),
                              shared = std::make_shared<int>(7)] {
    handle.cancel();
    lived_on = *shared == 7 && !captured.expired();  // ASan sees it if not
  };
  SECTION("of call_soon") { handle = loop.call_soon(cancel_itself); }
  SECTION("of call_later") { handle = loop.call_later(Duration::zero(), cancel_itself); }
  loop.run();
  CHECK(lived_on);
  CHECK_FALSE(handle.cancelled());
}

TEST_CASE("A repeating timer that cancels itself is freed when it returns") {
  EventLoop loop;
  TimerHandle handle;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  int runs = 0;
  bool was_alive = false;
  handle = loop.call_every(1ms, [&, token = std::move(token)] {
    ++runs;
    handle.cancel();
    handle.cancel();
    was_alive = !watch.expired() && *token == 0;
  });
  loop.run();
  CHECK(runs == 1);
  CHECK(was_alive);
  CHECK(watch.expired());
  CHECK(handle.cancelled());
}

TEST_CASE("Dropping every handle cancels nothing") {
  EventLoop loop;
  Probe soon;
  Probe later;
  loop.call_soon(soon.callback());
  {
    const TimerHandle handle = loop.call_later(Duration::zero(), later.callback());
    const TimerHandle copy = handle;
  }
  loop.run();
  CHECK(soon.runs == 1);
  CHECK(later.runs == 1);
}

TEST_CASE("An empty handle can be used like any other") {
  Handle handle;
  handle.cancel();
  CHECK_FALSE(handle.cancelled());
  const Handle copy = handle;
  const Handle moved = std::move(handle);
  CHECK_FALSE(copy.cancelled());
  CHECK_FALSE(moved.cancelled());
  CHECK(TimerHandle().when() == TimePoint{});
  ScopedHandle scoped;
  scoped.cancel();
  CHECK_FALSE(scoped.cancelled());
}

TEST_CASE("A handle can be copied and moved over another one and itself") {
  EventLoop loop;
  Probe first;
  Probe second;
  TimerHandle handle = loop.call_later(1ms, first.callback());
  TimerHandle other = loop.call_later(2ms, second.callback());
  TimerHandle& self = handle;
  handle = self;
  other = handle;
  handle = std::move(other);
  CHECK(handle.when() != TimePoint{});
  handle.cancel();
  CHECK(first.is_freed());
  loop.run();
  CHECK(first.runs == 0);
  CHECK(second.runs == 1);
}

TEST_CASE("A timer's handle tells when it is due, before and after") {
  EventLoop loop;
  const TimePoint when = loop.time() + 2ms;
  TimerHandle fired = loop.call_at(when, [] {});
  TimerHandle cancelled = loop.call_at(when, [] {});
  CHECK(fired.when() == when);
  cancelled.cancel();
  loop.run();
  CHECK(fired.when() == when);
  CHECK(cancelled.when() == when);
}

TEST_CASE("Handles can be used when their loop is gone") {
  Probe soon;
  Probe later;
  Probe every;
  Handle handles[5];
  TimerHandle timer;
  TimePoint when{};
  {
    EventLoop loop;
    handles[0] = loop.call_soon([] {});
    loop.run();
    handles[1] = loop.call_soon([] {});
    handles[1].cancel();
    handles[2] = loop.call_soon(soon.callback());
    when = loop.time() + 1h;
    handles[3] = timer = loop.call_at(when, later.callback());
    handles[4] = loop.call_every(1h, every.callback());
  }
  CHECK(soon.is_freed());
  CHECK(later.is_freed());
  CHECK(every.is_freed());
  for (Handle& handle : handles) {
    const bool was_cancelled = handle.cancelled();
    Handle copy = handle;
    copy.cancel();
    handle.cancel();
    CHECK(handle.cancelled() == was_cancelled);
    CHECK(was_cancelled == (&handle == &handles[1]));
    handle = Handle();
  }
  CHECK(timer.when() == when);
  timer.cancel();
  CHECK(soon.runs + later.runs + every.runs == 0);
}

TEST_CASE("Due timers that the budget left over can be cancelled, and freed with their loop") {
  for (const bool cancels_all : {false, true}) {
    VirtualClock clock;
    const HeldBytes held;
    {
      Probe cancelled;
      Probe left;
      Handle handles[4];
      {
        pawl::LoopOptions options = options_on(clock);
        options.timer_budget = 1;
        EventLoop loop(options);
        loop.call_later(1s, [] {});
        handles[0] = loop.call_later(1s, cancelled.callback());
        auto behind = std::make_unique<ScopedHandle>();  // cancels the last one when this one dies
        ScopedHandle& last = *behind;
        handles[1] = loop.call_later(1s, [behind = std::move(behind)] {});
        handles[2] = loop.call_later(1s, left.callback());
        handles[3] = loop.call_every(1s, [] {});
        last = loop.call_later(1s, [] {});
        clock.advance(1s);
        loop.run_once(Duration::zero());
        handles[0].cancel();
        CHECK(cancelled.is_freed());
        handles[3].cancel();
        if (cancels_all) {
          handles[1].cancel();
          handles[2].cancel();
          CHECK(left.is_freed());
          CHECK_FALSE(loop.run_once());
        }
      }
      CHECK(left.is_freed());
      CHECK(cancelled.runs + left.runs == 0);
      for (Handle& handle : handles) handle.cancel();
    }
    CHECK(held.count() == 0);
  }
}

TEST_CASE("Old handles don't touch the callbacks that come after theirs") {
  EventLoop loop;
  std::mt19937 random(1);
  std::vector<Handle> old;
  for (int i = 0; i < 1000; ++i) {
    Handle handle = random() % 2 == 0 ? loop.call_soon([] {}) : loop.call_later({}, [] {});
    if (random() % 2 == 0) handle.cancel();
    if (random() % 2 == 0) old.push_back(handle);
  }
  loop.run();
  int runs = 0;
  std::vector<Handle> fresh;
  for (int i = 0; i < 1000; ++i) {
    fresh.push_back(loop.call_soon([&] { ++runs; }));
    fresh.push_back(loop.call_later({}, [&] { ++runs; }));
  }
  for (Handle& handle : old) handle.cancel();
  old.clear();
  loop.run();
  CHECK(runs == 2000);
  for (const Handle& handle : fresh) CHECK_FALSE(handle.cancelled());
}

TEST_CASE("A handle may lie in its own callback") {
  EventLoop loop;
  auto handle = std::make_shared<TimerHandle>();
  const std::weak_ptr<TimerHandle> watch = handle;
  *handle = loop.call_later(1h, [handle] { handle->cancel(); });
  TimerHandle copy = *handle;
  handle.reset();
  CHECK_FALSE(watch.expired());
  SECTION("and be the one that cancels it") {
    TimerHandle& own = *watch.lock();
    own.cancel();
    CHECK(copy.cancelled());
  }
  SECTION("and be cancelled by another") { copy.cancel(); }
  SECTION("and be freed with the loop") {}
  if (copy.cancelled()) CHECK(watch.expired());
}

TEST_CASE("A callback that dies may cancel others, itself included") {
  struct CancelsAtTheEnd {
    std::vector<Handle>* handles;
    ~CancelsAtTheEnd() {
      for (Handle& handle : *handles) handle.cancel();
    }
  };
  std::vector<Handle> handles;
  EventLoop loop;
  int runs = 0;
  const auto callback = [&] {
    return [&runs, guard = std::shared_ptr<CancelsAtTheEnd>(new CancelsAtTheEnd{&handles})] {
      ++runs;
    };
  };
  for (int i = 0; i < 10; ++i) {
    handles.push_back(loop.call_later(1ms, callback()));
    handles.push_back(loop.call_soon(callback()));
    handles.push_back(loop.call_every(1ms, callback()));
  }
  SECTION("when it is cancelled") {
    handles[15].cancel();
    for (const Handle& handle : handles) CHECK(handle.cancelled());
    loop.run();
    CHECK(runs == 0);
  }
  SECTION("when it has run") {
    loop.run();
    CHECK(runs == 1);
    CHECK(std::count_if(handles.begin(), handles.end(),
                        [](const Handle& handle) { return !handle.cancelled(); }) == 1);
  }
  SECTION("when the loop is destroyed") {}
}

TEST_CASE("What a callback posts while the loop is destroyed is freed, unrun") {
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  bool ran = false;
  {
    EventLoop loop;
    struct PostsAtTheEnd {
      EventLoop* loop;
      std::shared_ptr<int> token;
      bool* ran;
      ~PostsAtTheEnd() {
        loop->call_soon([ran = ran, token = token] { *ran = true; });
        loop->call_later(1h, [ran = ran, token = token] { *ran = true; });
        loop->call_soon_threadsafe([ran = ran, token = token] { *ran = true; });
      }
    };
    for (int i = 0; i < 300; ++i) {
      auto guard = std::shared_ptr<PostsAtTheEnd>(new PostsAtTheEnd{&loop, token, &ran});
      switch (i % 3) {
        case 0: loop.call_soon([guard] {}); break;
        case 1: loop.call_later(1h, [guard] {}); break;
        default: loop.call_soon_threadsafe([guard] {}); break;
      }
    }
    token.reset();
  }
  CHECK(watch.expired());
  CHECK_FALSE(ran);
}

TEST_CASE("A ScopedHandle cancels its callback when it goes out of scope") {
  EventLoop loop;
  Probe probe;
  {
    const ScopedHandle handle = loop.call_later(1ms, probe.callback());
    CHECK_FALSE(probe.is_freed());
  }
  CHECK(probe.is_freed());
  loop.run();
  CHECK(probe.runs == 0);
}

TEST_CASE("A ScopedHandle cancels its callback when it gets another one") {
  EventLoop loop;
  Probe first;
  Probe second;
  Probe third;
  ScopedHandle handle = loop.call_soon(first.callback());
  handle = loop.call_soon(second.callback());
  CHECK(first.is_freed());
  CHECK_FALSE(handle.cancelled());
  ScopedHandle other = std::move(handle);
  ScopedHandle& self = other;
  other = std::move(self);
  CHECK_FALSE(second.is_freed());
  ScopedHandle given_up = loop.call_soon(third.callback());
  const Handle plain = given_up.release();
  CHECK_FALSE(plain.cancelled());
  loop.run();
  CHECK(first.runs == 0);
  CHECK(second.runs == 1);
  CHECK(third.runs == 1);
}

TEST_CASE("An object whose ScopedHandle dies inside its own callback is safe") {
  EventLoop loop;
  struct Owner {
    ScopedHandle timer;
    int ticks = 0;
  };
  auto owner = std::make_unique<Owner>();
  int runs = 0;
  owner->timer = loop.call_every(1ms, [&] {
    if (++runs == 2) owner.reset();
  });
  loop.run();
  CHECK(runs == 2);
}
