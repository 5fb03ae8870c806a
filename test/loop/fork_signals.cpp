// SPDX-License-Identifier: MIT
// Signals that a loop watches, in a forked child: as if it never had.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <memory>

#include "pawl/loop/event_loop.hpp"
#include "support/forked.hpp"

using pawl::Duration;
using pawl::EventLoop;

namespace {

int handled = 0;
void on_foreign_signal(int) { ++handled; }

/// Sets a disposition until the end of the scope.
class Disposition {
 public:
  Disposition(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_NOCLDSTOP;  // to be known again by
    ::sigaction(signal, &action, &old_);
  }
  ~Disposition() { ::sigaction(signal_, &old_, nullptr); }
  Disposition(const Disposition&) = delete;
  Disposition& operator=(const Disposition&) = delete;

 private:
  int signal_;
  struct sigaction old_ {};
};

struct sigaction disposition_of(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action;
}

/// The parent's loop still hears of the signal.
void check_that_it_hears(EventLoop& loop, int signal, const int& calls) {
  const int before = calls;
  ::raise(signal);
  loop.run_once(Duration::zero());
  CHECK(calls == before + 1);
}

/// As fork(), but nobody is told: neither the C library's handlers nor ours.
pid_t fork_unheard() {
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
  return ::_Fork();
#endif
#endif
  return ::fork();
}

template <typename Work>
int exit_code_of_unheard_fork(Work work) {
  const pid_t pid = fork_unheard();
  if (pid == 0) {
    ::alarm(longest_child);
    ::_exit(work());
  }
  return exit_code_of(pid);
}

}  // namespace

TEST_CASE("SIGTERM ends a child of a process whose loop watches it") {
  const Disposition by_default(SIGTERM, SIG_DFL);  // Catch has one of its own
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGTERM, [&] { ++calls; });
  SECTION("that raises it itself") {
    CHECK(exit_code_of_fork([] { return ::raise(SIGTERM); }) == 128 + SIGTERM);
  }
  SECTION("that gets it from outside") {
    const pid_t pid = start_fork([] {
      for (;;) ::pause();
      return 0;
    });
    ::kill(pid, SIGTERM);
    CHECK(exit_code_of(pid) == 128 + SIGTERM);
  }
  SECTION("that was forked from a callback") {
    ForkInCallback fork;
    loop.call_soon([&] {
      if (fork.fork()) ::raise(SIGTERM);
      loop.stop();
    });
    CHECK(fork.child_code([&] { loop.run(); }, [] { return 0; }) == 128 + SIGTERM);
  }
  SECTION("of whose fork nobody was told") {
    CHECK(exit_code_of_unheard_fork([] { return ::raise(SIGTERM); }) == 128 + SIGTERM);
  }
  check_that_it_hears(loop, SIGTERM, calls);
}

TEST_CASE("A watched signal that was ignored is ignored in a child") {
  const Disposition ignored(SIGUSR1, SIG_IGN);
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  CHECK(exit_code_of_fork([] { return ::raise(SIGUSR1); }) == 0);
  CHECK(exit_code_of_unheard_fork([] { return ::raise(SIGUSR1); }) == 0);
  // Also for the program that a child becomes: exec resets what is handled, not what is ignored.
  CHECK(exit_code_of_fork([] {
          ::execl("/bin/sh", "sh", "-c", "kill -USR1 $$; exit 3", nullptr);
          return 4;
        }) == 3);
  check_that_it_hears(loop, SIGUSR1, calls);
}

TEST_CASE("A watched signal goes to the program's own handler in a child") {
  const Disposition foreign(SIGUSR1, on_foreign_signal);
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  const auto raise_twice = [] {
    handled = 0;
    ::raise(SIGUSR1);
    ::raise(SIGUSR1);
    return handled == 2 ? 0 : 1;
  };
  CHECK(exit_code_of_fork(raise_twice) == 0);
  CHECK(exit_code_of_unheard_fork(raise_twice) == 0);
  check_that_it_hears(loop, SIGUSR1, calls);
}

