// SPDX-License-Identifier: MIT
// How a child's end is told where it isn't the plain one: nobody knows it, the time was over,
// others of its group live on, there is no process descriptor, or nobody is left to be told.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "loop/children.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/faulty_system.hpp"

using namespace std::chrono_literals;
using pawl::ChildExit;
using pawl::ChildProcess;
using pawl::ChildProcessOptions;
using pawl::EventLoop;
using pawl::LoopOptions;
using pawl::Stdio;

namespace {

/// The kernel where pidfd_open(2) fails so.
struct WithoutDescriptors {
  explicit WithoutDescriptors(int error) {
    system.fail(Call::pidfd_open, error, FaultySystem::forever);
    options.system = &system;
  }
  FaultySystem system;
  LoopOptions options;
};

/// A process that lives until its input ends, in the group of a leader that has ended.
struct Survivor {
  explicit Survivor(EventLoop& loop, pawl::Duration timeout = {}) {
    ChildProcessOptions options = shell("cat <&3 >/dev/null & exit 0");
    // The shell gives its background processes /dev/null to read.
    options.arguments[2] = "exec 3<&0; " + options.arguments[2];
    options.new_process_group = true;
    options.standard_input = Stdio::pipe;
    options.timeout = timeout;
    leader = std::make_unique<ChildProcess>(
        loop, std::move(options), [this](ChildProcess&, const ChildExit& exit) { end = exit; });
  }
  bool is_gone() const { return ::kill(-leader->pid(), 0) < 0 && errno == ESRCH; }
  std::unique_ptr<ChildProcess> leader;
  std::optional<ChildExit> end;
};

void check_unknown(const ChildExit& end) {
  CHECK(end.error == std::errc::no_child_process);
  CHECK_FALSE(end.ok());
  CHECK(end.exit_code == -1);
  CHECK(end.to_string() == "ended in an unknown way: No child processes");
}

}  // namespace

TEST_CASE("A child whose status somebody else took ended in an unknown way, and not well") {
  EventLoop loop;
  std::optional<ChildExit> end;
  const ChildProcess child(loop, shell("exit 0"),
                           [&](ChildProcess&, const ChildExit& exit) { end = exit; });
  while (::waitpid(child.pid(), nullptr, 0) < 0 && errno == EINTR) {
  }
  loop.run();
  REQUIRE(end);
  check_unknown(*end);
}

TEST_CASE("A child's end is unknown where SIGCHLD is ignored") {
  struct sigaction ignored {};
  struct sigaction before {};
  ignored.sa_handler = SIG_IGN;
  ::sigaction(SIGCHLD, &ignored, &before);
  EventLoop loop;
  const ChildExit end = run(loop, shell("exit 0"));
  WithoutDescriptors bare(ENOSYS);
  EventLoop polling(bare.options);
  const ChildExit polled = run(polling, shell("exit 0"));
  ::sigaction(SIGCHLD, &before, nullptr);
  check_unknown(end);
  check_unknown(polled);
}

