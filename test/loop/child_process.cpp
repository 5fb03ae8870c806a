// SPDX-License-Identifier: MIT
#include "pawl/loop/child_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "loop/children.hpp"
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

/// Appends what `pipe` gives to `text` until its end.
void collect(EventLoop& loop, pawl::UniqueFd& pipe, std::string& text) {
  const auto read_more = [&loop, &pipe, &text] {
    char buffer[4096];
    const ssize_t count = ::read(pipe.get(), buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
    if (count == 0) loop.remove_reader(pipe.get());
  };
  REQUIRE_FALSE(loop.add_reader(pipe.get(), read_more));
}

std::string output_of(EventLoop& loop, ChildProcessOptions options) {
  options.standard_output = Stdio::pipe;
  std::string text;
  ChildProcess child(loop, std::move(options), [](ChildProcess&, const ChildExit&) {});
  collect(loop, child.standard_output(), text);
  loop.run();
  return text;
}

}  // namespace

TEST_CASE("A child's exit code comes through the callback") {
  EventLoop loop;
  CHECK(run(loop, shell("exit 0")).ok());
  const ChildExit end = run(loop, shell("exit 7"));
  CHECK(end.exit_code == 7);
  CHECK(end.signal == 0);
  CHECK_FALSE(end.ok());
  CHECK(end.to_string() == "exit code 7");
}

TEST_CASE("The signal that killed a child comes through the callback") {
  EventLoop loop;
  const ChildExit end = run(loop, shell("kill -TERM $$"));
  CHECK(end.signal == SIGTERM);
  CHECK_FALSE(end.timed_out);
  CHECK(end.to_string() == "killed by signal 15");
}

TEST_CASE("A child that takes too long is killed") {
  EventLoop loop;
  ChildProcessOptions options;
  options.arguments = {"sleep", "1000"};
  options.timeout = 10ms;
  const ChildExit end = run(loop, std::move(options));
  CHECK(end.signal == SIGKILL);
  CHECK(end.timed_out);
  CHECK(end.to_string() == "timed out, killed by signal 9");
}

TEST_CASE("A child that ends in time leaves no timer behind") {
  EventLoop loop;
  ChildProcessOptions options = shell("exit 0");
  options.timeout = 1h;
  bool ended = false;
  const ChildProcess child(loop, std::move(options), [&](ChildProcess&, const ChildExit& end) {
    ended = end.ok();
    loop.stop();
  });
  loop.run();
  CHECK(ended);
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A child's end of a pipe blocks, as programs expect") {
  EventLoop loop;
  const std::string flags = output_of(loop, shell("sed -n 's/flags:\\t*//p' /proc/self/fdinfo/1"));
  REQUIRE_FALSE(flags.empty());
  CHECK((std::stoi(flags, nullptr, 8) & O_NONBLOCK) == 0);
}

