// SPDX-License-Identifier: MIT
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <stdexcept>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/copy_holder.hpp"
#include "support/faulty_system.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;

namespace {

template <typename Call>
bool is_logic_error(Call call) {
  try {
    call();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

/// The parent's side: everything still works.
void check_that_it_works(EventLoop& loop, const SocketPair& pair) {
  int steps = 0;
  loop.add_writer(pair.theirs.get(), [&] {
    ++steps;
    loop.remove_writer(pair.theirs.get());
    write_byte(pair.theirs.get());
  });
  loop.add_reader(pair.ours.get(), [&] {
    ++steps;
    loop.remove_reader(pair.ours.get());
    drain(pair.ours.get());
  });
  loop.call_later(1ms, [&] { ++steps; });
  loop.call_soon_threadsafe([&] { ++steps; });
  loop.run();
  CHECK(steps == 4);
}

}  // namespace

TEST_CASE("A loop that is used in a forked child says so, and the parent's works on") {
  EventLoop loop;
  const SocketPair pair;
  const Pipe other;
  loop.add_reader(pair.ours.get(), [] {});
  loop.run_once(Duration::zero());
  const int code = exit_code_of_fork([&] {
    if (!is_logic_error([&] { loop.run_once(Duration::zero()); })) return 1;
    if (!is_logic_error([&] { loop.run_once(1ms); })) return 2;
    if (!is_logic_error([&] { loop.run(); })) return 3;
    if (!is_logic_error([&] { loop.run_forever(); })) return 4;
    if (!is_logic_error([&] { loop.run_for(1ms); })) return 5;
    if (loop.add_reader(other.reader.get(), [] {}) != Errc::used_after_fork) return 6;
    if (loop.add_writer(pair.ours.get(), [] {}) != Errc::used_after_fork) return 7;
    return 0;
  });
  CHECK(code == 0);
  check_that_it_works(loop, pair);
}

TEST_CASE("A loop that is destroyed in a forked child leaves the parent's alone") {
  auto loop = std::make_unique<EventLoop>();
  const SocketPair pair;
  loop->add_reader(pair.ours.get(), [] {});
  loop->add_signal_handler(SIGUSR1, [] {});
  loop->call_later(1h, [] {}).cancel();
  loop->run_once(Duration::zero());
  const int code = exit_code_of_fork([&] {
    loop->remove_reader(pair.ours.get());
    loop.reset();
    return 0;
  });
  CHECK(code == 0);
  int signals = 0;
  loop->add_signal_handler(SIGUSR1, [&] {
    ++signals;
    loop->remove_signal_handler(SIGUSR1);
  });
  ::raise(SIGUSR1);
  check_that_it_works(*loop, pair);
  CHECK(signals == 1);
}

TEST_CASE("A forked child doesn't wake its parent's loop") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  loop.run_once(Duration::zero());
  const int before = system.count(Call::read);
  const int code = exit_code_of_fork([&] {
    auto token = std::make_shared<int>(7);
    const std::weak_ptr<int> watch = token;
    if (loop.mailbox()->post([token = std::move(token)] {})) return 1;
    if (!watch.expired()) return 2;
    loop.call_soon_threadsafe([] {});
    loop.stop();
    return 0;
  });
  CHECK(code == 0);
  loop.run_once(Duration::zero());
  CHECK(system.count(Call::read) == before);  // nothing lay in the shared eventfd
}

TEST_CASE("A forked child may make a loop of its own, with the parent's still there") {
  EventLoop loop;
  const SocketPair pair;
  loop.add_reader(pair.ours.get(), [] {});
  loop.add_signal_handler(SIGUSR1, [] {});
  const int code = exit_code_of_fork([&] {
    EventLoop own;
    int steps = 0;
    own.add_signal_handler(SIGUSR1, [&] {
      ++steps;
      own.remove_signal_handler(SIGUSR1);
    });
    own.call_soon_threadsafe([&] { ++steps; });
    own.call_later(1ms, [&] { ++steps; });
    ::raise(SIGUSR1);
    own.run();
    return steps == 3 ? 0 : 1;
  });
  CHECK(code == 0);
  loop.remove_signal_handler(SIGUSR1);
  check_that_it_works(loop, pair);
}

TEST_CASE(
    "A program's input ends with the last copy of the pipe, a forked child's or the parent's") {
  EventLoop loop;
  pawl::ChildProcessOptions options;
  options.arguments = {"cat"};
  options.standard_input = pawl::Stdio::pipe;
  std::optional<pawl::ChildExit> end;
  pawl::ChildProcess program(loop, options,
                             [&](pawl::ChildProcess&, const pawl::ChildExit& exit) { end = exit; });
  std::optional<CopyHolder> holder;
  holder.emplace();
  program.standard_input().reset();
  for (int i = 0; i < 10; ++i) loop.run_once(1ms);
  CHECK(program.is_running());
  holder.reset();
  loop.run();
  REQUIRE(end);
  CHECK(end->ok());
}

TEST_CASE("A program isn't started for a parent's loop") {
  EventLoop loop;
  pawl::ChildProcessOptions options;
  options.arguments = {"true"};
  const int code = exit_code_of_fork([&] {
    try {
      const pawl::ChildProcess program(loop, options, nullptr);
    } catch (const std::system_error& error) {
      return error.code() == Errc::used_after_fork ? 0 : 1;
    }
    return 2;
  });
  CHECK(code == 0);
}
