// SPDX-License-Identifier: MIT
// The order inside a pass, and what keeps one kind of callback from starving the others.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::LoopOptions;

namespace {

std::vector<int> numbers_up_to(int end) {
  std::vector<int> numbers(static_cast<std::size_t>(end));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

TEST_CASE("A pass does I/O, then signals, due timers and ready callbacks") {
  EventLoop loop;
  const Pipe pipe;
  std::string order;
  loop.call_soon([&] { order += "soon "; });
  loop.call_soon_threadsafe([&] { order += "thread "; });
  loop.call_later(Duration::zero(), [&] { order += "timer "; });
  loop.add_signal_handler(SIGUSR1, [&] { order += "signal "; });
  loop.add_reader(pipe.reader.get(), [&] {
    order += "reader ";
    drain(pipe.reader.get());
  });
  ::raise(SIGUSR1);
  write_byte(pipe.writer.get());
  loop.run_once(Duration::zero());
  CHECK(order == "reader signal timer thread soon ");
}

TEST_CASE("Whatever a callback posts runs in the next pass") {
  EventLoop loop;
  const Pipe pipe;
  int posted = 0;
  int ran = 0;
  const auto post = [&] {
    ++posted;
    loop.call_soon([&] { ++ran; });
    loop.call_soon_threadsafe([&] { ++ran; });
    loop.call_later(Duration::zero(), [&] { ++ran; });
  };
  loop.add_reader(pipe.reader.get(), [&] {
    drain(pipe.reader.get());
    post();
  });
  loop.add_signal_handler(SIGUSR1, post);
  loop.call_later(Duration::zero(), post);
  loop.call_soon_threadsafe(post);
  loop.call_soon(post);
  ::raise(SIGUSR1);
  write_byte(pipe.writer.get());
  loop.run_once(Duration::zero());
  CHECK(posted == 5);
  CHECK(ran == 0);
  loop.run_once(Duration::zero());
  CHECK(ran == 15);
}

TEST_CASE("A callback that posts itself for ever starves neither a socket nor a timer") {
  EventLoop loop;
  const SocketPair pair;
  std::function<void()> again;
  long rounds = 0;
  SECTION("by call_soon") {
    again = [&] {
      ++rounds;
      loop.call_soon([&] { again(); });
    };
  }
  SECTION("by call_soon_threadsafe") {
    again = [&] {
      ++rounds;
      loop.call_soon_threadsafe([&] { again(); });
    };
  }
  SECTION("by a timer of zero") {
    again = [&] {
      ++rounds;
      loop.call_later(Duration::zero(), [&] { again(); });
    };
  }
  SECTION("by a timer in the past") {
    again = [&] {
      ++rounds;
      loop.call_at(pawl::TimePoint::min(), [&] { again(); });
    };
  }
  again();
  int echoes = 0;
  loop.add_reader(pair.ours.get(), [&] {
    drain(pair.ours.get());
    if (++echoes < 100) write_byte(pair.theirs.get());
  });
  write_byte(pair.theirs.get());
  int ticks = 0;
  loop.call_every(1ms, [&] {
    if (++ticks >= 3 && echoes == 100) loop.stop();
  });
  loop.run();
  CHECK(echoes == 100);
  CHECK(ticks >= 3);
  CHECK(rounds > 100);
}

TEST_CASE("A descriptor that is always ready starves nobody") {
  EventLoop loop;
  const SocketPair busy;
  const SocketPair calm;
  write_byte(busy.theirs.get());
  write_byte(calm.theirs.get());
  long busy_calls = 0;
  bool calm_called = false;
  bool soon_called = false;
  loop.add_reader(busy.ours.get(), [&] { ++busy_calls; });
  loop.add_writer(busy.ours.get(), [&] { ++busy_calls; });
  loop.add_reader(calm.ours.get(), [&] {
    calm_called = true;
    loop.remove_reader(calm.ours.get());
  });
  loop.call_soon([&] { soon_called = true; });
  loop.call_later(2ms, [&] { loop.stop(); });
  loop.run();
  CHECK(busy_calls > 2);
  CHECK(calm_called);
  CHECK(soon_called);
}

TEST_CASE("More than the budget of call_soon is spread over passes, in order") {
  LoopOptions options;
  options.ready_budget = 100;
  EventLoop loop(options);
  std::vector<int> order;
  for (int i = 0; i < 250; ++i) loop.call_soon([&order, i] { order.push_back(i); });
  CHECK(loop.run_once());
  CHECK(order.size() == 100);
  loop.call_soon([&] { order.push_back(250); });
  CHECK(loop.run_once());
  CHECK(order.size() == 200);
  CHECK_FALSE(loop.run_once());
  CHECK(order == numbers_up_to(251));
}

TEST_CASE("More than the budget of due timers is spread over passes, in order") {
  VirtualClock clock;
  LoopOptions options = options_on(clock);
  options.timer_budget = 100;
  EventLoop loop(options);
  std::vector<int> order;
  for (int i = 0; i < 250; ++i) {
    loop.call_later(Duration(i / 7), [&order, i] { order.push_back(i); });
  }
  clock.advance(1s);
  for (const std::size_t expected : {100U, 200U}) {
    CHECK(loop.run_once());
    CHECK(order.size() == expected);
    REQUIRE(loop.next_deadline());
    CHECK(*loop.next_deadline() <= clock.now());
  }
  CHECK_FALSE(loop.run_once());
  CHECK(order == numbers_up_to(250));
}

TEST_CASE("More than the budget of threadsafe callbacks is spread over passes, in order") {
  LoopOptions options;
  options.ready_budget = 100;
  EventLoop loop(options);
  std::vector<int> order;
  for (int i = 0; i < 250; ++i) loop.call_soon_threadsafe([&order, i] { order.push_back(i); });
  CHECK(loop.run_once());
  CHECK(order.size() == 100);
  loop.call_soon_threadsafe([&] { order.push_back(250); });
  CHECK(loop.run_once());
  CHECK(loop.run_once());
  CHECK(order.size() == 250);
  CHECK_FALSE(loop.run_once());
  CHECK(order == numbers_up_to(251));
}

TEST_CASE("A flood of one kind doesn't keep the others out of the same pass") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const Pipe pipe;
  write_byte(pipe.writer.get());
  int flood = 0;
  std::string served;
  const auto make_flood = [&](const std::string& kind) {
    for (int i = 0; i < 5000; ++i) {
      if (kind == "soon") loop.call_soon([&] { ++flood; });
      if (kind == "thread") loop.call_soon_threadsafe([&] { ++flood; });
      if (kind == "timer") loop.call_later(Duration::zero(), [&] { ++flood; });
    }
  };
  SECTION("call_soon") {
    make_flood("soon");
    loop.call_soon_threadsafe([&] { served += "thread "; });
    loop.call_later(Duration::zero(), [&] { served += "timer "; });
  }
  SECTION("call_soon_threadsafe") {
    make_flood("thread");
    loop.call_soon([&] { served += "soon "; });
    loop.call_later(Duration::zero(), [&] { served += "timer "; });
  }
  SECTION("timers") {
    make_flood("timer");
    loop.call_soon([&] { served += "soon "; });
    loop.call_soon_threadsafe([&] { served += "thread "; });
  }
  loop.add_reader(pipe.reader.get(), [&] {
    served += "reader ";
    loop.remove_reader(pipe.reader.get());
  });
  loop.run_once(Duration::zero());
  CHECK(std::count(served.begin(), served.end(), ' ') == 3);
  CHECK(flood == 1024);
  loop.run();
  CHECK(flood == 5000);
}

TEST_CASE("However many a callback posts and cancels, its pass runs what was there before") {
  EventLoop loop;
  std::string order;
  pawl::Handle cancelled[20];
  loop.call_soon([&] {
    order += 'a';
    for (int i = 0; i < 20; i += 2) cancelled[i].cancel();
    for (int i = 0; i < 100'000; ++i) loop.call_soon([&] { order += '-'; }).cancel();
    loop.call_soon([&] { order += 'z'; });
    for (int i = 0; i < 100'000; ++i) loop.call_soon([&] { order += '-'; }).cancel();
  });
  for (pawl::Handle& handle : cancelled) handle = loop.call_soon([&] { order += 'b'; });
  CHECK(loop.run_once());
  CHECK(order == "abbbbbbbbbb");
  CHECK_FALSE(loop.run_once());
  CHECK(order == "abbbbbbbbbbz");
}

TEST_CASE("What I/O posts beside many that are cancelled waits for the next pass too") {
  for (const int count : {1, 63, 64, 65, 128, 1024}) {
    EventLoop loop;
    const Pipe pipe;
    write_byte(pipe.writer.get());
    int ran = 0;
    int ran_later = 0;
    for (int i = 0; i < count; ++i) {
      pawl::Handle handle = loop.call_soon([&] { ++ran; });
      if (i % 4 != 0) handle.cancel();
    }
    loop.add_reader(pipe.reader.get(), [&] {
      loop.remove_reader(pipe.reader.get());
      for (int i = 0; i < 3; ++i) loop.call_soon([&] { ++ran_later; });
    });
    INFO(count);
    CHECK(loop.run_once());
    CHECK(ran == (count + 3) / 4);
    CHECK(ran_later == 0);
    CHECK_FALSE(loop.run_once());
    CHECK(ran_later == 3);
  }
}

TEST_CASE("stop() lets the pass that it is in finish") {
  EventLoop loop;
  std::string order;
  loop.call_soon([&] {
    loop.stop();
    order += 'a';
    loop.call_soon([&] { order += 'c'; });
  });
  loop.call_soon([&] { order += 'b'; });
  loop.run();
  CHECK(order == "ab");
  loop.run();
  CHECK(order == "abc");
}
