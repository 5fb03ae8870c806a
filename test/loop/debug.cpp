// SPDX-License-Identifier: MIT
// Debug mode: slow callbacks, wrong threads, closed descriptors, and where all that is said.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/core/observer.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/environment.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Interest;
using pawl::LoopOptions;
using pawl::UniqueFd;

namespace {

LoopOptions debugging(pawl::System& system = pawl::System::real()) {
  LoopOptions options = options_on(system);
  options.debug = true;
  return options;
}

/// Collects what a loop reports.
class Reports {
 public:
  explicit Reports(EventLoop& loop) {
    loop.set_report_sink([this](std::string_view line) { lines_.emplace_back(line); });
  }
  Reports(const Reports&) = delete;
  Reports& operator=(const Reports&) = delete;

  const std::vector<std::string>& lines() const { return lines_; }
  std::size_t count() const { return lines_.size(); }
  std::string last() const { return lines_.empty() ? "" : lines_.back(); }

 private:
  std::vector<std::string> lines_;
};

class SlowHandler final : public pawl::IoHandler {
 public:
  explicit SlowHandler(VirtualClock& clock) : clock_(clock) {}
  void on_ready(Interest) override { clock_.advance(100ms); }
  std::string describe() const override { return "slow handler"; }

 private:
  VirtualClock& clock_;
};

std::string here(int line) { return "debug.cpp:" + std::to_string(line); }

/// What `work` writes to standard error, in a forked child.
template <typename Work>
std::string standard_error_of(Work work) {
  Pipe pipe;
  const int code = exit_code_of_fork([&] {
    ::dup2(pipe.writer.get(), STDERR_FILENO);
    work();
    return 0;
  });
  CHECK(code == 0);
  pipe.writer.reset();
  char text[1000];
  const ssize_t bytes = ::read(pipe.reader.get(), text, sizeof text);
  return std::string(text, bytes < 0 ? 0 : static_cast<std::size_t>(bytes));
}

void report_something(EventLoop& loop) { loop.report("something"); }

}  // namespace

TEST_CASE("A slow callback is reported with its kind, its place and its time") {
  const ScopedVariable variable("PAWL_DEBUG", nullptr);
  VirtualClock clock;
  EventLoop loop(debugging(clock));
  const Reports reports(loop);
  const Pipe pipe;
  write_byte(pipe.writer.get());
  const int fd = pipe.reader.get();
  const auto dawdle = [&] { clock.advance(100ms); };
  SlowHandler handler(clock);
  int line = 0;
  std::string kind;
  SECTION("call_soon") {
    kind = "call_soon callback";
    loop.call_soon(dawdle), line = __LINE__;
  }
  SECTION("a timer") {
    kind = "timer";
    loop.call_later(Duration::zero(), dawdle), line = __LINE__;
  }
  SECTION("a timer by its moment") {
    kind = "timer";
    loop.call_at(clock.now(), dawdle), line = __LINE__;
  }
  SECTION("a repeating timer") {
    kind = "repeating timer";
    loop.call_every(1ns, dawdle), line = __LINE__;
    clock.advance(1ns);
  }
  SECTION("a reader") {
    kind = "reader";
    loop.add_reader(fd, dawdle), line = __LINE__;
  }
  SECTION("a writer") {
    kind = "writer";
    loop.add_writer(pipe.writer.get(), dawdle), line = __LINE__;
  }
  SECTION("a handler") {
    kind = "handler";
    loop.add_handler(fd, Interest::read, handler), line = __LINE__;
  }
  SECTION("a signal's callback") {
    kind = "signal";
    loop.add_signal_handler(SIGUSR1, dawdle), line = __LINE__;
    ::raise(SIGUSR1);
  }
  loop.run_once(Duration::zero());
  REQUIRE(reports.count() == 1);
  CHECK_THAT(reports.last(), Catch::Contains(kind));
  CHECK_THAT(reports.last(), Catch::Contains(here(line)));
  CHECK_THAT(reports.last(), Catch::Contains("100 ms"));
}

TEST_CASE("A slow callback from another thread, or of a job, is reported too") {
  VirtualClock clock;
  EventLoop loop(debugging(clock));
  const Reports reports(loop);
  loop.call_soon_threadsafe([&] { clock.advance(250ms); });
  loop.run_once(Duration::zero());
  REQUIRE(reports.count() == 1);
  CHECK_THAT(reports.last(), Catch::Contains("call_soon_threadsafe") && Catch::Contains("250 ms"));
}

TEST_CASE("A slow callback that throws is reported too") {
  VirtualClock clock;
  EventLoop loop(debugging(clock));
  const Reports reports(loop);
  const auto fail = [&] {
    clock.advance(1s);
    throw std::runtime_error("slow and wrong");
  };
  loop.call_soon(fail);
  CHECK_THROWS(loop.run_once(Duration::zero()));
  CHECK(reports.count() == 1);
}

