// SPDX-License-Identifier: MIT
// Several loops, each on a thread of its own.
#include "pawl/loop/loop_group.hpp"

#include <pthread.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/counter.hpp"
#include "support/no_threads.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::LoopGroup;

namespace {

void run_forever(EventLoop& loop, std::size_t) { loop.run_forever(); }

std::string own_thread_name() {
  char name[16] = "";
  ::pthread_getname_np(::pthread_self(), name, sizeof name);
  return name;
}

/// The kernel, where one of the loops can't have its wake-up.
class OneFails final : public pawl::System {
 public:
  explicit OneFails(int which) : which_(which) {}
  pawl::SystemResult eventfd() override {
    if (++asked_ == which_) return {-1, EMFILE};
    return System::eventfd();
  }

 private:
  int which_;
  std::atomic<int> asked_{0};
};

}  // namespace

// Beginning and end

TEST_CASE("Each loop of a group runs on a thread of its own, under a name of its own",
          "[threads]") {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::set<std::string> names;
  std::set<EventLoop*> loops;
  std::set<std::size_t> indices;
  std::string title = "worker";
  std::set<std::string> expected{"worker-0", "worker-1", "worker-2"};
  SECTION("short name") {}
  SECTION("long name, of which 11 characters fit") {
    title = "a name that is too long";
    expected = {"a name that-0", "a name that-1", "a name that-2"};
  }
  {
    LoopGroup group(
        3,
        [&](EventLoop& loop, std::size_t index) {
          const std::lock_guard<std::mutex> lock(mutex);
          threads.insert(std::this_thread::get_id());
          names.insert(own_thread_name());
          loops.insert(&loop);
          indices.insert(index);
        },
        {}, title);
    CHECK(group.size() == 3);
    group.join();
  }
  CHECK(threads.size() == 3);
  CHECK(threads.count(std::this_thread::get_id()) == 0);
  CHECK(loops.size() == 3);
  CHECK(names == expected);
  CHECK(indices == std::set<std::size_t>{0, 1, 2});
}

TEST_CASE("A group has at least one loop", "[threads]") {
  Counter runs;
  LoopGroup group(0, [&](EventLoop&, std::size_t) { runs.up(); });
  CHECK(group.size() == 1);
  CHECK(group.next() == 0);
  group.join();
  CHECK(runs.count() == 1);
}

TEST_CASE("A group gives each index in turn", "[threads]") {
  LoopGroup group(3, run_forever);
  std::vector<std::size_t> turns;
  for (int i = 0; i < 7; ++i) turns.push_back(group.next());
  CHECK(turns == std::vector<std::size_t>{0, 1, 2, 0, 1, 2, 0});
}

TEST_CASE("A group that is stopped before its loops run ends all the same", "[threads]") {
  for (int round = 0; round < 20; ++round) {
    LoopGroup group(3, run_forever);
    group.stop();
    group.join();
    group.join();  // which has nothing to do
  }
}

TEST_CASE("A group that is destroyed stops its loops, and has destroyed what their bodies hold",
          "[threads]") {
  const auto token = std::make_shared<int>(7);
  Counter runs;
  {
    LoopGroup group(3, [&, token](EventLoop& loop, std::size_t) {
      const auto mine = token;
      runs.up();
      loop.run_forever();
    });
    CHECK(runs.reaches(3));
    CHECK(token.use_count() >= 5);
  }
  CHECK(token.use_count() == 1);
}

TEST_CASE("A group may be joined by several threads at once", "[threads]") {
  LoopGroup group(3, run_forever);
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) others.emplace_back([&] { group.join(); });
  group.stop();
  group.join();
  for (std::thread& other : others) other.join();
}

TEST_CASE("A loop of a group may end by itself while the others go on", "[threads]") {
  Counter runs;
  LoopGroup group(2, [&](EventLoop& loop, std::size_t index) {
    if (index == 0) return;
    loop.run_forever();
    runs.up();
  });
  Counter answers;
  CHECK(group.call_soon_threadsafe(1, [&](EventLoop&) { answers.up(); }));
  CHECK(answers.reaches(1));
  group.stop();
  group.join();
  CHECK(runs.count() == 1);
}

TEST_CASE("A loop of a group may stop the group", "[threads]") {
  std::atomic<LoopGroup*> address{nullptr};
  LoopGroup group(3, run_forever);
  address = &group;
  CHECK(group.call_soon_threadsafe(1, [&](EventLoop&) { address.load()->stop(); }));
  group.join();
}

TEST_CASE("The loops of a group are made as the options say", "[threads]") {
  VirtualClock clock;
  pawl::LoopOptions options = options_on(clock);
  options.selector = "poll";
  Counter right;
  LoopGroup group(
      2,
      [&](EventLoop& loop, std::size_t) {
        if (loop.selector().name() == "poll" && &loop.system() == &clock) right.up();
      },
      options);
  group.join();
  CHECK(right.count() == 2);
}

