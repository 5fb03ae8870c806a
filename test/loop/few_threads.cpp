// SPDX-License-Identifier: MIT
// A process that may have a few threads and no more, as under `ulimit -u`, RLIMIT_NPROC.
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "support/counter.hpp"
#include "support/forked.hpp"
#include "support/sanitizers.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;

namespace {

constexpr int fine = 40;  // a sanitizer's exit code is 1
constexpr int can_not_be_limited = 41;
constexpr rlim_t threads = 3;  // the first one included

/// Runs `work` in a child that may have so many threads.
template <typename Work>
void with_few_threads(Work work) {
  if (has_thread_sanitizer) return;  // which has threads of its own
  const int code = exit_code_of_fork([&]() -> int {
    // The limit counts all threads of a user, but root's; no other test may be the same user.
    const auto nobody_else = static_cast<uid_t>(20'000 + ::getpid() % 40'000);
    const rlimit limit{threads, threads};
    const bool is_limited = ::setresuid(nobody_else, nobody_else, nobody_else) == 0 &&
                            ::setrlimit(RLIMIT_NPROC, &limit) == 0;
    return is_limited ? work() : can_not_be_limited;
  });
  if (code == can_not_be_limited) {
    WARN("skipped: needs to be root");
    return;
  }
  CHECK(code == fine);
}

bool is_refusal(const std::system_error& error) {
  return error.code() == std::errc::resource_unavailable_try_again;
}

}  // namespace

TEST_CASE("A pool that gets fewer threads than it wants does all jobs with those") {
  with_few_threads([] {
    EventLoop loop;
    Counter begun;
    std::atomic<bool> is_open{false};
    int done = 0;
    pawl::ThreadPool pool(10);
    const auto wait = [&] {
      begun.up();
      while (!is_open) std::this_thread::yield();
    };
    for (int i = 0; i < 20; ++i) {
      loop.run_in_executor(pool, wait, [&](pawl::Outcome<void>) { ++done; });
    }
    const bool are_two = begun.reaches(2) && pool.size() == threads - 1;
    is_open = true;
    loop.run();
    if (!are_two || done != 20) return 1;
    // While they are busy, a pool that gets none at all says so, and leaves nothing of the job.
    is_open = false;
    pool.post(wait);
    pool.post(wait);
    bool is_refused = begun.reaches(22);
    try {
      loop.run_in_executor([] {}, [&](pawl::Outcome<void>) { ++done; });
      is_refused = false;
    } catch (const std::system_error& error) {
      is_refused = is_refused && is_refusal(error);
    }
    const bool is_idle = loop.why_alive().empty();
    is_open = true;
    return is_refused && is_idle && done == 20 ? fine : 2;
  });
}

TEST_CASE("A group of which some threads can't be had isn't made, and those that were have ended") {
  with_few_threads([] {
    const auto token = std::make_shared<int>(1);
    const auto body = [token](EventLoop& loop, std::size_t) { loop.run_forever(); };
    for (int i = 0; i < 3; ++i) {
      try {
        pawl::LoopGroup group(10, body);
        return 1;
      } catch (const std::system_error& error) {
        if (!is_refusal(error)) return 2;
      }
    }
    // One is here and one in `body`.
    return token.use_count() == 2 ? fine : 3;
  });
}
