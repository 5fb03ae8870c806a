// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"

namespace pawl {

class Connection;

/// Passes what each of two connections receives on to the other, in both directions, with back
/// pressure: one whose peer takes nothing isn't read. One side's end of stream becomes the other's
/// (`shutdown`), a good end becomes a `close`, and an end with an error (a reset, a timeout, a
/// limit) becomes a reset: a stream that was cut must not look whole. One that had ended before,
/// and was whole, is delivered first; one that still comes when its receiver is closed (`close`,
/// `Server::close`) is cut. Either may be in any state: CONNECTING, paused, half-closed,
/// DONE. Both are read from now on.
///
/// Owns:    neither. It takes over `on_data`, `on_drained`, `on_eof` and `on_closed` of both.
///          Either may be destroyed at any time, in `done` too: the other is aborted then.
/// Fails:   throws `std::bad_alloc` alone, and has aborted both then.
/// Threads: that of the loop, which both must have.
/// Calls:   `done` once, from the loop, when both are DONE or gone, with the first error.
PAWL_API void relay(Connection& a, Connection& b, Function<void(std::error_code)> done = {});

}  // namespace pawl
