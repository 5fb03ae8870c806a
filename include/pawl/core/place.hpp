// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "pawl/core/api.hpp"

namespace pawl {

/// A line of the user's source: where a callback was registered.
///
/// Functions that keep a callback take one as their last, defaulted argument, so that debug mode
/// can name the culprit. It costs two constants.
struct Place {
  const char* file = "";
  int line = 0;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Place{file, line};
  }
};

/// "main.cpp:12", with the folders left out.
PAWL_API std::string to_string(Place place);

}  // namespace pawl
