// SPDX-License-Identifier: MIT
#include "selector/inner_set.hpp"

#include <system_error>

#include "selector/backends.hpp"

namespace pawl {

bool InnerSet::make() {
  try {
    std::unique_ptr<Selector> made = make_epoll_selector();
    fileno_ = made->fileno();
    if (fileno_ >= 0) selector_ = std::move(made);
  } catch (const std::system_error&) {
    // No descriptor is left, or the process may not have this kind.
  }
  return selector_ != nullptr;
}

}  // namespace pawl
