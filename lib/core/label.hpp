// SPDX-License-Identifier: MIT
#pragma once

#include <new>
#include <string>

namespace pawl {

/// What `make` gives, for an observer to show to a person. Without memory for it there is none:
/// what is told of has happened, and goes on.
template <typename Make>
std::string label_or_none(Make make) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return {};
  }
}

}  // namespace pawl
