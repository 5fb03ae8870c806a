// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/system/system.hpp"
#include "support/environment.hpp"
#include "support/forked.hpp"
#include "support/interrupter.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using pawl::ChildStatus;
using pawl::SpawnRequest;
using pawl::System;
using pawl::SystemResult;
using pawl::UniqueFd;

namespace {

System& kernel() { return System::real(); }

void wait_until_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  while (::poll(&entry, 1, -1) < 0) {
  }
}

std::string read_to_end(int fd) {
  std::string text;
  for (;;) {
    wait_until_readable(fd);
    char buffer[4096];
    const SystemResult result = kernel().read(fd, buffer, sizeof buffer);
    if (!result.ok() || result.bytes() == 0) return text;
    text.append(buffer, result.bytes());
  }
}

ChildStatus wait_until_ended(int pid) {
  const UniqueFd pidfd(kernel().pidfd_open(pid).fd());
  if (!pidfd) throw std::runtime_error("no such child");
  wait_until_readable(pidfd.get());
  ChildStatus status;
  kernel().wait_child(pid, status);
  return status;
}

/// What the program prints on its standard output.
std::string output_of(SpawnRequest request) {
  Pipe pipe;
  request.stdout_fd = pipe.writer.get();
  const SystemResult child = kernel().spawn(request);
  if (!child.ok()) return "spawn: " + child.code().message();
  pipe.writer.reset();
  const std::string text = read_to_end(pipe.reader.get());
  wait_until_ended(child.fd());
  return text;
}

SpawnRequest program(std::vector<std::string> arguments) {
  SpawnRequest request;
  request.arguments = std::move(arguments);
  return request;
}

SpawnRequest shell(std::string script) { return program({"/bin/sh", "-c", std::move(script)}); }

ChildStatus status_of(const SpawnRequest& request) {
  return wait_until_ended(kernel().spawn(request).fd());
}

/// A child that lives until its standard input ends.
struct WaitingChild {
  explicit WaitingChild(bool new_process_group = false) {
    Pipe pipe;
    make_blocking(pipe.reader.get());  // as cat expects it
    SpawnRequest request = program({"cat"});
    request.stdin_fd = pipe.reader.get();
    request.new_process_group = new_process_group;
    pid = kernel().spawn(request).fd();
    input = std::move(pipe.writer);
  }
  UniqueFd input;
  int pid;
};

}  // namespace

TEST_CASE("A child gets its arguments exactly as they are") {
  CHECK(output_of(program({"/bin/sh", "-c", "printf '<%s>' \"$@\"", "sh", "a b", "", "*", "$x"})) ==
        "<a b><><*><$x>");
}

TEST_CASE("A program without a slash is looked up in PATH") {
  CHECK(output_of(program({"echo", "found"})) == "found\n");
}

TEST_CASE("A child gets the environment that it was given, all of it and nothing else") {
  SpawnRequest request = program({"/usr/bin/env"});
  request.environment = std::vector<std::string>{"A=1", "B=two words"};
  CHECK(output_of(request) == "A=1\nB=two words\n");
  request.environment = std::vector<std::string>{};
  CHECK(output_of(request).empty());
}

TEST_CASE("A child without an environment of its own inherits this one") {
  const ScopedVariable variable("PAWL_TEST_INHERITED", "yes");
  CHECK(output_of(shell("echo $PAWL_TEST_INHERITED")) == "yes\n");
}

TEST_CASE("A child starts in the directory that it was given, or in this one") {
  SpawnRequest request = program({"/bin/pwd"});
  const UniqueFd directory(kernel().open_directory("/usr/bin").fd());
  request.directory_fd = directory.get();
  CHECK(output_of(request) == "/usr/bin\n");
  request.directory_fd = -1;
  char here[4096];
  REQUIRE(::getcwd(here, sizeof here) != nullptr);
  CHECK(output_of(request) == std::string(here) + "\n");
}

