// SPDX-License-Identifier: MIT
#include "pawl/async/task_base.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "async/future_hub.hpp"
#include "loop/age.hpp"
#include "loop/loop_parts.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/selector/selector.hpp"

namespace pawl {
namespace {

constexpr int go_on_limit = 256;

}  // namespace

std::string_view to_string(TaskState state) { return task_table.name(state); }

Next Next::task(const TaskBase& task) noexcept { return Next(task.result()); }

TaskBase::TaskBase(EventLoop& loop, std::string_view name, FutureRef<FutureCore> result,
                   Place place)
    : loop_(loop),
      observer_(loop.observer()),
      name_(name),
      place_(place),
      result_(std::move(result)),
      since_(loop.time()) {
  handle_ = loop.call_soon([this] { run(); }, place_);
  link_.link_before(result_->hub().tasks());
}

TaskBase::~TaskBase() {
  if (state() != TaskState::done) abandon();
  if (is_gone_ != nullptr) *is_gone_ = true;
}

// ---- steps

void TaskBase::run() {
  take(TaskEvent::run);
  bool is_gone = false;
  is_gone_ = &is_gone;
  Next next = Next::done();
  try {
    next = run_steps(is_gone);
  } catch (...) {
    if (is_gone) return;
    is_gone_ = nullptr;
    return fail(std::current_exception());
  }
  if (is_gone) return;
  is_gone_ = nullptr;
  // The step has given a result or was cancelled: whatever else it says.
  if (!result_->is_pending()) return end(TaskEvent::finish);
  try {
    go(next);
  } catch (const std::bad_alloc&) {  // for what the next step would have waited for
    fail(std::current_exception());
  }
}

Next TaskBase::run_steps(const bool& is_gone) {
  for (int i = 0; i < go_on_limit; ++i) {
    ++steps_;
    if (__builtin_expect(observer_ != nullptr, false)) {
      const std::string number = std::to_string(steps_);
      const std::string_view name = step_name();
      observer_->on_step(StepRun{task_table.machine, this, name_, name.empty() ? number : name});
    }
    Next next = step();
    if (is_gone || next.kind_ != Next::Kind::go_on || state() != TaskState::running) return next;
    if (loop_.parts().is_forked_child()) break;  // the next one is the parent's alone
  }
  return Next::yield();
}

void TaskBase::go(Next& next) {
  using Kind = Next::Kind;
  switch (next.kind_) {
    case Kind::go_on:
    case Kind::yield:
      handle_ = loop_.call_soon([this] { run(); }, place_);
      return take(TaskEvent::yield);
    case Kind::sleep:
      handle_ = loop_.call_later(
          next.duration_, [this] { run(); }, place_);
      return take(TaskEvent::sleep);
    case Kind::readable: return watch(next.fd_, Interest::read);
    case Kind::writable: return watch(next.fd_, Interest::write);
    case Kind::future: waiter_.wait(*next.future_); return take(TaskEvent::await);
    case Kind::done: break;
  }
  try {
    finish_result();
  } catch (...) {
    return fail(std::current_exception());
  }
  end(TaskEvent::finish);
}

void TaskBase::watch(int fd, Interest side) {
  const SelectorKey* key = loop_.selector().get_key(fd);
  std::error_code error;
  if (key != nullptr && has(key->interest, side)) {
    error = Errc::already_registered;
  } else {
    const auto on_ready = [this] {
      stop_watching();
      run();
    };
    error = side == Interest::read ? loop_.add_reader(fd, on_ready, place_)
                                   : loop_.add_writer(fd, on_ready, place_);
  }
  if (error) {
    return fail(std::make_exception_ptr(std::system_error(
        error, "task " + name_ + " can't wait for fd " + std::to_string(fd) +
                   (side == Interest::read ? " to be readable" : " to be writable"))));
  }
  fd_ = fd;
  take(side == Interest::read ? TaskEvent::read : TaskEvent::write);
}

void TaskBase::stop_watching() noexcept {
  const bool reads = state() == TaskState::reading;
  if (!reads && state() != TaskState::writing) return;
  // Not by the loop, which may refuse: this may be a destructor on a wrong thread.
  result_->hub().report_wrong_thread("what ends a task was");
  loop_.parts().watches.remove_callback(fd_, reads ? Interest::read : Interest::write);
}

// ---- the end

void TaskBase::fail(std::exception_ptr exception) {
  if (result_->is_pending()) result_->fail(std::move(exception));
  end(TaskEvent::fail);
}

void TaskBase::end(TaskEvent event) noexcept {
  if (state() != TaskState::done) take(event);
  link_.unlink();
  on_end();
}

void TaskBase::abandon() noexcept {
  link_.unlink();
  if (result_->is_pending()) {
    result_->cancel();  // which comes back here
    return;
  }
  handle_.cancel();
  stop_watching();
  const FutureRef<FutureCore> waited_for(waiter_.source());
  waiter_.stop_waiting();
  const bool is_on_stack = is_gone_ != nullptr;  // its step function is freed when it returns
  take(TaskEvent::cancel);
  if (!is_on_stack) on_end();
  if (waited_for) waited_for->cancel();
}

void TaskBase::take(TaskEvent event) {
  machine_.step(event, observer_, this, name_);
  if (event != TaskEvent::run) since_ = loop_.pass_time();
}

// ---- for people

std::string TaskBase::describe() const { return describe(loop_.time()); }

std::string TaskBase::describe(TimePoint now) const {
  const std::string_view step = step_name();
  std::string text = "task " + name_ + ", step ";
  text += step.empty() ? std::to_string(steps_) : std::string(step);
  text += ", " + std::string(to_string(state())) + what_it_waits_for();
  return text + " for " + to_age(std::max(now - since_, Duration::zero()));
}

std::string TaskBase::what_it_waits_for() const {
  if (state() == TaskState::reading || state() == TaskState::writing) {
    return " fd " + std::to_string(fd_);
  }
  if (waiter_.source() == nullptr) return {};
  return " " + describe_wait(*waiter_.source());
}

std::string TaskBase::describe_wait(const FutureCore& core) {
  std::string text;
  std::vector<const TaskBase*> seen;
  int links_left = 1000;  // futures may go round in circles too
  for (const FutureCore* at = &core; at != nullptr && links_left-- > 0;) {
    const TaskBase* task = at->task();
    if (task == nullptr) {
      const FutureCore* next = at->waits_for();
      if (next == nullptr && at->is_pending()) {
        text += (text.empty() ? "" : ", which waits for ") + std::string("the future made at ") +
                to_string(at->place());
      }
      at = next;
      continue;
    }
    text += (text.empty() ? "task " : ", which waits for task ") + task->name_;
    if (std::find(seen.begin(), seen.end(), task) != seen.end()) return text + ": a cycle";
    seen.push_back(task);
    at = task->waiter_.source();
  }
  return text;
}

std::string TaskBase::describe_all(FutureHub& hub, TimePoint now) {
  std::string text;
  for (FutureLink* link = hub.tasks().next; link != &hub.tasks(); link = link->next) {
    text += of_link(*link).describe(now) + "\n";
  }
  return text;
}

std::vector<TaskBase*> all_tasks(EventLoop& loop) {
  std::vector<TaskBase*> tasks;
  FutureLink& all = FutureHub::of(loop).tasks();
  for (FutureLink* link = all.next; link != &all; link = link->next) {
    tasks.push_back(&TaskBase::of_link(*link));
  }
  return tasks;
}

}  // namespace pawl
