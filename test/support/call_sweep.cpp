// SPDX-License-Identifier: MIT
#include "support/call_sweep.hpp"

#include <netdb.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <set>
#include <system_error>

#include "support/open_fds.hpp"

using namespace std::chrono_literals;
using pawl::SystemResult;

namespace {

struct Row {
  Call call;
  const char* name;
  std::vector<int> errors;  // of its man page, the most telling ones first
};

// clang-format off
const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      {Call::random, "random", {ENOSYS, EIO}},
      {Call::socket, "socket", {EMFILE, EACCES, ENOBUFS, EAFNOSUPPORT, EINVAL, ENFILE, ENOMEM, EPROTONOSUPPORT, EPERM}},
      {Call::socketpair, "socketpair", {EMFILE, EAFNOSUPPORT, ENFILE, EOPNOTSUPP, EPROTONOSUPPORT}},
      {Call::bind, "bind", {EADDRINUSE, EACCES, EINVAL, EADDRNOTAVAIL, EBADF, ENOTSOCK, ENOENT, ENOMEM, ENOTDIR, EROFS}},
      {Call::listen, "listen", {EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP}},
      {Call::accept, "accept", {EMFILE, EINVAL, EPERM, ECONNABORTED, EBADF, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK, EOPNOTSUPP, EPROTO, ENETDOWN, EHOSTUNREACH, EAGAIN}},
      {Call::connect, "connect", {ECONNREFUSED, EAGAIN, EACCES, EPERM, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EALREADY, EBADF, EISCONN, ENETUNREACH, ENOTSOCK, EPROTOTYPE, ETIMEDOUT}},
      {Call::send, "send", {ENOBUFS, EPIPE, ECONNRESET, EACCES, EAGAIN, EALREADY, EBADF, EDESTADDRREQ, EINVAL, EISCONN, EMSGSIZE, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPERM}},
      {Call::sendmsg, "sendmsg", {ENOBUFS, EPIPE, ETOOMANYREFS, ECONNRESET, EACCES, EAGAIN, EBADF, EINVAL, EMSGSIZE, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPERM}},
      {Call::sendmmsg, "sendmmsg", {ENOBUFS, EPERM, ECONNREFUSED, EACCES, EAGAIN, EBADF, EINVAL, EMSGSIZE, ENOMEM, ENETUNREACH, ENOTSOCK, EOPNOTSUPP, ENOSYS}},
      {Call::sendfile, "sendfile", {EPIPE, EIO, ENOSYS, EAGAIN, EBADF, EINVAL, ENOMEM, EOVERFLOW, ESPIPE, ENOBUFS, ECONNRESET}},
      {Call::recv, "recv", {ECONNRESET, ENOMEM, EAGAIN, EBADF, ECONNREFUSED, EINVAL, ENOTCONN, ENOTSOCK, ETIMEDOUT}},
      {Call::recvmsg, "recvmsg", {ECONNRESET, ENOMEM, EAGAIN, EBADF, EINVAL, ENOTCONN, ENOTSOCK, EMFILE}},
      {Call::recvmmsg, "recvmmsg", {ECONNREFUSED, ENOMEM, EAGAIN, EBADF, EINVAL, ENOTSOCK, ENETDOWN, ENOSYS}},
      {Call::shutdown, "shutdown", {ENOTCONN, EBADF, EINVAL, ENOTSOCK, ENOBUFS}},
      {Call::getsockopt, "getsockopt", {EBADF, ENOPROTOOPT, ENOMEM, EINVAL, ENOTSOCK, EOPNOTSUPP}},
      {Call::setsockopt, "setsockopt", {ENOPROTOOPT, ENOMEM, EPERM, EBADF, EINVAL, ENOTSOCK, EDOM, ENOBUFS, EADDRINUSE}},
      {Call::getsockname, "getsockname", {ENOBUFS, EBADF, EINVAL, ENOTSOCK}},
      {Call::getpeername, "getpeername", {ENOTCONN, ENOBUFS, EBADF, EINVAL, ENOTSOCK}},
      {Call::unread_bytes, "ioctl(FIONREAD)", {EINVAL, EBADF, ENOTTY}},
      {Call::unacknowledged_bytes, "ioctl(SIOCOUTQ)", {EINVAL, EBADF, ENOTTY}},
      {Call::untransmitted_bytes, "ioctl(SIOCOUTQNSD)", {EINVAL, EBADF, ENOTTY}},
      {Call::getaddrinfo, "getaddrinfo", {EMFILE, ENOMEM, EAGAIN}},
      {Call::close, "close", {EIO, EBADF, EINTR, ENOSPC}},
      {Call::read, "read", {EIO, EBADF, EAGAIN, EINVAL, EISDIR}},
      {Call::write, "write", {EPIPE, EIO, ENOSPC, EAGAIN, EBADF, EINVAL}},
      {Call::pread, "pread", {EIO, EBADF, EINVAL, EOVERFLOW, ESPIPE, EISDIR}},
      {Call::pipe, "pipe", {EMFILE, ENFILE}},
      {Call::set_non_blocking, "fcntl(O_NONBLOCK)", {EPERM, EBADF, EINVAL}},
      {Call::set_close_on_exec, "fcntl(FD_CLOEXEC)", {EBADF, EINVAL}},
      {Call::is_non_blocking, "fcntl(F_GETFL)", {EBADF, EINVAL}},
      {Call::eventfd, "eventfd", {EMFILE, ENOMEM, EINVAL, ENFILE, ENODEV, ENOSYS}},
      {Call::open_null, "open(/dev/null)", {EMFILE, EACCES, ENOENT, ENFILE, ENOMEM}},
      {Call::inode, "fstat", {EBADF, ENOMEM, EOVERFLOW}},
      {Call::unlink, "unlink", {EACCES, ENOENT, EBUSY, EIO, EISDIR, EPERM, EROFS}},
      {Call::lock_directory, "flock", {EACCES, ETIMEDOUT, EMFILE, ENOENT, EINTR, EINVAL, ENOLCK, EBADF}},
      {Call::socket_inode, "stat", {ENOENT, EACCES, ELOOP, ENOMEM, ENOTDIR}},
      {Call::open_directory, "open(O_DIRECTORY)", {ENOENT, EACCES, EMFILE, ENOTDIR}},
      {Call::spawn, "posix_spawn", {EAGAIN, ENOENT, ENOMEM, E2BIG, EACCES, ENOEXEC, EPERM}},
      {Call::pidfd_open, "pidfd_open", {ENOSYS, EMFILE, EPERM, EINVAL, ENFILE, ENODEV, ENOMEM, ESRCH}},
      {Call::wait_child, "waitid", {ECHILD, EINVAL}},
      {Call::kill, "kill", {EPERM, ESRCH, EINVAL}},
  };
  return all;
}
// clang-format on

