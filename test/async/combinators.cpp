// SPDX-License-Identifier: MIT
// gather, wait, wait_for, as_completed, shield, sleep and run_until_complete.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pawl/async/as_completed.hpp"
#include "pawl/async/cancelled_error.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/shield.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait.hpp"
#include "pawl/async/wait_for.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::CancelledError;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::Promise;
using pawl::ReturnWhen;

namespace {

template <typename Value>
std::vector<Promise<Value>> promises(EventLoop& loop, std::size_t count) {
  std::vector<Promise<Value>> all;
  for (std::size_t i = 0; i < count; ++i) all.emplace_back(loop);
  return all;
}

template <typename Value>
std::vector<Future<Value>> futures(const std::vector<Promise<Value>>& all) {
  std::vector<Future<Value>> result;
  for (const auto& each : all) result.push_back(each.future());
  return result;
}

void pass(EventLoop& loop) { loop.run_once(Duration::zero()); }

}  // namespace

TEST_CASE("gather gives the values in the order of its arguments") {
  EventLoop loop;
  auto all = promises<std::string>(loop, 3);
  const auto gathered = pawl::gather(loop, futures(all));
  all[2].set_result("c");
  all[0].set_result("a");
  loop.run();
  CHECK_FALSE(gathered.done());
  all[1].set_result("b");
  CHECK_FALSE(gathered.done());
  loop.run();
  CHECK(gathered.result() == std::vector<std::string>{"a", "b", "c"});
  CHECK(all[0].future().result() == "a");  // somebody else may look at it still
}

TEST_CASE("gather of none is done at once, of one has one") {
  EventLoop loop;
  CHECK(pawl::gather(loop, std::vector<Future<int>>{}).result().empty());
  CHECK(pawl::gather(loop, std::vector<Future<void>>{}).done());
  const auto one = pawl::gather(loop, std::vector{pawl::make_ready_future(loop, 1)});
  CHECK(one.result() == std::vector<int>{1});
}

TEST_CASE("gather of 100,000 has all of them") {
  EventLoop loop;
  constexpr std::size_t count = 100'000;
  auto all = promises<std::size_t>(loop, count);
  const auto gathered = pawl::gather(loop, futures(all));
  for (std::size_t i = count; i-- > 0;) all[i].set_result(i);
  loop.run();
  bool in_order = gathered.result().size() == count;
  for (std::size_t i = 0; i < count; ++i) in_order = in_order && gathered.result()[i] == i;
  CHECK(in_order);
}

TEST_CASE("gather moves values that can't be copied, and takes void") {
  EventLoop loop;
  auto pointers = promises<std::unique_ptr<int>>(loop, 2);
  const auto gathered = pawl::gather(loop, futures(pointers));
  for (auto& each : pointers) each.set_result(std::make_unique<int>(2));
  loop.run();
  CHECK(*gathered.result()[1] == 2);
  auto nothing = promises<void>(loop, 2);
  const Future<void> done = pawl::gather(loop, futures(nothing));
  for (auto& each : nothing) each.set_result();
  loop.run();
  CHECK_NOTHROW(done.result());
}

TEST_CASE("gather of different types is a tuple") {
  EventLoop loop;
  Promise<int> number(loop);
  Promise<void> nothing(loop);
  Promise<std::unique_ptr<int>> pointer(loop);
  const auto gathered = pawl::gather(loop, number.future(), nothing.future(), pointer.future());
  number.set_result(1);
  nothing.set_result();
  pointer.set_result(std::make_unique<int>(3));
  loop.run();
  CHECK(std::get<0>(gathered.result()) == 1);
  CHECK(*std::get<2>(gathered.result()) == 3);
}

TEST_CASE("The first failure is gather's at once, and the others go on") {
  EventLoop loop;
  auto all = promises<int>(loop, 3);
  bool told = false;
  all[0].on_cancel([&] { told = true; });
  const auto gathered = pawl::gather(loop, futures(all));
  all[1].set_exception(std::runtime_error("first"));
  all[2].set_exception(std::runtime_error("second"));
  loop.run();
  CHECK_THROWS_WITH(gathered.result(), "first");
  CHECK_FALSE(all[0].done());
  all[0].set_result(1);
  loop.run();
  CHECK_FALSE(told);
}

