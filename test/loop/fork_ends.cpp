// SPDX-License-Identifier: MIT
// Destroying loops, pools and groups in a forked child: it frees memory and waits for nobody.
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/idle_timer.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "support/faulty_system.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;
using pawl::ThreadPool;

namespace {

/// Runs one job to its end, so that a thread is there and idle.
void start_thread(ThreadPool& pool) {
  std::promise<void> is_run;
  pool.post([&] { is_run.set_value(); });
  is_run.get_future().wait();
}

/// A job that waits until the end of the scope.
class BusyThread {
 public:
  explicit BusyThread(ThreadPool& pool) {
    std::promise<void> has_begun;
    pool.post([&, released = release_.get_future().share()] {
      has_begun.set_value();
      released.wait();
    });
    has_begun.get_future().wait();
  }
  ~BusyThread() { release_.set_value(); }
  BusyThread(const BusyThread&) = delete;
  BusyThread& operator=(const BusyThread&) = delete;

 private:
  std::promise<void> release_;
};

/// A callback that stops at a move of its own, in whatever lock that is, until it is let go.
class Slow {
 public:
  struct Gate {
    explicit Gate(int its_stop) : moves_left(its_stop) {}
    std::atomic<int> moves_left;
    std::atomic<bool> is_told{false};
    std::promise<bool> has_stopped;  // false: it wasn't moved as often as that
    std::promise<void> may_go_on;

    void tell(bool stopped) {
      if (is_told.exchange(true)) return;
      has_stopped.set_value(stopped);
      if (stopped) may_go_on.get_future().wait();
    }
  };

  explicit Slow(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}
  Slow(Slow&& other) noexcept : gate_(std::move(other.gate_)) {
    if (gate_->moves_left.fetch_sub(1) == 1) gate_->tell(true);
  }
  Slow& operator=(Slow&&) = delete;
  void operator()() const {}

