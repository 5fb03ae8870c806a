// SPDX-License-Identifier: MIT
// Locks, events and queues, each allocation failing in turn.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/event.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/wait_for.hpp"
#include "support/allocation_sweep.hpp"

using namespace std::chrono_literals;
using pawl::Future;
using pawl::Permit;

namespace {

using Item = std::unique_ptr<std::string>;

Item item(char name) { return std::make_unique<std::string>(100, name); }

}  // namespace

TEST_CASE("A lock's turn is never lost, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<pawl::Lock> lock;
    trial.insist([&] { lock = std::make_unique<pawl::Lock>(trial.loop()); });
    int turns = 0;
    int wanted = 0;
    const auto take = [&](std::error_code, const Permit&) { ++turns; };
    for (int i = 0; i < 4; ++i) {
      if (trial.attempt([&] { lock->acquire(take); })) ++wanted;
    }
    Future<Permit> waiting;
    trial.attempt([&] { waiting = lock->acquire(); });
    trial.attempt([&] { (void)pawl::wait_for(lock->acquire(), 1s); });
    trial.run([&] { return turns == wanted || trial.has_failed(); });
    trial.must([&] { waiting = {}; });
    trial.run([&] { return turns >= wanted && !lock->locked(); });
    trial.run_dry();
    CHECK(lock->try_acquire());
    trial.must([&] { lock.reset(); });
  });
}

TEST_CASE("A semaphore that goes ends the waiting, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<pawl::Semaphore> semaphore;
    trial.insist([&] { semaphore = std::make_unique<pawl::Semaphore>(trial.loop(), 2); });
    std::vector<Permit> held;
    held.reserve(10);
    int called = 0;
    int wanted = 0;
    for (int i = 0; i < 5; ++i) {
      if (trial.attempt([&] {
            semaphore->acquire([&](std::error_code, Permit permit) {
              ++called;
              held.push_back(std::move(permit));
            });
          })) {
        ++wanted;
      }
    }
    trial.run([&] { return called >= 2; });
    trial.must([&] { held[0].release(); });
    trial.run([&] { return called >= 3; });
    trial.must([&] { semaphore.reset(); });
    trial.run([&] { return called >= wanted; });
    trial.must([&] { held.clear(); });
  });
}

TEST_CASE("An event lets all go that wait, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<pawl::Event> event;
    trial.insist([&] { event = std::make_unique<pawl::Event>(trial.loop()); });
    int called = 0;
    int wanted = 0;
    const auto wait = [&] {
      if (trial.attempt([&] { event->wait([&](std::error_code) { ++called; }); })) ++wanted;
    };
    wait();
    wait();
    Future<void> cancelled;
    trial.attempt([&] { cancelled = event->wait([&](std::error_code) { ++called; }); });
    trial.must([&] {
      if (cancelled.valid()) cancelled.cancel();
    });
    trial.must([&] { event->set(); });
    wait();
    trial.run([&] { return called == wanted || (trial.has_failed() && called > wanted); });
    event->clear();
    wait();
    trial.must([&] { event.reset(); });
    trial.run([&] { return called >= wanted; });
    trial.run_dry();
  });
}

TEST_CASE("A queue loses nothing and keeps the order, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<pawl::Queue<Item>> queue;
    trial.insist([&] { queue = std::make_unique<pawl::Queue<Item>>(trial.loop(), 3); });
    std::string got;
    got.reserve(100);
    std::string put;
    int ends = 0;
    const auto get = [&] {
      trial.attempt([&] {
        queue->get([&](std::error_code error, std::optional<Item> given) {
          if (error) {
            ++ends;
          } else {
            got += (**given)[0];
          }
        });
      });
    };
    get();
    for (char name = 'a'; name < 'j'; ++name) {
      Item next = item(name);
      Future<void> putting;
      if (name % 3 == 0) {
        bool is_in = false;
        trial.attempt([&] { is_in = queue->put_nowait(std::move(next)); });
        if (is_in) put += name;
      } else if (trial.attempt([&] { putting = queue->put(std::move(next)); })) {
        put += name;
      }
      if (name % 2 == 0) get();
      trial.attempt([&] { trial.loop().run_once(0s); });
    }
    trial.run_dry();
    const auto take_all = [&] {
      while (true) {
        std::optional<Item> next;
        trial.insist([&] { next = queue->get_nowait(); });
        if (!next) return;
        got += (**next)[0];
      }
    };
    take_all();
    trial.run_dry();
    take_all();
    if (!trial.has_failed()) CHECK(got == put);
    CHECK(std::is_sorted(got.begin(), got.end()));
    CHECK(got.size() >= put.size());
    get();
    trial.must([&] { queue->shutdown(); });
    trial.must([&] { queue.reset(); });
    trial.run_dry();
  });
}
