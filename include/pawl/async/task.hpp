// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/async/next.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/task_base.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// The future that is a task's result.
template <typename Value>
class TaskResult : public FutureState<Value> {
 public:
  using FutureState<Value>::FutureState;

  void set_task(TaskBase* task) { task_ = task; }
  const TaskBase* task() const override { return task_; }

 protected:
  void on_cancel() noexcept override {
    if (task_ != nullptr) task_->abandon();
  }

 private:
  TaskBase* task_ = nullptr;  // null when that is gone
};

/// What a compiler makes of a coroutine, by hand: a machine that runs a step, waits for what the
/// step asked for, and runs the next.
///
/// Its variables are members; where it stands is one of them:
///
///     class Greeter final : public pawl::Task<std::string> {
///      public:
///       using Task::Task;
///
///      private:
///       enum class Step { wait, greet };
///       pawl::Next step() override {
///         switch (at_) {
///           case Step::wait: at_ = Step::greet; return pawl::Next::sleep(1s);
///           case Step::greet: return done("hello");
///         }
///         return pawl::Next::done();
///       }
///       std::string_view step_name() const override { return at_ == Step::wait ? "wait" : "greet";
///       } Step at_ = Step::wait;
///     };
///
/// `make_task` does the same with a lambda.
///
/// Owns:     its share of the result. Its owner holds the task; destroying it before it is done
///           cancels it. The loop must outlive it. What it waits for (a timer, a descriptor) keeps
///           the loop's `run()` from returning; waiting for a future doesn't.
/// Threads:  the loop's.
/// Calls:    `step()` from the loop only; the first in the pass after its making.
/// Promises: the result is set once: with a value, with what a step has thrown, or cancelled.
template <typename Value = void>
class Task : public TaskBase {
 public:
  /// `name` is for people: descriptions, traces and `why_alive()`.
  explicit Task(EventLoop& loop, std::string_view name, Place place = Place::here())
      : Task(loop, name, Unstarted(make_state<Result>(FutureCore::hub_of(loop), place)), place) {}
  ~Task() override {
    result().cancel();
    own_result().set_task(nullptr);
  }

  /// The result. Cancelling it cancels the task.
  Future<Value> future() const { return Future<Value>(&own_result()); }

  using TaskBase::done;
  /// Gives the result; for a step to return: `return done(5);`. `Next::done()` when that is void.
  template <typename Given>
  Next done(Given&& value) {
    if (own_result().is_pending()) own_result().set_value(std::forward<Given>(value));
    return Next::done();
  }

 private:
  using Result = TaskResult<Value>;

  /// Discarded again, unless the task could be made.
  struct Unstarted {
    explicit Unstarted(Result* made) : result(made) {}
    ~Unstarted() {
      if (result != nullptr) result->discard();
    }
    Result* result;
  };

  Task(EventLoop& loop, std::string_view name, Unstarted&& unstarted, Place place)
      : TaskBase(loop, name, FutureRef<FutureCore>(unstarted.result), place) {
    std::exchange(unstarted.result, nullptr)->set_task(this);
  }
  Result& own_result() const { return static_cast<Result&>(result()); }
  void finish_result() override {
    if (!own_result().is_pending()) return;
    if constexpr (std::is_void_v<Value>) {
      own_result().set_value();
    } else {
      throw std::logic_error("task " + name() + " is done without a value; return done(value)");
    }
  }
};

/// A task whose steps are calls of one function.
template <typename Value, typename Callable>
class FunctionTask final : public Task<Value> {
 public:
  FunctionTask(EventLoop& loop, std::string_view name, Callable callable, Place place)
      : Task<Value>(loop, name, place),
        callable_(std::make_shared<Callable>(std::move(callable))) {}
  ~FunctionTask() override { this->result().cancel(); }

 private:
  Next step() override {
    const std::shared_ptr<Callable> keep = callable_;  // it may end or destroy the task
    return (*keep)(static_cast<Task<Value>&>(*this));
  }
  void on_end() noexcept override { callable_.reset(); }

  std::shared_ptr<Callable> callable_;
};

/// A task that calls `step(Task<Value>&)`, which returns a `Next`, for each step. Its variables are
/// what the function has captured, freed when the task is done.
template <typename Value = void, typename Callable>
std::unique_ptr<Task<Value>> make_task(EventLoop& loop, std::string_view name, Callable step,
                                       Place place = Place::here()) {
  return std::make_unique<FunctionTask<Value, Callable>>(loop, name, std::move(step), place);
}

/// Runs `loop` until `task` is done, and gives its result; see the one for futures.
template <typename Value>
Value run_until_complete(EventLoop& loop, const Task<Value>& task) {
  return run_until_complete(loop, task.future());
}

}  // namespace pawl
