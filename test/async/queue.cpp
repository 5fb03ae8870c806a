// SPDX-License-Identifier: MIT
#include "pawl/async/queue.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/task.hpp"

using namespace std::chrono_literals;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::Next;
using pawl::Queue;
using pawl::Task;

TEST_CASE("A queue hands its items on in order") {
  EventLoop loop;
  Queue<std::string> queue(loop);
  CHECK(queue.empty());
  const Future<std::string> waiting = queue.get();
  CHECK(queue.put("a").done());
  CHECK(waiting.result() == "a");
  queue.put("b");
  queue.put("c");
  CHECK(queue.size() == 2);
  CHECK(queue.get().result() == "b");
  CHECK(queue.get_nowait() == "c");
  CHECK_FALSE(queue.get_nowait());
}

TEST_CASE("A full queue makes those wait who put, first come, first served") {
  EventLoop loop;
  Queue<int> queue(loop, 2);
  queue.put(1);
  queue.put(2);
  CHECK(queue.full());
  const Future<void> third = queue.put(3);
  const Future<void> fourth = queue.put(4);
  CHECK_FALSE(third.done());
  CHECK_FALSE(queue.put_nowait(5));
  CHECK(queue.get().result() == 1);
  CHECK(third.done());
  CHECK_FALSE(fourth.done());
  for (int i = 2; i <= 4; ++i) CHECK(queue.get_nowait() == i);
  CHECK(fourth.done());
  CHECK(queue.put_nowait(6));
}

TEST_CASE("A producer and a consumer meet over a queue of one") {
  EventLoop loop;
  Queue<std::unique_ptr<int>> queue(loop, 1);
  const auto producer = pawl::make_task(loop, "producer", [&, next = 0](Task<>&) mutable {
    if (next == 100) {
      queue.shutdown();
      return Next::done();
    }
    return Next::future(queue.put(std::make_unique<int>(next++)));
  });
  std::vector<int> got;
  const auto consumer = pawl::make_task(
      loop, "consumer", [&, item = Future<std::unique_ptr<int>>()](Task<>&) mutable {
        if (item.valid() && item.error()) return Next::done();
        if (item.valid()) got.push_back(*item.result());
        item = queue.get();
        return Next::future(item);
      });
  loop.run();
  CHECK(producer->done());
  CHECK(consumer->done());
  CHECK(got.size() == 100);
  CHECK(std::is_sorted(got.begin(), got.end()));
}

TEST_CASE("Cancelling a put takes its item back, dropping it doesn't") {
  EventLoop loop;
  Queue<std::shared_ptr<int>> queue(loop, 1);
  queue.put(std::make_shared<int>(1));
  auto token = std::make_shared<int>(2);
  const std::weak_ptr<int> watch = token;
  const Future<void> cancelled = queue.put(std::move(token));
  queue.put(std::make_shared<int>(3));
  cancelled.cancel();
  CHECK(watch.expired());
  CHECK(**queue.get_nowait() == 1);
  CHECK(**queue.get_nowait() == 3);
  CHECK_FALSE(queue.get_nowait());
}

TEST_CASE("Cancelling a get leaves the item to the next") {
  EventLoop loop;
  Queue<int> queue(loop);
  const Future<int> first = queue.get();
  const Future<int> second = queue.get();
  { const Future<int> dropped_while_it_waits = queue.get(); }
  const Future<int> third = queue.get();
  first.cancel();
  queue.put(1);
  queue.put(2);
  CHECK(second.result() == 1);
  CHECK(third.result() == 2);
}

TEST_CASE("An item that was given to a future that nobody looked at goes back to the front") {
  EventLoop loop;
  Queue<std::string> queue(loop, 1);
  std::optional<Future<std::string>> waiting = queue.get();
  queue.put("first");
  queue.put("second");
  waiting.reset();
  CHECK(queue.get_nowait() == "first");
  { const Future<std::string> ready_and_dropped = queue.get(); }
  CHECK(queue.get_nowait() == "second");
  { CHECK(queue.put("third").done()); }
  { CHECK(queue.get().result() == "third"); }
  CHECK(queue.empty());
}

