// SPDX-License-Identifier: MIT
#include "pawl/loop/child_process.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <new>
#include <system_error>
#include <utility>

#include "loop/child_reaper.hpp"
#include "loop/loop_parts.hpp"
#include "pawl/core/error.hpp"
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
    const SystemResult set = system.set_non_blocking(ends.theirs.get(), false);  // as is expected
    if (!set.ok()) throw_error(set.error, options, "pipe");
  }
  return ends;
}

bool has_nul(const std::string& word) { return word.find('\0') != std::string::npos; }

bool have_nul(const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(), has_nul);
}

/// What the kernel would cut, or never do.
void refuse_nonsense(const ChildProcessOptions& options) {
  if (have_nul(options.arguments)) throw_error(EINVAL, options, "a NUL in an argument");
  if (options.environment && have_nul(*options.environment)) {
    throw_error(EINVAL, options, "a NUL in the environment");
  }
  if (has_nul(options.directory)) throw_error(EINVAL, options, "a NUL in the directory's name");
  const bool is_signal = options.timeout_signal > 0 && options.timeout_signal < NSIG;
  if (options.timeout > Duration::zero() && !is_signal) {
    throw_error(EINVAL, options, "timeout_signal is none");
  }
}

UniqueFd open_directory(System& system, const ChildProcessOptions& options) {
  if (options.directory.empty()) return UniqueFd();
  const SystemResult opened = system.open_directory(options.directory.c_str());
  if (opened.ok()) return UniqueFd(opened.fd());
  throw_error(opened.error, options, ("directory \"" + options.directory + "\"").c_str());
}

constexpr Duration first_pause = std::chrono::milliseconds(1);
constexpr Duration longest_pause = std::chrono::seconds(1);

}  // namespace

std::string ChildExit::to_string() const {
  std::string text = timed_out ? "timed out, " : "";
  if (error) return text + "ended in an unknown way: " + error.message();
  if (signal != 0) return text + "killed by signal " + std::to_string(signal);
  return text + "exit code " + std::to_string(exit_code);
}

// What takes memory comes before the child: what was started is never lost.
ChildProcess::ChildProcess(EventLoop& loop, ChildProcessOptions options, ExitCallback on_exit,
                           Place place)
    : loop_(loop),
      on_exit_(std::move(on_exit)),
      is_group_(options.new_process_group),
      has_deadline_(options.timeout > Duration::zero()) {
  refuse_nonsense(options);
  if (loop.parts().is_forked_child())
    throw std::system_error(Errc::used_after_fork, "ChildProcess");
  reaper_ = std::make_unique<ChildReaper>(
      loop, [this](const ChildStatus& status, std::error_code error) { on_end(status, error); },
      place);
  if (has_deadline_) {
    timeout_ = loop.call_later(
        options.timeout, [this, signal = options.timeout_signal] { on_timeout(signal); }, place);
  }
  pid_ = start(options);
  reaper_->watch(pid_);
}

int ChildProcess::start(const ChildProcessOptions& options) {
  System& system = loop_.system();
  Ends input = open_ends(system, options.standard_input, true, options);
  Ends output = open_ends(system, options.standard_output, false, options);
  Ends error = open_ends(system, options.standard_error, false, options);
  const UniqueFd directory = open_directory(system, options);
  SpawnRequest request;
  request.arguments = options.arguments;
  request.environment = options.environment;
  request.directory_fd = directory.get();
  request.stdin_fd = input.theirs.get();
  request.stdout_fd = output.theirs.get();
  request.stderr_fd = error.theirs.get();
  request.new_process_group = options.new_process_group;
  const SystemResult spawned = system.spawn(request);
  if (!spawned.ok()) throw_error(spawned.error, options, "spawn");
  standard_input_ = std::move(input.ours);
  standard_output_ = std::move(output.ours);
  standard_error_ = std::move(error.ours);
  return static_cast<int>(spawned.value);
}

ChildProcess::~ChildProcess() {
  if (reaper_ == nullptr || pid_ < 0) return;
  reaper_.release()->orphan();  // the loop has it now
}

std::error_code ChildProcess::kill(int signal) {
  if (loop_.parts().is_forked_child()) return Errc::used_after_fork;
  if (!is_running() && !has_group()) return system_error_code(ESRCH);
  return loop_.system().kill(is_group_ ? -pid_ : pid_, signal).code();
}

/// After the child's own end. The kernel gives a group's number to nobody else while it has
/// members.
bool ChildProcess::has_group() {
  if (is_group_ && loop_.system().kill(-pid_, 0).error == ESRCH) is_group_ = false;
  return is_group_;
}

void ChildProcess::on_timeout(int signal) {
  has_deadline_ = false;
  group_watch_.cancel();
  if (reaper_ == nullptr) {
    kill(signal);
    return;
  }
  if (reaper_->look()) return;  // it had ended before, and this may be gone
  timed_out_ = true;
  kill(signal);
}

void ChildProcess::on_end(const ChildStatus& status, std::error_code error) {
  const std::unique_ptr<ChildReaper> reaper = std::move(reaper_);
  if (!has_group()) {
    timeout_.cancel();
  } else if (has_deadline_) {
    group_pause_ = first_pause;
    watch_group();
  }
  ExitCallback on_exit = std::move(on_exit_);
  const int exit_code = error ? -1 : status.exit_code;
  if (on_exit) on_exit(*this, ChildExit{exit_code, status.signal, timed_out_, error});
}

/// Lets the loop go before the timeout when all of the group have gone. Nothing tells of that.
void ChildProcess::watch_group() noexcept {
  try {
    group_watch_ = loop_.call_later(group_pause_, [this] {
      if (!has_group()) return timeout_.cancel();
      group_pause_ = std::min(group_pause_ * 2, longest_pause);
      watch_group();
    });
  } catch (const std::bad_alloc&) {  // then the loop waits until the timeout
  }
}

}  // namespace pawl
