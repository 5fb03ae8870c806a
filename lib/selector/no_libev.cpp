// SPDX-License-Identifier: MIT
// Takes the place of libev_selector.cpp in a build without libev.
#include "selector/backends.hpp"

namespace pawl {

std::vector<std::string_view> libev_selector_names() { return {}; }
std::unique_ptr<Selector> make_libev_selector(std::string_view) { return nullptr; }

}  // namespace pawl
