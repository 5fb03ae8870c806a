// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "loop/callback_pool.hpp"
#include "loop/callback_runner.hpp"
#include "loop/deferred_list.hpp"
#include "loop/job_list.hpp"
#include "loop/loop_services.hpp"
#include "loop/pass_end_list.hpp"
#include "loop/ready_queue.hpp"
#include "loop/reaper_list.hpp"
#include "loop/reporter.hpp"
#include "loop/retry_list.hpp"
#include "loop/scratch.hpp"
#include "loop/signal_watches.hpp"
#include "loop/sock_table.hpp"
#include "loop/timer_queue.hpp"
#include "loop/watch_table.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "system/fork_count.hpp"
#include "system/stream_calls.hpp"

namespace pawl {

/// What an `EventLoop` is made of, and the one pass that it makes again and again.
///
/// Threads: the loop's, but for the mailbox.
struct LoopParts final : IoHandler {
  explicit LoopParts(LoopOptions wanted);
  ~LoopParts();

  class RunScope;

  // The pass, in its order.
  void pass(std::optional<Duration> limit);
  void make_pass(std::optional<Duration> limit);
  void begin_batches();
  void poll(std::optional<Duration> limit);
  std::error_code select(std::optional<Duration> limit);
  [[noreturn]] void throw_unpolled(std::error_code error) const;
  void run_signals();
  void run_timers();
  void run_letters();
  void run_deferred();
  void run_ready();

  void run(bool forever, TimePoint end);
  bool run_once(std::optional<Duration> timeout);
  bool is_alive() const;
  std::string why_alive();

  /// True exactly in a process that was forked off the loop's: there the loop is dead.
  bool is_forked_child() const { return runner.is_forked_child(); }
  /// True exactly when a child may hold copies of this loop's descriptors.
  bool has_forked() const { return fork_count() != forks_before; }
  /// True exactly when that is so and this isn't such a child: closing tells nobody anything then.
  bool shares_with_children() const { return has_forked() && !is_forked_child(); }
  [[noreturn]] static void throw_used_after_fork();
  std::optional<Duration> wait_limit(std::optional<Duration> limit) const;
  std::optional<TimePoint> next_deadline() const;
  /// A callback for the next pass, without the callback. The pool and the queue must have room.
  CallbackSlot* add_soon(Place place, bool dies_as_nothing) {
    CallbackSlot* slot = pool.take_unfilled(CallbackKind::soon, place, dies_as_nothing);
    slot->references = 2;  // the queue's and a ticket's
    ready.push(slot);
    return slot;
  }
  /// Always inline: saving its arguments for a call would cost a tenth of what it does.
  __attribute__((always_inline)) TimerHandle add_timer(CallbackKind kind, TimePoint when,
                                                       Duration interval,
                                                       Function<void()>&& callback, Place place) {
    CallbackSlot* slot = pool.take(kind, std::move(callback), place);
    slot->when = when;
    if (kind != CallbackKind::timer) slot->body().interval = interval;
    timers.add(slot);
    return CallbackPool::ticket<TimerHandle>(slot);
  }
  void rearm(CallbackSlot* slot);
  /// A timer that goes on while its callback says so, by `run_again_at`: it needs no memory for
  /// that.
  TimerHandle add_moving_timer(TimePoint when, Function<void()>&& callback, Place place) {
    return add_timer(CallbackKind::moving_timer, when, {}, std::move(callback), place);
  }
  /// For the callback of a moving timer, from inside.
  static void run_again_at(const TimerHandle& timer, TimePoint when);

  /// The mailbox's descriptor is readable.
  void on_ready(Interest events) override;
  std::string describe() const override;

  /// True, and reported, exactly when debug mode sees that `operation` comes from a wrong thread.
  bool is_wrong_thread(const char* operation) {
    return __builtin_expect(is_debug, false) && is_running &&
           std::this_thread::get_id() != thread && report_wrong_thread(operation);
  }
  bool report_wrong_thread(const char* operation);
  void refuse_wrong_thread(const char* operation) {
    if (is_wrong_thread(operation)) throw_wrong_thread(operation);
  }
  [[noreturn]] static void throw_wrong_thread(const char* operation);
  /// For ends, which can't refuse: a wrong thread is reported in debug mode, if there is memory.
  void tell_wrong_thread(const char* operation) noexcept;
  /// `remove_handler` for ends, which can't refuse: from a wrong thread it is reported, and done.
  void end_handler(int fd) noexcept;

  LoopOptions options;
  System& system;
  StreamCalls stream_calls;
  const bool is_debug;
  const std::size_t forks_before;  // that this process had made when the loop was
  Reporter reporter;
  std::unique_ptr<Observer> tracing_observer;
  Observer* observer;
  std::unique_ptr<Selector> selector;
  std::shared_ptr<Mailbox> mailbox;
  std::unique_ptr<CallbackPool, CallbackPool::Close> pool_owner;  // for a constructor that throws
  CallbackPool& pool;
  CallbackRunner runner;
  TimerQueue timers;
  ReadyQueue ready;
  WatchTable watches;
  SignalWatches signals;
  SockTable socks;
  std::unique_ptr<ThreadPool> threads;  // made with the first job
  JobList jobs;
  ReaperList orphans;          // children that nobody waits for any more
  ReaperList polled_children;  // those without a process descriptor, orphans or not
  std::vector<Function<std::string(TimePoint)>> describers;  // higher floors' lines of why_alive()
  Scratch scratch;
  PassEndList pass_end;
  DeferredList deferred;
  RetryList retries;
  LoopServices services;

  TimePoint pass_time;
  std::uint64_t pass_number = 0;
  std::vector<Ready> ready_fds;
  std::vector<Function<void()>> letters;  // taken from the mailbox
  std::size_t next_letter = 0;
  bool had_letters = false;  // true exactly when the last pass took some from the mailbox
  std::atomic<bool> is_running{false};
  bool was_stopped = false;  // true exactly when stop() came before the end of the last run_once()
  std::thread::id thread;    // of whoever runs it
};

}  // namespace pawl
