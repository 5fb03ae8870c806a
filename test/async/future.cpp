// SPDX-License-Identifier: MIT
// Future, Promise and then.
#include "pawl/async/future.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pawl/async/cancelled_error.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/allocation_counter.hpp"

using namespace std::chrono_literals;
using pawl::CancelledError;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::LoopOptions;
using pawl::Promise;

namespace {

/// Collects what debug mode says.
struct Reports {
  Reports() {
    loop.set_report_sink([this](std::string_view line) { lines.emplace_back(line); });
  }
  static LoopOptions debug() {
    LoopOptions options;
    options.debug = true;
    return options;
  }

  std::vector<std::string> lines;
  EventLoop loop{debug()};
};

std::string here(int line) { return "future.cpp:" + std::to_string(line); }

}  // namespace

TEST_CASE("A promise gives its future a value") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  CHECK(future.valid());
  CHECK_FALSE(future.done());
  CHECK_THROWS_AS(future.result(), std::logic_error);
  CHECK_THROWS_AS(future.exception(), std::logic_error);
  CHECK_THROWS_AS(future.error(), std::logic_error);
  promise.set_result(5);
  CHECK(future.done());
  CHECK_FALSE(future.cancelled());
  CHECK(future.result() == 5);
  CHECK(future.exception() == nullptr);
  CHECK_FALSE(future.error());
  CHECK_FALSE(future.cancel());
  CHECK(future.result() == 5);
}

TEST_CASE("A promise of void is kept without a value") {
  EventLoop loop;
  Promise<void> promise(loop);
  const Future<void> future = promise.future();
  promise.set_result();
  CHECK(future.done());
  CHECK_NOTHROW(future.result());
}

TEST_CASE("A value that can only be moved is taken out of its future") {
  EventLoop loop;
  Promise<std::unique_ptr<int>> promise(loop);
  promise.set_result(std::make_unique<int>(3));
  const std::unique_ptr<int> value = std::move(promise.future().result());
  CHECK(*value == 3);
}

TEST_CASE("A future throws the exception that was set") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  promise.set_exception(std::runtime_error("no"));
  CHECK(future.done());
  CHECK_THROWS_WITH(future.result(), "no");
  CHECK_THROWS_WITH(future.result(), "no");
  CHECK(future.exception() != nullptr);
  CHECK(future.error() == Errc::other_exception);
}

TEST_CASE(
    "A future that failed with an error code throws it as a system_error and tells its place") {
  EventLoop loop;
  Promise<int> promise(loop);
  const int line = __LINE__ - 1;
  promise.set_exception(Errc::timed_out);
  CHECK(promise.future().error() == Errc::timed_out);
  try {
    promise.future().result();
    FAIL("no exception");
  } catch (const std::system_error& error) {
    CHECK(error.code() == Errc::timed_out);
    CHECK_THAT(error.what(), Catch::Contains(here(line)));
  }
  Promise<int> thrown(loop);
  thrown.set_exception(std::system_error(std::make_error_code(std::errc::io_error)));
  CHECK(thrown.future().error() == std::errc::io_error);
}

TEST_CASE("Setting a promise twice is a logic error and changes nothing") {
  EventLoop loop;
  Promise<int> promise(loop);
  promise.set_result(1);
  CHECK_THROWS_AS(promise.set_result(2), std::logic_error);
  CHECK_THROWS_AS(promise.set_exception(Errc::aborted), std::logic_error);
  CHECK(promise.future().result() == 1);
}

TEST_CASE("A promise that is dropped unset breaks its future") {
  EventLoop loop;
  Future<int> future;
  bool called = false;
  {
    Promise<int> promise(loop);
    future = promise.future();
    future.add_done_callback([&] { called = true; });
    Promise<int> moved = std::move(promise);
    CHECK_THROWS_AS(promise.future(), std::logic_error);
    CHECK_FALSE(future.done());
  }
  CHECK(future.error() == Errc::broken_promise);
  CHECK_THROWS_WITH(future.result(), Catch::Contains("promise was dropped before it was kept"));
  CHECK_FALSE(called);
  loop.run();
  CHECK(called);
}

TEST_CASE("A promise that another is moved onto breaks its own future") {
  EventLoop loop;
  Promise<int> first(loop);
  Promise<int> second(loop);
  const Future<int> of_first = first.future();
  const Future<int> of_second = second.future();
  first = std::move(second);
  CHECK(of_first.error() == Errc::broken_promise);
  first.set_result(2);
  CHECK(of_second.result() == 2);
}