TEST_CASE("A gather that failed has looked at the failures that came later") {
  pawl::LoopOptions options;
  options.debug = true;
  EventLoop loop(options);
  int reports = 0;
  loop.set_report_sink([&](std::string_view) { ++reports; });
  {
    auto all = promises<int>(loop, 3);
    const auto gathered = pawl::gather(loop, futures(all));
    for (auto& each : all) each.set_exception(std::runtime_error("no"));
    loop.run();
    CHECK_THROWS(gathered.result());
  }
  loop.run();
  CHECK(reports == 0);
}

TEST_CASE("A child that is cancelled is a failure to gather, which isn't cancelled itself") {
  EventLoop loop;
  auto all = promises<int>(loop, 2);
  const auto gathered = pawl::gather(loop, futures(all));
  all[0].future().cancel();
  loop.run();
  CHECK_THROWS_AS(gathered.result(), CancelledError);
  CHECK_FALSE(gathered.cancelled());
  const auto late = pawl::gather(loop, futures(all));
  CHECK_THROWS_AS(late.result(), CancelledError);
}

TEST_CASE("With return_exceptions failures are among the results") {
  EventLoop loop;
  auto all = promises<int>(loop, 4);
  const auto gathered = pawl::gather(loop, futures(all), pawl::return_exceptions);
  all[0].set_result(1);
  all[1].set_exception(std::runtime_error("no"));
  all[2].future().cancel();
  loop.run();
  CHECK_FALSE(gathered.done());
  all[3].set_result(4);
  loop.run();
  auto& outcomes = gathered.result();
  CHECK(outcomes[0].get() == 1);
  CHECK_THROWS_WITH(outcomes[1].get(), "no");
  CHECK_THROWS_AS(outcomes[2].get(), CancelledError);
  CHECK(outcomes[3].get() == 4);
}

TEST_CASE("Cancelling a gather cancels each child once") {
  EventLoop loop;
  auto all = promises<int>(loop, 3);
  int told = 0;
  for (auto& each : all) each.on_cancel([&] { ++told; });
  all[1].set_result(1);
  auto children = futures(all);
  children.push_back(children[0]);
  const auto gathered = pawl::gather(loop, children);
  CHECK(gathered.cancel());
  CHECK(gathered.cancelled());
  CHECK(all[0].cancelled());
  CHECK_FALSE(all[1].cancelled());
  CHECK(all[2].cancelled());
  loop.run();
  CHECK(told == 2);
}

TEST_CASE("A gather may have the same future twice") {
  EventLoop loop;
  Promise<std::string> promise(loop);
  const auto gathered = pawl::gather(loop, std::vector{promise.future(), promise.future()});
  promise.set_result("twice");
  loop.run();
  CHECK(gathered.result() == std::vector<std::string>{"twice", "twice"});
}

TEST_CASE("A gather may be cancelled from a callback of its child in the same pass") {
  EventLoop loop;
  auto all = promises<int>(loop, 2);
  Future<std::vector<int>> gathered;
  all[0].future().add_done_callback([&] { gathered.cancel(); });
  gathered = pawl::gather(loop, futures(all));
  all[0].set_result(1);
  all[1].set_result(2);
  loop.run();
  CHECK(gathered.cancelled());
}

TEST_CASE("A child may be destroyed with everything else from its own callback") {
  EventLoop loop;
  auto all = promises<int>(loop, 2);
  auto gathered = std::make_unique<Future<std::vector<int>>>(pawl::gather(loop, futures(all)));
  all[0].future().add_done_callback([&] {
    gathered.reset();
    all.clear();
  });
  all[0].set_result(1);
  loop.run();
  CHECK(gathered == nullptr);
}