 private:
  std::shared_ptr<Gate> gate_;
};

/// Runs `child` in a child that was forked while a thread was in the middle of `post(Slow)`: in
/// each of the moves that it makes in turn. True exactly when all of them ended with 0.
template <typename Post, typename Child>
bool is_well_in_each_move(Post post, Child child) {
  for (int move = 1;; ++move) {
    const auto gate = std::make_shared<Slow::Gate>(move);
    std::future<bool> stopped = gate->has_stopped.get_future();
    std::thread thread([&] {
      post(Slow(gate));
      gate->tell(false);
    });
    const bool is_last = !stopped.get();
    const int code = is_last ? 0 : exit_code_of_fork(child);
    if (!is_last) gate->may_go_on.set_value();
    thread.join();
    if (code != 0) return false;
    if (is_last) return move > 1;
  }
}

template <typename Call>
bool is_logic_error(Call call) {
  try {
    call();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("A child destroys a pool whose threads it doesn't have") {
  auto pool = std::make_unique<ThreadPool>(2);
  start_thread(*pool);
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  SECTION("idle ones") {
    CHECK(exit_code_of_fork([&] {
            pool.reset();
            return 0;
          }) == 0);
  }
  SECTION("busy ones, with a job that waits for them") {
    const BusyThread busy(*pool);
    const BusyThread another(*pool);
    pool->post([token = std::move(token)] {});
    CHECK(exit_code_of_fork([&] {
            pool.reset();
            return watch.expired() ? 0 : 1;
          }) == 0);
    CHECK_FALSE(watch.expired());
  }
  start_thread(*pool);
}

TEST_CASE("A pool says in a child that it has no threads") {
  ThreadPool pool(1);
  start_thread(pool);
  CHECK(exit_code_of_fork([&] {
          if (!is_logic_error([&] { pool.post([] {}); })) return 1;
          return pool.size() == 0 ? 0 : 2;
        }) == 0);
  CHECK(pool.size() == 1);
}

TEST_CASE("A child may have a pool of its own") {
  ThreadPool pool(1);
  start_thread(pool);
  CHECK(exit_code_of_fork([] {
          ThreadPool own(1);
          start_thread(own);
          return 0;
        }) == 0);
}

TEST_CASE("A pool that another thread was posting to when the process forked hangs no child") {
  auto pool = std::make_unique<ThreadPool>(1);
  CHECK(is_well_in_each_move([&](Slow slow) { pool->post(std::move(slow)); },
                             [&] {
                               pool->size();
                               pool.reset();
                               return 0;
                             }));
  start_thread(*pool);
}

TEST_CASE("A job that forks ends its child with it, and the other jobs are the parent's") {
  ThreadPool pool(1);
  const Pipe pipe;
  std::promise<pid_t> child;
  {
    const BusyThread busy(pool);  // so that they are all there when the first begins
    pool.post([&] {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::alarm(longest_child);
        std::atexit([] { ::_exit(7); });  // before what a sanitizer does
        return;
      }
      child.set_value(pid);
    });
    pool.post([&] { write_byte(pipe.writer.get()); });
  }
  CHECK(exit_code_of(child.get_future().get()) == 7);
  start_thread(pool);
  CHECK(drain(pipe.reader.get()) == 1);
}

TEST_CASE("A child destroys a loop with jobs in its pool") {
  auto loop = std::make_unique<EventLoop>();
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  std::promise<void> release;
  std::promise<void> has_begun;
  loop->run_in_executor(
      [&, released = release.get_future().share()] {
        has_begun.set_value();
        released.wait();
      },
      [token = std::move(token)](pawl::Outcome<void>) {});
  has_begun.get_future().wait();
  CHECK(exit_code_of_fork([&] {
          loop.reset();
          return watch.expired() ? 0 : 1;
        }) == 0);
  release.set_value();
  loop->run();
  CHECK(watch.expired());
}

TEST_CASE("A dead loop refuses jobs in a child") {
  EventLoop loop;
  CHECK(exit_code_of_fork([&] {
          const auto run = [&] { loop.run_in_executor([] {}, [](pawl::Outcome<void>) {}); };
          return is_logic_error(run) ? 0 : 1;
        }) == 0);
}

TEST_CASE("A mailbox that another thread was posting to when the process forked hangs no child") {
  auto loop = std::make_unique<EventLoop>();
  CHECK(is_well_in_each_move([&](Slow slow) { loop->mailbox()->post(std::move(slow)); },
                             [&] {
                               if (loop->mailbox()->post([] {})) return 1;
                               loop.reset();
                               return 0;
                             }));
  CHECK_FALSE(loop->run_once(Duration::zero()));
}

TEST_CASE("A child destroys a group of loops that ran in threads") {
  auto group = std::make_unique<pawl::LoopGroup>(
      2, [](EventLoop& loop, std::size_t) { loop.run_forever(); });
  CHECK(exit_code_of_fork([&] {
          group->stop();
          if (group->call_soon_threadsafe(0, [](EventLoop&) {})) return 1;
          if (!is_logic_error([&] { group->join(); })) return 2;
          group.reset();
          return 0;
        }) == 0);
  std::promise<void> is_run;
  CHECK(group->call_soon_threadsafe(1, [&](EventLoop&) { is_run.set_value(); }));
  is_run.get_future().wait();
  group->stop();
  group->join();
}

TEST_CASE("A child that is forked by a loop of a group ends with that loop's body") {
  std::promise<pid_t> child;
  std::atomic<int> bodies{0};
  pawl::LoopGroup group(2, [&](EventLoop& loop, std::size_t index) {
    if (index == 0) {
      loop.call_soon([&] {
        const pid_t pid = ::fork();
        if (pid != 0) return child.set_value(pid);
        ::alarm(longest_child);
        std::atexit([] { ::_exit(7); });
      });
    }
    loop.run_forever();
    bodies.fetch_add(1);
  });
  CHECK(exit_code_of(child.get_future().get()) == 7);
  group.stop();
  group.join();
  CHECK(bodies == 2);
}

TEST_CASE("A child that destroys its copy of a ChildProcess leaves the process alone") {
  EventLoop loop;
  pawl::ChildProcessOptions options;
  options.arguments = {"cat"};
  options.standard_input = pawl::Stdio::pipe;
  pawl::ChildExit exit;
  exit.exit_code = -1;
  auto process = std::make_unique<pawl::ChildProcess>(
      loop, options, [&](pawl::ChildProcess&, const pawl::ChildExit& how) { exit = how; });
  CHECK(exit_code_of_fork([&] {
          if (process->kill(SIGTERM) != Errc::used_after_fork) return 1;
          process.reset();
          return 0;
        }) == 0);
  CHECK(process->is_running());
  process->standard_input().reset();
  loop.run();
  CHECK(exit.ok());
}

TEST_CASE("A child that destroys the loop reaps no process that was dropped in the parent") {
  FaultySystem system;
  pawl::LoopOptions options;
  options.system = &system;
  auto loop = std::make_unique<EventLoop>(options);
  pawl::ChildProcessOptions cat;
  cat.arguments = {"cat"};
  cat.standard_input = pawl::Stdio::pipe;
  auto process = std::make_unique<pawl::ChildProcess>(*loop, std::move(cat), nullptr);
  const int pid = process->pid();
  pawl::UniqueFd input = std::move(process->standard_input());
  process.reset();
  const int before = system.count(Call::wait_child);
  CHECK(exit_code_of_fork([&] {
          loop.reset();
          return system.count(Call::wait_child) - before;
        }) == 0);
  loop.reset();
  input.reset();
  CHECK(exit_code_of(pid) == 0);
}

TEST_CASE("Timers, tickets and idle timers of a dead loop free what they hold in a child") {
  auto loop = std::make_unique<EventLoop>();
  std::vector<std::weak_ptr<int>> watches;
  const auto token = [&] {
    auto made = std::make_shared<int>(7);
    watches.push_back(made);
    return made;
  };
  pawl::Handle soon = loop->call_soon([held = token()] {});
  pawl::TimerHandle later = loop->call_later(1h, [held = token()] {});
  pawl::ScopedHandle scoped = loop->call_every(1h, [held = token()] {});
  auto idle = std::make_unique<pawl::IdleTimer>(*loop, 1h, [held = token()] {});
  idle->start();
  loop->call_soon_threadsafe([held = token()] {});
  loop->call_later(1h, [held = token()] {});
  CHECK(exit_code_of_fork([&] {
          soon.cancel();
          later.cancel();
          scoped.cancel();
          idle.reset();
          loop.reset();
          for (const std::weak_ptr<int>& watch : watches) {
            if (!watch.expired()) return 1;
          }
          return 0;
        }) == 0);
  for (const std::weak_ptr<int>& watch : watches) CHECK_FALSE(watch.expired());
  scoped.cancel();
  idle.reset();
}

TEST_CASE("A child closes its numbers of a loop's descriptors") {
  auto loop = std::make_unique<EventLoop>();
  const int number = loop->selector().fileno();
  loop->run_once(Duration::zero());
  CHECK(exit_code_of_fork([&] {
          const Pipe next_before;
          loop.reset();
          const Pipe next;  // gets what was lowest
          return next.reader.get() < next_before.reader.get() ? 0 : 1;
        }) == 0);
  CHECK(loop->selector().fileno() == number);
  CHECK_FALSE(loop->run_once(Duration::zero()));
}
