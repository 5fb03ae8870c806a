// SPDX-License-Identifier: MIT
#include "pawl/loop/child_process.hpp"

#include <cerrno>
#include <utility>

#include "loop/child_reaper.hpp"
#include "loop/loop_parts.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

/// What one standard descriptor needs: our end, and the end that the child gets.
struct Ends {
  UniqueFd ours;
  UniqueFd theirs;
};

[[noreturn]] void throw_error(int error, const ChildProcessOptions& options, const char* what) {
  const std::string program = options.arguments.empty() ? "" : options.arguments[0];
  throw std::system_error(error, std::system_category(),
                          "ChildProcess \"" + program + "\": " + what);
}

Ends open_ends(System& system, Stdio stdio, bool child_reads, const ChildProcessOptions& options) {
  Ends ends;
  if (stdio == Stdio::null) {
    const SystemResult opened = system.open_null();
    if (!opened.ok()) throw_error(opened.error, options, "/dev/null");
    ends.theirs = UniqueFd(opened.fd());
  } else if (stdio == Stdio::pipe) {
    int fds[2];
    const SystemResult made = system.pipe(fds);
    if (!made.ok()) throw_error(made.error, options, "pipe");
    ends.ours = UniqueFd(fds[child_reads ? 1 : 0]);
    ends.theirs = UniqueFd(fds[child_reads ? 0 : 1]);
    system.set_non_blocking(ends.theirs.get(), false);  // what programs expect
  }
  return ends;
}

}  // namespace

std::string ChildExit::to_string() const {
  if (signal == 0) return "exit code " + std::to_string(exit_code);
  return (timed_out ? "timed out, killed by signal " : "killed by signal ") +
         std::to_string(signal);
}

ChildProcess::ChildProcess(EventLoop& loop, ChildProcessOptions options, ExitCallback on_exit,
                           Place place)
    : loop_(loop), on_exit_(std::move(on_exit)), is_group_(options.new_process_group) {
  start(options);
  reaper_ = std::make_unique<ChildReaper>(
      loop, pid_, [this](const ChildStatus& status) { on_end(status.exit_code, status.signal); },
      place);
  if (options.timeout <= Duration::zero()) return;
  timeout_ = loop.call_later(
      options.timeout,
      [this, signal = options.timeout_signal] {
        timed_out_ = true;
        kill(signal);
      },
      place);
}

void ChildProcess::start(const ChildProcessOptions& options) {
  System& system = loop_.system();
  Ends input = open_ends(system, options.standard_input, true, options);
  Ends output = open_ends(system, options.standard_output, false, options);
  Ends error = open_ends(system, options.standard_error, false, options);
  SpawnRequest request;
  request.arguments = options.arguments;
  request.environment = options.environment;
  request.directory = options.directory;
  request.stdin_fd = input.theirs.get();
  request.stdout_fd = output.theirs.get();
  request.stderr_fd = error.theirs.get();
  request.new_process_group = options.new_process_group;
  const SystemResult spawned = system.spawn(request);
  if (!spawned.ok()) throw_error(spawned.error, options, "spawn");
  pid_ = static_cast<int>(spawned.value);
  standard_input_ = std::move(input.ours);
  standard_output_ = std::move(output.ours);
  standard_error_ = std::move(error.ours);
}

ChildProcess::~ChildProcess() {
  if (reaper_ != nullptr) loop_.parts().adopt_orphan(std::move(reaper_));
}

std::error_code ChildProcess::kill(int signal) {
  if (!is_running()) return system_error_code(ESRCH);
  return loop_.system().kill(is_group_ ? -pid_ : pid_, signal).code();
}

void ChildProcess::on_end(int exit_code, int signal) {
  const std::unique_ptr<ChildReaper> reaper = std::move(reaper_);
  timeout_.cancel();
  ExitCallback on_exit = std::move(on_exit_);
  if (on_exit) on_exit(*this, ChildExit{exit_code, signal, timed_out_});
}

}  // namespace pawl
