// SPDX-License-Identifier: MIT
#include "pawl/async/task.hpp"

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pawl/async/cancelled_error.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/wait_for.hpp"
#include "pawl/core/observer.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::CancelledError;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::make_task;
using pawl::Next;
using pawl::Promise;
using pawl::Task;
using pawl::TaskState;

namespace {

/// Goes through every way of waiting, with an enum for its steps.
class Tour final : public Task<std::string> {
 public:
  Tour(EventLoop& loop, int fd, Future<int> future)
      : Task(loop, "tour"), fd_(fd), future_(std::move(future)) {}

 private:
  enum class Step { yield, sleep, write, read, await, end };

  Next step() override {
    seen_ += std::string(step_name()) + " ";
    switch (at_) {
      case Step::yield: at_ = Step::sleep; return Next::yield();
      case Step::sleep: at_ = Step::write; return Next::sleep(1ms);
      case Step::write: at_ = Step::read; return Next::writable(fd_);
      case Step::read: at_ = Step::await; return Next::readable(fd_);
      case Step::await: at_ = Step::end; return Next::future(future_);
      case Step::end: return done(seen_ + std::to_string(future_.result()));
    }
    return Next::done();
  }
  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"yield", "sleep", "write", "read", "await", "end"};
    return names[static_cast<int>(at_)];
  }

  const int fd_;
  const Future<int> future_;
  Step at_ = Step::yield;
  std::string seen_;
};

void pass(EventLoop& loop) { loop.run_once(Duration::zero()); }

/// A task that waits for one thing and is then done with 1.
template <typename Wait>
std::unique_ptr<Task<int>> waiting_task(EventLoop& loop, Wait wait) {
  return make_task<int>(loop, "waiting", [wait, begun = false](Task<int>& self) mutable {
    if (begun) return self.done(1);
    begun = true;
    return wait();
  });
}

}  // namespace

TEST_CASE("A task runs its steps, each when what it waits for is there") {
  EventLoop loop;
  const SocketPair pair;
  Promise<int> promise(loop);
  Tour tour(loop, pair.ours.get(), promise.future());
  CHECK(tour.state() == TaskState::ready);
  CHECK(tour.steps() == 0);
  pass(loop);
  CHECK(tour.state() == TaskState::ready);
  pass(loop);
  CHECK(tour.state() == TaskState::sleeping);
  while (tour.state() != TaskState::reading) loop.run_once();
  CHECK_THAT(tour.describe(), Catch::StartsWith("task tour, step await, READING fd " +
                                                std::to_string(pair.ours.get()) + " for "));
  write_byte(pair.theirs.get());
  while (tour.state() != TaskState::awaiting) loop.run_once();
  promise.set_result(7);
  CHECK(pawl::run_until_complete(loop, tour) == "yield sleep write read await end 7");
  CHECK(tour.done());
  CHECK(tour.steps() == 6);
}

TEST_CASE("A task's first step runs in the pass after its making") {
  EventLoop loop;
  int steps = 0;
  const auto task = make_task(loop, "first", [&](Task<>&) {
    ++steps;
    return Next::done();
  });
  CHECK(steps == 0);
  loop.run();
  CHECK(steps == 1);
  CHECK_NOTHROW(task->future().result());
}

TEST_CASE("Going on runs the next step at once, but never for ever") {
  EventLoop loop;
  int steps = 0;
  bool had_a_turn = false;
  const auto task = make_task(loop, "busy", [&](Task<>&) {
    ++steps;
    return had_a_turn ? Next::done() : Next::go_on();
  });
  loop.call_soon([&] { loop.call_soon([&] { had_a_turn = true; }); });
  loop.run();
  CHECK(steps > 100);
  CHECK(steps < 2000);
}

TEST_CASE("What a step throws is the result of its task, and doesn't leave run()") {
  EventLoop loop;
  const auto task =
      make_task<int>(loop, "thrower", [](Task<int>&) -> Next { throw std::runtime_error("no"); });
  loop.run();
  CHECK(task->done());
  CHECK_THROWS_WITH(task->future().result(), "no");
}

TEST_CASE("A task that is done without the value that it owes has failed") {
  EventLoop loop;
  const auto task = make_task<int>(loop, "debtor", [](Task<int>&) { return Next::done(); });
  loop.run();
  CHECK_THROWS_AS(task->future().result(), std::logic_error);
}

