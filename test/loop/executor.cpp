// SPDX-License-Identifier: MIT
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "support/gate.hpp"
#include "support/sanitizers.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Job;
using pawl::LoopOptions;
using pawl::Outcome;
using pawl::ThreadPool;

namespace {

LoopOptions with_threads(std::size_t count) {
  LoopOptions options;
  options.executor_threads = count;
  return options;
}

}  // namespace

TEST_CASE("Work runs in another thread and its result comes back to the loop's", "[threads]") {
  EventLoop loop;
  const std::thread::id here = std::this_thread::get_id();
  std::thread::id worked_in;
  std::thread::id done_in;
  int result = 0;
  loop.run_in_executor(
      [&worked_in] {
        worked_in = std::this_thread::get_id();
        return 42;
      },
      [&](Outcome<int> outcome) {
        done_in = std::this_thread::get_id();
        CHECK(outcome);
        CHECK(outcome.exception() == nullptr);
        result = outcome.get();
      });
  loop.run();
  CHECK(result == 42);
  CHECK(worked_in != here);
  CHECK(done_in == here);
}

TEST_CASE("What work throws is thrown by its outcome", "[threads]") {
  EventLoop loop;
  int calls = 0;
  loop.run_in_executor([]() -> int { throw std::runtime_error("no"); },
                       [&](Outcome<int> outcome) {
                         ++calls;
                         CHECK_FALSE(outcome);
                         CHECK(outcome.exception() != nullptr);
                         CHECK_THROWS_WITH(outcome.get(), "no");
                       });
  loop.run_in_executor([] { throw std::runtime_error("nothing"); },
                       [&](const Outcome<void>& outcome) {
                         ++calls;
                         CHECK_FALSE(outcome);
                         CHECK_THROWS_WITH(outcome.get(), "nothing");
                       });
  loop.run();
  CHECK(calls == 2);
}

TEST_CASE("Work may return nothing, and what can only be moved", "[threads]") {
  EventLoop loop;
  std::string order;
  loop.run_in_executor([] {},
                       [&](Outcome<void> outcome) {
                         CHECK(outcome);
                         outcome.get();
                         order += 'v';
                       });
  loop.run();
  loop.run_in_executor([number = std::make_unique<int>(7)]() mutable { return std::move(number); },
                       [&](Outcome<std::unique_ptr<int>> outcome) {
                         CHECK(*outcome.get() == 7);
                         order += 'm';
                       });
  loop.run();
  CHECK(order == "vm");
}

TEST_CASE("1,000 jobs are each done once", "[threads]") {
  EventLoop loop;
  std::vector<int> results;
  for (int i = 0; i < 1000; ++i) {
    loop.run_in_executor([i] { return i; },
                         [&](Outcome<int> outcome) { results.push_back(outcome.get()); });
  }
  loop.run();
  CHECK(results.size() == 1000);
  CHECK(std::set<int>(results.begin(), results.end()).size() == 1000);
  CHECK(std::accumulate(results.begin(), results.end(), 0) == 499'500);
}

TEST_CASE("One thread does its jobs in order", "[threads]") {
  EventLoop loop(with_threads(1));
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) {
    loop.run_in_executor([] {}, [&order, i](Outcome<void>) { order.push_back(i); });
  }
  loop.run();
  CHECK(loop.thread_pool().size() == 1);
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(order == expected);
}

TEST_CASE("A job that is cancelled before it began is destroyed at once and never runs",
          "[threads]") {
  EventLoop loop(with_threads(1));
  Gate gate;
  loop.run_in_executor([&gate] { gate.wait(); }, [](Outcome<void>) {});
  auto work_token = std::make_shared<int>(0);
  auto done_token = std::make_shared<int>(0);
  const std::weak_ptr<int> work_watch = work_token;
  const std::weak_ptr<int> done_watch = done_token;
  std::atomic<bool> ran{false};
  Job job =
      loop.run_in_executor([&ran, token = std::move(work_token)] { ran = true; },
                           [&ran, token = std::move(done_token)](Outcome<void>) { ran = true; });
  CHECK_FALSE(job.cancelled());
  const Job copy = job;
  job.cancel();
  CHECK(work_watch.expired());
  CHECK(done_watch.expired());
  CHECK(copy.cancelled());
  job.cancel();
  gate.open();
  loop.run();
  CHECK_FALSE(ran);
}

