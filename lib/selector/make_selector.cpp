// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "pawl/system/system.hpp"
#include "selector/backends.hpp"

namespace pawl {
namespace {

using Factory = std::unique_ptr<Selector> (*)();

struct Backend {
  std::string_view name;
  Factory make;
};

constexpr Backend backends[] = {
    // best first
    {"epoll", &make_epoll_selector},
    {"poll", &make_poll_selector},
    {"select", &make_select_selector},
};

std::unique_ptr<Selector> make_best() {
  for (const Backend& backend : backends) {
    try {
      return backend.make();
    } catch (const std::system_error&) {
      // The next one may need less: poll and select need no descriptor of their own.
    }
  }
  return make_select_selector();
}

[[noreturn]] void throw_unknown(std::string_view name) {
  std::string message = "make_selector: unknown selector \"" + std::string(name) + "\"; known:";
  for (const std::string_view known : available_selectors()) message += " " + std::string(known);
  throw std::invalid_argument(message);
}

}  // namespace

std::vector<std::string_view> available_selectors() {
  std::vector<std::string_view> names;
  for (const Backend& backend : backends) names.push_back(backend.name);
  for (const std::string_view name : libev_selector_names()) names.push_back(name);
  return names;
}

std::unique_ptr<Selector> make_selector(std::string_view name) {
  if (name.empty()) {
    if (const char* variable = std::getenv("PAWL_SELECTOR")) name = variable;
  }
  if (name.empty()) return make_best();
  for (const Backend& backend : backends) {
    if (backend.name == name) return backend.make();
  }
  if (auto selector = make_libev_selector(name)) return selector;
  throw_unknown(name);
}

std::unique_ptr<Selector> System::make_selector(std::string_view name) {
  return pawl::make_selector(name);
}

}  // namespace pawl