TEST_CASE("An empty future is a logic error") {
  const Future<int> future;
  CHECK_FALSE(future.valid());
  CHECK_THROWS_AS(future.done(), std::logic_error);
  CHECK_THROWS_AS(future.cancel(), std::logic_error);
  CHECK_THROWS_AS(future.add_done_callback([] {}), std::logic_error);
}

TEST_CASE("Done callbacks come through the loop, in the order of their adding") {
  EventLoop loop;
  Promise<int> promise(loop);
  std::string order;
  const Future<int> future = promise.future();
  future.add_done_callback([&](Future<int> done) { order += "a" + std::to_string(done.result()); });
  future.add_done_callback([&] { order += "b"; });
  promise.set_result(1);
  future.add_done_callback([&] {
    order += "c";
    future.add_done_callback([&] { order += "e"; });
    order += "d";
  });
  CHECK(order.empty());
  loop.run_once(pawl::Duration::zero());
  CHECK(order == "a1bcd");
  loop.run();
  CHECK(order == "a1bcde");
}

TEST_CASE("Done callbacks keep their place among what call_soon was given") {
  EventLoop loop;
  Promise<void> promise(loop);
  std::string order;
  promise.future().add_done_callback([&] { order += "2"; });
  loop.call_soon([&] { order += "1"; });
  promise.set_result();
  loop.call_soon([&] { order += "3"; });
  loop.run();
  CHECK(order == "123");
}

TEST_CASE("An exception from a done callback leaves run(), and the others still come") {
  EventLoop loop;
  Promise<void> promise(loop);
  std::string order;
  promise.future().add_done_callback([&] { order += "a"; });
  promise.future().add_done_callback([&] {
    promise.future().add_done_callback([&] { order += "d"; });  // behind those that are left over
    throw std::runtime_error("b");
  });
  promise.future().add_done_callback([&] {
    order += "c";
    promise.future().add_done_callback([&] { order += "e"; });
    throw std::runtime_error("c");
  });
  promise.set_result();
  CHECK_THROWS_WITH(loop.run(), "b");
  CHECK_THROWS_WITH(loop.run(), "c");
  loop.run();
  CHECK(order == "acde");
}

TEST_CASE("An exception handler gets what leaves a done callback") {
  EventLoop loop;
  std::string order;
  loop.set_exception_handler([&](std::exception_ptr) { order += "!"; });
  Promise<void> promise(loop);
  promise.future().add_done_callback([&] { throw std::runtime_error("b"); });
  promise.future().add_done_callback([&] { order += "c"; });
  promise.set_result();
  loop.run();
  CHECK(order == "!c");
}

TEST_CASE("A future may be destroyed in its own callback") {
  EventLoop loop;
  auto promise = std::make_unique<Promise<std::string>>(loop);
  auto future = std::make_unique<Future<std::string>>(promise->future());
  std::string got;
  future->add_done_callback([&](const Future<std::string>& done) {
    promise.reset();
    future.reset();
    got = done.result();
  });
  future->add_done_callback([&] { got += "!"; });
  promise->set_result("a string that is too long for the small buffer");
  loop.run();
  CHECK(got == "a string that is too long for the small buffer!");
}

TEST_CASE("What a callback captures is freed when it has run, or thrown") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Promise<void> promise(loop);
  promise.future().add_done_callback([token] {});
  promise.future().add_done_callback([token] { throw std::runtime_error("no"); });
  token.reset();
  promise.set_result();
  CHECK_FALSE(watch.expired());
  CHECK_THROWS(loop.run());
  CHECK(watch.expired());
}

TEST_CASE("A future that is cancelled is done, and its callbacks come") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  std::string order;
  future.add_done_callback([&](const Future<int>& done) { order += done.cancelled() ? "c" : "?"; });
  promise.on_cancel([&] { order += "p"; });
  CHECK(future.cancel());
  CHECK_FALSE(future.cancel());
  CHECK(order.empty());
  CHECK(future.done());
  CHECK(future.cancelled());
  CHECK(promise.cancelled());
  CHECK_THROWS_AS(future.result(), CancelledError);
  CHECK(future.error() == std::errc::operation_canceled);
  loop.run();
  CHECK(order == "pc");
}

TEST_CASE("A result that comes after the cancellation is dropped") {
  EventLoop loop;
  Promise<int> promise(loop);
  promise.future().cancel();
  CHECK_NOTHROW(promise.set_result(1));
  CHECK_NOTHROW(promise.set_exception(Errc::aborted));
  CHECK(promise.future().cancelled());
}

TEST_CASE("A cancel callback that is set after the cancellation is called too") {
  EventLoop loop;
  Promise<int> promise(loop);
  promise.future().cancel();
  bool called = false;
  promise.on_cancel([&] { called = true; });
  CHECK_FALSE(called);
  loop.run();
  CHECK(called);
}

