// SPDX-License-Identifier: MIT
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

/// A child that hangs is killed by SIGALRM after so many seconds.
constexpr unsigned longest_child = 60;

/// Waits for a child: its exit code, or 128 + the signal that killed it.
inline int exit_code_of(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Starts a forked child that runs `work` and ends with what that returns as its exit code; 255 for
/// an exception. No Catch assertions inside.
template <typename Work>
pid_t start_fork(Work work) {
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid != 0) return pid;
  ::alarm(longest_child);
  int code = 255;
  try {
    code = work();
  } catch (...) {
  }
  ::_exit(code);
}

/// The same, and waits for its exit code; 128 + the signal when one killed it. For what would
/// disturb this process: limits, closed standard descriptors, forks themselves.
template <typename Work>
int exit_code_of_fork(Work work) {
  return exit_code_of(start_fork(std::move(work)));
}

/// Forks from inside a callback, and sees how the run that was on the stack goes on in the child.
class ForkInCallback {
 public:
  /// How the run ended in the child. To each is added what `check` gave.
  static constexpr int threw_logic_error = 32;
  static constexpr int returned = 64;
  static constexpr int threw_else = 96;

  ForkInCallback() = default;
  ForkInCallback(const ForkInCallback&) = delete;
  ForkInCallback& operator=(const ForkInCallback&) = delete;

  /// True in the child. Forks once: later calls do nothing and are false.
  bool fork() {
    if (pid_ >= 0) return false;
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ == 0) ::alarm(longest_child);
    return pid_ == 0;
  }
  bool is_child() const { return pid_ == 0; }

  /// Calls `run`, which is to come to `fork`. The child ends there with a code from above and what
  /// `check` says, from 0 (all is well) to 31; the parent gets that code, or what `run` throws.
  template <typename Run, typename Check>
  int child_code(Run run, Check check) {
    int code = returned;
    try {
      run();
    } catch (const std::logic_error&) {
      if (!is_child()) throw;
      code = threw_logic_error;
    } catch (...) {
      if (!is_child()) throw;
      code = threw_else;
    }
    if (is_child()) ::_exit(code + check());
    if (pid_ < 0) throw std::runtime_error("nobody forked");
    return exit_code_of(pid_);
  }

 private:
  pid_t pid_ = -1;
};
