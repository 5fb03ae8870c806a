// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "pawl/core/time.hpp"

namespace pawl {

/// "12 ms", "3.400 s": a duration for a person.
inline std::string to_age(Duration duration) {
  const auto count = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  if (count < 1000 && count > -1000) return std::to_string(count) + " ms";
  const auto rest = count % 1000 < 0 ? -(count % 1000) : count % 1000;
  const std::string thousandths = std::to_string(1000 + rest).substr(1);
  return std::to_string(count / 1000) + "." + thousandths + " s";
}

}  // namespace pawl
