// SPDX-License-Identifier: MIT
// Futures and what is made of them, each allocation failing in turn.
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/as_completed.hpp"
#include "pawl/async/future.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/make_future.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/run_child.hpp"
#include "pawl/async/run_in_executor.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/shield.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/wait.hpp"
#include "pawl/async/wait_for.hpp"
#include "support/allocation_sweep.hpp"

using namespace std::chrono_literals;
using pawl::Future;
using pawl::Promise;

namespace {

using Text = std::string;

Text long_text() { return Text(100, 't'); }

/// Counts the futures that were made, and those whose callback came.
struct Watched {
  explicit Watched(Trial& of) : trial(of) {}

  /// Waits for what `make` gives, when it gives something.
  template <typename Make>
  auto watch(Make make) -> decltype(make()) {
    decltype(make()) future;
    trial.attempt([&] { future = make(); });
    if (!future.valid()) return future;
    if (trial.attempt([&] { future.add_done_callback([this] { ++called; }); })) ++wanted;
    return future;
  }
  bool is_over() const { return called == wanted; }

  Trial& trial;
  int wanted = 0;
  int called = 0;
};

/// Done, and right or failed for want of memory.
template <typename Value>
void check_ended(const Trial& trial, const Future<Value>& future) {
  if (!future.valid()) return;
  CHECK(future.done());
  if (!trial.has_failed()) CHECK(future.exception() == nullptr);
}

}  // namespace

TEST_CASE("A promise that is set calls who waits, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    std::unique_ptr<Promise<Text>> promise;
    trial.insist([&] { promise = std::make_unique<Promise<Text>>(trial.loop()); });
    const Future<Text> first = watched.watch([&] { return promise->future(); });
    watched.watch([&] { return promise->future(); });
    trial.insist([&] { promise->set_result(long_text()); });
    trial.run([&] { return watched.is_over(); });
    watched.watch([&] { return promise->future(); });  // when it is done already
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    CHECK(watched.is_over());
    CHECK(first.result() == long_text());
  });
}

TEST_CASE("Broken, failed and cancelled promises call who waits, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    int told = 0;
    for (int i = 0; i < 4; ++i) {
      std::unique_ptr<Promise<int>> promise;
      trial.insist([&] { promise = std::make_unique<Promise<int>>(trial.loop()); });
      trial.insist([&] { promise->on_cancel([&] { ++told; }); });
      const Future<int> future = watched.watch([&] { return promise->future(); });
      if (i == 0) {
        trial.insist([&] {
          if (!promise->done()) promise->set_exception(std::runtime_error("no"));
        });
      }
      if (i == 1) trial.must([&] { future.cancel(); });
      if (i == 2) trial.must([&] { promise->set_exception(pawl::Errc::timed_out); });
      trial.must([&] { promise.reset(); });
      CHECK(future.done());
      if (i == 2) CHECK(future.error() == pawl::Errc::timed_out);
      if (i == 3) CHECK(future.error() == pawl::Errc::broken_promise);
    }
    trial.run([&] { return watched.is_over() && told == 1; });
    trial.run_dry();
    CHECK(told == 1);
  });
}

TEST_CASE("A chain of thens ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    pawl::EventLoop& loop = trial.loop();
    const Future<Text> chain = watched.watch([&] {
      return pawl::make_ready_future(loop, 1)
          .then([](int value) { return Text(static_cast<std::size_t>(value) + 99, 't'); })
          .then([&](Text& text) { return pawl::make_ready_future(loop, std::move(text)); })
          .then([&](Text text) {
            return pawl::sleep(loop, 1ms).then([text = std::move(text)] { return text; });
          });
    });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    check_ended(trial, chain);
    if (chain.valid() && chain.exception() == nullptr) CHECK(chain.result() == long_text());
  });
}

TEST_CASE("Sleeps, time limits and shields end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    pawl::EventLoop& loop = trial.loop();
    const auto late = watched.watch([&] { return pawl::wait_for(pawl::sleep(loop, 1h), 1s); });
    const auto in_time = watched.watch([&] { return pawl::wait_for(pawl::sleep(loop, 1s), 1h); });
    const auto shielded = watched.watch([&] { return pawl::shield(pawl::sleep(loop, 2s)); });
    const auto cancelled = watched.watch([&] { return pawl::shield(pawl::sleep(loop, 3s)); });
    const auto given_up = watched.watch([&] { return pawl::wait_for(pawl::sleep(loop, 3s), 1h); });
    trial.must([&] {
      if (cancelled.valid()) cancelled.cancel();
      if (given_up.valid()) given_up.cancel();
    });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    if (late.valid()) CHECK(late.error() == pawl::Errc::timed_out);
    check_ended(trial, in_time);
    check_ended(trial, shielded);
  });
}

