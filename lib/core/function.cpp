// SPDX-License-Identifier: MIT
#include "pawl/core/function.hpp"

#include <stdexcept>

namespace pawl {

void throw_empty_function_call() {
  throw std::logic_error("pawl::Function: called while empty (moved from, or never set)");
}

}  // namespace pawl
