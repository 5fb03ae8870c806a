// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pawl/core/api.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/handle.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/loop/job.hpp"
#include "pawl/loop/mailbox.hpp"
#include "pawl/loop/outcome.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/loop/timer_handle.hpp"
#include "pawl/selector/selector.hpp"

namespace pawl {

class Observer;
class System;
class ThreadPool;
struct LoopParts;

/// What a loop is made with.
struct LoopOptions {
  std::string selector;      ///< as `make_selector`; empty: PAWL_SELECTOR, else the best
  System* system = nullptr;  ///< borrowed; null: `System::real()`
  bool debug = false;        ///< also by PAWL_DEBUG=1
  Duration slow_callback = std::chrono::milliseconds(100);  ///< reported in debug mode
  Observer* observer = nullptr;      ///< borrowed; null: none, or with PAWL_TRACE=1 a line a step
  std::size_t ready_budget = 1024;   ///< callbacks of `call_soon` in one pass, at most
  std::size_t timer_budget = 1024;   ///< timers in one pass, at most
  std::size_t executor_threads = 0;  ///< of `run_in_executor`; 0: CPUs + 4, at most 32
};

/// Waits for descriptors, timers, signals and other threads, and runs a callback for each.
///
/// One pass: poll, I/O, due timers, ready callbacks. What is posted during a pass runs in the next.
///
/// Owns:     the selector, every pending callback and the threads of `run_in_executor`. No
///           descriptor that a user registered.
/// Fork:     in a forked child it is dead, and so is what belongs to it: destroying it there frees
///           memory and closes the child's numbers, and does nothing else. A pass in which a
///           callback forked ends in the child after that callback: `run()` returns when it called
///           `stop()`, and throws `std::logic_error` otherwise. Watched signals act there as if
///           they never had been.
/// Threads:  one; only `call_soon_threadsafe`, `stop` and `mailbox()` may be used from others. In
///           debug mode another call from a wrong thread, while the loop runs, is reported and
///           refused: with `Errc::wrong_thread`, or a `std::logic_error` where no error is
///           returned. A destructor can't be refused: it is reported, and ends what it ends.
/// Calls:    user code only from inside `run`, `run_forever`, `run_for` and `run_once`.
/// Promises: callbacks of `call_soon` run first in, first out; timers in the order of their
///           deadlines, equal ones in the order of their creation, never early. Budgets keep each
///           from starving the others.
/// Fails:    an exception that leaves a callback leaves `run()`; the loop stays valid and may be
/// run
///           again. With `set_exception_handler` it goes there instead, and the loop goes on.
///           An empty callback is a `std::logic_error`. Must not be destroyed while it runs.
class PAWL_API EventLoop {
 public:
  /// Throws `std::invalid_argument` for an unknown selector, `std::system_error` when the kernel
  /// has no descriptor left.
  explicit EventLoop(LoopOptions options = {});
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  /// Destroys what is pending, uncalled. Waits for jobs that run in its thread pool right now.
  ~EventLoop();

  /// Runs `callback` in the next pass.
  Handle call_soon(Function<void()> callback, Place place = Place::here());
  /// The same for anything that goes into a `Function` without an allocation and can't throw on the
  /// way: it is made in the place that it will run from.
  template <typename Callable,
            typename = std::enable_if_t<Function<void()>::is_made_inside<Callable>()>>
  Handle call_soon(Callable&& callback, Place place = Place::here());
  /// Runs `callback` when `delay` has passed; in the next pass when it is zero or negative.
  TimerHandle call_later(Duration delay, Function<void()> callback, Place place = Place::here());
  /// Runs `callback` at `when`, or in the next pass when that has passed.
  TimerHandle call_at(TimePoint when, Function<void()> callback, Place place = Place::here());
  /// Runs `callback` at now + n × `interval`, n = 1, 2, 3 …; ticks that were missed are skipped.
  /// Throws `std::logic_error` unless the interval is positive.
  TimerHandle call_every(Duration interval, Function<void()> callback, Place place = Place::here());
  /// Runs `callback` on the loop's thread. From any thread, while the loop lives; a thread that
  /// can't know that uses `mailbox()`.
  void call_soon_threadsafe(Function<void()> callback);
  /// The part of the loop that may be used when the loop may be gone.
  std::shared_ptr<Mailbox> mailbox() const;

  /// Runs `callback` whenever `fd` can be read (or has failed, or was hung up), until
  /// `remove_reader`. Replaces an earlier reader. The descriptor stays the caller's: remove it
  /// before closing it. Fails with `std::errc::bad_file_descriptor`, or `Errc::already_registered`
  /// when `fd` belongs to an `IoHandler`.
  std::error_code add_reader(int fd, Function<void()> callback, Place place = Place::here());
  /// False when there was none.
  bool remove_reader(int fd);
  /// As `add_reader`, for writing.
  std::error_code add_writer(int fd, Function<void()> callback, Place place = Place::here());
  bool remove_writer(int fd);

  /// Tells `handler` (borrowed until `remove_handler`) what `fd` is ready for. With
  /// `Interest::none` it stays registered, waits for nothing, and is told only of an error or a
  /// hang-up. `Interest::priority` is for handlers alone: readers and writers aren't called for it.
  /// Fails as `add_reader`, and with `std::errc::operation_not_supported` where the selector can't
  /// wait for that (libev).
  std::error_code add_handler(int fd, Interest interest, IoHandler& handler,
                              Place place = Place::here());
  /// Changes what a handler's `fd` waits for; no system call. Fails with `Errc::not_registered`.
  std::error_code modify_handler(int fd, Interest interest);
  bool remove_handler(int fd);

