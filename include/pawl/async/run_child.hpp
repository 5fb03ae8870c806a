// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/future.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/child_process.hpp"

namespace pawl {

/// Runs a program: a future for how it ended. When it can't be started, the future fails with that.
///
/// Cancelling the future kills the child (SIGKILL); the loop still reaps it. For the child's pipes
/// make a `ChildProcess`, and a `Promise<ChildExit>` that its callback sets.
PAWL_API Future<ChildExit> run_child(EventLoop& loop, ChildProcessOptions options,
                                     Place place = Place::here());

}  // namespace pawl
