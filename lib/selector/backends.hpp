// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "pawl/selector/selector.hpp"

namespace pawl {

// Each throws std::system_error when the kernel refuses.
std::unique_ptr<Selector> make_select_selector();
std::unique_ptr<Selector> make_poll_selector();
std::unique_ptr<Selector> make_epoll_selector();

/// The libev backends that work here: libev, libev:epoll … Empty in a build without libev.
std::vector<std::string_view> libev_selector_names();
/// `name` as above. Null when libev has no such backend, or this build has no libev.
std::unique_ptr<Selector> make_libev_selector(std::string_view name);

}  // namespace pawl