TEST_CASE("wait for all gives all, whatever became of them") {
  EventLoop loop;
  auto all = promises<int>(loop, 3);
  const auto waited = pawl::wait(loop, futures(all));
  all[1].set_exception(Errc::aborted);
  all[0].future().cancel();
  loop.run();
  CHECK_FALSE(waited.done());
  all[2].set_result(3);
  loop.run();
  REQUIRE(waited.result().done.size() == 3);
  CHECK(waited.result().pending.empty());
  CHECK(waited.result().done[2].result() == 3);
}

TEST_CASE("wait for the first that is completed leaves the others pending") {
  EventLoop loop;
  auto all = promises<int>(loop, 3);
  const auto waited = pawl::wait(loop, futures(all), ReturnWhen::first_completed);
  all[1].set_result(1);
  loop.run();
  REQUIRE(waited.result().done.size() == 1);
  CHECK(waited.result().done[0].result() == 1);
  CHECK(waited.result().pending.size() == 2);
  CHECK_FALSE(all[0].done());
}

TEST_CASE("wait for the first exception isn't over with a value or a cancellation") {
  EventLoop loop;
  auto all = promises<int>(loop, 4);
  const auto waited = pawl::wait(loop, futures(all), ReturnWhen::first_exception);
  all[0].set_result(1);
  all[1].future().cancel();
  loop.run();
  CHECK_FALSE(waited.done());
  all[2].set_exception(Errc::aborted);
  loop.run();
  CHECK(waited.result().done.size() == 3);
  CHECK(waited.result().pending.size() == 1);
}

TEST_CASE("wait of none, and of what is done already, is done at once") {
  EventLoop loop;
  CHECK(pawl::wait(loop, std::vector<Future<int>>{}).result().done.empty());
  auto all = promises<int>(loop, 2);
  all[1].set_result(1);
  const auto first = pawl::wait(loop, futures(all), ReturnWhen::first_completed);
  CHECK(first.result().pending.size() == 1);
}

TEST_CASE("wait ends with its time, and neither that nor cancelling it cancels a child") {
  EventLoop loop;
  auto all = promises<int>(loop, 2);
  all[0].set_result(1);
  const auto waited = pawl::wait(loop, futures(all), ReturnWhen::all_completed, 1ms);
  loop.run();
  CHECK(waited.result().done.size() == 1);
  CHECK(waited.result().pending.size() == 1);
  const auto cancelled = pawl::wait(loop, futures(all), ReturnWhen::all_completed, 1h);
  cancelled.cancel();
  CHECK_FALSE(all[1].done());
  CHECK(loop.why_alive().empty());
}

TEST_CASE("wait_for gives the value that comes in time and cancels its timer") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto limited = pawl::wait_for(promise.future(), 1h);
  promise.set_result(3);
  loop.run();
  CHECK(limited.result() == 3);
  CHECK(loop.why_alive().empty());
}

TEST_CASE("wait_for cancels what it waited for when the time is over") {
  EventLoop loop;
  Promise<int> promise(loop);
  bool told = false;
  promise.on_cancel([&] { told = true; });
  const auto limited = pawl::wait_for(promise.future(), 1ms);
  loop.run();
  CHECK(limited.error() == Errc::timed_out);
  CHECK(limited.error() == std::errc::timed_out);
  CHECK(promise.cancelled());
  CHECK(told);
}

TEST_CASE("A result in the same pass as the end of the time wins") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  Promise<int> promise(loop);
  const auto limited = pawl::wait_for(promise.future(), 1s);
  const auto later = pawl::wait_for(promise.future(), 1s);
  bool told = false;
  promise.on_cancel([&] { told = true; });
  // Timers run before callbacks: when the time is over, the result is set but not yet delivered.
  promise.set_result(3);
  clock.advance(2s);
  while (loop.run_once(Duration::zero())) {
  }
  CHECK(limited.result() == 3);
  CHECK(later.result() == 3);
  CHECK_FALSE(told);
}

TEST_CASE(
    "A timer that sets the result in the pass in which the time ends wins or loses by order") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  Promise<int> first(loop);
  Promise<int> second(loop);
  loop.call_later(1s, [&] { first.set_result(1); });
  const auto won = pawl::wait_for(first.future(), 1s);
  const auto lost = pawl::wait_for(second.future(), 1s);
  loop.call_later(1s, [&] { second.set_result(2); });
  clock.advance(1s);
  while (loop.run_once(Duration::zero())) {
  }
  CHECK(won.result() == 1);
  CHECK(lost.error() == Errc::timed_out);
}

