// SPDX-License-Identifier: MIT
#include "pawl/core/observer.hpp"

namespace pawl {

Observer::~Observer() = default;

}  // namespace pawl