TEST_CASE(
    "Promises hear of their cancellation without memory, however many there are in one pass") {
  EventLoop loop;
  constexpr std::size_t count = 600;
  std::vector<Promise<int>> promises;
  std::vector<Future<int>> futures;
  std::size_t told = 0;
  for (std::size_t i = 0; i < count; ++i) {
    promises.emplace_back(loop);
    promises.back().on_cancel([&] { ++told; });
    futures.push_back(promises.back().future());
  }
  {
    const OutOfMemory forever(0);
    for (Future<int>& future : futures) future.cancel();
  }
  CHECK(told == 0);
  loop.run();
  CHECK(told == count);
}

TEST_CASE("A promise's cancel callback is freed with the result, uncalled") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Promise<int> promise(loop);
  promise.on_cancel([token] { FAIL("called"); });
  token.reset();
  promise.set_result(1);
  CHECK(watch.expired());
  promise.future().cancel();
  loop.run();
}

TEST_CASE("A capture that cancels the future while it is freed by its result cancels it") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<int> future = promise.future();
  const std::shared_ptr<int> canceller(new int(0), [future](const int* number) {
    delete number;
    future.cancel();
  });
  promise.on_cancel([canceller] {});
  const_cast<std::shared_ptr<int>&>(canceller).reset();
  promise.set_result(1);
  CHECK(future.cancelled());
}

TEST_CASE("then maps a value") {
  EventLoop loop;
  Promise<int> promise(loop);
  const Future<std::string> text =
      promise.future().then([](int number) { return number + 1; }).then([](int number) {
        return std::to_string(number);
      });
  promise.set_result(41);
  CHECK_FALSE(text.done());
  loop.run();
  CHECK(text.result() == "42");
}

TEST_CASE("then takes void, gives void, and may ignore the value") {
  EventLoop loop;
  Promise<void> promise(loop);
  std::string order;
  const Future<void> end = promise.future()
                               .then([&] {
                                 order += "a";
                                 return 1;
                               })
                               .then([&] { order += "b"; })
                               .then([&] { order += "c"; });
  promise.set_result();
  loop.run();
  CHECK(end.done());
  CHECK(order == "abc");
}

TEST_CASE("then moves a value that can't be copied, and leaves others where they are") {
  EventLoop loop;
  Promise<std::unique_ptr<int>> pointer(loop);
  Promise<std::string> text(loop);
  const auto number = pointer.future().then([](std::unique_ptr<int> value) { return *value; });
  const auto length = text.future().then([](std::string value) { return value.size(); });
  pointer.set_result(std::make_unique<int>(9));
  text.set_result("four");
  loop.run();
  CHECK(number.result() == 9);
  CHECK(length.result() == 4);
  CHECK(text.future().result() == "four");
  CHECK(pointer.future().result() == nullptr);
}

TEST_CASE("then passes errors and cancellations by") {
  EventLoop loop;
  Promise<int> failing(loop);
  Promise<int> cancelled(loop);
  const auto never = [](int) -> int {
    FAIL("called");
    return 0;
  };
  const auto failed = failing.future().then(never).then(never);
  const auto ended = cancelled.future().then(never).then(never);
  failing.set_exception(Errc::timed_out);
  cancelled.future().cancel();
  loop.run();
  CHECK(failed.error() == Errc::timed_out);
  CHECK(ended.cancelled());
}

TEST_CASE("What a then throws is its future's exception, and doesn't leave run()") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto failed = promise.future().then([](int) -> int { throw std::runtime_error("no"); });
  promise.set_result(1);
  CHECK_NOTHROW(loop.run());
  CHECK_THROWS_WITH(failed.result(), "no");
}

TEST_CASE("A future that a then returns is waited for") {
  EventLoop loop;
  Promise<int> outer(loop);
  Promise<std::string> inner(loop);
  const Future<std::string> text = outer.future().then([&](int) { return inner.future(); });
  outer.set_result(1);
  loop.run();
  CHECK_FALSE(text.done());
  inner.set_result("in");
  loop.run();
  CHECK(text.result() == "in");

  Promise<int> second(loop);
  Promise<void> broken(loop);
  const Future<void> failed = second.future().then([&](int) { return broken.future(); });
  second.set_result(1);
  broken.set_exception(std::runtime_error("inner"));
  loop.run();
  CHECK_THROWS_WITH(failed.result(), "inner");
}

