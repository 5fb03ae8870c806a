// SPDX-License-Identifier: MIT
// A callback of a future, or a step of a task, that forks: in the child its pass ends with it.
#include <catch2/catch.hpp>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/async/event.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/queue.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/semaphore.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "support/fork_case.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::Future;
using pawl::make_task;
using pawl::Next;
using pawl::Task;
using Case = ForkCase;

TEST_CASE("A step that forks is the last that its task makes in the child") {
  Case that;
  const auto task = make_task(that.loop, "forker", [&](Task<>& self) {
    that.order.add('s');
    return self.steps() < 3 ? Next::go_on() : Next::done();
  });
  that.check("sss");
  CHECK(task->done());
}

TEST_CASE("A last step that forks ends its task in the parent alone") {
  Case that;
  auto task = make_task<int>(that.loop, "forker", [&](Task<int>& self) {
    that.order.add('s');
    return self.done(7);
  });
  task->future().add_done_callback([&] { that.order.add('d'); });
  that.check("sd");
  CHECK(task->future().result() == 7);
}

TEST_CASE("A step that forks and waits isn't waited for in the child, which may destroy its task") {
  const auto wait = GENERATE(0, 1, 2);
  EventLoop loop;
  ForkInCallback fork;
  auto task = make_task(loop, "forker", [&](Task<>& self) {
    if (self.steps() > 1) return Next::done();
    fork.fork();
    if (wait == 0) return Next::yield();
    if (wait == 1) return Next::sleep(1ms);
    return Next::future(pawl::sleep(loop, 1ms));
  });
  const auto check = [&] {
    const bool is_one = task->steps() == 1;
    task.reset();
    return is_one ? 0 : 1;
  };
  CHECK(fork.child_code([&] { loop.run(); }, check) == ForkInCallback::threw_logic_error);
  CHECK(task->done());
  CHECK(task->steps() == 2);
}

TEST_CASE("A step that forks and throws ends the pass in the child, and the task in the parent") {
  EventLoop loop;
  ForkInCallback fork;
  bool went_on = false;
  const auto task = make_task(loop, "forker", [&](Task<>&) -> Next {
    fork.fork();
    throw std::runtime_error("after the fork");
  });
  task->future().add_done_callback([&] { went_on = true; });
  CHECK(fork.child_code([&] { loop.run(); }, [&] { return went_on ? 1 : 0; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(went_on);
  CHECK_THROWS_AS(task->future().result(), std::runtime_error);
}

TEST_CASE("Each task behind one that forks waits in vain in the child") {
  Case that;
  const auto step = [&](Task<>&) {
    that.order.add('s');
    return Next::done();
  };
  const auto first = make_task(that.loop, "first", step);
  const auto second = make_task(that.loop, "second", step);
  that.check("ss");
}

TEST_CASE("A callback of a future that forks is the last of its future's in the child") {
  Case that;
  const auto future = pawl::make_ready_future(that.loop, 1);
  for (int i = 0; i < 3; ++i) future.add_done_callback([&] { that.order.add('c'); });
  that.check("ccc");
}

TEST_CASE("A link of a chain that forks is its last in the child") {
  Case that;
  const auto end = pawl::make_ready_future(that.loop).then([&] { that.order.add('a'); }).then([&] {
    that.order.add('b');
  });
  that.check("ab");
  CHECK(end.done());
}

TEST_CASE("A child of a gather that forks isn't followed by the others, nor by the gather") {
  Case that;
  std::vector<Future<void>> futures;
  for (int i = 0; i < 2; ++i) {
    futures.push_back(pawl::make_ready_future(that.loop).then([&] { that.order.add('c'); }));
  }
  pawl::gather(that.loop, futures).add_done_callback([&] { that.order.add('g'); });
  that.check("ccg");
}

TEST_CASE("Who waits for an event behind one that forks isn't called in the child") {
  Case that;
  pawl::Event event(that.loop);
  std::vector<Future<void>> turns;
  for (int i = 0; i < 3; ++i) {
    turns.push_back(event.wait([&](std::error_code) { that.order.add('e'); }));
  }
  event.set();
  that.check("eee");
}

TEST_CASE("Who waits for a queue behind one that forks isn't called in the child") {
  Case that;
  pawl::Queue<int> queue(that.loop);
  std::vector<Future<void>> turns;
  for (int i = 0; i < 3; ++i) {
    turns.push_back(queue.get([&](std::error_code, std::optional<int>) { that.order.add('q'); }));
  }
  for (int i = 0; i < 3; ++i) queue.put(i);
  that.check("qqq");
}

TEST_CASE("Who waits for a semaphore behind one that forks isn't called in the child") {
  Case that;
  pawl::Semaphore semaphore(that.loop, 1);
  std::vector<Future<void>> turns;
  for (int i = 0; i < 3; ++i) {
    turns.push_back(semaphore.acquire([&](std::error_code, pawl::Permit) { that.order.add('s'); }));
  }
  that.check("sss");
}

TEST_CASE("Who waits for a lock behind one that forks isn't called in the child") {
  Case that;
  pawl::Lock lock(that.loop);
  std::vector<Future<void>> turns;
  for (int i = 0; i < 2; ++i) {
    turns.push_back(lock.acquire([&](std::error_code, pawl::Permit) { that.order.add('l'); }));
  }
  that.check("ll");
}

TEST_CASE("run_until_complete ends in the child as run() does") {
  EventLoop loop;
  ForkInCallback fork;
  int steps = 0;
  const auto task = make_task(loop, "forker", [&](Task<>&) {
    ++steps;
    fork.fork();
    return steps < 2 ? Next::go_on() : Next::done();
  });
  const auto run = [&] { pawl::run_until_complete(loop, task->future()); };
  CHECK(fork.child_code(run, [&] { return steps == 1 ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(task->done());
}

TEST_CASE("A report of an unseen exception that forks is the last that is made in the child") {
  pawl::LoopOptions options;
  options.debug = true;
  Case that(options);
  that.loop.set_report_sink([&](std::string_view line) {
    if (line.find("nobody looked") != std::string_view::npos) that.order.add('r');
  });
  for (int i = 0; i < 2; ++i) {
    pawl::make_failed_future<int>(that.loop, std::make_error_code(std::errc::io_error));
  }
  that.check("rr");
}
