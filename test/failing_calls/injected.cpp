// SPDX-License-Identifier: MIT
// System calls that don't go through `System`, the selectors' above all, fail in a program of
// examples/ by strace(1): it does what it is for, or says in a line why it can't.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "examples/running_program.hpp"
#include "failing_calls/ends.hpp"
#include "pawl/loop/event_loop.hpp"

namespace {

/// "epoll_ctl:error=ENOSPC:when=2+" made so in `program`, and in its threads and children.
std::vector<std::string> injected(const std::string& fault, std::vector<std::string> program) {
  const std::string call = fault.substr(0, fault.find(':'));
  std::vector<std::string> command{"env",
                                   "ASAN_OPTIONS=detect_leaks=0",
                                   "strace",
                                   "-f",
                                   "-qq",
                                   "-o",
                                   "/dev/null",
                                   "-e",
                                   "trace=" + call,
                                   "-e",
                                   "inject=" + fault};
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

bool can_inject(pawl::EventLoop& loop) {
  if (!has_program("strace", "strace")) return false;
  const Ended ended = run(loop, injected("chdir:error=EIO", {"true"}));
  if (ended.exit_code != 0) WARN("skipped: strace may trace nothing here");
  return ended.exit_code == 0;
}

/// True unless it is a call that the forced selector doesn't make.
bool is_made(const std::string& fault) {
  const char* variable = std::getenv("PAWL_SELECTOR");
  const std::string selector = variable == nullptr ? "epoll" : variable;
  const bool is_epoll = fault.compare(0, 5, "epoll") == 0;
  const bool is_poll = fault.find("poll:") < 2;
  const bool is_select = fault.find("select") != std::string::npos;
  if (is_epoll) return selector == "epoll" || selector == "libev";
  return (!is_poll || selector == "poll") && (!is_select || selector == "select");
}

/// Each call of `calls` fails once, and from the third on for ever.
void each_fault(pawl::EventLoop& loop, const std::vector<std::string>& calls,
                const std::vector<std::string>& program, const std::string& right) {
  for (const std::string& call : calls) {
    if (!is_made(call)) continue;
    for (const std::string when : {"1", "3+"}) {
      // What is interrupted for ever never gets anywhere.
      if (when == "3+" && call.find("EINTR") != std::string::npos) continue;
      const std::string fault = call + ":when=" + when;
      INFO(fault << " in " << program[0]);
      const Ended ended = run(loop, injected(fault, program));
      INFO("gives " << ended.exit_code << "\n" << ended.output << ended.errors);
      const bool is_right = ended.exit_code == 0 && ended.output.find(right) != std::string::npos;
      const bool is_clear = ended.exit_code == 1 && !(ended.output + ended.errors).empty();
      CHECK((is_right || is_clear));
    }
  }
}

const std::vector<std::string> selector_calls{
    "epoll_create1:error=EMFILE",  "epoll_ctl:error=ENOSPC",    "epoll_ctl:error=ENOMEM",
    "epoll_wait:error=EINTR",      "epoll_wait:error=EINVAL",   "epoll_pwait:error=EINTR",
    "epoll_pwait2:error=ENOSYS",   "epoll_pwait2:error=EPERM",  "epoll_pwait2:error=EINTR",
    "poll:error=ENOMEM",           "poll:error=EINTR",          "ppoll:error=EINTR",
    "select:error=ENOMEM",         "pselect6:error=EINTR",      "pselect6:error=ENOMEM",
    "timerfd_create:error=EMFILE", "rt_sigaction:error=EINVAL", "madvise:error=EINVAL"};

}  // namespace

TEST_CASE("A conversation on a selector whose calls fail succeeds, or says why it can't") {
  pawl::EventLoop loop;
  if (!can_inject(loop)) return;
  pawl::Server server(loop, pawl::Endpoint::loopback(0), [](pawl::Connection& connection) {
    connection.on_data([](pawl::Connection& self, std::string_view bytes) { self.write(bytes); });
  });
  each_fault(loop, selector_calls,
             {example("echo_client"), server.local_endpoint().to_string(), "--count", "5"},
             "5 round trips");
}

TEST_CASE("A child on a selector whose calls fail is waited for, or it is said why not") {
  pawl::EventLoop loop;
  if (!can_inject(loop)) return;
  each_fault(loop,
             {"epoll_ctl:error=ENOSPC", "pidfd_open:error=ENOSYS", "pidfd_open:error=EPERM",
              "waitid:error=ECHILD", "eventfd2:error=EMFILE", "pipe2:error=EMFILE",
              "fcntl:error=EINVAL", "rt_sigaction:error=EINVAL"},
             {example("run_program"), "echo done"}, "[1] done");
}

TEST_CASE("A name is looked up, or it is said why not, where threads can't be had") {
  pawl::EventLoop loop;
  if (!can_inject(loop)) return;
  each_fault(loop, {"clone3:error=EAGAIN", "clone3:error=ENOMEM", "clone:error=EAGAIN"},
             {example("resolve"), "127.0.0.1", "localhost", "some.invalid"}, "127.0.0.1");
}
