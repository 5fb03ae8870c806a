// SPDX-License-Identifier: MIT
// Each system call that a loop makes by itself fails in turn.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/call_sweep.hpp"

using namespace std::chrono_literals;

TEST_CASE("A loop whose system calls fail says so, or runs what was asked of it") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    int calls = 0;
    loop.call_soon([&] { ++calls; });
    loop.call_later(1ms, [&] { ++calls; });
    std::thread other([&] { loop.call_soon_threadsafe([&] { ++calls; }); });
    other.join();
    trial.run_until([&] { return calls == 3; });
  });
}

TEST_CASE("A post wakes a loop that waits, whatever its wake-up's calls answer once") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    bool is_called = false;
    struct Joined {
      ~Joined() {
        if (thread.joinable()) thread.join();
      }
      std::thread thread;
    } other;
    loop.call_soon([&] {
      other.thread = std::thread([&] { loop.call_soon_threadsafe([&] { is_called = true; }); });
    });
    trial.run_until([&] { return is_called; });
  });
}

TEST_CASE("A signal's callback runs, or add_signal_handler fails") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    bool is_called = false;
    if (loop.add_signal_handler(SIGUSR1, [&] { is_called = true; })) return;
    ::kill(::getpid(), SIGUSR1);
    trial.run_until([&] { return is_called; });
    loop.remove_signal_handler(SIGUSR1);
  });
}

TEST_CASE("A job's end comes back, whatever system calls fail") {
  each_call_fails([](CallTrial& trial) {
    bool is_done = false;
    trial.loop().run_in_executor([] { return 4; }, [&](auto) { is_done = true; });
    trial.run_until([&] { return is_done; });
  });
}

TEST_CASE("A child whose system calls fail ends well, or in an unknown way, or isn't started") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    pawl::ChildProcessOptions options;
    options.arguments = {"sh", "-c", "read line; exit 7"};
    options.standard_input = pawl::Stdio::pipe;
    options.standard_error = pawl::Stdio::null;
    options.directory = "/";
    options.timeout = 100h;
    std::optional<pawl::ChildExit> end;
    pawl::ChildProcess child(loop, std::move(options),
                             [&](pawl::ChildProcess&, const pawl::ChildExit& exit) { end = exit; });
    child.standard_input().reset();
    trial.run_until([&] { return end.has_value(); });
    if (end && end->error) return;
    trial.expect(end && end->exit_code == 7, "a wrong exit code");
  });
}

TEST_CASE("A dropped child doesn't hold a loop whose system calls fail") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    pawl::ChildProcessOptions options;
    options.arguments = {"true"};
    { const pawl::ChildProcess child(loop, std::move(options), nullptr); }
    trial.expect(loop.why_alive().empty(), "it holds the loop");
  });
}

TEST_CASE("A kill that fails says so") {
  each_call_fails([](CallTrial& trial) {
    pawl::ChildProcessOptions options;
    options.arguments = {"cat"};
    options.standard_input = pawl::Stdio::pipe;
    options.new_process_group = true;
    std::optional<pawl::ChildExit> end;
    pawl::ChildProcess child(trial.loop(), std::move(options),
                             [&](pawl::ChildProcess&, const pawl::ChildExit& exit) { end = exit; });
    if (child.kill(SIGKILL)) child.standard_input().reset();
    trial.run_until([&] { return end.has_value(); });
    trial.expect(end && (end->error || end->signal == SIGKILL || end->ok()), "a wrong end");
  });
}
