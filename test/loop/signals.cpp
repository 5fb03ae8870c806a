// SPDX-License-Identifier: MIT
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "pawl/loop/event_loop.hpp"
#include "support/later.hpp"
#include "support/sanitizers.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;

namespace {

struct sigaction disposition_of(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action;
}

bool is_same(const struct sigaction& a, const struct sigaction& b) {
  return a.sa_handler == b.sa_handler && a.sa_flags == b.sa_flags;
}

/// Sets a handler of the test's own for a signal until the end of the scope.
class ForeignHandler {
 public:
  ForeignHandler(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | SA_NOCLDSTOP;  // to be known again by
    ::sigaction(signal, &action, &old_);
  }
  ~ForeignHandler() { ::sigaction(signal_, &old_, nullptr); }
  ForeignHandler(const ForeignHandler&) = delete;
  ForeignHandler& operator=(const ForeignHandler&) = delete;

 private:
  int signal_;
  struct sigaction old_ {};
};

std::atomic<int> foreign_calls{0};
void on_foreign_signal(int) { foreign_calls.fetch_add(1); }

}  // namespace

TEST_CASE("A signal is a callback on the loop's thread") {
  EventLoop loop;
  int calls = 0;
  REQUIRE_FALSE(loop.add_signal_handler(SIGUSR1, [&] {
    ++calls;
    CHECK(loop.is_running());
  }));
  ::raise(SIGUSR1);
  CHECK(calls == 0);
  loop.run_once(Duration::zero());
  CHECK(calls == 1);
  loop.run_once(Duration::zero());
  CHECK(calls == 1);
}

TEST_CASE("A signal ends the wait that the loop is in", "[threads]") {
  EventLoop loop;
  REQUIRE_FALSE(loop.add_signal_handler(SIGUSR1, [&] { loop.stop(); }));
  const Later later([] { ::kill(::getpid(), SIGUSR1); });
  loop.run();
  SUCCEED();
}

TEST_CASE("A signal that another thread takes reaches the loop", "[threads]") {
  EventLoop loop;
  REQUIRE_FALSE(loop.add_signal_handler(SIGUSR1, [&] { loop.stop(); }));
  std::thread thread([] { ::pthread_kill(::pthread_self(), SIGUSR1); });
  loop.run();
  thread.join();
  SUCCEED();
}

TEST_CASE("Each signal has its own callback") {
  EventLoop loop;
  std::string order;
  loop.add_signal_handler(SIGUSR2, [&] { order += '2'; });
  loop.add_signal_handler(SIGUSR1, [&] { order += '1'; });
  loop.add_signal_handler(SIGRTMIN, [&] { order += 'l'; });
  loop.add_signal_handler(SIGRTMAX, [&] { order += 'h'; });
  for (const int signal : {SIGRTMAX, SIGUSR2, SIGRTMIN, SIGUSR1}) ::raise(signal);
  loop.run_once(Duration::zero());
  CHECK(order.size() == 4);
  for (const char each : {'1', '2', 'l', 'h'}) CHECK(order.find(each) != std::string::npos);
}

TEST_CASE("A loop that watches a signal goes on until it doesn't") {
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] {
    ++calls;
    CHECK(loop.remove_signal_handler(SIGUSR1));
    CHECK_FALSE(loop.remove_signal_handler(SIGUSR1));
  });
  loop.call_later(1ms, [] { ::raise(SIGUSR1); });
  loop.run();
  CHECK(calls == 1);
}

TEST_CASE("A signal's callback may be replaced, by itself too") {
  EventLoop loop;
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  std::string order;
  loop.add_signal_handler(SIGUSR1, [&] { order += '-'; });
  loop.add_signal_handler(SIGUSR1, [&, token = std::move(token)] {
    order += 'a';
    loop.add_signal_handler(SIGUSR1, [&] { order += 'b'; });
    order += *token == 7 ? '7' : '?';
  });
  ::raise(SIGUSR1);
  loop.run_once(Duration::zero());
  CHECK(order == "a7");
  CHECK(watch.expired());
  ::raise(SIGUSR1);
  loop.run_once(Duration::zero());
  CHECK(order == "a7b");
}

TEST_CASE("No signal handler is left behind") {
  const ForeignHandler foreign(SIGUSR1, on_foreign_signal);
  const struct sigaction before[] = {disposition_of(SIGUSR1), disposition_of(SIGUSR2)};
  {
    EventLoop loop;
    EventLoop other;
    REQUIRE_FALSE(loop.add_signal_handler(SIGUSR1, [] {}));
    REQUIRE_FALSE(loop.add_signal_handler(SIGUSR2, [] {}));
    REQUIRE_FALSE(other.add_signal_handler(SIGUSR2, [] {}));
    CHECK_FALSE(is_same(disposition_of(SIGUSR1), before[0]));
    SECTION("removed one by one") {
      CHECK(loop.remove_signal_handler(SIGUSR1));
      CHECK(is_same(disposition_of(SIGUSR1), before[0]));
      CHECK(loop.remove_signal_handler(SIGUSR2));
      CHECK_FALSE(is_same(disposition_of(SIGUSR2), before[1]));
      CHECK(other.remove_signal_handler(SIGUSR2));
    }
    SECTION("removed with the loop") {}
  }
  CHECK(is_same(disposition_of(SIGUSR1), before[0]));
  CHECK(is_same(disposition_of(SIGUSR2), before[1]));
  const int calls = foreign_calls;
  ::raise(SIGUSR1);
  CHECK(foreign_calls == calls + 1);
}