TEST_CASE("A then that returns its own future fails instead of waiting for ever") {
  EventLoop loop;
  Promise<void> promise(loop);
  Future<void> own;
  own = promise.future().then([&] { return own; });
  promise.set_result();
  loop.run();
  CHECK_THROWS_AS(own.result(), std::logic_error);
}

TEST_CASE("A then that returns an empty future fails") {
  EventLoop loop;
  Promise<void> promise(loop);
  const Future<int> failed = promise.future().then([] { return Future<int>(); });
  promise.set_result();
  loop.run();
  CHECK_THROWS_AS(failed.result(), std::logic_error);
}

TEST_CASE("Cancelling a then frees its captures at once and cancels its source") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  Promise<int> promise(loop);
  bool told = false;
  promise.on_cancel([&] { told = true; });
  const auto last =
      promise.future().then([token](int) { return 1; }).then([token](int) { return 2; });
  token.reset();
  CHECK(last.cancel());
  CHECK(watch.expired());
  CHECK(promise.cancelled());
  loop.run();
  CHECK(told);
}

TEST_CASE("Cancelling a then leaves a source alone that somebody else waits for") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto one = promise.future().then([](int) { return 1; });
  const auto two = promise.future().then([](int) { return 2; });
  one.cancel();
  CHECK_FALSE(promise.cancelled());
  two.cancel();
  CHECK(promise.cancelled());
}

TEST_CASE("Cancelling a then that waits for a future that it returned cancels that one") {
  EventLoop loop;
  Promise<int> outer(loop);
  Promise<int> inner(loop);
  const auto both = outer.future().then([&](int) { return inner.future(); });
  outer.set_result(1);
  loop.run();
  both.cancel();
  CHECK(inner.cancelled());
}

TEST_CASE("A then may be cancelled and dropped from inside its own function") {
  EventLoop loop;
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  Promise<int> promise(loop);
  std::optional<Future<int>> own;
  int seen = 0;
  own = promise.future().then([&own, &seen, token](int) {
    own->cancel();
    own.reset();
    seen = *token;
    return 1;
  });
  token.reset();
  promise.set_result(1);
  loop.run();
  CHECK(seen == 7);
  CHECK(watch.expired());
}

TEST_CASE("A then goes on when nobody holds its future") {
  EventLoop loop;
  Promise<int> promise(loop);
  int got = 0;
  promise.future().then([&](int value) { got = value; });
  promise.set_result(4);
  loop.run();
  CHECK(got == 4);
}

TEST_CASE("Ready and failed futures are done when they are made") {
  EventLoop loop;
  CHECK(pawl::make_ready_future(loop, std::string("x")).result() == "x");
  CHECK(pawl::make_ready_future(loop).done());
  CHECK(pawl::make_failed_future<int>(loop, std::error_code(Errc::aborted)).error() ==
        Errc::aborted);
}

TEST_CASE("A pending future doesn't keep run() from returning") {
  EventLoop loop;
  const Promise<int> promise(loop);
  promise.future().add_done_callback([] {});
  loop.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("Debug mode reports an exception that nobody looked at, and where its future was made") {
  Reports reports;
  const int line = __LINE__ + 1;
  Promise<int>(reports.loop).set_exception(std::runtime_error("lost"));
  CHECK(reports.lines.empty());
  reports.loop.run();
  REQUIRE(reports.lines.size() == 1);
  CHECK(reports.lines[0] ==
        "nobody looked at the exception of the future made at " + here(line) + ": lost");
}

TEST_CASE("An exception that somebody looked at isn't reported") {
  Reports reports;
  const auto failed = [&] {
    Promise<int> promise(reports.loop);
    promise.set_exception(std::runtime_error("seen"));
    return promise.future();
  };
  CHECK_THROWS(failed().result());
  CHECK(failed().exception() != nullptr);
  CHECK(failed().error());
  failed().then([](int) { return 1; }).add_done_callback([](const Future<int>& f) { f.error(); });
  Promise<int>(reports.loop).future().cancel();
  { const Promise<int> nobody_waited_for_this(reports.loop); }
  reports.loop.run();
  CHECK(reports.lines.empty());
}

TEST_CASE("A broken promise that nobody looked at is reported when somebody waited for it") {
  Reports reports;
  {
    Promise<int> promise(reports.loop);
    promise.future().add_done_callback([] {});
  }
  reports.loop.run();
  CHECK(reports.lines.size() == 1);
}

TEST_CASE("What isn't reported without debug mode costs nothing to lose") {
  EventLoop loop;
  loop.set_report_sink([](std::string_view) { FAIL("reported"); });
  Promise<int>(loop).set_exception(std::runtime_error("lost"));
  loop.run();
}