TEST_CASE("A callback that isn't slow isn't reported") {
  VirtualClock clock;
  LoopOptions options = debugging(clock);
  EventLoop loop(options);
  const Reports reports(loop);
  loop.call_soon([&] { clock.advance(100ms - 1ns); });
  loop.run_once(Duration::zero());
  CHECK(reports.lines().empty());
}

TEST_CASE("What is slow can be set") {
  VirtualClock clock;
  LoopOptions options = debugging(clock);
  options.slow_callback = 5ms;
  EventLoop loop(options);
  const Reports reports(loop);
  loop.call_soon([&] { clock.advance(5ms - 1ns); });
  loop.call_soon([&] { clock.advance(5ms); });
  loop.run_once(Duration::zero());
  CHECK(reports.count() == 1);
}

TEST_CASE("A slow callback that frees itself and its loop's other callbacks is still named") {
  VirtualClock clock;
  EventLoop loop(debugging(clock));
  const Reports reports(loop);
  const Pipe pipe;
  write_byte(pipe.writer.get());
  const int line = __LINE__ + 1;
  loop.add_reader(pipe.reader.get(), [&] {
    loop.remove_reader(pipe.reader.get());
    for (int i = 0; i < 1000; ++i) loop.call_soon([] {});
    clock.advance(1s);
  });
  loop.run_once(Duration::zero());
  CHECK_THAT(reports.last(), Catch::Contains(here(line)));
}