TEST_CASE("A task that has given its result is done, whatever else it says") {
  EventLoop loop;
  const auto task = make_task<int>(loop, "eager", [](Task<int>& self) {
    self.done(1);
    return Next::sleep(1h);
  });
  loop.run();
  CHECK(task->done());
  CHECK(task->future().result() == 1);
}

TEST_CASE("A task that waits for a failed future sees the failure where it looks") {
  EventLoop loop;
  Promise<int> promise(loop);
  const auto failed = promise.future();
  promise.set_exception(Errc::timed_out);
  const auto task = make_task<int>(loop, "looker", [&, begun = false](Task<int>& self) mutable {
    if (begun) return self.done(failed.result());
    begun = true;
    return Next::future(failed);
  });
  loop.run();
  CHECK(task->future().error() == Errc::timed_out);
}

TEST_CASE("A task waits for another task and takes its result") {
  EventLoop loop;
  const auto child = make_task<int>(loop, "child", [begun = false](Task<int>& self) mutable {
    if (begun) return self.done(20);
    begun = true;
    return Next::sleep(1ms);
  });
  const auto parent = make_task<int>(loop, "parent", [&, begun = false](Task<int>& self) mutable {
    if (begun) return self.done(child->future().result() + 1);
    begun = true;
    return Next::task(*child);
  });
  CHECK(pawl::run_until_complete(loop, *parent) == 21);
}

TEST_CASE("A task can be cancelled at every step, and leaves nothing behind") {
  EventLoop loop;
  const SocketPair pair;
  fill(pair.ours.get());
  Promise<int> promise(loop);
  const int fd = pair.ours.get();
  bool is_cancel_told = false;
  promise.on_cancel([&] { is_cancel_told = true; });
  std::vector<std::unique_ptr<Task<int>>> tasks;
  tasks.push_back(waiting_task(loop, [] { return Next::yield(); }));
  tasks.push_back(waiting_task(loop, [] { return Next::sleep(1h); }));
  tasks.push_back(waiting_task(loop, [=] { return Next::readable(fd); }));
  tasks.push_back(waiting_task(loop, [=] { return Next::writable(fd); }));
  tasks.push_back(waiting_task(loop, [&] { return Next::future(promise.future()); }));
  pass(loop);
  tasks.push_back(waiting_task(loop, [] { return Next::yield(); }));  // hasn't begun
  CHECK(pawl::all_tasks(loop).size() == 6);
  for (const auto& task : tasks) {
    CHECK(task->cancel());
    CHECK_FALSE(task->cancel());
    CHECK(task->done());
    CHECK(task->future().cancelled());
  }
  CHECK(promise.cancelled());
  CHECK(pawl::all_tasks(loop).empty());
  CHECK(loop.selector().get_key(fd) == nullptr);
  loop.run();
  CHECK(is_cancel_told);
  CHECK(tasks[0]->steps() == 1);
  CHECK(tasks[5]->steps() == 0);
}

TEST_CASE("Cancelling a task's future cancels the task") {
  EventLoop loop;
  const auto task = waiting_task(loop, [] { return Next::sleep(1h); });
  pass(loop);
  task->future().cancel();
  CHECK(task->done());
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A task that is cancelled while its child runs cancels the child") {
  EventLoop loop;
  auto child = waiting_task(loop, [] { return Next::sleep(1h); });
  const auto parent = waiting_task(loop, [&] { return Next::task(*child); });
  pass(loop);
  REQUIRE(parent->state() == TaskState::awaiting);
  parent->cancel();
  CHECK(child->future().cancelled());
  CHECK(child->done());
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A child that cancels its parent from its own step is cancelled with it") {
  EventLoop loop;
  std::unique_ptr<Task<int>> second;
  const auto inner = make_task<int>(loop, "inner", [&](Task<int>& self) {
    if (second->state() != TaskState::awaiting) return Next::yield();
    second->cancel();
    CHECK(self.done());
    return Next::sleep(1h);
  });
  second = waiting_task(loop, [&] { return Next::task(*inner); });
  loop.run();
  CHECK(inner->future().cancelled());
  CHECK(second->future().cancelled());
}

