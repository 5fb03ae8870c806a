// SPDX-License-Identifier: MIT
// In debug mode, what another thread does to a running loop's futures is reported, and refused
// where it can be; where it can't, in a destructor, the program goes on.
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
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
#include "pawl/loop/event_loop.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Future;
using pawl::LoopOptions;
using pawl::Promise;

namespace {

LoopOptions in_debug() {
  LoopOptions options;
  options.debug = true;
  options.slow_callback = 1h;
  return options;
}

/// One of each, which the loop's thread has made.
struct Things {
  explicit Things(EventLoop& of) : loop(of) {
    loop.set_report_sink([this](std::string_view line) { lines.emplace_back(line); });
  }

  EventLoop& loop;
  std::vector<std::string> lines;
  std::optional<Promise<int>> promise{std::in_place, loop};
  Future<int> future = promise->future();
  pawl::Event event{loop};
  pawl::Queue<int> queue{loop};
  pawl::Lock lock{loop};
  pawl::Permit permit = lock.try_acquire();
  Future<int> got = queue.get();
  Future<pawl::Permit> turn = lock.acquire();
  SocketPair pair;
  std::unique_ptr<pawl::Task<>> task = pawl::make_task(
      loop, "reader", [this](auto&) { return pawl::Next::readable(pair.ours.get()); });

  /// Calls `act` from another thread while the loop runs.
  void from_elsewhere(const std::function<void(Things&)>& act) {
    loop.call_soon([&] {
      loop.call_soon([&] {  // the task waits by now
        std::thread([&] { act(*this); }).join();
        loop.stop();
      });
    });
    loop.run_forever();
  }
  /// Makes all passes that what has happened wants.
  void settle() {
    for (int i = 0; i < 8; ++i) loop.run_once(0s);
  }
};

struct Act {
  const char* name;
  std::function<void(Things&)> perform;
};

const Act refused[] = {
    {"Promise::set_result", [](auto& it) { it.promise->set_result(1); }},
    {"Promise::set_exception", [](auto& it) { it.promise->set_exception(pawl::Errc::aborted); }},
    {"making a promise", [](auto& it) { Promise<int> another(it.loop); }},
    {"Future::cancel", [](auto& it) { it.future.cancel(); }},
    {"Future::add_done_callback", [](auto& it) { it.future.add_done_callback([] {}); }},
    {"Future::then", [](auto& it) { it.future.then([](int) {}); }},
    {"make_ready_future", [](auto& it) { pawl::make_ready_future(it.loop, 1); }},
    {"gather", [](auto& it) { pawl::gather(it.loop, std::vector<Future<int>>{it.future}); }},
    {"wait", [](auto& it) { pawl::wait(it.loop, std::vector<Future<int>>{it.future}); }},
    {"wait_for", [](auto& it) { pawl::wait_for(it.future, 1h); }},
    {"shield", [](auto& it) { pawl::shield(it.future); }},
    {"sleep", [](auto& it) { pawl::sleep(it.loop, 1h); }},
    {"run_in_executor", [](auto& it) { pawl::run_in_executor(it.loop, [] {}); }},
    {"make_task",
     [](auto& it) { pawl::make_task(it.loop, "b", [](auto&) { return pawl::Next::done(); }); }},
    {"Event::set", [](auto& it) { it.event.set(); }},
    {"Event::wait", [](auto& it) { it.event.wait(); }},
    {"Queue::put", [](auto& it) { it.queue.put(1); }},
    {"Queue::put_nowait", [](auto& it) { it.queue.put_nowait(1); }},
    {"Queue::get", [](auto& it) { it.queue.get(); }},
    {"Queue::get_nowait", [](auto& it) { it.queue.get_nowait(); }},
    {"Queue::shutdown", [](auto& it) { it.queue.shutdown(); }},
    {"Lock::acquire", [](auto& it) { it.lock.acquire(); }},
    {"Lock::try_acquire", [](auto& it) { it.lock.try_acquire(); }},
    {"Task::cancel", [](auto& it) { it.task->cancel(); }},
};

}  // namespace

TEST_CASE("In debug mode what another thread does to a future is reported and refused",
          "[threads]") {
  for (const Act& act : refused) {
    INFO(act.name);
    EventLoop loop(in_debug());
    Things things(loop);
    bool is_refused = false;
    things.from_elsewhere([&](Things& all) {
      try {
        act.perform(all);
      } catch (const std::logic_error& error) {
        is_refused = std::string(error.what()).find("thread") != std::string::npos;
      }
    });
    CHECK(is_refused);
    REQUIRE(things.lines.size() == 1);
    CHECK(things.lines[0].find("not the loop's") != std::string::npos);
    // And nothing has changed.
    CHECK_FALSE(things.future.done());
    CHECK_FALSE(things.task->done());
    things.promise->set_result(7);
    things.queue.put_nowait(8);
    things.permit.release();
    write_byte(things.pair.theirs.get());
    things.settle();
    CHECK(things.future.result() == 7);
    CHECK(things.got.result() == 8);
    CHECK(things.turn.done());
    things.task.reset();
  }
}

TEST_CASE("In debug mode what another thread lets go of is reported, and the program goes on",
          "[threads]") {
  EventLoop loop(in_debug());
  Things things(loop);
  int called = 0;
  things.future.add_done_callback([&] { ++called; });
  SECTION("a promise") {
    things.from_elsewhere([](Things& all) { all.promise.reset(); });
    things.settle();
    CHECK(things.future.error() == pawl::Errc::broken_promise);
    CHECK(called == 1);
  }
  SECTION("a permit") {
    things.from_elsewhere([](Things& all) { all.permit.release(); });
    things.settle();
    CHECK(things.turn.done());
  }
  SECTION("a task") {
    things.from_elsewhere([](Things& all) { all.task.reset(); });
    things.settle();
    CHECK(loop.selector().get_key(things.pair.ours.get()) == nullptr);
  }
  SECTION("a task that waits for a promise, which hears of it") {
    bool told = false;
    things.promise->on_cancel([&] { told = true; });
    things.task = pawl::make_task(loop, "waiter",
                                  [&things](auto&) { return pawl::Next::future(things.future); });
    things.from_elsewhere([](Things& all) { all.task.reset(); });
    things.settle();
    CHECK(things.future.cancelled());
    CHECK(told);
  }
  SECTION("a future that nobody looked at") {
    things.promise->set_exception(pawl::Errc::aborted);
    things.settle();
    things.from_elsewhere([](Things& all) { all.future = {}; });
    things.from_elsewhere([](Things& all) { all.promise.reset(); });
    things.settle();
  }
  CHECK_FALSE(things.lines.empty());
}
