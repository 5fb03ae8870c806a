// SPDX-License-Identifier: MIT
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

/// Runs `work` in a forked child, which ends with what it returns as its exit code; 128 + the
/// signal when one killed it, 255 for an exception. For what would disturb this process: limits,
/// closed standard descriptors, forks themselves. No Catch assertions inside.
template <typename Work>
int exit_code_of_fork(Work work) {
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid == 0) {
    int code = 255;
    try {
      code = work();
    } catch (...) {
    }
    ::_exit(code);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