TEST_CASE("Cancelling wait_for cancels what it waits for, and its timer") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto limited = pawl::wait_for(promise.future(), 1h);
  limited.cancel();
  CHECK(limited.cancelled());
  CHECK(promise.cancelled());
  CHECK(loop.why_alive().find("timer") == std::string::npos);
}

TEST_CASE("wait_for of no time at all still gives what is done") {
  EventLoop loop;
  const auto limited = pawl::wait_for(pawl::make_ready_future(loop, 5), Duration::zero());
  loop.run();
  CHECK(limited.result() == 5);
}

TEST_CASE("wait_for passes an error, and a cancellation, by") {
  EventLoop loop;
  Promise<int> failing(loop);
  Promise<int> cancelled(loop);
  const auto failed = pawl::wait_for(failing.future(), 1h);
  const auto ended = pawl::wait_for(cancelled.future(), 1h);
  failing.set_exception(Errc::aborted);
  cancelled.future().cancel();
  loop.run();
  CHECK(failed.error() == Errc::aborted);
  CHECK(ended.cancelled());
}

TEST_CASE("as_completed gives results in the order of their coming") {
  EventLoop loop;
  auto all = promises<std::string>(loop, 3);
  const auto next = pawl::as_completed(loop, futures(all));
  REQUIRE(next.size() == 3);
  all[2].set_result("c");
  pass(loop);
  CHECK(next[0].result() == "c");
  CHECK_FALSE(next[1].done());
  all[0].set_exception(Errc::aborted);
  all[1].set_result("b");
  loop.run();
  CHECK(next[1].error() == Errc::aborted);
  CHECK(next[2].result() == "b");
  CHECK(pawl::as_completed(loop, std::vector<Future<int>>{}).empty());
}

TEST_CASE("Cancelling one of as_completed leaves its turn to the next") {
  EventLoop loop;
  auto all = promises<int>(loop, 2);
  const auto next = pawl::as_completed(loop, futures(all));
  next[0].cancel();
  all[0].set_result(1);
  all[1].set_result(2);
  loop.run();
  CHECK(next[1].result() == 1);
}

TEST_CASE("shield keeps a cancellation from what it waits for") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto shielded = pawl::shield(promise.future());
  const auto second = pawl::shield(promise.future());
  shielded.cancel();
  CHECK(shielded.cancelled());
  CHECK_FALSE(promise.cancelled());
  promise.set_result(1);
  loop.run();
  CHECK(second.result() == 1);
}

TEST_CASE("sleep is done when its time is over, never early, and cancelling frees its timer") {
  EventLoop loop;
  const auto begun = loop.time();
  const auto slept = pawl::sleep(loop, 2ms);
  const auto cancelled = pawl::sleep(loop, 1h);
  CHECK(loop.why_alive().find("combinators.cpp") != std::string::npos);
  cancelled.cancel();
  loop.run();
  CHECK(slept.done());
  CHECK(loop.time() - begun >= 2ms);
  CHECK(cancelled.cancelled());
}

TEST_CASE("run_until_complete gives the value, and throws the exception") {
  EventLoop loop;
  CHECK(pawl::run_until_complete(loop, pawl::sleep(loop, 1ms).then([] { return 5; })) == 5);
  pawl::run_until_complete(loop, pawl::sleep(loop, 1ms));
  CHECK(*pawl::run_until_complete(loop, pawl::make_ready_future(loop, std::make_unique<int>(1))) ==
        1);
  CHECK_THROWS_AS(pawl::run_until_complete(
                      loop, pawl::make_failed_future<int>(loop, std::error_code(Errc::aborted))),
                  std::system_error);
  const auto forever = pawl::sleep(loop, 1h);
  pawl::run_until_complete(loop, pawl::sleep(loop, 1ms));  // what else there is may go on later
  CHECK_FALSE(forever.done());
}