TEST_CASE("A child starts in its directory, though that has the number of a standard descriptor") {
  const UniqueFd directory(kernel().open_directory("/usr/bin").fd());
  const UniqueFd saved(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  const Pipe err;
  SpawnRequest request = program({"/bin/pwd"});
  request.directory_fd = STDERR_FILENO;
  request.stderr_fd = err.writer.get();
  ::dup2(directory.get(), STDERR_FILENO);
  const std::string printed = output_of(request);
  ::dup2(saved.get(), STDERR_FILENO);
  CHECK(printed == "/usr/bin\n");
}

TEST_CASE("A child's three standard descriptors go where they were sent") {
  Pipe in;
  make_blocking(in.reader.get());
  Pipe out;
  Pipe err;
  SpawnRequest request = shell("cat; echo error >&2");
  request.stdin_fd = in.reader.get();
  request.stdout_fd = out.writer.get();
  request.stderr_fd = err.writer.get();
  const SystemResult child = kernel().spawn(request);
  REQUIRE(child.ok());
  REQUIRE(kernel().write(in.writer.get(), "input", 5).ok());
  for (UniqueFd* fd : {&in.reader, &in.writer, &out.writer, &err.writer}) fd->reset();
  CHECK(read_to_end(out.reader.get()) == "input");
  CHECK(read_to_end(err.reader.get()) == "error\n");
  CHECK(wait_until_ended(child.fd()).exit_code == 0);
}

TEST_CASE("Output and errors can share one descriptor") {
  Pipe pipe;
  SpawnRequest request = shell("echo out; echo err >&2");
  request.stdout_fd = pipe.writer.get();
  request.stderr_fd = pipe.writer.get();
  const SystemResult child = kernel().spawn(request);
  pipe.writer.reset();
  CHECK(read_to_end(pipe.reader.get()) == "out\nerr\n");
  wait_until_ended(child.fd());
}

TEST_CASE("A child's descriptors are this process's as they are, even where numbers overlap") {
  // In a fork, where standard descriptors may be replaced: 1 and 2 are pipes there.
  Pipe one;
  Pipe two;
  SpawnRequest request = shell("echo out; echo err >&2");
  const auto run_in_fork = [&] {
    return exit_code_of_fork([&] {
      ::dup2(one.writer.get(), 1);
      ::dup2(two.writer.get(), 2);
      return status_of(request).exit_code;
    });
  };
  const auto outputs = [&] {
    one.writer.reset();
    two.writer.reset();
    return std::vector<std::string>{read_to_end(one.reader.get()), read_to_end(two.reader.get())};
  };
  SECTION("exchanged") {
    request.stdout_fd = 2;
    request.stderr_fd = 1;
    REQUIRE(run_in_fork() == 0);
    CHECK(outputs() == std::vector<std::string>{"err\n", "out\n"});
  }
  SECTION("errors where this process's output goes, output elsewhere") {
    Pipe other;
    request.stdout_fd = other.writer.get();
    request.stderr_fd = 1;
    REQUIRE(run_in_fork() == 0);
    other.writer.reset();
    CHECK(outputs() == std::vector<std::string>{"err\n", ""});
    CHECK(read_to_end(other.reader.get()) == "out\n");
  }
  SECTION("each where it is already, though close-on-exec") {
    request.stdout_fd = 1;
    request.stderr_fd = 2;
    const int code = exit_code_of_fork([&] {
      ::dup3(one.writer.get(), 1, O_CLOEXEC);
      ::dup3(two.writer.get(), 2, O_CLOEXEC);
      return status_of(request).exit_code;
    });
    REQUIRE(code == 0);
    CHECK(outputs() == std::vector<std::string>{"out\n", "err\n"});
  }
}

TEST_CASE("A child inherits no descriptor that System made") {
  const SocketPair pair;
  const Pipe pipe;
  const UniqueFd event(kernel().eventfd().fd());
  const std::string listing = "\n" + output_of(program({"ls", "/proc/self/fd"}));
  for (const int fd : {pair.ours.get(), pair.theirs.get(), pipe.writer.get(), event.get()}) {
    if (fd == 3) continue;  // ls reads the folder through the lowest free number
    CHECK(listing.find("\n" + std::to_string(fd) + "\n") == std::string::npos);
  }
}

TEST_CASE("A child starts with no signal blocked and none ignored") {
  struct sigaction ignored {};
  struct sigaction old_action {};
  ignored.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignored, &old_action);
  sigset_t blocked;
  sigset_t old_mask;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &old_mask);
  const std::string masks =
      output_of(program({"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}));
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  ::sigaction(SIGPIPE, &old_action, nullptr);
  // 32 and 33 are glibc's own, which it hides from each child.
  CHECK((masks == "SigBlk:\t0000000000000000\nSigIgn:\t0000000180000000\n" ||
         masks == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"));
}

TEST_CASE("A program that can't be run is an error of spawn, and no child is left") {
  CHECK(kernel().spawn(program({})).error == EINVAL);
  CHECK(kernel().spawn(program({"pawl-no-such-program"})).error == ENOENT);
  CHECK(kernel().spawn(program({"/nowhere/program"})).error == ENOENT);
  CHECK(kernel().spawn(program({"/etc/passwd"})).error == EACCES);
  CHECK(kernel().spawn(program({"/"})).error == EACCES);
  SpawnRequest request = program({"true"});
  request.directory_fd = 1'000'000'000;
  CHECK(kernel().spawn(request).error == EBADF);
  request.directory_fd = -1;
  request.stdin_fd = 1'000'000'000;
  CHECK(kernel().spawn(request).error == EBADF);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
}

TEST_CASE("A program is looked up in the PATH of the environment that the child gets") {
  const TemporaryDirectory folder;
  const std::string path = folder.file("pawl-test-program");
  {
    std::ofstream file(path);
    file << "#!/bin/sh\necho \"found $1\"\n";
  }
  const std::string own = path.substr(0, path.rfind('/'));
  SpawnRequest request = program({"pawl-test-program", "word"});
  const auto with = [&](const std::string& value) {
    request.environment = std::vector<std::string>{"A=1", "PATH=" + value};
    return output_of(request);
  };
  CHECK(with("/nowhere:" + own + ":/bin") == "spawn: Permission denied");
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
  CHECK(with("/nowhere:/etc/passwd:" + own + ":/bin") == "found word\n");
  CHECK(with("/usr/bin:/bin") == "spawn: No such file or directory");
  CHECK(with("") == "spawn: No such file or directory");

  // A relative folder is the child's.
  const UniqueFd directory(kernel().open_directory(own.c_str()).fd());
  request.directory_fd = directory.get();
  CHECK(with("") == "found word\n");
  CHECK(with("/bin:.") == "found word\n");

  // This process's PATH counts where the child inherits it, and only there.
  const ScopedVariable variable("PATH", (own + ":/bin:/usr/bin").c_str());
  request.environment.reset();
  CHECK(output_of(request) == "found word\n");
  request.environment = std::vector<std::string>{"A=1"};
  CHECK(output_of(request) == "spawn: No such file or directory");
  request.arguments[0] = "true";
  CHECK(output_of(request).empty());
}

TEST_CASE("A NUL in a word for a child is an error of spawn, and nothing is cut there") {
  const std::string cut("a\0b", 3);
  CHECK(kernel().spawn(program({"echo", cut})).error == EINVAL);
  CHECK(kernel().spawn(program({std::string("true\0", 5)})).error == EINVAL);
  SpawnRequest request = program({"true"});
  request.environment = std::vector<std::string>{"A=" + cut};
  CHECK(kernel().spawn(request).error == EINVAL);
}

TEST_CASE("A directory that can't be entered is an error of open_directory") {
  CHECK(kernel().open_directory("/nowhere").error == ENOENT);
  CHECK(kernel().open_directory("/etc/passwd").error == ENOTDIR);
  CHECK(kernel().open_directory("").error == ENOENT);
  const TemporaryDirectory folder;
  const std::string closed = folder.file("closed");
  REQUIRE(::mkdir(closed.c_str(), 0600) == 0);
  // Only others than root are kept out.
  const int error = exit_code_of_fork([&] {
    if (::geteuid() == 0 && ::chmod(folder.file("").c_str(), 0711) != 0) return 1;
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) return 2;
    return kernel().open_directory(closed.c_str()).error;
  });
  CHECK(error == EACCES);
  ::rmdir(closed.c_str());
}

TEST_CASE("wait_child tells whether a child still runs, and never waits") {
  WaitingChild child;
  ChildStatus status;
  status.has_ended = true;
  REQUIRE(kernel().wait_child(child.pid, status).ok());
  CHECK_FALSE(status.has_ended);
  child.input.reset();
  status = wait_until_ended(child.pid);
  CHECK(status.has_ended);
  CHECK(status.exit_code == 0);
  CHECK(status.signal == 0);
  CHECK(kernel().wait_child(child.pid, status).error == ECHILD);
}

TEST_CASE("wait_child tells the exit code, or the signal that killed the child") {
  const ChildStatus exited = status_of(shell("exit 7"));
  CHECK(exited.has_ended);
  CHECK(exited.exit_code == 7);
  CHECK(exited.signal == 0);

  const WaitingChild child;
  REQUIRE(kernel().kill(child.pid, SIGKILL).ok());
  const ChildStatus killed = wait_until_ended(child.pid);
  CHECK(killed.has_ended);
  CHECK(killed.signal == SIGKILL);
}

TEST_CASE("wait_child leaves other children alone") {
  WaitingChild running;
  const int ended = kernel().spawn(shell("exit 3")).fd();
  const UniqueFd pidfd(kernel().pidfd_open(ended).fd());
  wait_until_readable(pidfd.get());
  ChildStatus status;
  REQUIRE(kernel().wait_child(running.pid, status).ok());
  CHECK_FALSE(status.has_ended);
  REQUIRE(kernel().wait_child(ended, status).ok());
  CHECK(status.exit_code == 3);
  running.input.reset();
  CHECK(wait_until_ended(running.pid).has_ended);
  CHECK(kernel().wait_child(1, status).error == ECHILD);
}

TEST_CASE("A pidfd is close-on-exec and can be read when the child has ended, not before") {
  WaitingChild child;
  const SystemResult opened = kernel().pidfd_open(child.pid);
  REQUIRE(opened.ok());
  const UniqueFd pidfd(opened.fd());
  CHECK((::fcntl(pidfd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  pollfd entry{pidfd.get(), POLLIN, 0};
  CHECK(::poll(&entry, 1, 0) == 0);
  child.input.reset();
  wait_until_ended(child.pid);
  CHECK(::poll(&entry, 1, 0) == 1);
  CHECK(kernel().pidfd_open(child.pid).error == ESRCH);
  CHECK(kernel().kill(child.pid, 0).error == ESRCH);
}

TEST_CASE("A child is in this process's group, or in one of its own when asked") {
  WaitingChild same;
  WaitingChild own(true);
  CHECK(::getpgid(same.pid) == ::getpgrp());
  CHECK(::getpgid(own.pid) == own.pid);
  for (WaitingChild* child : {&same, &own}) {
    child->input.reset();
    wait_until_ended(child->pid);
  }
}

TEST_CASE("Signals at 1 kHz disturb neither the start nor the end of a child") {
  const Interrupter interrupter;
  const long strikes = Interrupter::count();
  for (int i = 0; i < 10 || Interrupter::count() < strikes + 5; ++i) {
    CHECK(output_of(program({"echo", "undisturbed"})) == "undisturbed\n");
  }
}
