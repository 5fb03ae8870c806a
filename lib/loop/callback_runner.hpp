// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "loop/callback_pool.hpp"
#include "loop/reporter.hpp"
#include "pawl/core/function.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

/// Calls user code: the one place where it is timed, and where its exceptions are caught.
///
/// Threads: the loop's.
class CallbackRunner {
 public:
  /// `fork_mark`: the byte that is zero in a forked child.
  CallbackRunner(System& system, CallbackPool& pool, Reporter& reporter, bool is_debug,
                 Duration slow, const unsigned char* fork_mark)
      : system_(system),
        pool_(pool),
        reporter_(reporter),
        is_debug_(is_debug),
        slow_(slow),
        fork_mark_(fork_mark) {}

  /// True exactly in a process that was forked off the loop's: whoever runs one callback after the
  /// other asks after each, because it may have been that one which forked.
  bool is_forked_child() const { return __builtin_expect(*fork_mark_ == 0, false); }
  const unsigned char* fork_mark() const { return fork_mark_; }

  /// Runs a pending callback for the only time. It is freed afterwards, and one of the references
  /// given up. (A frame of its own would cost a fifth of a callback of `call_soon`.)
  __attribute__((always_inline)) void run_once(CallbackSlot* slot) {
    if (__builtin_expect(is_debug_, false)) return run_once_timed(slot);
    slot->status = CallbackStatus::running;
    try {
      slot->callback()();
    } catch (...) {
      return end_once_after_exception(slot);
    }
    end_once(slot);
  }

  /// Runs a pending callback. Afterwards it is pending again, unless it was cancelled meanwhile.
  void run(CallbackSlot* slot) {
    slot->status = CallbackStatus::running;
    const Again at_the_end{slot};
    call(slot);
  }

  /// True exactly when calls are timed.
  bool is_debug() const { return __builtin_expect(is_debug_, false); }

  /// Calls `call` and does with its exception what the user wants; `describe` says who it was, in
  /// debug mode, when it was slow.
  template <typename Call, typename Describe>
  void guard(Call call, Describe describe) {
    if (is_debug()) return guard_timed(call, describe);
    try {
      call();
    } catch (...) {
      handle_exception();
    }
  }
  template <typename Call, typename Describe>
  __attribute__((noinline)) void guard_timed(Call call, Describe describe) {
    const TimePoint start = system_.now();
    const auto end = [&] {
      const Duration took = system_.now() - start;
      if (took < slow_) return;
      try {
        report_slow(took, describe());
      } catch (const std::bad_alloc&) {
        // The callback has run: it isn't its failure that there was no memory to tell of it.
      }
    };
    try {
      call();
    } catch (...) {
      end();
      return handle_exception();
    }
    end();
  }

  /// Does with the current exception what the user wants. From inside a catch.
  void handle_exception();

  void set_exception_handler(Function<void(std::exception_ptr)> handler) {
    exception_handler_ = handler ? std::make_shared<ExceptionHandler>(std::move(handler)) : nullptr;
  }

 private:
  using ExceptionHandler = Function<void(std::exception_ptr)>;

  struct Once {
    CallbackRunner& runner;
    CallbackSlot* slot;
    ~Once() { runner.end_once(slot); }
  };
  struct Again {
    CallbackSlot* slot;
    ~Again() {
      const bool goes_on = slot->status == CallbackStatus::running;
      if (goes_on) {
        slot->status = CallbackStatus::pending;
      } else {
        slot->callback().reset();
      }
    }
  };

  void end_once(CallbackSlot* slot) {
    slot->status = CallbackStatus::done;
    slot->destroy_callback();
    pool_.release(slot);
  }
  void run_once_timed(CallbackSlot* slot);
  __attribute__((cold)) void end_once_after_exception(CallbackSlot* slot);
  void call(CallbackSlot* slot) {
    if (is_debug_) return call_timed(slot);
    try {
      slot->callback()();
    } catch (...) {
      handle_exception();
    }
  }
  void call_timed(CallbackSlot* slot);
  void report_slow(Duration took, const std::string& who);

  System& system_;
  CallbackPool& pool_;
  Reporter& reporter_;
  const bool is_debug_;
  const Duration slow_;
  const unsigned char* const fork_mark_;
  std::shared_ptr<ExceptionHandler> exception_handler_;  // shared with the call that may replace it
};

/// "timer registered at main.cpp:12"
std::string describe(const CallbackSlot& slot);

}  // namespace pawl
