// SPDX-License-Identifier: MIT
// What becomes of futures and tasks when the loop goes first.
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pawl/async/as_completed.hpp"
#include "pawl/async/event.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/make_future.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/run_in_executor.hpp"
#include "pawl/async/shield.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait.hpp"
#include "pawl/async/wait_for.hpp"

using namespace std::chrono_literals;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::Promise;

TEST_CASE("A future and its promise may outlive the loop") {
  std::optional<EventLoop> loop(std::in_place);
  Promise<std::string> promise(*loop);
  const Future<std::string> future = promise.future();
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  future.add_done_callback([token = std::move(token)] { FAIL("called"); });
  const auto mapped = future.then([](const std::string& text) { return text.size(); });
  loop.reset();
  CHECK_FALSE(future.done());
  promise.set_result("late");
  CHECK(watch.expired());
  CHECK(future.result() == "late");
  CHECK(mapped.error() == Errc::loop_closed);
  future.add_done_callback([] { FAIL("called"); });
  CHECK(future.then([](const std::string&) { return 1; }).error() == Errc::loop_closed);
  CHECK_FALSE(future.cancel());
}

TEST_CASE("Each of several promises may be kept when the loop is gone") {
  std::optional<EventLoop> loop(std::in_place);
  Promise<int> promises[] = {Promise<int>(*loop), Promise<int>(*loop)};
  const auto token = std::make_shared<int>(0);
  for (const Promise<int>& promise : promises) {
    promise.future().add_done_callback([token] { FAIL("called"); });
  }
  loop.reset();
  for (Promise<int>& promise : promises) {
    const long before = token.use_count();
    promise.set_result(1);
    CHECK(token.use_count() == before - 1);
  }
}

TEST_CASE("Debug mode reports with the loop's end what it had no pass left to report") {
  pawl::LoopOptions options;
  options.debug = true;
  std::optional<EventLoop> loop(std::in_place, options);
  std::string reported;
  loop->set_report_sink([&](std::string_view line) { reported += line; });
  Promise<int>(*loop).set_exception(std::runtime_error("lost"));
  CHECK(reported.empty());
  loop.reset();
  CHECK_THAT(reported, Catch::EndsWith(": lost"));
}

TEST_CASE("Callbacks that the loop had no time for are freed with it, uncalled") {
  std::optional<EventLoop> loop(std::in_place);
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  {
    Promise<void> promise(*loop);
    promise.future().add_done_callback([token] { FAIL("called"); });
    promise.future().then([token] { FAIL("called"); });
    promise.set_result();
  }
  token.reset();
  CHECK_FALSE(watch.expired());
  loop.reset();
  CHECK(watch.expired());
}

TEST_CASE("Whatever waits for the loop's own things ends with the loop") {
  std::optional<EventLoop> loop(std::in_place);
  const auto slept = pawl::sleep(*loop, 1h);
  const auto limited = pawl::wait_for(slept, 1h);
  const auto gathered = pawl::gather(*loop, std::vector{slept, pawl::shield(slept)});
  const auto waited = pawl::wait(*loop, std::vector{slept});
  const auto completed = pawl::as_completed(*loop, std::vector{slept, slept});
  const auto made = pawl::make_future<int>(
      *loop, [&](auto done) { return loop->call_later(1h, [done] { done({}, 1); }); });
  pawl::Lock lock(*loop);
  const auto held = lock.acquire();
  const auto turn = lock.acquire();
  pawl::Event event(*loop);
  const auto set = event.wait();
  pawl::Queue<int> queue(*loop, 1);
  const auto item = queue.get();
  loop.reset();
  CHECK(slept.error() == Errc::loop_closed);
  CHECK(limited.error() == Errc::loop_closed);
  CHECK(gathered.error() == Errc::loop_closed);
  CHECK(waited.error() == Errc::loop_closed);
  CHECK(completed[1].error() == Errc::loop_closed);
  CHECK(made.error() == Errc::loop_closed);
  CHECK(turn.error() == Errc::loop_closed);
  CHECK(set.error() == Errc::loop_closed);
  CHECK(item.error() == Errc::loop_closed);
}

TEST_CASE("A task that is left when the loop goes is cancelled, and may be destroyed later") {
  std::optional<EventLoop> loop(std::in_place);
  Promise<int> promise(*loop);
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  const auto waiting = [&](auto next) {
    return pawl::make_task(*loop, "left", [next, token](pawl::Task<>&) { return next(); });
  };
  const auto sleeping = waiting([] { return pawl::Next::sleep(1h); });
  const auto awaiting = waiting([&] { return pawl::Next::future(promise.future()); });
  loop->run_once(pawl::Duration::zero());
  const auto unbegun = waiting([] { return pawl::Next::yield(); });
  token.reset();
  loop.reset();
  CHECK(sleeping->done());
  CHECK(awaiting->future().cancelled());
  CHECK(unbegun->future().cancelled());
  CHECK(promise.cancelled());
  CHECK(watch.expired());
}

TEST_CASE("A promise that only a callback of the loop holds is broken with the loop") {
  std::optional<EventLoop> loop(std::in_place);
  Promise<int> promise(*loop);
  const Future<int> future = promise.future();
  loop->call_later(1h, [kept = std::move(promise)]() mutable { kept.set_result(1); });
  loop.reset();
  CHECK(future.error() == Errc::broken_promise);
}

TEST_CASE("A gather of promises that outlive the loop ends with them") {
  std::optional<EventLoop> loop(std::in_place);
  std::vector<Promise<int>> promises;
  promises.emplace_back(*loop);
  promises.emplace_back(*loop);
  const auto gathered =
      pawl::gather(*loop, std::vector{promises[0].future(), promises[1].future()});
  const auto waited = pawl::wait(*loop, std::vector{promises[0].future()});
  loop.reset();
  promises.clear();
  CHECK(gathered.error() == Errc::loop_closed);
  CHECK(waited.error() == Errc::loop_closed);
}

TEST_CASE("Work that runs when the loop goes ends with it", "[threads]") {
  std::optional<EventLoop> loop(std::in_place);
  const auto future = pawl::run_in_executor(*loop, [] { return 1; });
  loop.reset();
  CHECK(future.error() == Errc::loop_closed);
}
