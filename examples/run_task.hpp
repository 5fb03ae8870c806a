// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/cancelled_error.hpp"
#include "pawl/async/future.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/task.hpp"
#include "pawl/loop/event_loop.hpp"
#include "program.hpp"

/// Runs `loop` until `future` is done; Ctrl-C cancels it. Returns the exit code: 0, or 128 + the
/// signal. Throws what it has failed with.
template <typename Value>
int run_future(pawl::EventLoop& loop, const pawl::Future<Value>& future) {
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    future.cancel();
  });
  try {
    run_until_complete(loop, future);
  } catch (const pawl::CancelledError&) {
    if (interrupted_by == 0) throw;
    return 128 + interrupted_by;
  }
  forget_interrupt(loop);
  return 0;
}

/// The same for a task, which a Ctrl-C cancels at whichever step it stands.
template <typename Value>
int run_task(pawl::EventLoop& loop, const pawl::Task<Value>& task) {
  return run_future(loop, task.future());
}