TEST_CASE("A kill reaches the child's own children when it leads a process group") {
  EventLoop loop;
  ChildProcessOptions options = shell("sleep 1000 & echo $!; wait");
  options.new_process_group = true;
  options.standard_output = Stdio::pipe;
  std::string text;
  ChildProcess child(loop, std::move(options), [](ChildProcess&, const ChildExit&) {});
  loop.add_reader(child.standard_output().get(), [&] {
    char buffer[64];
    const ssize_t count = ::read(child.standard_output().get(), buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
    if (count > 0) CHECK_FALSE(child.kill(SIGKILL));
    // The end of the pipe: both its writers, the shell and the sleeper, are gone.
    if (count == 0) loop.remove_reader(child.standard_output().get());
  });
  loop.run();
  CHECK(std::stoi(text) > 0);
}

TEST_CASE("A child gets its arguments, environment and directory") {
  EventLoop loop;
  ChildProcessOptions options = shell("echo \"$0:$1:$NAME:$PWD:$HOME\"");
  options.arguments.push_back("zero");
  options.arguments.push_back("one two");
  options.environment = {{"NAME=value", "PATH=/usr/bin:/bin"}};
  options.directory = "/";
  CHECK(output_of(loop, std::move(options)) == "zero:one two:value:/:\n");
}

TEST_CASE("A child reads what is written to its input, to the end") {
  EventLoop loop;
  ChildProcessOptions options;
  options.arguments = {"cat"};
  options.standard_input = Stdio::pipe;
  options.standard_output = Stdio::pipe;
  std::string text;
  bool ended = false;
  ChildProcess child(loop, std::move(options),
                     [&](ChildProcess&, const ChildExit& end) { ended = end.ok(); });
  REQUIRE(::write(child.standard_input().get(), "through", 7) == 7);
  child.standard_input().reset();
  collect(loop, child.standard_output(), text);
  loop.run();
  CHECK(text == "through");
  CHECK(ended);
}

TEST_CASE("Output and error are pipes of their own, and null swallows both") {
  EventLoop loop;
  ChildProcessOptions options = shell("echo out; echo err >&2");
  options.standard_output = Stdio::pipe;
  options.standard_error = Stdio::pipe;
  std::string out;
  std::string err;
  ChildProcess child(loop, std::move(options), [](ChildProcess&, const ChildExit&) {});
  collect(loop, child.standard_output(), out);
  collect(loop, child.standard_error(), err);
  loop.run();
  CHECK(out == "out\n");
  CHECK(err == "err\n");

  ChildProcessOptions silent = shell("echo out; echo err >&2; read line");
  silent.standard_input = silent.standard_output = silent.standard_error = Stdio::null;
  CHECK(run(loop, std::move(silent)).exit_code == 1);  // read meets the end at once
}

TEST_CASE("A program that can't be run is an error of the constructor, with its name") {
  EventLoop loop;
  ChildProcessOptions options;
  options.arguments = {"/nowhere/at-all"};
  try {
    const ChildProcess child(loop, options, nullptr);
    FAIL("it was run");
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::no_such_file_or_directory);
    CHECK(std::string(error.what()).find("/nowhere/at-all") != std::string::npos);
    CHECK(std::string(error.what()).find("directory \"") == std::string::npos);
  }
  CHECK_THROWS_AS(ChildProcess(loop, ChildProcessOptions{}, nullptr), std::system_error);
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A directory that can't be entered is blamed, and not the program") {
  EventLoop loop;
  ChildProcessOptions options;
  options.arguments = {"true"};
  for (const auto& [directory, reason] :
       {std::pair{"/nowhere/at-all", std::errc::no_such_file_or_directory},
        std::pair{"/etc/passwd", std::errc::not_a_directory}}) {
    options.directory = directory;
    try {
      const ChildProcess child(loop, options, nullptr);
      FAIL("it was run");
    } catch (const std::system_error& error) {
      CHECK(error.code() == reason);
      const std::string wanted = "directory \"" + options.directory + "\"";
      CHECK(std::string(error.what()).find(wanted) != std::string::npos);
    }
  }
}

TEST_CASE("A NUL in a word for a child is refused, and nothing is cut there") {
  EventLoop loop;
  const std::string cut("a\0b", 3);
  const auto is_refused = [&](const ChildProcessOptions& options, const std::string& word) {
    try {
      const ChildProcess child(loop, options, nullptr);
      return false;
    } catch (const std::system_error& error) {
      const std::string text = error.what();
      return error.code() == std::errc::invalid_argument && text.find(word) != std::string::npos;
    }
  };
  ChildProcessOptions options = shell("exit 0");
  options.arguments.push_back(cut);
  CHECK(is_refused(options, "a NUL in an argument"));
  options = shell("exit 0");
  options.environment = {{"A=" + cut}};
  CHECK(is_refused(options, "a NUL in the environment"));
  options = shell("exit 0");
  options.directory = "/" + std::string(1, '\0');
  CHECK(is_refused(options, "a NUL in the directory's name"));
}

