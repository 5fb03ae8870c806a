// SPDX-License-Identifier: MIT
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <future>
#include <memory>
#include <string>

#include "pawl/loop/event_loop.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Interest;

namespace {

class NamedHandler final : public pawl::IoHandler {
 public:
  void on_ready(Interest) override {}
  std::string describe() const override { return "the handler's own words"; }
};

std::string here(int line) { return "why_alive.cpp:" + std::to_string(line); }

auto lines_of(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

TEST_CASE("why_alive() names each thing with its descriptor, age, deadline and place") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const SocketPair pair;
  const int fd = pair.ours.get();
  NamedHandler handler;
  loop.run_once(Duration::zero());
  int line = 0;
  std::string expected;
  SECTION("call_soon") {
    loop.call_soon([] {}), line = __LINE__;
    expected = "call_soon callback registered at " + here(line);
  }
  SECTION("call_soon_threadsafe") {
    loop.call_soon_threadsafe([] {});
    expected = "call_soon_threadsafe callbacks";
  }
  SECTION("a timer") {
    loop.call_later(5s, [] {}), line = __LINE__;
    expected = "timer registered at " + here(line) + ", due in 4.000 s";
  }
  SECTION("a repeating timer") {
    loop.call_every(1200ms, [] {}), line = __LINE__;
    expected = "repeating timer registered at " + here(line) + ", due in 200 ms";
  }
  SECTION("an overdue timer") {
    loop.call_later(-5s, [] {}), line = __LINE__;
    expected = "timer registered at " + here(line) + ", due in -1.000 s";
  }
  SECTION("a timer at the beginning of time") {
    loop.call_at(pawl::TimePoint::min(), [] {}), line = __LINE__;
    expected = "timer registered at " + here(line) + ", due in -";
  }
  SECTION("a timer at the end of time") {
    loop.call_later(Duration::max(), [] {}), line = __LINE__;
    expected = "timer registered at " + here(line) + ", due in 92233";
  }
  SECTION("a reader") {
    loop.add_reader(fd, [] {}), line = __LINE__;
    expected =
        "reader registered at " + here(line) + ", fd " + std::to_string(fd) + ", age 1.000 s";
  }
  SECTION("a writer") {
    loop.add_writer(fd, [] {}), line = __LINE__;
    expected =
        "writer registered at " + here(line) + ", fd " + std::to_string(fd) + ", age 1.000 s";
  }
  SECTION("a handler") {
    loop.add_handler(fd, Interest::read, handler), line = __LINE__;
    expected = "the handler's own words, fd " + std::to_string(fd) +
               ", age 1.000 s, registered at " + here(line);
  }
  SECTION("a signal's callback") {
    loop.add_signal_handler(SIGUSR1, [] {}), line = __LINE__;
    expected = "signal handler registered at " + here(line) + ", signal " + std::to_string(SIGUSR1);
  }
  clock.advance(1s);
  const std::string text = loop.why_alive();
  CHECK_THAT(text, Catch::StartsWith(expected));
  CHECK(lines_of(text) == 1);
  loop.remove_handler(fd);
}

TEST_CASE("why_alive() names a job", "[threads]") {
  EventLoop loop;
  std::promise<void> gate;
  const int line = __LINE__ + 1;
  loop.run_in_executor([&] { gate.get_future().wait(); }, [](pawl::Outcome<void>) {});
  CHECK_THAT(loop.why_alive(), Catch::StartsWith("job registered at " + here(line) + ", age "));
  CHECK(lines_of(loop.why_alive()) == 1);
  gate.set_value();
  loop.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("why_alive() has a line for each of many") {
  EventLoop loop;
  const SocketPair pair;
  loop.add_reader(pair.ours.get(), [] {});
  loop.add_writer(pair.ours.get(), [] {});
  loop.add_reader(pair.theirs.get(), [] {});
  for (int i = 0; i < 300; ++i) {
    loop.call_soon([] {});
    loop.call_later(1h, [] {});
  }
  CHECK(lines_of(loop.why_alive()) == 603);
}

TEST_CASE("why_alive() is empty exactly when run() would return") {
  EventLoop loop;
  const SocketPair pair;
  CHECK(loop.why_alive().empty());
  pawl::Handle soon = loop.call_soon([] {});
  pawl::Handle timer = loop.call_later(1h, [] {});
  pawl::Handle repeating = loop.call_every(1h, [] {});
  soon.cancel();
  timer.cancel();
  repeating.cancel();
  CHECK(loop.why_alive().empty());
  CHECK_FALSE(loop.run_once());
  loop.add_reader(pair.ours.get(), [] {});
  CHECK(loop.run_once(Duration::zero()));
  CHECK_FALSE(loop.why_alive().empty());
  loop.remove_reader(pair.ours.get());
  loop.add_signal_handler(SIGUSR1, [] {});
  CHECK_FALSE(loop.why_alive().empty());
  loop.remove_signal_handler(SIGUSR1);
  CHECK(loop.why_alive().empty());
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("why_alive() may be asked from inside a callback") {
  EventLoop loop;
  std::string text = "?";
  loop.call_soon([&] { text = loop.why_alive(); });
  loop.run();
  CHECK(text.empty());
}

TEST_CASE("The loop's own wake-up doesn't keep it alive") {
  EventLoop loop;
  CHECK(loop.selector().size() == 1);
  CHECK(loop.why_alive().empty());
  loop.run();
}
