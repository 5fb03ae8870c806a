// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

class ChildReaper;

/// Where one of a child's standard descriptors leads.
enum class Stdio : std::uint8_t { inherit, pipe, null };

struct ChildProcessOptions {
  std::vector<std::string> arguments;                   ///< [0] is the program, looked up in PATH
  std::optional<std::vector<std::string>> environment;  ///< "NAME=value"; none: this process's
  std::string directory;                                ///< empty: this process's
  Stdio standard_input = Stdio::inherit;
  Stdio standard_output = Stdio::inherit;
  Stdio standard_error = Stdio::inherit;
  Duration timeout{};              ///< after which it is killed; 0: never
  int timeout_signal = 9;          ///< SIGKILL
  bool new_process_group = false;  ///< a kill then reaches its children too
};

/// How a child ended: with an exit code, or by a signal.
struct ChildExit {
  int exit_code = 0;       ///< valid when `signal` is 0
  int signal = 0;          ///< 0: it ended by itself
  bool timed_out = false;  ///< killed because `timeout` was over

  /// True exactly when it ended by itself with exit code 0.
  bool ok() const { return signal == 0 && exit_code == 0; }
  /// "exit code 1", "killed by signal 9", "timed out, killed by signal 9"
  PAWL_API std::string to_string() const;
};

/// A program that runs beside this one; its end is a callback.
///
/// Owns:     this side's ends of the pipes, non-blocking, until they are taken. Not the child: to
///           destroy this lets the child go on; the loop still reaps it.
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    `on_exit` exactly once, from the loop, unless this is destroyed first. Output that the
///           child wrote before may still be in the pipe then: read it to its end.
/// Fails:    the constructor throws `std::system_error`, for a program that can't be found too.
///           No SIGCHLD handler is used and no other child is reaped: a process descriptor
///           (pidfd_open(2), Linux 5.3) tells of the end, or a timer where there is none.
class PAWL_API ChildProcess {
 public:
  using ExitCallback = Function<void(ChildProcess&, const ChildExit&)>;

  ChildProcess(EventLoop& loop, ChildProcessOptions options, ExitCallback on_exit,
               Place place = Place::here());
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  int pid() const { return pid_; }
  /// True exactly until the child was reaped.
  bool is_running() const { return reaper_ != nullptr; }
  /// Sends a signal. Fails with `std::errc::no_such_process` when it has ended.
  std::error_code kill(int signal);

  /// The pipes that were asked for; empty ones otherwise. Take them with `std::move`. Dropping the
  /// input is how the child sees the end of it. Writing to the input of a child that is gone raises
  /// SIGPIPE as with any pipe (write(2)); the library leaves that signal as it found it.
  UniqueFd& standard_input() { return standard_input_; }
  UniqueFd& standard_output() { return standard_output_; }
  UniqueFd& standard_error() { return standard_error_; }

 private:
  void start(const ChildProcessOptions& options);
  void on_end(int exit_code, int signal);

  EventLoop& loop_;
  ExitCallback on_exit_;
  bool is_group_;
  bool timed_out_ = false;
  int pid_ = -1;
  UniqueFd standard_input_;
  UniqueFd standard_output_;
  UniqueFd standard_error_;
  std::unique_ptr<ChildReaper> reaper_;
  ScopedHandle timeout_;
};

}  // namespace pawl