TEST_CASE("A task whose child is cancelled goes on and sees it") {
  EventLoop loop;
  const auto child = waiting_task(loop, [] { return Next::sleep(1h); });
  const auto parent = make_task<int>(loop, "parent", [&, begun = false](Task<int>& self) mutable {
    if (begun) return self.done(child->future().cancelled() ? 1 : 0);
    begun = true;
    return Next::task(*child);
  });
  pass(loop);
  child->cancel();
  CHECK(pawl::run_until_complete(loop, *parent) == 1);
}

TEST_CASE("A task that is destroyed before it is done is cancelled") {
  EventLoop loop;
  auto task = waiting_task(loop, [] { return Next::sleep(1h); });
  const Future<int> future = task->future();
  pass(loop);
  task.reset();
  CHECK(future.cancelled());
  CHECK(loop.why_alive().empty());
  CHECK(pawl::all_tasks(loop).empty());
  loop.run();
}

TEST_CASE("A task's result outlives the task") {
  EventLoop loop;
  Future<int> future;
  {
    const auto task = make_task<int>(loop, "short", [](Task<int>& self) { return self.done(4); });
    future = task->future();
    loop.run();
  }
  CHECK(future.result() == 4);
  CHECK_FALSE(future.cancel());
}

TEST_CASE("A task may cancel and destroy itself in its own step") {
  EventLoop loop;
  auto token = std::make_shared<int>(5);
  const std::weak_ptr<int> watch = token;
  std::unique_ptr<Task<int>> task;
  int seen = 0;
  task = make_task<int>(loop, "suicidal", [&, token](Task<int>&) {
    const Future<int> future = task->future();
    task.reset();
    CHECK(future.cancelled());
    seen = *token;
    return Next::sleep(1h);
  });
  token.reset();
  loop.run();
  CHECK(seen == 5);
  CHECK(watch.expired());

  task = make_task<int>(loop, "quitter", [&](Task<int>& self) {
    self.cancel();
    CHECK(self.done());
    return self.done(1);
  });
  loop.run();
  CHECK(task->future().cancelled());
}

TEST_CASE("A task that is destroyed in its own step may throw there") {
  EventLoop loop;
  std::unique_ptr<Task<int>> task;
  task = make_task<int>(loop, "noisy", [&](Task<int>&) -> Next {
    task.reset();
    throw std::runtime_error("gone");
  });
  CHECK_NOTHROW(loop.run());
}

TEST_CASE("A step may destroy another task that is about to run") {
  EventLoop loop;
  std::unique_ptr<Task<int>> second;
  const auto first = make_task<int>(loop, "first", [&](Task<int>& self) {
    second.reset();
    return self.done(1);
  });
  second = make_task<int>(loop, "second", [](Task<int>& self) {
    FAIL("ran");
    return self.done(1);
  });
  loop.run();
}

TEST_CASE("What a step function captures is freed when the task is done or cancelled") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  const auto finished =
      make_task<int>(loop, "a", [token](Task<int>& self) { return self.done(1); });
  const auto failed =
      make_task<int>(loop, "b", [token](Task<int>&) -> Next { throw std::runtime_error("no"); });
  const auto cancelled = make_task<int>(loop, "c", [token](Task<int>&) { return Next::sleep(1h); });
  const auto quitting = make_task<int>(loop, "d", [token](Task<int>& self) {
    self.cancel();
    return Next::yield();
  });
  token.reset();
  pass(loop);
  CHECK_FALSE(watch.expired());
  cancelled->cancel();
  CHECK(watch.expired());
}

TEST_CASE("Two tasks may wait for one descriptor, one to read and one to write") {
  EventLoop loop;
  const SocketPair pair;
  const int fd = pair.ours.get();
  const auto reader = waiting_task(loop, [=] { return Next::readable(fd); });
  const auto writer = waiting_task(loop, [=] { return Next::writable(fd); });
  CHECK(pawl::run_until_complete(loop, *writer) == 1);
  write_byte(pair.theirs.get());
  CHECK(pawl::run_until_complete(loop, *reader) == 1);
}

TEST_CASE("A task that waits for what somebody reads already fails, and the other isn't lost") {
  EventLoop loop;
  const SocketPair pair;
  const int fd = pair.ours.get();
  const auto first = waiting_task(loop, [=] { return Next::readable(fd); });
  const auto second = waiting_task(loop, [=] { return Next::readable(fd); });
  pass(loop);
  CHECK(second->future().error() == Errc::already_registered);
  CHECK_THROWS_WITH(second->future().result(), Catch::Contains("task waiting can't wait for fd"));
  write_byte(pair.theirs.get());
  CHECK(pawl::run_until_complete(loop, *first) == 1);
}

