// SPDX-License-Identifier: MIT
#include <array>
#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"

using pawl::Duration;
using pawl::EventLoop;
using pawl::Handle;

namespace {

/// Posts, cancels and throws at random, and knows what has to come of it.
class RandomPosts {
 public:
  explicit RandomPosts(unsigned seed) : loop_(with_budget()), random_(seed) {}

  void run(int passes) {
    for (int i = 0; i < passes; ++i) {
      post(random_() % 40);
      cancel_some();
      pass();
    }
    while (!expected_.empty()) pass();
    CHECK_FALSE(loop_.run_once());
    CHECK(wrong_ == 0);
  }

 private:
  struct Expected {
    int number;
    int posted_in;
    Handle handle;
  };

  static pawl::LoopOptions with_budget() {
    pawl::LoopOptions options;
    options.ready_budget = 50;
    return options;
  }

  void post(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const int number = next_++;
      expected_.push_back({number, pass_, loop_.call_soon([this, number] { on_call(number); })});
    }
  }

  /// Few or nearly all, so that sweeping pays now and then.
  void cancel_some() {
    const unsigned one_in = random_() % 8 + 1;
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      if (random_() % one_in != 0 || random_() % 4 == 0) continue;
      expected_[i].handle.cancel();
      expected_.erase(expected_.begin() + static_cast<std::ptrdiff_t>(i--));
    }
  }

  void pass() {
    ++pass_;
    try {
      loop_.run_once(Duration::zero());
    } catch (int) {
    }
  }

  void on_call(int number) {
    if (expected_.empty() || expected_.front().number != number) ++wrong_;
    if (expected_.empty() || expected_.front().posted_in == pass_) ++wrong_;
    if (!expected_.empty()) expected_.pop_front();
    if (next_ < 20'000 && random_() % 2 == 0) post(random_() % 4);
    if (random_() % 30 == 0) post(200);
    if (random_() % 10 == 0) cancel_some();
    if (random_() % 200 == 0) throw number;
  }

  EventLoop loop_;
  std::mt19937 random_;
  std::deque<Expected> expected_;
  int next_ = 0;
  int pass_ = 0;
  int wrong_ = 0;
};

}  // namespace

TEST_CASE("Callbacks of call_soon run first in, first out") {
  EventLoop loop;
  std::vector<int> order;
  for (int i = 0; i < 100'000; ++i) loop.call_soon([&order, i] { order.push_back(i); });
  loop.run();
  std::vector<int> expected(100'000);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(order == expected);
}

TEST_CASE("Posts, cancellations and exceptions at random leave the order as it was") {
  for (unsigned seed = 0; seed < 20; ++seed) RandomPosts(seed).run(200);
}

TEST_CASE("What can't be made in its place is posted all the same") {
  struct Throwing {
    explicit Throwing(int* at) : ran(at) {}
    Throwing(const Throwing& other) : ran(other.ran) {
      if (*ran < 0) throw std::runtime_error("can't be copied");
    }
    void operator()() const { ++*ran; }
    int* ran;
  };
  EventLoop loop;
  int ran = -1;
  const Throwing throwing(&ran);
  CHECK_THROWS_AS(loop.call_soon(throwing), std::runtime_error);
  CHECK_FALSE(loop.run_once());
  ran = 0;
  loop.call_soon(throwing);
  loop.call_soon([big = std::array<char, 100>{}, &ran] { ran += big[99] + 1; });
  loop.call_soon(pawl::Function<void()>([&ran] { ++ran; }));
  static int* counted = nullptr;
  counted = &ran;
  loop.call_soon(+[] { ++*counted; });
  const auto named = [&ran] { ++ran; };
  loop.call_soon(named);
  loop.run();
  CHECK(ran == 5);
}

TEST_CASE("A null function pointer is an empty callback") {
  EventLoop loop;
  void (*nothing)() = nullptr;
  CHECK_THROWS_AS(loop.call_soon(nothing), std::logic_error);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("call_soon never calls before it returns") {
  EventLoop loop;
  bool ran = false;
  loop.call_soon([&] {
    loop.call_soon([&] { ran = true; });
    CHECK_FALSE(ran);
  });
  CHECK_FALSE(loop.is_running());
  loop.run();
  CHECK(ran);
}

TEST_CASE("What is posted in a pass runs in the next one") {
  EventLoop loop;
  std::string order;
  loop.call_soon([&] {
    order += 'a';
    loop.call_soon([&] { order += 'c'; });
  });
  loop.call_soon([&] { order += 'b'; });
  CHECK(loop.run_once(Duration::zero()));
  CHECK(order == "ab");
  CHECK_FALSE(loop.run_once(Duration::zero()));
  CHECK(order == "abc");
}

TEST_CASE("A callback of call_soon runs once") {
  EventLoop loop;
  int runs = 0;
  loop.call_soon([&] { ++runs; });
  for (int i = 0; i < 5; ++i) loop.run_once(Duration::zero());
  CHECK(runs == 1);
}

TEST_CASE("The captures of a callback are freed when it has run") {
  EventLoop loop;
  auto token = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = token;
  bool was_alive = false;
  bool was_freed = false;
  loop.call_soon([&watch, &was_alive, token] { was_alive = !watch.expired(); });
  loop.call_soon([&] { was_freed = watch.expired(); });
  token.reset();
  loop.run();
  CHECK(was_alive);
  CHECK(was_freed);
}

TEST_CASE("An empty callback is a logic error that names its place") {
  EventLoop loop;
  const std::string place = "call_soon.cpp:" + std::to_string(__LINE__ + 1);
  CHECK_THROWS_WITH(loop.call_soon({}), Catch::Contains(place));
  CHECK_THROWS_AS(loop.call_soon(nullptr), std::logic_error);
  CHECK_THROWS_AS(loop.call_later(Duration::zero(), {}), std::logic_error);
  CHECK_THROWS_AS(loop.call_at(loop.time(), {}), std::logic_error);
  CHECK_THROWS_AS(loop.call_every(Duration(1), {}), std::logic_error);
  CHECK_THROWS_AS(loop.call_soon_threadsafe({}), std::logic_error);
  CHECK_THROWS_AS(loop.add_reader(0, {}), std::logic_error);
  CHECK_THROWS_AS(loop.add_writer(0, {}), std::logic_error);
  CHECK_THROWS_AS(loop.add_signal_handler(10, {}), std::logic_error);
  CHECK(loop.why_alive().empty());
  CHECK_FALSE(loop.run_once());
}
