// SPDX-License-Identifier: MIT
#include "pawl/core/place.hpp"

#include <string_view>

namespace pawl {

std::string to_string(Place place) {
  std::string_view file = place.file;
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) {
    file.remove_prefix(slash + 1);
  }
  return std::string(file) + ":" + std::to_string(place.line);
}

}  // namespace pawl
