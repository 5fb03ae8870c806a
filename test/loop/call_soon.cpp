// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"

using pawl::Duration;
using pawl::EventLoop;

TEST_CASE("Callbacks of call_soon run first in, first out") {
  EventLoop loop;
  std::vector<int> order;
  for (int i = 0; i < 100'000; ++i) loop.call_soon([&order, i] { order.push_back(i); });
  loop.run();
  std::vector<int> expected(100'000);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(order == expected);
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