TEST_CASE("In debug mode a call from a wrong thread is reported and refused", "[threads]") {
  EventLoop loop(debugging());
  const SocketPair pair;
  const SocketPair other;
  VirtualClock clock;
  SlowHandler handler(clock);
  const int fd = pair.ours.get();
  const auto nothing = [] {};
  loop.add_handler(other.ours.get(), Interest::none, handler);
  std::vector<std::string> lines;
  loop.set_report_sink([&](std::string_view line) { lines.emplace_back(line); });
  int problems = 0;
  const auto must_throw = [&](auto call) {
    const std::size_t before = lines.size();
    try {
      call();
      ++problems;
    } catch (const std::logic_error&) {
      if (lines.size() != before + 1) ++problems;
    }
  };
  const auto must_fail = [&](std::error_code error) {
    if (error != Errc::wrong_thread) ++problems;
  };
  std::thread thread([&] {
    while (!loop.is_running()) std::this_thread::yield();
    must_throw([&] { loop.call_soon(nothing); });
    must_throw([&] { loop.call_later(1ms, nothing); });
    must_throw([&] { loop.call_at(loop.time(), nothing); });
    must_throw([&] { loop.call_every(1ms, nothing); });
    must_throw([&] { loop.run_in_executor(nothing, [](pawl::Outcome<void>) {}); });
    must_throw([&] { loop.remove_reader(fd); });
    must_throw([&] { loop.remove_writer(fd); });
    must_throw([&] { loop.remove_handler(fd); });
    must_throw([&] { loop.remove_signal_handler(SIGUSR1); });
    const std::size_t before = lines.size();
    must_fail(loop.add_reader(fd, nothing));
    must_fail(loop.add_writer(fd, nothing));
    must_fail(loop.add_handler(fd, Interest::read, handler));
    must_fail(loop.modify_handler(other.ours.get(), Interest::read));
    must_fail(loop.add_signal_handler(SIGUSR1, nothing));
    if (lines.size() != before + 5) ++problems;
    loop.stop();
  });
  loop.run_forever();
  thread.join();
  CHECK(problems == 0);
  REQUIRE_FALSE(lines.empty());
  CHECK_THAT(lines.front(), Catch::Contains("call_soon") && Catch::Contains("thread"));
  CHECK(loop.remove_handler(other.ours.get()));
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("Before a loop runs, any one thread may prepare it in debug mode", "[threads]") {
  EventLoop loop(debugging());
  const Reports reports(loop);
  int ran = 0;
  std::thread([&] { loop.call_soon([&] { ++ran; }); }).join();
  loop.run();
  std::thread([&] {
    loop.call_soon([&] { ++ran; });
    loop.run();
  }).join();
  loop.call_soon([&] { ++ran; });
  loop.run();
  CHECK(ran == 3);
  CHECK(reports.count() == 0);
}

TEST_CASE("A descriptor that is closed while it is watched is reported once, with its place") {
  EventLoop loop(debugging());
  const Reports reports(loop);
  Pipe pipe;
  const int fd = pipe.reader.get();
  const int line = __LINE__ + 1;
  loop.add_reader(fd, [&] { loop.stop(); });
  loop.run_once(Duration::zero());
  CHECK(reports.count() == 0);
  pipe.reader.reset();
  for (int i = 0; i < 3; ++i) loop.run_once(Duration::zero());
  REQUIRE(reports.count() == 1);
  CHECK_THAT(reports.last(), Catch::Contains("fd " + std::to_string(fd) + " was closed"));
  CHECK_THAT(reports.last(), Catch::Contains(here(line)));
  CHECK(loop.remove_reader(fd));
}

TEST_CASE("A descriptor that is closed and opened anew while it is watched is reported once") {
  EventLoop loop(debugging());
  const Reports reports(loop);
  Pipe pipe;
  const SocketPair other;
  const int fd = pipe.reader.get();
  loop.add_reader(fd, [] {});
  pipe.reader.reset();
  const UniqueFd anew = renumbered(UniqueFd(::fcntl(other.ours.get(), F_DUPFD_CLOEXEC, 0)), fd);
  for (int i = 0; i < 3; ++i) loop.run_once(Duration::zero());
  REQUIRE(reports.count() == 1);
  CHECK_THAT(reports.last(), Catch::Contains("opened anew"));
  CHECK(loop.remove_reader(fd));
  REQUIRE_FALSE(loop.add_reader(fd, [] {}));
  loop.run_once(Duration::zero());
  CHECK(reports.count() == 1);
  CHECK(loop.remove_reader(fd));
}

TEST_CASE("A descriptor that is removed before it is closed isn't reported") {
  EventLoop loop(debugging());
  const Reports reports(loop);
  {
    const Pipe pipe;
    loop.add_reader(pipe.reader.get(), [] {});
    loop.run_once(Duration::zero());
    loop.remove_reader(pipe.reader.get());
  }
  loop.run_once(Duration::zero());
  CHECK(reports.count() == 0);
}

TEST_CASE("Without debug mode nothing is reported") {
  const ScopedVariable variable("PAWL_DEBUG", nullptr);
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const Reports reports(loop);
  Pipe pipe;
  const int fd = pipe.reader.get();
  loop.add_reader(fd, [] {});
  pipe.reader.reset();
  loop.call_soon([&] { clock.advance(1h); });
  for (int i = 0; i < 3; ++i) loop.run_once(Duration::zero());
  loop.report("hello");
  loop.remove_reader(fd);
  CHECK_FALSE(loop.is_debug());
  CHECK(reports.count() == 0);
}

TEST_CASE("PAWL_DEBUG=1 turns debug mode on, and nothing turns it off that the program turned on") {
  LoopOptions on;
  on.debug = true;
  for (const char* value : {"1", "yes"}) {
    const ScopedVariable variable("PAWL_DEBUG", value);
    CHECK(EventLoop().is_debug());
    CHECK(EventLoop(on).is_debug());
  }
  for (const char* value : {"0", "", static_cast<const char*>(nullptr)}) {
    const ScopedVariable variable("PAWL_DEBUG", value);
    CHECK_FALSE(EventLoop().is_debug());
    CHECK(EventLoop(on).is_debug());
  }
}

TEST_CASE("Without a sink debug mode says one line to standard error, else the library is silent") {
  const ScopedVariable variable("PAWL_DEBUG", nullptr);
  CHECK(standard_error_of([] {
          EventLoop loop(debugging());
          report_something(loop);
        }) == "pawl: something\n");
  CHECK(standard_error_of([] {
          EventLoop loop(debugging());
          loop.set_report_sink([](std::string_view) {});
          report_something(loop);
          loop.set_report_sink({});
          report_something(loop);
        }) == "pawl: something\n");
  CHECK(standard_error_of([] {
          VirtualClock clock;
          EventLoop loop(options_on(clock));
          Pipe pipe;
          const int fd = pipe.reader.get();
          loop.add_reader(fd, [] {});
          pipe.reader.reset();
          loop.call_soon([&] { clock.advance(1h); });
          loop.run_once(Duration::zero());
          report_something(loop);
        }).empty());
}

TEST_CASE("A sink may put another one into its place") {
  EventLoop loop(debugging());
  std::string order;
  auto token = std::make_shared<int>(7);
  loop.set_report_sink([&loop, &order, token = std::move(token)](std::string_view) {
    loop.set_report_sink([&order](std::string_view) { order += 'b'; });
    order += *token == 7 ? 'a' : '?';
  });
  for (int i = 0; i < 3; ++i) loop.report("x");
  CHECK(order == "abb");
}

TEST_CASE("PAWL_TRACE=1 gives a loop an observer that says a line a step") {
  const pawl::Transition step{"machine", nullptr, "label", "FROM", "event", "TO"};
  pawl::Observer own;
  LoopOptions with_own;
  with_own.observer = &own;
  {
    const ScopedVariable variable("PAWL_TRACE", nullptr);
    CHECK(EventLoop().observer() == nullptr);
    CHECK(EventLoop(with_own).observer() == &own);
  }
  const ScopedVariable variable("PAWL_TRACE", "1");
  CHECK(EventLoop(with_own).observer() == &own);
  EventLoop loop;
  const Reports reports(loop);
  REQUIRE(loop.observer() != nullptr);
  loop.observer()->on_transition(step);
  CHECK(reports.last() == "machine label: FROM -> TO (event)");
  CHECK(standard_error_of([&] { EventLoop().observer()->on_transition(step); }) ==
        "pawl: machine label: FROM -> TO (event)\n");
}