TEST_CASE("gather, wait and as_completed end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    pawl::EventLoop& loop = trial.loop();
    std::array<Future<Text>, 3> children;
    for (std::size_t i = 0; i < children.size(); ++i) {
      trial.insist(
          [&] { children[i] = pawl::sleep(loop, (3 - i) * 1s).then([] { return long_text(); }); });
    }
    const auto all = [&] { return std::vector<Future<Text>>(children.begin(), children.end()); };
    const auto values = watched.watch([&] { return pawl::gather(loop, all()); });
    const auto outcomes =
        watched.watch([&] { return pawl::gather(loop, all(), pawl::return_exceptions); });
    const auto tuple = watched.watch([&] { return pawl::gather(loop, children[0], children[1]); });
    const auto first = watched.watch(
        [&] { return pawl::wait(loop, all(), pawl::ReturnWhen::first_completed, 1h); });
    const auto timed = watched.watch(
        [&] { return pawl::wait(loop, all(), pawl::ReturnWhen::all_completed, 1500ms); });
    std::vector<Future<Text>> completed;
    trial.attempt([&] { completed = pawl::as_completed(loop, all()); });
    for (const Future<Text>& each : completed) watched.watch([&] { return each; });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    check_ended(trial, values);
    check_ended(trial, outcomes);
    check_ended(trial, tuple);
    check_ended(trial, first);
    check_ended(trial, timed);
    for (const Future<Text>& each : completed) check_ended(trial, each);
    if (!trial.has_failed()) CHECK(values.result() == std::vector<Text>(3, long_text()));
  });
}

TEST_CASE("A gather that is cancelled cancels its children, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    std::vector<Future<void>> children(3);
    for (auto& child : children) {
      trial.insist([&] { child = pawl::sleep(loop, 1h).then([big = long_text()] {}); });
    }
    Future<void> gathered;
    trial.insist([&] { gathered = pawl::gather(loop, children); });
    trial.must([&] { gathered.cancel(); });
    for (const auto& child : children) CHECK(child.cancelled());
    trial.run_dry();
    CHECK_FALSE(loop.next_deadline());
  });
}

TEST_CASE("A bridge ends with its operation, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Watched watched(trial);
    pawl::EventLoop& loop = trial.loop();
    const auto in_time = watched.watch([&] {
      return pawl::make_future<Text>(
          loop, [&](auto done) { return loop.call_later(1s, [done] { done({}, long_text()); }); });
    });
    const auto cancelled = watched.watch([&] {
      return pawl::make_future<void>(
          loop, [&](auto done) { return loop.call_later(1h, [done] { done({}); }); });
    });
    trial.must([&] {
      if (cancelled.valid()) cancelled.cancel();
    });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    CHECK_FALSE(loop.next_deadline());
    check_ended(trial, in_time);
  });
}

TEST_CASE("A job's future ends, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(20ms);
    Watched watched(trial);
    const auto job = watched.watch(
        [&] { return pawl::run_in_executor(trial.loop(), [] { return long_text(); }); });
    const auto thrown = watched.watch([&] {
      return pawl::run_in_executor(trial.loop(), []() -> int { throw std::runtime_error("no"); });
    });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    check_ended(trial, job);
    if (thrown.valid()) CHECK(thrown.exception() != nullptr);
  });
}

TEST_CASE("A child's future ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(300ms);
    Watched watched(trial);
    pawl::ChildProcessOptions options;
    options.arguments = {"/bin/sh", "-c", "exit 3"};
    const auto child = watched.watch([&] { return pawl::run_child(trial.loop(), options); });
    trial.run([&] { return watched.is_over(); });
    trial.run_dry();
    check_ended(trial, child);
  });
}

TEST_CASE("run_until_complete gives the value or throws, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Text text;
    for (int i = 0; i < 2 && text.empty(); ++i) {
      trial.attempt([&] {
        text = pawl::run_until_complete(
            trial.loop(), pawl::make_ready_future(trial.loop()).then([] { return long_text(); }));
      });
    }
    CHECK(text == long_text());
  });
}

TEST_CASE("Futures whose loop goes end then, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    Watched watched(trial);
    std::vector<Future<void>> children(3);
    for (auto& child : children) {
      trial.insist([&] { child = pawl::sleep(loop, 1h).then([big = long_text()] {}); });
    }
    const auto gathered = watched.watch([&] { return pawl::gather(loop, children); });
    const auto limited =
        watched.watch([&] { return pawl::wait_for(pawl::shield(children[0]), 1h); });
    trial.must([&] { trial.end_loop(); });
    if (gathered.valid()) CHECK(gathered.done());
    if (limited.valid()) CHECK(limited.done());
    CHECK(watched.called == 0);
  });
}
