// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace pawl {

/// Returns how often this process has forked since this was first called: whoever remembers the
/// number can tell later whether a child may hold copies of its descriptors.
///
/// Counts fork(2) as the C library does it. What shares no descriptor for long isn't counted:
/// posix_spawn(3), and with glibc system(3) and popen(3), whose children exec at once.
///
/// Threads: any.
/// Fails:   throws `std::bad_alloc` when the C library has no memory to remember the counter with.
std::size_t fork_count();

}  // namespace pawl
