// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>

/// What a test's callback throws, and nobody else.
struct Thrown : std::runtime_error {
  Thrown() : std::runtime_error("thrown by a callback") {}
};