TEST_CASE("A job that is cancelled while it runs goes on, but isn't done", "[threads]") {
  EventLoop loop;
  Gate gate;
  std::promise<void> has_begun;
  std::promise<void> has_ended;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  bool is_done = false;
  Job job = loop.run_in_executor(
      [&] {
        has_begun.set_value();
        gate.wait();
        has_ended.set_value();
      },
      [&is_done, token = std::move(token)](Outcome<void>) { is_done = true; });
  has_begun.get_future().wait();
  job.cancel();
  CHECK(job.cancelled());
  CHECK(watch.expired());
  CHECK_FALSE(loop.run_once());
  gate.open();
  has_ended.get_future().wait();
  loop.run_once(1ms);
  CHECK_FALSE(is_done);
}

TEST_CASE("A job that is finished but not yet done can be cancelled", "[threads]") {
  EventLoop loop(with_threads(1));
  bool is_done = false;
  Job first = loop.run_in_executor([] {}, [&](Outcome<void>) { is_done = true; });
  // The one thread has finished with the first job when it begins the second.
  std::promise<void> has_begun;
  loop.run_in_executor([&] { has_begun.set_value(); }, [](Outcome<void>) {});
  has_begun.get_future().wait();
  first.cancel();
  loop.run();
  CHECK_FALSE(is_done);
  CHECK(first.cancelled());
}

TEST_CASE("Cancelling a job that is done does nothing", "[threads]") {
  EventLoop loop;
  Job job;
  int calls = 0;
  job.cancel();
  CHECK_FALSE(job.cancelled());
  job = loop.run_in_executor([] {},
                             [&](Outcome<void>) {
                               ++calls;
                               job.cancel();
                             });
  loop.run();
  job.cancel();
  CHECK(calls == 1);
  CHECK_FALSE(job.cancelled());
}

TEST_CASE("What a job captures is freed when it is done", "[threads]") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Job job = loop.run_in_executor([token] {}, [token](Outcome<void>) {});
  token.reset();
  loop.run();
  // The thread lets go of its part a moment after it has posted the result.
  while (!watch.expired()) std::this_thread::yield();
  SUCCEED();
}

TEST_CASE("A loop that is destroyed waits for running jobs and drops queued ones", "[threads]") {
  Gate gate;
  std::promise<void> has_begun;
  std::atomic<bool> has_ended{false};
  std::atomic<bool> queued_ran{false};
  bool is_done = false;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Job running;
  Job queued;
  {
    EventLoop loop(with_threads(1));
    // What is freed when the loop has dropped both callbacks lets the running one go.
    const std::shared_ptr<Gate> opener(&gate, [](Gate* each) { each->open(); });
    running = loop.run_in_executor(
        [&, token] {
          has_begun.set_value();
          gate.wait();
          has_ended = true;
        },
        [&is_done, opener](Outcome<void>) { is_done = true; });
    queued = loop.run_in_executor([&queued_ran, token] { queued_ran = true; },
                                  [&is_done, opener](Outcome<void>) { is_done = true; });
    token.reset();
    has_begun.get_future().wait();
  }
  CHECK(has_ended);
  CHECK_FALSE(queued_ran);
  CHECK_FALSE(is_done);
  CHECK(watch.expired());
  running.cancel();
  queued.cancel();
}

TEST_CASE("A pool of the caller's may outlive the loop, and finish its job then", "[threads]") {
  Gate gate;
  std::promise<void> has_begun;
  std::atomic<bool> has_ended{false};
  bool is_done = false;
  ThreadPool pool(1, "own");
  {
    EventLoop loop;
    loop.run_in_executor(
        pool,
        [&] {
          has_begun.set_value();
          gate.wait();
          has_ended = true;
        },
        [&is_done](Outcome<void>) { is_done = true; });
    has_begun.get_future().wait();
  }
  CHECK_FALSE(has_ended);
  gate.open();
  std::promise<void> next;
  pool.post([&] { next.set_value(); });
  next.get_future().wait();
  CHECK(has_ended);
  CHECK_FALSE(is_done);
}