TEST_CASE("A task that is cancelled in the pass in which its item came leaves it to the next") {
  EventLoop loop;
  Queue<int> queue(loop);
  const auto task = pawl::make_task(loop, "late", [&, item = Future<int>()](Task<>&) mutable {
    item = queue.get();
    return Next::future(item);
  });
  loop.run_once(pawl::Duration::zero());
  const Future<int> next = queue.get();
  queue.put(1);
  CHECK_FALSE(next.done());
  task->cancel();
  loop.run();
  CHECK(next.result() == 1);
}

TEST_CASE("A get may have a callback, which a cancellation keeps from being called") {
  EventLoop loop;
  Queue<int> queue(loop);
  std::vector<int> got;
  const auto keep = [&](std::error_code error, std::optional<int> item) {
    got.push_back(error ? -1 : *item);
  };
  queue.get(keep);
  queue.get(keep).cancel();
  queue.get(keep);
  queue.put(1);
  CHECK(got.empty());
  queue.shutdown();
  loop.run();
  CHECK(got == std::vector<int>{1, -1});
}

TEST_CASE("A queue that is shut down still gives what is in it") {
  EventLoop loop;
  Queue<int> queue(loop, 1);
  queue.put(1);
  const Future<void> waiting = queue.put(2);
  queue.shutdown();
  CHECK(waiting.error() == Errc::queue_shut_down);
  CHECK(queue.put(3).error() == Errc::queue_shut_down);
  CHECK_FALSE(queue.put_nowait(3));
  CHECK(queue.get().result() == 1);
  CHECK(queue.get().error() == Errc::queue_shut_down);
}

TEST_CASE("A queue that is destroyed fails those who wait, and what it gave outlives it") {
  EventLoop loop;
  std::optional<Queue<int>> queue(std::in_place, loop);
  queue->put(1);
  const Future<int> given = queue->get();
  const Future<int> waiting = queue->get();
  queue.reset();
  CHECK(waiting.error() == Errc::broken_promise);
  CHECK(given.result() == 1);
  Queue<int> second(loop);
  { const Future<int> dropped = second.get(); }
}

TEST_CASE("No item is lost or comes twice, whoever cancels and drops what") {
  EventLoop loop;
  Queue<int> queue(loop, 3);
  std::mt19937 random(7);
  std::vector<Future<int>> gets;
  std::vector<Future<void>> puts;
  std::vector<int> got;
  int next = 0;
  int cancelled = 0;
  const auto some = [&](std::size_t size) { return random() % size; };
  for (int i = 0; i < 20'000; ++i) {
    switch (random() % 6) {
      case 0:
      case 1: puts.push_back(queue.put(next++)); break;
      case 2: gets.push_back(queue.get()); break;
      case 3:
        if (!gets.empty()) gets.erase(gets.begin() + static_cast<long>(some(gets.size())));
        break;
      case 4:
        if (!puts.empty() && puts[some(puts.size())].cancel()) ++cancelled;
        if (!gets.empty()) gets[some(gets.size())].cancel();
        break;
      default:
        for (const auto& each : gets) {
          if (each.done() && !each.cancelled()) got.push_back(each.result());
        }
        gets.clear();
        loop.run_once(pawl::Duration::zero());
    }
  }
  for (const auto& each : gets) {
    if (each.done() && !each.cancelled()) got.push_back(each.result());
  }
  gets.clear();
  while (const auto item = queue.get_nowait()) got.push_back(*item);
  std::sort(got.begin(), got.end());
  CHECK(std::unique(got.begin(), got.end()) == got.end());
  CHECK(got.size() + static_cast<std::size_t>(cancelled) == static_cast<std::size_t>(next));
}
