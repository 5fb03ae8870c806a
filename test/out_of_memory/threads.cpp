// SPDX-License-Identifier: MIT
// Threads and child processes, each allocation failing in turn.
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <vector>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "support/allocation_sweep.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::ChildProcess;
using pawl::EventLoop;
using pawl::ThreadPool;

namespace {

/// Waits until `condition` holds, which another thread sees to.
template <typename Condition>
void wait_until(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) FAIL("waited for 30 s in vain");
    std::this_thread::yield();
  }
}

struct Big {
  std::array<char, 100> bytes{};
};

pawl::ChildProcessOptions command(const char* text) {
  pawl::ChildProcessOptions options;
  options.arguments = {"/bin/sh", "-c", text};
  return options;
}

}  // namespace

TEST_CASE("Jobs that a loop accepted are done once, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(20ms);
    EventLoop& loop = trial.loop();
    int accepted = 0;
    int done = 0;
    for (int i = 0; i < 4; ++i) {
      if (trial.attempt([&] {
            loop.run_in_executor([i, big = Big()] { return i; },
                                 [&, i](pawl::Outcome<int> outcome) {
                                   ++done;
                                   const Spared spared;
                                   CHECK(outcome.get() == i);
                                 });
          })) {
        ++accepted;
      }
    }
    pawl::Job job;
    trial.attempt([&] { job = loop.run_in_executor([] {}, [&](pawl::Outcome<void>) { ++done; }); });
    trial.must([&] { job.cancel(); });
    trial.run_dry();
    CHECK(done == accepted);
  });
}

TEST_CASE("Jobs that a pool accepted run once, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<ThreadPool> pool;
    trial.insist([&] { pool = std::make_unique<ThreadPool>(2); });
    std::atomic<int> ran{0};
    int accepted = 0;
    for (int i = 0; i < 6; ++i) {
      if (trial.attempt([&] { pool->post([&, big = Big()] { ++ran; }); })) ++accepted;
    }
    wait_until([&] { return ran == accepted; });
    trial.must([&] { pool.reset(); });
    CHECK(ran == accepted);
  });
}

TEST_CASE("A pool that is full keeps what it accepted, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(20ms);
    EventLoop& loop = trial.loop();
    std::unique_ptr<ThreadPool> pool;
    trial.insist([&] { pool = std::make_unique<ThreadPool>(1); });
    std::atomic<bool> is_open{false};
    std::atomic<bool> has_begun{false};
    trial.insist([&] {
      pool->post([&] {
        has_begun = true;
        while (!is_open) std::this_thread::yield();
      });
    });
    wait_until([&] { return has_begun.load(); });
    std::atomic<int> ran{0};
    int posted = 0;
    int started = 0;
    int done = 0;
    std::vector<pawl::Job> jobs(40);
    for (pawl::Job& job : jobs) {
      if (trial.attempt([&] { pool->post([&, big = Big()] { ++ran; }); })) ++posted;
      if (trial.attempt([&] {
            job = loop.run_in_executor(
                *pool, [&, big = Big()] { ++ran; }, [&](pawl::Outcome<void>) { ++done; });
          })) {
        ++started;
      }
    }
    int cancelled = 0;
    trial.must([&] {
      for (std::size_t i = 0; i < jobs.size(); i += 3) jobs[i].cancel();
    });
    for (const pawl::Job& job : jobs) cancelled += job.cancelled() ? 1 : 0;
    const bool goes_at_once = trial.has_failed();  // in every other kind of run
    is_open = true;
    if (goes_at_once) trial.must([&] { pool.reset(); });
    trial.run_dry();
    CHECK(done == started - cancelled);  // those that never ran are told so
    if (goes_at_once) return;
    wait_until([&] { return ran == posted + started - cancelled; });
    trial.must([&] { pool.reset(); });
  });
}

TEST_CASE("A group of loops is made or isn't, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<pawl::LoopGroup> group;
    trial.insist([&] {
      group = std::make_unique<pawl::LoopGroup>(
          2, [](EventLoop& loop, std::size_t) { loop.run_forever(); }, options_on(trial.system()));
    });
    std::atomic<int> ran{0};
    int accepted = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      if (trial.attempt([&] { group->call_soon_threadsafe(i % 2, [&](EventLoop&) { ++ran; }); })) {
        ++accepted;
      }
    }
    if (!trial.has_failed()) wait_until([&] { return ran == accepted; });
    trial.must([&] { group->stop(); });
    trial.attempt([&] { group->join(); });
    CHECK(ran <= accepted);
    trial.must([&] { group.reset(); });
  });
}

TEST_CASE("A child that was started tells of its end once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(300ms);
    EventLoop& loop = trial.loop();
    std::unique_ptr<ChildProcess> child;
    int exits = 0;
    pawl::ChildProcessOptions options = command("exit 3");
    options.standard_input = pawl::Stdio::pipe;
    options.standard_output = pawl::Stdio::pipe;
    options.standard_error = pawl::Stdio::null;
    options.environment = {"A=b"};
    options.directory = "/";
    options.timeout = 1h;
    const bool was_started = trial.attempt([&] {
      child = std::make_unique<ChildProcess>(loop, options,
                                             [&](ChildProcess&, const pawl::ChildExit& end) {
                                               ++exits;
                                               const Spared spared;
                                               if (!end.timed_out) CHECK(end.exit_code == 3);
                                             });
    });
    if (!was_started) return trial.run_dry();
    trial.run([&] { return exits == 1; });
    trial.must([&] { child.reset(); });
    trial.run_dry();
    CHECK(exits == 1);
  });
}

TEST_CASE("A child that is let go is reaped, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(300ms);
    EventLoop& loop = trial.loop();
    std::unique_ptr<ChildProcess> child;
    pawl::ChildProcessOptions options = command("read line");
    options.standard_input = pawl::Stdio::pipe;
    trial.attempt([&] {
      child = std::make_unique<ChildProcess>(loop, options,
                                             [](ChildProcess&, const pawl::ChildExit&) {});
    });
    trial.must([&] { child.reset(); });
    trial.run_dry();
  });
}