TEST_CASE("A handler that somebody else set meanwhile stays") {
  EventLoop loop;
  loop.add_signal_handler(SIGUSR1, [] {});
  {
    const ForeignHandler foreign(SIGUSR1, on_foreign_signal);
    CHECK(loop.remove_signal_handler(SIGUSR1));
    CHECK(disposition_of(SIGUSR1).sa_handler == &on_foreign_signal);
  }
  ::signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("A signal leaves errno to whoever it interrupts") {
  struct Clobbering : pawl::System {
    pawl::SystemResult write(int fd, const void* data, std::size_t bytes) override {
      ++writes;
      const pawl::SystemResult result = System::write(fd, data, bytes);
      errno = EPIPE;
      return result;
    }
    int writes = 0;
  };
  Clobbering system;
  EventLoop loop(options_on(system));
  loop.add_signal_handler(SIGUSR1, [] {});
  errno = ENOTTY;
  ::raise(SIGUSR1);
  const int after = errno;
  CHECK(system.writes == 1);
  CHECK(after == ENOTTY);
}

TEST_CASE("A signal restarts the call that it interrupts, and no other comes meanwhile") {
  EventLoop loop;
  loop.add_signal_handler(SIGUSR1, [] {});
  const struct sigaction action = disposition_of(SIGUSR1);
  CHECK((action.sa_flags & SA_RESTART) != 0);
  CHECK(::sigismember(&action.sa_mask, SIGUSR2) == 1);
}

TEST_CASE("Signals that can't be caught are refused") {
  EventLoop loop;
  for (const int signal : {SIGKILL, SIGSTOP, 0, -1, 32, 33, 65, 1000}) {
    auto token = std::make_shared<int>(0);
    const std::weak_ptr<int> watch = token;
    INFO("signal " << signal);
    CHECK(loop.add_signal_handler(signal, [token = std::move(token)] {}) ==
          std::errc::invalid_argument);
    CHECK(watch.expired());
    CHECK(loop.add_signal_handler(signal, [] {}) == std::errc::invalid_argument);  // as before
    CHECK_FALSE(loop.remove_signal_handler(signal));
  }
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("Two loops in one thread hear of the same signal") {
  EventLoop first;
  EventLoop second;
  int calls[2] = {0, 0};
  first.add_signal_handler(SIGUSR1, [&] { ++calls[0]; });
  second.add_signal_handler(SIGUSR1, [&] { ++calls[1]; });
  ::raise(SIGUSR1);
  first.run_once(Duration::zero());
  second.run_once(Duration::zero());
  CHECK(calls[0] == 1);
  CHECK(calls[1] == 1);
  CHECK(first.remove_signal_handler(SIGUSR1));
  ::raise(SIGUSR1);
  first.run_once(Duration::zero());
  second.run_once(Duration::zero());
  CHECK(calls[0] == 1);
  CHECK(calls[1] == 2);
}

TEST_CASE("Two loops in two threads hear of the same signal", "[threads]") {
  std::promise<void> is_watching[2];
  std::atomic<int> calls[2] = {0, 0};
  const auto watch = [&](int index) {
    EventLoop loop;
    loop.add_signal_handler(SIGUSR1, [&, index] {
      calls[index].fetch_add(1);
      loop.remove_signal_handler(SIGUSR1);
    });
    is_watching[index].set_value();
    loop.run();
  };
  std::thread threads[] = {std::thread(watch, 0), std::thread(watch, 1)};
  for (std::promise<void>& each : is_watching) each.get_future().wait();
  ::kill(::getpid(), SIGUSR1);
  for (std::thread& thread : threads) thread.join();
  CHECK(calls[0] == 1);
  CHECK(calls[1] == 1);
}

TEST_CASE("Of 100,000 signals, a call comes after the last", "[threads]") {
  constexpr int total = has_thread_sanitizer ? 50'000 : 100'000;
  EventLoop loop;
  std::atomic<int> sent{0};
  int seen = 0;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] {
    ++calls;
    seen = sent.load();
    if (seen == total) loop.stop();
  });
  const auto send_all = [&] {
    for (int i = 0; i < total; ++i) {
      sent.fetch_add(1);
      ::kill(::getpid(), SIGUSR1);
    }
  };
  SECTION("sent by another thread") {
    std::thread thread(send_all);
    loop.run();
    thread.join();
  }
  SECTION("sent by a callback") {
    loop.call_soon(send_all);
    loop.run();
  }
  CHECK(seen == total);
  CHECK(calls >= 1);
}

TEST_CASE("Loops may come and go while signals rain", "[threads]") {
  const ForeignHandler foreign(SIGUSR1, on_foreign_signal);
  std::atomic<bool> is_over{false};
  std::thread thread([&] {
    while (!is_over) ::kill(::getpid(), SIGUSR1);
  });
  for (int i = 0; i < (has_thread_sanitizer ? 20 : 200); ++i) {
    EventLoop loop;
    EventLoop other;
    loop.add_signal_handler(SIGUSR1, [&] { loop.stop(); });
    other.add_signal_handler(SIGUSR1, [] {});
    loop.run();
  }
  is_over = true;
  thread.join();
  SUCCEED();
}

TEST_CASE("A signal that came before its handler was removed is forgotten") {
  EventLoop loop;
  int calls = 0;
  loop.add_signal_handler(SIGUSR1, [&] { ++calls; });
  ::raise(SIGUSR1);
  loop.remove_signal_handler(SIGUSR1);
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(calls == 0);
}