TEST_CASE("run_until_complete says why when the loop runs dry first") {
  EventLoop loop;
  Promise<int> promise(loop);
  const std::string made_at = "combinators.cpp:" + std::to_string(__LINE__ - 1);
  const auto mapped = promise.future().then([](int) { return 1; });
  CHECK_THROWS_WITH(pawl::run_until_complete(loop, mapped),
                    Catch::Contains("the loop ran dry before the future made at combinators.cpp") &&
                        Catch::Contains("the future made at " + made_at));
  const auto task = pawl::make_task(
      loop, "stuck", [&](pawl::Task<>&) { return pawl::Next::future(promise.future()); });
  CHECK_THROWS_WITH(pawl::run_until_complete(loop, task->future()),
                    Catch::Contains("task stuck, step 1, AWAITING the future made at " + made_at));
}

TEST_CASE("run_until_complete says so when the loop was stopped first") {
  EventLoop loop;
  const auto forever = pawl::sleep(loop, 1h);
  loop.call_soon([&] { loop.stop(); });
  CHECK_THROWS_WITH(pawl::run_until_complete(loop, forever), Catch::Contains("was stopped before"));
  forever.cancel();
}

TEST_CASE("An exception from a callback leaves run_until_complete, and the loop stays usable") {
  EventLoop loop;
  const auto slept = pawl::sleep(loop, 1ms);
  loop.call_soon([] { throw std::runtime_error("other"); });
  CHECK_THROWS_WITH(pawl::run_until_complete(loop, slept), "other");
  pawl::run_until_complete(loop, slept);
  CHECK(slept.done());
}

TEST_CASE("A run_until_complete that an exception left stops no later run") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  SECTION("when the future is done in the pass of the exception") {
    loop.call_soon([&] { promise.set_result(1); });
    // Behind the waiter of run_until_complete, whichever pass that comes in.
    future.add_done_callback(
        [&] { future.add_done_callback([] { throw std::runtime_error("late"); }); });
    loop.call_soon(
        [&] { loop.call_soon([&] { loop.call_soon([] { throw std::runtime_error("late"); }); }); });
  }
  SECTION("when the future is done later") {
    loop.call_soon([] { throw std::runtime_error("late"); });
    loop.call_later(1ms, [&] { promise.set_result(1); });
  }
  SECTION("by another waiter of the future") {
    loop.call_soon([&] { promise.set_result(1); });
    future.add_done_callback([] { throw std::runtime_error("late"); });
  }
  int thrown = 0;
  for (int i = 0; i < 5; ++i) {
    try {
      const int value = pawl::run_until_complete(loop, future);
      CHECK(value == 1);
    } catch (const std::runtime_error&) {
      ++thrown;
    }
  }
  CHECK(thrown >= 1);
  bool is_through = false;
  loop.call_later(2ms, [&] {
    is_through = true;
    loop.stop();
  });
  loop.run_forever();
  CHECK(is_through);
}

TEST_CASE("An exception from each kind of async callback leaves the others as they were") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  std::string order;
  const auto fail = [&](char name) {
    order += name;
    loop.stop();  // of the run that ends with the exception
    throw std::runtime_error("no");
  };
  future.add_done_callback([&] { fail('a'); });
  const Future<int> then = future.then([&](int value) { return value + 1; });
  promise.on_cancel([&] { FAIL("it has a result"); });
  Promise<void> cancelled(loop);
  cancelled.on_cancel([&] { fail('b'); });
  cancelled.future().cancel();
  const Future<void> slept = pawl::sleep(loop, 0s);
  slept.add_done_callback([&] { fail('c'); });
  future.add_done_callback(
      [&](const Future<int>& done) { order += done.result() == 1 ? 'd' : '?'; });
  loop.call_soon([&] { promise.set_result(1); });
  int thrown = 0;
  for (int i = 0; i < 10; ++i) {
    try {
      loop.run();
    } catch (const std::runtime_error&) {
      ++thrown;
    }
  }
  CHECK(thrown == 3);
  CHECK(then.result() == 2);
  CHECK(order.size() == 4);
  CHECK(order.find('a') < order.find('d'));
}
