// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
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
struct ChildStatus;

/// Where one of a child's standard descriptors leads.
enum class Stdio : std::uint8_t { inherit, pipe, null };

struct ChildProcessOptions {
  /// [0] is the program. Without a slash in it, it is looked up in the PATH of the environment that
  /// the child gets (in /bin and /usr/bin when that has none).
  std::vector<std::string> arguments;
  std::optional<std::vector<std::string>> environment;  ///< "NAME=value"; none: this process's
  std::string directory;                                ///< empty: this process's
  Stdio standard_input = Stdio::inherit;
  Stdio standard_output = Stdio::inherit;
  Stdio standard_error = Stdio::inherit;
  Duration timeout{};              ///< after which it is killed; 0: never
  int timeout_signal = 9;          ///< SIGKILL
  bool new_process_group = false;  ///< `kill` and `timeout` then reach all that it starts, too
};

/// How a child ended: with an exit code, by a signal, or nobody knows.
struct ChildExit {
  int exit_code = 0;       ///< valid when `signal` is 0; -1 when nobody knows
  int signal = 0;          ///< 0: it ended by itself
  bool timed_out = false;  ///< `timeout` was over before its end, whatever that was then
  /// Why nobody knows: `std::errc::no_child_process` when somebody else took its status, a
  /// waitpid(-1) elsewhere in the program or the kernel itself where SIGCHLD is ignored.
  std::error_code error;

  /// True exactly when it is known to have ended by itself, in time, with exit code 0.
  bool ok() const { return !error && !timed_out && signal == 0 && exit_code == 0; }
  /// "exit code 1", "killed by signal 9", "timed out, killed by signal 9",
  /// "ended in an unknown way: No child processes"
  PAWL_API std::string to_string() const;
};

/// A program that runs beside this one; its end is a callback.
///
/// The child begins with no signal blocked or ignored, whatever this process does about them, and
/// with no descriptor but the three standard ones and those that aren't close-on-exec. With a
/// process group of its own, `kill` and `timeout` reach what it has started as long as any of it
/// lives, after the end of the child itself too; `run()` then waits until `timeout` is over or all
/// have gone.
///
/// Owns:     this side's ends of the pipes, non-blocking, until they are taken. Not the child: to
///           destroy this lets the child go on, and neither `timeout` nor anybody else kills it;
///           the loop still reaps it, and doesn't wait for that. When the loop goes, what has ended
///           by then is reaped; a child that still runs is left to the program, as a zombie at its
///           end until waitpid(2) is called for it or the program ends.
/// Fork:     dead in a process that was forked off the loop's: it kills nobody there, and a new one
///           is refused with `Errc::used_after_fork`.
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    `on_exit` exactly once, from the loop, unless this is destroyed first. Output that the
///           child wrote before may still be in the pipe then: read it to its end.
/// Fails:    the constructor throws `std::system_error`, and no child is left: for a program or a
///           directory that can't be found (it says which), and with `std::errc::invalid_argument`
///           for no program, a NUL in a word, or a `timeout_signal` that is none. No SIGCHLD
///           handler is used and no other child is reaped: a process descriptor (pidfd_open(2),
///           Linux 5.3) tells of the end; where there is none, the child is looked at again and
///           again, up to twenty times a second.
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
  /// Sends a signal, to the whole group where it has one. Fails with
  /// `std::errc::no_such_process` when it has ended, and all of the group has.
  std::error_code kill(int signal);

  /// The pipes that were asked for; empty ones otherwise. Take them with `std::move`. Dropping the
  /// input is how the child sees the end of it; but not while a process that was forked meanwhile
  /// has a copy: it must close that, exec (they are close-on-exec) or end. Writing to the input of
  /// a child that is gone raises SIGPIPE as with any pipe (write(2)); the library leaves that
  /// signal as it found it.
  UniqueFd& standard_input() { return standard_input_; }
  UniqueFd& standard_output() { return standard_output_; }
  UniqueFd& standard_error() { return standard_error_; }

 private:
  int start(const ChildProcessOptions& options);
  void on_end(const ChildStatus& status, std::error_code error);
  void on_timeout(int signal);
  bool has_group();
  void watch_group() noexcept;

  EventLoop& loop_;
  ExitCallback on_exit_;
  bool is_group_;  // true exactly when a kill is for a group that may have members
  bool timed_out_ = false;
  bool has_deadline_;  // true exactly while timeout_ is to come
  int pid_ = -1;
  UniqueFd standard_input_;
  UniqueFd standard_output_;
  UniqueFd standard_error_;
  std::unique_ptr<ChildReaper> reaper_;
  ScopedHandle timeout_;
  ScopedHandle group_watch_;
  Duration group_pause_{};
};

}  // namespace pawl
