// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/async/future_core.hpp"
#include "pawl/async/next.hpp"
#include "pawl/async/task_state.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/timer_handle.hpp"

namespace pawl {

/// A task, whatever its result: the machine that goes from step to step. See `Task`.
class PAWL_API TaskBase {
 public:
  TaskBase(const TaskBase&) = delete;
  TaskBase& operator=(const TaskBase&) = delete;
  /// Cancels it, unless it is done.
  virtual ~TaskBase();

  EventLoop& loop() const { return loop_; }
  const std::string& name() const { return name_; }
  TaskState state() const { return machine_.state(); }
  bool done() const { return state() == TaskState::done; }
  /// How many steps have run.
  std::uint64_t steps() const { return steps_; }

  /// The name of the next step, or of the one that runs: as `set_step` said, or its number. A class
  /// whose steps are an enum overrides it.
  virtual std::string_view step_name() const { return step_name_; }
  /// From the next step on; a string literal, since it isn't copied.
  void set_step(std::string_view name) { step_name_ = name; }

  /// Ends it at the step where it stands, and cancels the future or the task that it waits for.
  /// From inside its own step it ends when that returns. False when it was done already.
  bool cancel() {
    FutureCore::refuse_wrong_thread(result_->hub(), "Task::cancel");
    return result_->cancel();
  }

  /// "task copier, step reading, READING fd 5 for 12 ms", "…, AWAITING task other …"
  std::string describe() const;

  /// For the library's own classes.
  FutureCore& result() const { return *result_; }
  static TaskBase& of_link(FutureLink& link) { return static_cast<Link&>(link).task; }
  static std::string describe_all(FutureHub& hub, TimePoint now);
  /// What `core` waits for in the end, and through which tasks; empty when nobody knows.
  static std::string describe_wait(const FutureCore& core);
  /// The result was cancelled, or the loop goes.
  void abandon() noexcept;

 protected:
  /// The first step runs in the next pass.
  TaskBase(EventLoop& loop, std::string_view name, FutureRef<FutureCore> result, Place place);

  /// Does one step and says what the next one waits for. What it throws is the result. The task may
  /// be cancelled or destroyed from inside; the step's own variables are then the caller's concern.
  virtual Next step() = 0;
  /// The last step has run, or none will: frees what a step function has captured.
  virtual void on_end() noexcept {}
  /// Gives the result, when a step returns `Next::done()`; throws when it has none to give.
  virtual void finish_result() = 0;

 private:
  struct Link : FutureLink {
    explicit Link(TaskBase& of) : task(of) {}
    TaskBase& task;
  };

  struct Waiter final : FutureWaiter {
    explicit Waiter(TaskBase& of) : task(of) {}
    TaskBase& task;

   private:
    void on_done(FutureCore&) override { task.run(); }
    void on_dropped() noexcept override {}
  };

  void run();
  Next run_steps(const bool& is_gone);
  void go(Next& next);
  void watch(int fd, Interest side);
  void stop_watching() noexcept;
  void fail(std::exception_ptr exception);
  void end(TaskEvent event) noexcept;
  void take(TaskEvent event);
  std::string describe(TimePoint now) const;
  std::string what_it_waits_for() const;

  EventLoop& loop_;
  Observer* const observer_;
  const std::string name_;
  const Place place_;
  FutureRef<FutureCore> result_;
  StateMachine<task_table> machine_{TaskState::ready};
  std::string_view step_name_;
  std::uint64_t steps_ = 0;
  Handle handle_;         // of the next step, or of the timer
  Waiter waiter_{*this};  // for a future
  int fd_ = -1;
  TimePoint since_;          // of the state
  bool* is_gone_ = nullptr;  // set when it is destroyed from inside a step
  Link link_{*this};         // among the loop's tasks
};

/// The loop's tasks that aren't done, in the order of their making.
PAWL_API std::vector<TaskBase*> all_tasks(EventLoop& loop);

}  // namespace pawl