  /// Runs `callback` after `signal` came to the process; several that come at once may be one call.
  /// Replaces an earlier one of this loop; other loops may watch the same signal. Fails with
  /// `std::errc::invalid_argument` for signals that can't be caught. The first watcher of a signal
  /// takes over its disposition, the last one that leaves puts it back.
  std::error_code add_signal_handler(int signal, Function<void()> callback,
                                     Place place = Place::here());
  bool remove_signal_handler(int signal);

  /// Runs `work()` on a thread of the pool and then `done(Outcome<Result>)` on this loop's thread.
  /// What `work` throws is thrown by `Outcome::get`. See `Job` about cancelling. All that both have
  /// captured dies on this loop's thread, as long as the loop lives.
  template <typename Work, typename Done>
  Job run_in_executor(Work work, Done done, Place place = Place::here());
  /// The same on a pool of the caller's. When that goes before the job began, `done` gets a
  /// `std::system_error` of `std::errc::operation_canceled`.
  template <typename Work, typename Done>
  Job run_in_executor(ThreadPool& pool, Work work, Done done, Place place = Place::here());
  /// The loop's own pool; its threads start with the first job.
  ThreadPool& thread_pool();

  /// Runs until `stop()` or until nothing is left that could run.
  void run();
  /// Runs until `stop()`, waiting even when there is nothing to wait for but other threads.
  void run_forever();
  /// As `run`, for at most `duration`.
  void run_for(Duration duration);
  /// Makes one pass, waiting `timeout` at most for something to do; zero only looks. Without a
  /// timeout it waits as long as something is left that could end the wait. Returns true exactly
  /// when something is left that could run.
  bool run_once(std::optional<Duration> timeout = std::nullopt);
  /// Ends `run` after the pass that it is in; before `run` it ends that one after a pass that
  /// doesn't wait. From any thread, and from a signal handler.
  void stop();
  /// True exactly while `run`, `run_forever`, `run_for` or `run_once` is on the stack. Calling one
  /// of them then is a `std::logic_error`.
  bool is_running() const;

  /// A fresh reading of the clock that timers use.
  TimePoint time() const;
  /// The reading that this pass took after polling: cheaper, and late by what the pass has run.
  TimePoint pass_time() const;
  /// The earliest moment at which a pass has something to do without any descriptor; none when
  /// there is no such moment. Early, never late, when a timer was cancelled. For hosting this loop
  /// in another one: before that waits, it asks this (which also tells the kernel of changed
  /// interests), waits until then or until `selector().fileno()` is readable, and calls
  /// `run_once(Duration::zero())`.
  std::optional<TimePoint> next_deadline() const;
  Selector& selector();
  System& system();
  bool is_debug() const;
  Observer* observer() const;

  /// One line for each thing that keeps `run()` from returning: type, descriptor, age, deadline and
  /// the place where it was registered. And one for each task that isn't done, with what it waits
  /// for: one that waits for another task, or for a promise, keeps nothing from returning.
  std::string why_alive() const;

  /// What leaves a callback goes to `handler` instead of leaving `run()`. An empty one ends that.
  void set_exception_handler(Function<void(std::exception_ptr)> handler);
  /// Where debug mode's lines go; empty: standard error.
  void set_report_sink(Function<void(std::string_view)> sink);
  /// Says one line to the sink, when debug is on.
  void report(std::string_view line);

  /// For the library's own classes.
  LoopParts& parts() { return *parts_; }

 private:
  /// What was queued for the next pass, but for its callback, which is there uninitialised.
  struct Queued {
    void* callback;
    CallbackTicket* ticket;
  };
  Queued queue_soon(Place place, bool dies_as_nothing);
  Queued queue_soon_with_care(Place place, bool dies_as_nothing);
  Job start_job(ThreadPool& pool, Function<void()> work, Function<void()> done, Place place);
  [[noreturn]] static void throw_job_dropped();

  std::unique_ptr<LoopParts> parts_;
};

template <typename Callable, typename>
Handle EventLoop::call_soon(Callable&& callback, Place place) {
  const Queued queued = queue_soon(place, std::is_trivially_destructible_v<std::decay_t<Callable>>);
  ::new (queued.callback) Function<void()>(std::forward<Callable>(callback));
  return Handle(queued.ticket);
}

template <typename Work, typename Done>
Job EventLoop::run_in_executor(Work work, Done done, Place place) {
  return run_in_executor(thread_pool(), std::move(work), std::move(done), place);
}

template <typename Work, typename Done>
Job EventLoop::run_in_executor(ThreadPool& pool, Work work, Done done, Place place) {
  using Result = std::decay_t<std::invoke_result_t<Work&>>;
  struct Call {
    Work work;
    std::optional<Outcome<Result>> outcome;  // none: it never ran

    void run() {
      try {
        outcome.emplace(Outcome<Result>::of(work));
      } catch (...) {  // of the result's move
        outcome.emplace(Outcome<Result>::of([]() -> Result { throw; }));
      }
    }
    Outcome<Result>& result() {
      if (!outcome) outcome.emplace(Outcome<Result>::of([]() -> Result { throw_job_dropped(); }));
      return *outcome;
    }
  };
  auto call = std::make_shared<Call>(Call{std::move(work), {}});
  return start_job(
      pool, [call] { call->run(); },
      [call, done = std::move(done)]() mutable { done(std::move(call->result())); }, place);
}

}  // namespace pawl
