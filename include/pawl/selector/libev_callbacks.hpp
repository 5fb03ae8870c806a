// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/core/api.hpp"

namespace pawl {

// libev has two callbacks for the whole process: `ev_set_allocator` and `ev_set_syserr_cb`. They
// are the one thing that this library sets for a whole process without being asked: by itself libev
// ends the process when it gets no memory or when a system call fails. Each time that a libev
// selector is made both are set, and they act on nothing but this library's own calls into libev,
// on the thread that makes them; for a program's own loops libev does what it does by itself.
//
// A program that has callbacks of its own calls `leave_libev_callbacks()` first, and in its own:
//
//     void on_error(const char* message) {
//       if (pawl::take_libev_error()) return;
//       …
//     }
//     void* allocate(void* block, long bytes) { return pawl::libev_reallocate(block, bytes); }
//
// Without that, libev's selectors do what the program's callbacks do.

/// Leaves libev's callbacks as they are from now on. Called before the first libev selector is
/// made, which asking for `available_selectors()` does too. From any thread.
PAWL_API void leave_libev_callbacks() noexcept;

/// True when a system call failed that was made for a selector of this library, on this thread;
/// then `errno` is noted, `Selector::select` gives it as its error, and the program's callback
/// returns at once. It may not return here at all, so it has nothing to destroy.
PAWL_API bool take_libev_error() noexcept;

/// Works as realloc(3), and as free(3) for 0 bytes. Never null for a selector of this library,
/// which has something put by. A block that it gave for one is given back to it.
PAWL_API void* libev_reallocate(void* block, long bytes) noexcept;

}  // namespace pawl