// Failures

TEST_CASE("What leaves a body is thrown by join, once, and ends that loop alone", "[threads]") {
  LoopGroup group(3, [](EventLoop& loop, std::size_t index) {
    if (index == 1) throw std::runtime_error("from a body");
    loop.run_forever();
  });
  Counter answers;
  CHECK(group.call_soon_threadsafe(0, [&](EventLoop&) { answers.up(); }));
  CHECK(group.call_soon_threadsafe(2, [&](EventLoop&) { answers.up(); }));
  CHECK(answers.reaches(2));
  SECTION("joined") {
    group.stop();
    CHECK_THROWS_WITH(group.join(), "from a body");
    CHECK_NOTHROW(group.join());
  }
  SECTION("destroyed") {}
}

TEST_CASE("A callback's exception leaves the body that runs the loop", "[threads]") {
  LoopGroup group(2, run_forever);
  CHECK(group.call_soon_threadsafe(
      0, [](EventLoop&) { throw std::runtime_error("from a callback"); }));
  group.call_soon_threadsafe(1, [](EventLoop& loop) { loop.stop(); });
  CHECK_THROWS_WITH(group.join(), "from a callback");
}

TEST_CASE("A loop that can't be made fails the constructor, when all threads have ended",
          "[threads]") {
  const int which = GENERATE(1, 2, 3);
  OneFails system(which);
  Counter runs;
  const auto token = std::make_shared<int>(7);
  try {
    LoopGroup group(
        3, [&, token](EventLoop&, std::size_t) { runs.up(); }, options_on(system));
    FAIL("it was made");
  } catch (const std::system_error& error) {
    CHECK(error.code() == pawl::system_error_code(EMFILE));
  }
  CHECK(runs.count() == 0);
  CHECK(token.use_count() == 1);
}

TEST_CASE("A selector that isn't there fails the constructor", "[threads]") {
  pawl::LoopOptions options;
  options.selector = "no such selector";
  CHECK_THROWS_AS(LoopGroup(3, run_forever, options), std::invalid_argument);
}

TEST_CASE("A thread that can't be started fails the constructor, when the others have ended",
          "[threads]") {
  Counter runs;
  const NoThreads none_can_start;
  CHECK_THROWS_AS(LoopGroup(3, [&](EventLoop&, std::size_t) { runs.up(); }), std::system_error);
  CHECK(runs.count() == 0);
}

// From one thread to another

TEST_CASE("A callback that is posted to a group runs on the thread that it is for", "[threads]") {
  std::array<std::atomic<EventLoop*>, 3> loops{};
  std::array<std::thread::id, 3> threads;
  LoopGroup group(3, [&](EventLoop& loop, std::size_t index) {
    loops.at(index) = &loop;
    loop.run_forever();
  });
  Counter right;
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(group.call_soon_threadsafe(i, [&, i](EventLoop& loop) {
      threads.at(i) = std::this_thread::get_id();
      if (&loop == loops.at(i)) right.up();
    }));
  }
  CHECK(right.reaches(3));
  group.stop();
  group.join();
  CHECK(std::set<std::thread::id>(threads.begin(), threads.end()).size() == 3);
  CHECK_THROWS_AS(group.call_soon_threadsafe(3, [](EventLoop&) {}), std::out_of_range);
}

TEST_CASE("A letter goes round a group's loops many times", "[threads]") {
  LoopGroup group(3, run_forever);
  Counter rounds;
  struct Ring {
    LoopGroup& group;
    Counter& rounds;
    void pass_on(std::size_t index, int left) {
      if (left == 0) return rounds.up();
      group.call_soon_threadsafe(index, [this, index, left](EventLoop&) {
        pass_on((index + 1) % group.size(), left - 1);
      });
    }
  };
  Ring ring{group, rounds};
  ring.pass_on(0, 3000);
  CHECK(rounds.reaches(1));
}

TEST_CASE("What is posted to a loop that is gone isn't accepted, and is destroyed", "[threads]") {
  LoopGroup group(2, run_forever);
  group.stop();
  group.join();
  const auto token = std::make_shared<int>(7);
  CHECK_FALSE(group.call_soon_threadsafe(0, [token](EventLoop&) { FAIL("it ran"); }));
  CHECK(token.use_count() == 1);
  group.stop();  // which has nothing to do
}

TEST_CASE("What is posted while the loops end either runs or is destroyed", "[threads]") {
  const auto token = std::make_shared<int>(7);
  for (int round = 0; round < 20; ++round) {
    Counter ran;
    int accepted = 0;
    {
      LoopGroup group(2, run_forever);
      std::thread other([&] { group.stop(); });
      for (int i = 0; i < 200; ++i) {
        accepted +=
            group.call_soon_threadsafe(group.next(), [&ran, token](EventLoop&) { ran.up(); });
      }
      other.join();
    }
    CHECK(ran.count() <= accepted);
    CHECK(token.use_count() == 1);
  }
}
