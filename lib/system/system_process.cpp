// SPDX-License-Identifier: MIT
// The part of `System` that starts, signals and reaps child processes.
//
// Traps: a child inherits blocked and ignored signals, which a library user never asked for; a
// descriptor that is already its own target keeps close-on-exec across dup2; one that is another
// one's target is overwritten before its turn comes; waitpid(-1) would reap children of others;
// posix_spawnp looks in this process's PATH, whatever environment the child gets; a directory that
// is missing and a program that is have the same errno, which is why the directory comes open.
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string_view>

#include "pawl/core/unique_fd.hpp"
#include "pawl/system/system.hpp"

extern char** environ;

namespace pawl {
namespace {

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// What posix_spawn is to be told, freed at the end of the scope.
struct SpawnSetup {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  UniqueFd copies[3];

  SpawnSetup() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  int connect(int from, int to) {
    if (from < 0) return 0;
    if (from <= STDERR_FILENO && from != to) {
      // Its number may be overwritten first; the copy's can't.
      copies[to].reset(::fcntl(from, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
      if (!copies[to]) return errno;
      from = copies[to].get();
    }
    // glibc's spawn clears close-on-exec where `from` and `to` are the same (since 2.29).
    return ::posix_spawn_file_actions_adddup2(&actions, from, to);
  }

  int start_with_default_signals(bool new_process_group) {
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (new_process_group) flags = static_cast<short>(flags | POSIX_SPAWN_SETPGROUP);
    return ::posix_spawnattr_setflags(&attributes, flags);
  }
};

bool has_nul(const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [](const std::string& word) { return word.find('\0') != std::string::npos; });
}

/// The PATH of an environment, or where execvp(3) looks without one.
std::string_view path_in(const std::vector<std::string>& environment) {
  constexpr std::string_view name = "PATH=";
  for (const std::string_view entry : environment) {
    if (entry.substr(0, name.size()) == name) return entry.substr(name.size());
  }
  return "/bin:/usr/bin";
}

/// Runs one file; looked up in this process's PATH when it has no slash and `is_looked_up`.
int spawn_file(pid_t& pid, const char* file, bool is_looked_up, const SpawnSetup& setup,
               const SpawnRequest& request) {
  std::vector<char*> arguments = pointers_to(request.arguments);
  std::vector<char*> environment;
  if (request.environment) environment = pointers_to(*request.environment);
  const auto spawn = is_looked_up ? ::posix_spawnp : ::posix_spawn;
  return spawn(&pid, file, &setup.actions, &setup.attributes, arguments.data(),
               request.environment ? environment.data() : environ);
}

/// Tries each folder of the child's own PATH, as execvp(3) would: what may not be run is
/// remembered, and what isn't there (a relative folder is the child's, so only the child can tell)
/// is passed by.
int spawn_from_path(pid_t& pid, const SpawnSetup& setup, const SpawnRequest& request) {
  std::string_view folders = path_in(*request.environment);
  int error = ENOENT;
  for (bool is_last = false; !is_last;) {
    const std::size_t end = folders.find(':');
    is_last = end == std::string_view::npos;
    std::string file(folders.substr(0, end));
    if (!file.empty()) file += '/';
    file += request.arguments[0];
    if (!is_last) folders.remove_prefix(end + 1);
    if (file[0] == '/' && ::access(file.c_str(), F_OK) != 0 && errno != EACCES) continue;
    if (file.find('/') == std::string::npos) file.insert(0, "./");
    const int tried = spawn_file(pid, file.c_str(), false, setup, request);
    if (tried == EACCES) error = EACCES;
    if (tried != ENOENT && tried != ENOTDIR && tried != EACCES) return tried;
  }
  return error;
}

}  // namespace

SystemResult System::open_directory(const char* path) {
  UniqueFd fd(::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return SystemResult{-1, errno};
  // Looking up "." takes the right to enter, as fchdir(2) will.
  if (::faccessat(fd.get(), ".", F_OK, AT_EACCESS) != 0) return SystemResult{-1, errno};
  return SystemResult{fd.release(), 0};
}

SystemResult System::spawn(const SpawnRequest& request) {
  const bool is_cut =
      has_nul(request.arguments) || (request.environment && has_nul(*request.environment));
  if (request.arguments.empty() || is_cut) return SystemResult{-1, EINVAL};
  SpawnSetup setup;
  int error = setup.start_with_default_signals(request.new_process_group);
  if (error == 0 && request.directory_fd >= 0) {  // first: its number may be one of the next
    error = ::posix_spawn_file_actions_addfchdir_np(&setup.actions, request.directory_fd);
  }
  if (error == 0) error = setup.connect(request.stdin_fd, STDIN_FILENO);
  if (error == 0) error = setup.connect(request.stdout_fd, STDOUT_FILENO);
  if (error == 0) error = setup.connect(request.stderr_fd, STDERR_FILENO);
  if (error != 0) return SystemResult{-1, error};

  const std::string& program = request.arguments[0];
  const bool is_name = !program.empty() && program.find('/') == std::string::npos;
  pid_t pid = -1;
  error = is_name && request.environment ? spawn_from_path(pid, setup, request)
                                         : spawn_file(pid, program.c_str(), true, setup, request);
  return error != 0 ? SystemResult{-1, error} : SystemResult{pid, 0};
}

SystemResult System::pidfd_open(int pid) {
  const long fd = ::syscall(SYS_pidfd_open, pid, 0);  // close-on-exec by itself (pidfd_open(2))
  return fd < 0 ? SystemResult{-1, errno} : SystemResult{fd, 0};
}

SystemResult System::wait_child(int pid, ChildStatus& status) {
  siginfo_t info{};
  int returned;
  do {
    returned = ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
  } while (returned < 0 && errno == EINTR);
  if (returned < 0) return SystemResult{-1, errno};
  status = ChildStatus{};
  if (info.si_pid == 0) return SystemResult{0, 0};
  status.has_ended = true;
  if (info.si_code == CLD_EXITED) {
    status.exit_code = info.si_status;
  } else {
    status.signal = info.si_status;
  }
  return SystemResult{pid, 0};
}

SystemResult System::kill(int pid, int signal) {
  return ::kill(pid, signal) < 0 ? SystemResult{-1, errno} : SystemResult{0, 0};
}

}  // namespace pawl