bool is_whole() {
  const char* wanted = std::getenv("PAWL_SWEEP");
  return wanted != nullptr && std::strcmp(wanted, "whole") == 0;
}

std::vector<int> chosen(const std::vector<int>& errors) {
  const std::size_t count = is_whole() ? errors.size() : std::min<std::size_t>(errors.size(), 3);
  return {errors.begin(), errors.begin() + static_cast<std::ptrdiff_t>(count)};
}

/// Which of so many calls are made to fail.
std::set<int> chosen_calls(int count) {
  std::set<int> calls;
  const int most = is_whole() ? 24 : 3;
  for (int i = 0; i < std::min(count, most - 1); ++i) calls.insert(i);
  calls.insert(count - 1);
  return calls;
}

/// Runs the scenario once. What was wrong, a line each.
std::vector<std::string> run(const std::function<void(CallTrial&)>& scenario, const Row* row,
                             int error, int times, int skip, std::map<Call, int>* counts) {
  std::vector<std::string> problems;
  const auto before = open_fds();
  {
    CallTrial trial;
    if (row != nullptr) trial.system().fail(row->call, error, times, skip);
    try {
      scenario(trial);
      trial.settle();
      const std::string left = trial.loop().why_alive();
      trial.expect(left.empty(), "left behind: " + left.substr(0, left.find('\n')));
    } catch (const std::system_error&) {  // a clear error
    } catch (const std::exception& thrown) {
      trial.problem(std::string("throws ") + thrown.what());
    }
    problems = trial.problems();
    if (counts != nullptr) {
      for (const Row& each : rows()) (*counts)[each.call] = trial.system().count(each.call);
    }
  }
  for (const auto& [fd, file] : open_fds()) {
    const auto was = before.find(fd);
    if (was == before.end()) problems.push_back("leaks fd " + std::to_string(fd) + " " + file);
  }
  return problems;
}

}  // namespace

