// SPDX-License-Identifier: MIT
#include "pawl/net/inherited_sockets.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int first_fd = 3;        // SD_LISTEN_FDS_START
constexpr int most_fds = 1 << 20;  // fs.nr_open as it comes: no process has more

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

/// -1 for anything but a number.
int number(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

/// Cuts what stands before the next colon off `names`.
std::string next_name(std::string_view& names) {
  const std::size_t colon = names.find(':');
  const std::string name(names.substr(0, colon));
  names = colon == std::string_view::npos ? std::string_view() : names.substr(colon + 1);
  return name;
}

}  // namespace

std::vector<InheritedSocket> inherited_sockets() { return inherited_sockets(System::real()); }

std::vector<InheritedSocket> inherited_sockets(System& system) {
  std::vector<InheritedSocket> sockets;
  const int count = number(variable("LISTEN_FDS"));
  const bool is_for_us = number(variable("LISTEN_PID")) == system.process_id().value;
  const std::string all_names(variable("LISTEN_FDNAMES"));
  if (!is_for_us) return sockets;
  std::string_view names = all_names;
  for (int fd = first_fd; fd < first_fd + std::min(count, most_fds); ++fd) {
    std::string name = next_name(names);
    if (!system.set_close_on_exec(fd).ok()) continue;  // there is none under this number
    sockets.push_back(InheritedSocket{UniqueFd(fd), std::move(name)});
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  return sockets;
}

}  // namespace pawl
