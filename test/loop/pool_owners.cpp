// SPDX-License-Identifier: MIT
// Who owns a pool may be one of its own jobs, or what a job leaves behind; and a loop's jobs
// outlive neither their pool nor their loop unnoticed.
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "support/counter.hpp"
#include "support/gate.hpp"
#include "support/no_threads.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Job;
using pawl::Outcome;
using pawl::ThreadPool;

namespace {

/// Counts up, and says in which thread, when the last copy of it is gone.
std::shared_ptr<void> tell_end(Counter& ends, std::thread::id* thread = nullptr) {
  return {&ends, [thread](void* counter) {
            if (thread != nullptr) *thread = std::this_thread::get_id();
            static_cast<Counter*>(counter)->up();
          }};
}

/// Members go from the last to the first.
struct Captures {
  std::shared_ptr<void> last;
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<void> first;
};

}  // namespace

// The pool

TEST_CASE("A pool whose last owner is its own job goes with it", "[threads]") {
  for (int round = 0; round < 50; ++round) {
    Counter ends;
    Gate gate;
    {
      auto pool = std::make_shared<ThreadPool>(3);
      ThreadPool& posts = *pool;
      // Idle threads, busy ones that own it too, and jobs that never begin.
      posts.post([] {});
      for (int i = 0; i < 2; ++i) {
        posts.post([&gate, all = Captures{tell_end(ends), pool, nullptr}] { gate.wait(); });
      }
      posts.post([all = Captures{tell_end(ends), std::move(pool), nullptr}] {});
    }
    gate.open();
    CHECK(ends.reaches(3));
  }
}

TEST_CASE("A pool that goes with its own job destroys what hasn't begun", "[threads]") {
  Counter ends;
  std::atomic<bool> ran{false};
  Gate gate;
  {
    auto pool = std::make_unique<ThreadPool>(1);
    ThreadPool& posts = *pool;
    posts.post([&gate, pool = std::shared_ptr<ThreadPool>(std::move(pool))] { gate.wait(); });
    posts.post([&ran, end = tell_end(ends)] { ran = true; });
  }
  gate.open();
  CHECK(ends.reaches(1));
  CHECK_FALSE(ran);
}

TEST_CASE("What is posted to a pool by what dies with it is destroyed", "[threads]") {
  struct Poster {
    ThreadPool& pool;
    Counter& ends;
    ~Poster() {
      pool.post([end = tell_end(ends)] {});
    }
  };
  Counter ends;
  Gate gate;
  {
    ThreadPool pool(1);
    pool.post([&] { gate.wait(); });
    for (int i = 0; i < 100; ++i) {
      pool.post([poster = std::shared_ptr<Poster>(new Poster{pool, ends})] {});
    }
    gate.open();
  }
  CHECK(ends.count() == 100);
}

// A loop's jobs

TEST_CASE("A pool that a job's work, callback or result owns last goes with that", "[threads]") {
  EventLoop loop;
  Counter ends;
  std::thread::id ended_in;
  auto pool = std::make_shared<ThreadPool>(2);
  ThreadPool& runs = *pool;
  Captures all{tell_end(ends, &ended_in), std::move(pool), nullptr};
  bool is_done = false;
  SECTION("work") {
    loop.run_in_executor(
        runs, [all = std::move(all)] {}, [&](Outcome<void>) { is_done = true; });
  }
  SECTION("callback") {
    loop.run_in_executor(
        runs, [] {}, [&, all = std::move(all)](Outcome<void>) { is_done = true; });
  }
  SECTION("result") {
    loop.run_in_executor(
        runs, [all = std::move(all)]() mutable { return std::move(all); },
        [&](Outcome<Captures> outcome) {
          outcome.get() = {};
          is_done = true;
        });
  }
  SECTION("the exception that work throws") {
    loop.run_in_executor(
        runs, [all = std::move(all)]() mutable -> int { throw std::move(all); },
        [&](Outcome<int> outcome) {
          CHECK_THROWS_AS(outcome.get(), Captures);
          is_done = true;
        });
  }
  all = {};
  loop.run();
  CHECK(is_done);
  CHECK(ends.reaches(1));
  CHECK(ended_in == std::this_thread::get_id());
}

TEST_CASE("What a job that is cancelled while it runs owns goes on the loop's thread",
          "[threads]") {
  EventLoop loop;
  Counter ends;
  Counter begun;
  Gate gate;
  std::thread::id ended_in;
  auto pool = std::make_shared<ThreadPool>(2);
  ThreadPool& runs = *pool;
  Captures all{tell_end(ends, &ended_in), std::move(pool), nullptr};
  Job job = loop.run_in_executor(
      runs,
      [&, all = std::move(all)]() mutable {
        begun.up();
        gate.wait();
        return std::move(all);
      },
      [](Outcome<Captures>) { FAIL("it was cancelled"); });
  CHECK(begun.reaches(1));
  job.cancel();
  CHECK(ends.count() == 0);
  gate.open();
  const pawl::TimePoint give_up = loop.time() + 30s;
  while (ends.count() == 0 && loop.time() < give_up) loop.run_once(1ms);
  CHECK(ends.count() == 1);
  CHECK(ended_in == std::this_thread::get_id());
}