TEST_CASE("A waitid that fails is no exit code either") {
  for (const int error : {EINVAL, EPERM, ENOSYS}) {
    FaultySystem system;
    LoopOptions options;
    options.system = &system;
    EventLoop loop(options);
    std::optional<ChildExit> end;
    const ChildProcess child(loop, shell("exit 0"),
                             [&](ChildProcess&, const ChildExit& exit) { end = exit; });
    system.fail(Call::wait_child, error);
    loop.run();
    REQUIRE(end);
    CHECK(end->error.value() == error);
    CHECK_FALSE(end->ok());
    while (::waitpid(child.pid(), nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

TEST_CASE("A child that ran into its timeout is never ok, whatever its exit code") {
  EventLoop loop;
  ChildProcessOptions options = shell("trap 'exit 0' TERM; sleep 1000 & wait");
  options.timeout = 100ms;
  options.timeout_signal = SIGTERM;
  options.new_process_group = true;
  const ChildExit end = run(loop, std::move(options));
  CHECK(end.timed_out);
  CHECK_FALSE(end.ok());
  if (end.signal == 0) CHECK(end.to_string() == "timed out, exit code 0");
}

TEST_CASE("A child that had ended before its timeout came isn't timed out") {
  FaultySystem system;
  LoopOptions loop_options;
  loop_options.system = &system;
  const bool has_descriptor = GENERATE(true, false);
  if (!has_descriptor) system.fail(Call::pidfd_open, ENOSYS, FaultySystem::forever);
  EventLoop loop(loop_options);
  ChildProcessOptions options = shell("exit 0");
  options.timeout = 10ms;
  std::optional<ChildExit> end;
  const ChildProcess child(loop, std::move(options),
                           [&](ChildProcess&, const ChildExit& exit) { end = exit; });
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT) < 0) {
  }
  const pawl::TimePoint begin = loop.time();
  while (loop.time() - begin < 20ms) {  // the loop stands still, past the timeout
  }
  loop.run();
  REQUIRE(end);
  CHECK(end->ok());
}

TEST_CASE("A kill reaches those of the group that outlive the child, as long as they live") {
  EventLoop loop;
  Survivor survivor(loop);
  loop.run();
  REQUIRE(survivor.end);
  CHECK(survivor.end->ok());
  CHECK_FALSE(survivor.leader->is_running());
  CHECK_FALSE(survivor.is_gone());
  CHECK_FALSE(survivor.leader->kill(SIGKILL));
  while (!survivor.is_gone()) loop.run_once(1ms);
  CHECK(survivor.leader->kill(SIGKILL) == std::errc::no_such_process);
}

TEST_CASE("A timeout kills those of the group that outlive the child") {
  EventLoop loop;
  Survivor survivor(loop, 200ms);
  loop.run();
  REQUIRE(survivor.end);
  CHECK_FALSE(survivor.end->timed_out);
  while (!survivor.is_gone()) loop.run_once(1ms);
}

TEST_CASE("The loop doesn't wait for a timeout when all of the group have gone") {
  EventLoop loop;
  Survivor survivor(loop, 1h);
  while (!survivor.end) loop.run_once();
  survivor.leader->standard_input().reset();
  loop.run();
  CHECK(survivor.is_gone());
}

TEST_CASE("Where there is no process descriptor, an owned child holds the loop and says so") {
  for (const int error : {ENOSYS, EMFILE, EPERM, EINVAL, ENODEV, ENOMEM, ESRCH}) {
    WithoutDescriptors bare(error);
    EventLoop loop(bare.options);
    std::optional<ChildExit> end;
    ChildProcessOptions options;
    options.arguments = {"cat"};
    options.standard_input = Stdio::pipe;
    ChildProcess child(loop, std::move(options),
                       [&](ChildProcess&, const ChildExit& exit) { end = exit; });
    const std::string line = "child process " + std::to_string(child.pid());
    CHECK(loop.why_alive().find(line) != std::string::npos);
    loop.run_once(5ms);
    CHECK_FALSE(end);
    child.standard_input().reset();
    loop.run();
    REQUIRE(end);
    CHECK(end->ok());
    CHECK(loop.why_alive().empty());
  }
}

TEST_CASE("Where there is no process descriptor, a dropped child doesn't hold the loop either") {
  WithoutDescriptors bare(EPERM);
  EventLoop loop(bare.options);
  int pid = 0;
  pawl::UniqueFd input;
  {
    ChildProcessOptions options;
    options.arguments = {"cat"};
    options.standard_input = Stdio::pipe;
    ChildProcess child(loop, std::move(options),
                       [](ChildProcess&, const ChildExit&) { FAIL("it has no owner"); });
    pid = child.pid();
    input = std::move(child.standard_input());
  }
  CHECK(loop.why_alive().empty());
  loop.run();  // returns at once, the child goes on
  CHECK_FALSE(is_gone(pid));
  input.reset();
  while (!is_gone(pid)) loop.run_once(1h);  // which waits for the next look, and no longer
}

TEST_CASE("A host is told when a child without a process descriptor wants to be looked at") {
  WithoutDescriptors bare(EMFILE);
  EventLoop loop(bare.options);
  CHECK_FALSE(loop.next_deadline());
  ChildProcess child(loop, shell("exit 0"), nullptr);
  CHECK(loop.next_deadline());
  loop.run();
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("A child whose process descriptor can't be watched is waited for all the same") {
  struct ClosedDescriptors : pawl::System {
    pawl::SystemResult pidfd_open(int) override { return {900, 0}; }
  };
  ClosedDescriptors system;
  LoopOptions options;
  options.system = &system;
  EventLoop loop(options);
  CHECK(run(loop, shell("exit 4")).exit_code == 4);
}

TEST_CASE(
    "When the loop goes, a dropped child that has ended is reaped, and one that runs is left") {
  for (const bool has_descriptor : {true, false}) {
    FaultySystem system;
    if (!has_descriptor) system.fail(Call::pidfd_open, ENOSYS, FaultySystem::forever);
    LoopOptions loop_options;
    loop_options.system = &system;
    int ended = 0;
    int running = 0;
    pawl::UniqueFd input;
    {
      EventLoop loop(loop_options);
      ended = ChildProcess(loop, shell("exit 0"), nullptr).pid();
      ChildProcessOptions options;
      options.arguments = {"cat"};
      options.standard_input = Stdio::pipe;
      ChildProcess child(loop, std::move(options), nullptr);
      running = child.pid();
      input = std::move(child.standard_input());
      siginfo_t info{};
      while (::waitid(P_PID, static_cast<id_t>(ended), &info, WEXITED | WNOWAIT) < 0) {
      }
    }
    CHECK(is_gone(ended));
    CHECK_FALSE(is_gone(running));
    input.reset();
    int status = -1;
    while (::waitpid(running, &status, 0) < 0 && errno == EINTR) {
    }
    CHECK(status == 0);
  }
}