TEST_CASE("A child sees the dispositions that there were before the loop") {
  const Disposition foreign(SIGUSR1, on_foreign_signal);
  const struct sigaction before = disposition_of(SIGUSR1);
  EventLoop loop;
  EventLoop other;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  other.add_signal_handler(SIGUSR1, [] {});
  loop.add_signal_handler(SIGUSR2, [] {});
  const int code = exit_code_of_fork([&] {
    const struct sigaction now = disposition_of(SIGUSR1);
    if (now.sa_handler != before.sa_handler || now.sa_flags != before.sa_flags) return 1;
    return disposition_of(SIGUSR2).sa_handler == SIG_DFL ? 0 : 2;
  });
  CHECK(code == 0);
  check_that_it_hears(loop, SIGUSR1, calls);
}

TEST_CASE("A handler that a child sets itself is left alone by the loops that it destroys") {
  auto loop = std::make_unique<EventLoop>();
  int calls = 0;
  loop->add_signal_handler(SIGUSR1, [&] { ++calls; });
  const int code = exit_code_of_fork([&] {
    struct sigaction action {};
    action.sa_handler = on_foreign_signal;
    ::sigaction(SIGUSR1, &action, nullptr);
    handled = 0;
    if (!loop->remove_signal_handler(SIGUSR1)) return 1;
    loop.reset();
    ::raise(SIGUSR1);
    return handled == 1 ? 0 : 2;
  });
  CHECK(code == 0);
  check_that_it_hears(*loop, SIGUSR1, calls);
}

TEST_CASE("A child may watch the same signal with a loop of its own") {
  auto loop = std::make_unique<EventLoop>();
  int calls = 0;
  loop->add_signal_handler(SIGUSR1, [&] { ++calls; });
  const auto watch_it = [&] {
    EventLoop own;
    int own_calls = 0;
    if (own.add_signal_handler(SIGUSR1, [&] { ++own_calls; })) return 1;
    ::raise(SIGUSR1);
    own.run_once(Duration::zero());
    if (own_calls != 1) return 2;
    loop.reset();  // which mustn't take the own one's away
    ::raise(SIGUSR1);
    own.run_once(Duration::zero());
    if (own_calls != 2) return 3;
    if (!own.remove_signal_handler(SIGUSR1)) return 4;
    return ::raise(SIGUSR1);  // ends it
  };
  CHECK(exit_code_of_fork(watch_it) == 128 + SIGUSR1);
  CHECK(exit_code_of_unheard_fork(watch_it) == 128 + SIGUSR1);
  check_that_it_hears(*loop, SIGUSR1, calls);
}

TEST_CASE("A child can't watch a signal with its parent's loop") {
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  const int code = exit_code_of_fork([&] {
    if (loop.add_signal_handler(SIGUSR2, [] {}) != pawl::Errc::used_after_fork) return 1;
    return loop.add_signal_handler(SIGUSR1, [] {}) == pawl::Errc::used_after_fork ? 0 : 2;
  });
  CHECK(code == 0);
  check_that_it_hears(loop, SIGUSR1, calls);
}

TEST_CASE("A grandchild is no more touched by its grandparent's watch than a child") {
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  const int code = exit_code_of_fork(
      [] { return exit_code_of_fork([] { return ::raise(SIGUSR1); }) == 128 + SIGUSR1 ? 0 : 1; });
  CHECK(code == 0);
  check_that_it_hears(loop, SIGUSR1, calls);
}

TEST_CASE("A signal to a child that shares its parent's memory leaves the parent's watch alone") {
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  const pid_t pid = ::vfork();
  if (pid == 0) {
    ::kill(::getpid(), SIGUSR1);
    ::_exit(0);
  }
  CHECK(exit_code_of(pid) == 128 + SIGUSR1);
  loop.run_once(Duration::zero());
  CHECK(calls == 0);
  check_that_it_hears(loop, SIGUSR1, calls);
}