SystemResult CallSweepSystem::close(int fd) {
  const SystemResult result = FaultySystem::close(fd);
  if (!result.ok()) System::close(fd);
  return result;
}

SystemResult CallSweepSystem::accept(int fd, sockaddr* address, unsigned* address_bytes) {
  const SystemResult result = FaultySystem::accept(fd, address, address_bytes);
  if (result.error == EBADF || result.error == ENOTSOCK) System::close(fd);
  return result;
}

SystemResult CallSweepSystem::getaddrinfo(const char* node, const char* service,
                                          const addrinfo* hints, addrinfo** results) {
  const SystemResult result = FaultySystem::getaddrinfo(node, service, hints, results);
  return result.ok() ? result : SystemResult{EAI_SYSTEM, result.error};
}

pawl::EventLoop& CallTrial::loop() {
  if (loop_ == nullptr) {
    pawl::LoopOptions options;
    options.system = &system_;
    loop_ = std::make_unique<pawl::EventLoop>(std::move(options));
  }
  return *loop_;
}

pawl::EventLoop& CallTrial::peers() {
  if (peers_ == nullptr) peers_ = std::make_unique<pawl::EventLoop>();
  return *peers_;
}

bool CallTrial::pass() {
  const int calls = system_.total();
  loop().run_once(1ms);
  const bool was_busy = system_.total() != calls;
  if (!was_busy) system_.advance(20ms);
  if (peers_ != nullptr) peers_->run_once(pawl::Duration::zero());
  return was_busy;
}

std::string CallTrial::counts() const {
  std::string text;
  for (const Row& row : rows()) {
    const int count = system_.count(row.call);
    if (count > 50) text += std::string(" ") + row.name + " " + std::to_string(count) + "x";
  }
  return text;
}

void CallTrial::run_until(const std::function<bool()>& is_over) {
  constexpr int most_busy = 3000;
  constexpr int most_idle = 4000;  // of 20 ms each: longer than every timeout
  int busy = 0;
  int idle = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (!is_over()) {
    pass() ? ++busy : ++idle;
    if (busy > most_busy) return problem("spins:" + counts());
    if (idle > most_idle) {
      const auto took = std::chrono::steady_clock::now() - begin;
      return problem(took < idle * 300us ? "spins without a system call" : "never comes to an end");
    }
  }
}

void CallTrial::settle() {
  for (int i = 0; i < 5; ++i) pass();
}

void each_call_fails(const std::function<void(CallTrial&)>& scenario) {
  std::map<Call, int> counts;
  const auto first = run(scenario, nullptr, 0, 0, 0, nullptr);  // what is made once and kept
  const auto problems = run(scenario, nullptr, 0, 0, 0, &counts);
  for (const std::string& problem : problems) FAIL_CHECK("without a fault: " << problem);
  if (!problems.empty()) return;
  int runs = 0;
  for (const Row& row : rows()) {
    if (counts[row.call] == 0) continue;
    for (const int error : chosen(row.errors)) {
      for (const int skip : chosen_calls(counts[row.call])) {
        for (const int times : {1, FaultySystem::forever}) {
          // A kernel that says so for ever doesn't call the descriptor ready again and again.
          if (error == EAGAIN && times != 1) continue;
          ++runs;
          for (const std::string& problem : run(scenario, &row, error, times, skip, nullptr)) {
            FAIL_CHECK(row.name << " number " << skip + 1 << (times == 1 ? "" : " and all after it")
                                << " fails (" << std::strerror(error) << "): " << problem);
          }
        }
      }
    }
  }
  CHECK(runs > 0);
}