TEST_CASE("Two loops may share a pool", "[threads]") {
  ThreadPool pool(2);
  int done = 0;
  EventLoop first;
  EventLoop second;
  for (int i = 0; i < 50; ++i) {
    first.run_in_executor(
        pool, [] { return 1; }, [&](Outcome<int> one) { done += one.get(); });
    second.run_in_executor(
        pool, [] { return 1; }, [&](Outcome<int> one) { done += one.get(); });
  }
  first.run();
  second.run();
  CHECK(done == 100);
}

TEST_CASE("A pool starts a thread only when a job finds none idle, and no more than its limit",
          "[threads]") {
  ThreadPool pool(3);
  CHECK(pool.size() == 0);
  Gate gate;
  std::atomic<int> ended{0};
  std::promise<void> all_ended;
  for (int i = 0; i < 10; ++i) {
    pool.post([&] {
      gate.wait();
      if (ended.fetch_add(1) == 9) all_ended.set_value();
    });
  }
  CHECK(pool.size() == 3);
  gate.open();
  all_ended.get_future().wait();
  CHECK(pool.size() == 3);
}

TEST_CASE("Jobs that wait for each other all get threads, whether these were idle or not",
          "[threads]") {
  constexpr int threads = 4;
  ThreadPool pool(threads);
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> here{0};
    std::atomic<int> over{0};
    std::promise<void> all_here;
    std::promise<void> all_over;
    const std::shared_future<void> meeting = all_here.get_future().share();
    // Short ones among them, which may be over before a second thread is up.
    for (int i = 0; i < 2 * threads; ++i) {
      const bool is_short = i % 2 == round % 2;
      pool.post([&, is_short] {
        if (!is_short && here.fetch_add(1) + 1 == threads) all_here.set_value();
        if (!is_short) meeting.wait();
        if (over.fetch_add(1) + 1 == 2 * threads) all_over.set_value();
      });
    }
    const std::future<void> end = all_over.get_future();
    REQUIRE(end.wait_for(30s) == std::future_status::ready);
  }
  CHECK(pool.size() == threads);
}

TEST_CASE("What a job has captured may post another job when it dies", "[threads]") {
  struct Poster {
    ThreadPool& pool;
    std::promise<void>& ran;
    ~Poster() {
      pool.post([this_ran = &ran] { this_ran->set_value(); });
    }
  };
  ThreadPool pool(1);
  std::promise<void> ran;
  pool.post([poster = std::shared_ptr<Poster>(new Poster{pool, ran})] {});
  CHECK(ran.get_future().wait_for(30s) == std::future_status::ready);
}

TEST_CASE("A pool of no threads has one", "[threads]") {
  ThreadPool pool(0);
  std::promise<void> ran;
  pool.post([&] { ran.set_value(); });
  ran.get_future().wait();
  CHECK(pool.size() == 1);
}

TEST_CASE("A pool's threads show up under its name", "[threads]") {
  EventLoop loop;
  std::string names[2];
  const auto own_name = [] {
    char name[16] = "";
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    return std::string(name);
  };
  ThreadPool pool(1, "a name that is far too long");
  for (int i = 0; i < 2; ++i) {  // the first one may be faster than its baptism
    loop.run_in_executor(own_name, [&](Outcome<std::string> name) { names[0] = name.get(); });
    loop.run_in_executor(pool, own_name, [&](Outcome<std::string> name) { names[1] = name.get(); });
    loop.run();
  }
  CHECK(names[0] == "pawl-pool");
  CHECK(names[1] == "a name that is ");
}

TEST_CASE("A job may start jobs from its done callback", "[threads]") {
  EventLoop loop;
  int rounds = 0;
  struct Chain {
    EventLoop& loop;
    int& rounds;
    void next() {
      loop.run_in_executor([] {},
                           [this](Outcome<void>) {
                             if (++rounds < 100) next();
                           });
    }
  };
  Chain chain{loop, rounds};
  chain.next();
  loop.run();
  CHECK(rounds == 100);
}