TEST_CASE("A task that waits for a bad descriptor fails with that") {
  EventLoop loop;
  const auto task = waiting_task(loop, [] { return Next::readable(-1); });
  loop.run();
  CHECK(task->future().error() == std::errc::bad_file_descriptor);
  const auto empty = waiting_task(loop, [] { return Next::future(Future<int>()); });
  loop.run();
  CHECK_THROWS_AS(empty->future().result(), std::logic_error);
}

TEST_CASE("wait_for limits a task") {
  EventLoop loop;
  const auto task = waiting_task(loop, [] { return Next::sleep(1h); });
  const auto limited = pawl::wait_for(task->future(), 1ms);
  loop.run();
  CHECK(limited.error() == Errc::timed_out);
  CHECK(task->future().cancelled());
}

TEST_CASE("The loop lists its tasks in the order of their making, and describes them") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  Promise<int> promise(loop);
  const std::string line = std::to_string(__LINE__ - 1);
  const auto sleeper = make_task(loop, "sleeper", [](Task<>& self) {
    self.set_step("waking");
    return Next::sleep(1h);
  });
  const auto waiter = waiting_task(loop, [&] { return Next::future(promise.future()); });
  const auto parent = waiting_task(loop, [&] { return Next::task(*waiter); });
  CHECK(sleeper->describe() == "task sleeper, step 0, READY for 0 ms");
  pass(loop);
  clock.advance(12ms);
  const auto tasks = pawl::all_tasks(loop);
  REQUIRE(tasks.size() == 3);
  CHECK(tasks[0] == sleeper.get());
  CHECK(tasks[0]->describe() == "task sleeper, step waking, SLEEPING for 12 ms");
  CHECK(tasks[1]->describe() ==
        "task waiting, step 1, AWAITING the future made at task.cpp:" + line + " for 12 ms");
  CHECK(
      tasks[2]->describe() ==
      "task waiting, step 1, AWAITING task waiting, which waits for the future made at task.cpp:" +
          line + " for 12 ms");
  CHECK(loop.why_alive().find(tasks[2]->describe()) != std::string::npos);
}

TEST_CASE(
    "A cycle of tasks that wait for each other doesn't keep run(), and why_alive() shows it") {
  EventLoop loop;
  std::unique_ptr<Task<int>> a;
  std::unique_ptr<Task<int>> b;
  const auto waits_for = [](std::unique_ptr<Task<int>>& other) {
    return [&other, begun = false](Task<int>& self) mutable {
      if (begun) return self.done(1);
      begun = true;
      return Next::task(*other);
    };
  };
  a = make_task<int>(loop, "a", waits_for(b));
  b = make_task<int>(loop, "b", waits_for(a));
  loop.run();
  CHECK_THAT(loop.why_alive(), Catch::Contains("task a, step 1, AWAITING task b, which waits for "
                                               "task a, which waits for task b: a cycle"));
  CHECK_THROWS_WITH(pawl::run_until_complete(loop, *a), Catch::Contains(": a cycle"));
  a->cancel();
  CHECK(b->future().cancelled());
  CHECK(pawl::all_tasks(loop).empty());
  loop.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A task that waits for itself is a cycle of one, and can be cancelled") {
  EventLoop loop;
  std::unique_ptr<Task<int>> task;
  task = waiting_task(loop, [&] { return Next::task(*task); });
  loop.run();
  CHECK_THAT(loop.why_alive(), Catch::Contains("a cycle"));
  task->cancel();
  CHECK(task->done());
}

TEST_CASE("Debug mode names the line that made a task with a slow step") {
  VirtualClock clock;
  pawl::LoopOptions options = options_on(clock);
  options.debug = true;
  EventLoop loop(options);
  std::vector<std::string> lines;
  loop.set_report_sink([&](std::string_view line) { lines.emplace_back(line); });
  const int line = __LINE__ + 1;
  const auto task = make_task(loop, "slow", [&](Task<>&) {
    clock.advance(1s);
    return Next::done();
  });
  pass(loop);
  REQUIRE(lines.size() == 1);
  CHECK_THAT(lines[0], Catch::Contains("task.cpp:" + std::to_string(line)));
}
