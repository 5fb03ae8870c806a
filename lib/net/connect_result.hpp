// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>

namespace pawl {

class System;

/// Tells what became of a connect(2) that was in progress, when its socket is ready: no error,
/// EINPROGRESS after a spurious wake-up, or why it failed. The kernel tells the last once.
std::error_code connect_result(System& system, int fd);

}  // namespace pawl