TEST_CASE("A timeout with a signal that is none is refused") {
  EventLoop loop;
  for (const int signal : {0, -1, 65}) {
    ChildProcessOptions options = shell("exit 0");
    options.timeout_signal = signal;
    CHECK(run(loop, options).ok());
    options.timeout = 1h;
    CHECK_THROWS_AS(ChildProcess(loop, options, nullptr), std::system_error);
  }
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A child begins without this process's ignored and blocked signals") {
  struct sigaction ignored {};
  struct sigaction before {};
  ignored.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignored, &before);
  EventLoop loop;
  const std::string masks = output_of(loop, shell("grep -c '^SigBlk:.0*$' /proc/self/status"));
  const ChildExit end = run(loop, shell("kill -PIPE $$; exit 0"));
  ::sigaction(SIGPIPE, &before, nullptr);
  CHECK(masks == "1\n");
  CHECK(end.signal == SIGPIPE);
}

TEST_CASE("A child without descriptors to spare is an error and leaks none") {
  for (const Call call :
       {Call::pipe, Call::spawn, Call::open_null, Call::open_directory, Call::set_non_blocking}) {
    FaultySystem system;
    LoopOptions loop_options;
    loop_options.system = &system;
    EventLoop loop(loop_options);
    system.fail(call, EMFILE);
    ChildProcessOptions options = shell("exit 0");
    options.standard_input = Stdio::pipe;
    options.standard_output = Stdio::null;
    options.directory = "/";
    CHECK_THROWS_AS(ChildProcess(loop, options, nullptr), std::system_error);
  }
}

TEST_CASE("Where there is no process descriptor, a child's end is noticed all the same") {
  FaultySystem system;
  system.fail(Call::pidfd_open, ENOSYS, FaultySystem::forever);
  LoopOptions options;
  options.system = &system;
  EventLoop loop(options);
  CHECK(run(loop, shell("exit 3")).exit_code == 3);
}

TEST_CASE("A child process may be destroyed in its own callback") {
  EventLoop loop;
  std::unique_ptr<ChildProcess> child;
  bool called = false;
  child =
      std::make_unique<ChildProcess>(loop, shell("exit 0"), [&](ChildProcess&, const ChildExit&) {
        child.reset();
        called = true;
      });
  loop.run();
  CHECK(called);
}

TEST_CASE("A child whose object is gone goes on, doesn't hold the loop, and is reaped") {
  EventLoop loop;
  int pid = 0;
  {
    ChildProcessOptions options;
    options.arguments = {"cat"};
    options.standard_input = Stdio::pipe;
    ChildProcess child(loop, std::move(options),
                       [](ChildProcess&, const ChildExit&) { FAIL("it has no owner"); });
    pid = child.pid();
    CHECK_FALSE(is_gone(pid));
  }  // which ends its input too
  CHECK(loop.why_alive().empty());
  while (!is_gone(pid)) loop.run_once(1ms);
}

TEST_CASE("A child's end is told once, and a kill afterwards reaches nobody") {
  EventLoop loop;
  int calls = 0;
  ChildProcess child(loop, shell("exit 0"), [&](ChildProcess&, const ChildExit&) { ++calls; });
  CHECK(child.is_running());
  CHECK(loop.why_alive().find("child process " + std::to_string(child.pid())) != std::string::npos);
  loop.run();
  CHECK(calls == 1);
  CHECK_FALSE(child.is_running());
  CHECK(child.kill(SIGTERM) == std::errc::no_such_process);
}

TEST_CASE("Children of others are left alone") {
  EventLoop loop;
  const pid_t other = ::fork();
  if (other == 0) ::_exit(5);
  CHECK(run(loop, shell("exit 0")).ok());
  int status = 0;
  REQUIRE(::waitpid(other, &status, 0) == other);
  CHECK(WEXITSTATUS(status) == 5);
}

TEST_CASE("A hundred children at once all end") {
  EventLoop loop;
  int sum = 0;
  std::vector<std::unique_ptr<ChildProcess>> children;
  for (int i = 0; i < 100; ++i) {
    children.push_back(std::make_unique<ChildProcess>(
        loop, shell("exit " + std::to_string(i)),
        [&](ChildProcess&, const ChildExit& end) { sum += end.exit_code; }));
  }
  loop.run();
  CHECK(sum == 4950);
}
