// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <type_traits>

#include "pawl/loop/event_loop.hpp"
#include "support/allocation_counter.hpp"
#include "support/faulty_system.hpp"

/// For a test's own code in the middle of a scenario, its callbacks above all.
using Spared = FailingAllocation::Spared;

/// The kernel, with a clock that stands still until nothing else can happen.
class SweepSystem final : public FaultySystem {
 public:
  pawl::TimePoint now() override {
    return pawl::TimePoint(pawl::Duration(now_.load(std::memory_order_relaxed)));
  }
  void set(pawl::TimePoint moment) { now_ = moment.time_since_epoch().count(); }
  /// Every name leads to 127.0.0.7. Those that begin with "slow" do only when IPv4 alone is asked
  /// for; who asks otherwise waits for `end_waits`.
  pawl::SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) override;
  void freeaddrinfo(addrinfo* results) override;
  void end_waits();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool has_ended_waits_ = false;
  std::atomic<pawl::Duration::rep> now_{
      std::chrono::duration_cast<pawl::Duration>(std::chrono::hours(1)).count()};
};

/// One run of a scenario, in which at most one allocation fails.
///
/// Only what is done inside of `attempt`, `run` and `run_dry` can fail, on every thread; what a
/// scenario does itself in between, and under a `Spared`, can't.
class Trial {
 public:
  Trial() = default;
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  ~Trial();

  /// True exactly when the allocation has failed by now: what a scenario may not expect any more.
  bool has_failed() const { return FailingAllocation::has_failed(); }
  /// Made with enough memory, on a clock that goes on when nothing else does. Destroyed behind the
  /// scenario, when memory may fail. `debug` and an observer's names are off.
  pawl::EventLoop& loop();
  /// Destroys it now.
  void end_loop() {
    const FailingAllocation::All without_memory(ends_have_no_memory_);
    loop_.reset();
  }
  SweepSystem& system() { return system_; }
  /// How long a pass waits before the clock is moved on. For what isn't at once: threads, children.
  void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

  /// Does `work`. False when the allocation failed and it threw, or returned the error of that. Any
  /// other exception or `std::error_code` fails the test. No assertion belongs in it: Catch's
  /// allocations would fail too.
  template <typename Work>
  bool attempt(Work work) {
    try {
      return is_fine(armed(work));
    } catch (const std::bad_alloc&) {
      check_failed("std::bad_alloc");
    } catch (const std::system_error& error) {
      check_out_of_memory(error);
    }
    return false;
  }

  /// The same for what must succeed, the second time at the latest: there is memory then.
  template <typename Work>
  void insist(Work work) {
    if (!attempt(work) && !attempt(work)) fail("still no success when there is memory again");
  }
  /// Does what may not fail for want of memory, in one of the runs without any.
  template <typename Work>
  void must(Work work) {
    const FailingAllocation::All without_memory(ends_have_no_memory_);
    if (!attempt(work)) fail("it failed for want of memory");
  }

  /// Makes passes until `is_over()`. Fails the test when that never comes.
  void run(const std::function<bool()>& is_over);
  void run(pawl::EventLoop& loop, const std::function<bool()>& is_over);
  /// Makes passes until nothing is left that could run.
  void run_dry();
  void run_dry(pawl::EventLoop& loop);

 private:
  struct Done {};
  template <typename Work>
  static auto armed(Work& work) {
    const FailingAllocation::Armed armed;
    if constexpr (std::is_same_v<decltype(work()), std::error_code>) {
      return work();
    } else {
      work();
      return Done{};
    }
  }
  static bool is_fine(Done) { return true; }
  bool is_fine(std::error_code error) const;
  [[noreturn]] static void fail(const char* what);
  void check_failed(const char* what) const;
  void check_out_of_memory(const std::system_error& error) const;
  bool pass(pawl::EventLoop& loop);
  friend void each_allocation_fails(const std::function<void(Trial&)>& scenario);

  static inline bool ends_have_no_memory_ = false;
  SweepSystem system_;
  std::unique_ptr<pawl::EventLoop> loop_;
  std::chrono::milliseconds patience_{1};
  int idle_passes_ = 0;
  std::chrono::steady_clock::duration idle_{};
};

/// Runs `scenario` once with enough memory, once without any in each `must` and at the loop's end,
/// and then again and again: the first time its first allocation fails, the second time its second
/// …, until none is left. Each time nothing may be left behind: no memory, no descriptor. A
/// scenario checks what its objects promise, and leaves out what `Trial::has_failed()` excuses.
///
/// A scenario that would take more than two seconds skips some, unless PAWL_SWEEP=whole.
/// PAWL_SWEEP_ONLY=7 makes the seventh (from 0) fail and none else, PAWL_SWEEP_ONLY=ends those of
/// the ends; PAWL_SWEEP_TRACE=1 prints where that was asked for.
void each_allocation_fails(const std::function<void(Trial&)>& scenario);