TEST_CASE("A cancelled job that hasn't begun takes the pool along that it owns", "[threads]") {
  EventLoop loop;
  Counter ends;
  Counter begun;
  Gate gate;
  auto pool = std::make_shared<ThreadPool>(1);
  ThreadPool& runs = *pool;
  runs.post([&] {
    begun.up();
    gate.wait();
  });
  CHECK(begun.reaches(1));
  // The gate opens before the pool waits for the job behind it.
  Captures all{tell_end(ends), std::move(pool), gate.opener()};
  Job job;
  SECTION("in its work") {
    job = loop.run_in_executor(
        runs, [all = std::move(all)] { FAIL("it was cancelled"); }, [](Outcome<void>) {});
  }
  SECTION("in its callback") {
    job = loop.run_in_executor(
        runs, [] { FAIL("it was cancelled"); }, [all = std::move(all)](Outcome<void>) {});
  }
  job.cancel();
  CHECK(ends.count() == 1);
  loop.run();
}

TEST_CASE("Jobs whose pool goes before they begin are done, and say so", "[threads]") {
  Counter ends;
  Counter begun;
  Gate gate;
  std::string order;
  EventLoop loop;
  auto pool = std::make_unique<ThreadPool>(1);
  pool->post([&] {
    begun.up();
    gate.wait();
  });
  const auto give_up = [&](const std::string& name, auto& outcome) {
    order += name;
    CHECK_FALSE(outcome);
    try {
      outcome.get();
      FAIL("it has a result");
    } catch (const std::system_error& error) {
      CHECK(error.code() == std::errc::operation_canceled);
    }
  };
  loop.run_in_executor(
      *pool, [end = tell_end(ends)] { FAIL("it ran"); },
      [&](Outcome<void> outcome) { give_up("v", outcome); });
  loop.run_in_executor(
      *pool, [end = tell_end(ends)] { return 1; },
      [&](Outcome<int> outcome) { give_up("i", outcome); });
  Job job = loop.run_in_executor(
      *pool, [end = tell_end(ends)] { return 1; }, [&](Outcome<int>) { order += "cancelled"; });
  CHECK(begun.reaches(1));
  // Not before the pool takes no more jobs from its queue.
  std::thread opener([&, &pool = *pool] {
    while (pool.size() > 0) std::this_thread::yield();
    gate.open();
  });
  SECTION("on the loop's thread") { pool.reset(); }
  SECTION("on another one") {
    std::thread other([&] { pool.reset(); });
    other.join();
  }
  opener.join();
  CHECK(order.empty());  // not from inside the destructor
  job.cancel();
  loop.run();
  CHECK(order == "vi");
  CHECK(ends.count() == 3);
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A loop that is gone before a job of its own pool ends destroys what that owns",
          "[threads]") {
  Counter ends;
  Counter begun;
  Gate gate;
  std::thread::id ended_in;
  {
    EventLoop loop;
    loop.run_in_executor(
        [&, end = tell_end(ends, &ended_in)] {
          begun.up();
          gate.wait();
        },
        [open = gate.opener()](Outcome<void>) { FAIL("the loop is gone"); });
    CHECK(begun.reaches(1));
  }
  CHECK(ends.count() == 1);
  CHECK(ended_in == std::this_thread::get_id());
}

TEST_CASE("A cancelled job that owns its loop lets go of it", "[threads]") {
  Counter begun;
  Gate gate;
  auto loop = std::make_shared<EventLoop>();
  Job job = loop->run_in_executor(
      [&, loop] {
        begun.up();
        gate.wait();
      },
      [](Outcome<void>) { FAIL("it was cancelled"); });
  CHECK(begun.reaches(1));
  job.cancel();
  gate.open();
  const pawl::TimePoint give_up = loop->time() + 30s;
  while (loop.use_count() > 1 && loop->time() < give_up) loop->run_once(1ms);
  CHECK(loop.use_count() == 1);
}

// Threads that can't be had

TEST_CASE("A pool that can't start its first thread says so, and works when it can", "[threads]") {
  ThreadPool pool(2);
  Counter ends;
  Counter ran;
  {
    const NoThreads none;
    for (int i = 0; i < 3; ++i) {
      try {
        pool.post([&, end = tell_end(ends)] { ran.up(); });
        FAIL("it was accepted");
      } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::resource_unavailable_try_again);
        CHECK(std::string(error.what()).find("starting a thread") != std::string::npos);
      }
    }
    CHECK(ends.count() == 3);
    CHECK(pool.size() == 0);
  }
  pool.post([&] { ran.up(); });
  CHECK(ran.reaches(1));
  CHECK(ran.count() == 1);
}

TEST_CASE("A pool that can't start another thread has its jobs wait for those that it has",
          "[threads]") {
  ThreadPool pool(3);
  Counter ran;
  Counter begun;
  Gate gate;
  pool.post([&] {
    begun.up();
    gate.wait();
  });
  {
    const NoThreads none;
    for (int i = 0; i < 5; ++i) pool.post([&] { ran.up(); });
  }
  CHECK(begun.reaches(1));
  CHECK(pool.size() == 1);
  CHECK(ran.count() == 0);
  gate.open();
  CHECK(ran.reaches(5));
}

TEST_CASE("A job that no thread can be had for is refused, and nothing of it is left",
          "[threads]") {
  EventLoop loop;
  Counter ends;
  {
    const NoThreads none;
    CHECK_THROWS_AS(loop.run_in_executor([end = tell_end(ends)] {},
                                         [end = tell_end(ends)](Outcome<void>) { FAIL("done"); }),
                    std::system_error);
  }
  CHECK(loop.why_alive().empty());
  loop.run();
  CHECK(ends.count() == 2);
  bool is_done = false;
  loop.run_in_executor([] {}, [&](Outcome<void>) { is_done = true; });
  loop.run();
  CHECK(is_done);
}
