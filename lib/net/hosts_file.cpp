// SPDX-License-Identifier: MIT
#include "net/hosts_file.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "net/settings_file.hpp"

namespace pawl {
namespace {

constexpr const char* path = "/etc/hosts";
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool are_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

bool names(std::string_view rest_of_line, std::string_view name) {
  while (true) {
    const std::string_view word = next_word(rest_of_line);
    if (word.empty()) return false;
    if (are_equal(word, name)) return true;
  }
}

bool is_of(const Endpoint& endpoint, AddressFamily family) {
  if (family == AddressFamily::any) return true;
  return (family == AddressFamily::ipv4) == (endpoint.family() == Endpoint::Family::ipv4);
}

}  // namespace

std::vector<Endpoint> find_in_hosts(std::string_view text, std::string_view name,
                                    AddressFamily family) {
  std::vector<Endpoint> found;
  while (!text.empty()) {
    std::string_view line = next_line(text);
    line = line.substr(0, line.find('#'));
    const std::string_view address = next_word(line);
    if (address.empty() || !names(line, name)) continue;
    try {
      Endpoint endpoint = Endpoint::from_address(address, 0);
      if (is_of(endpoint, family)) found.push_back(std::move(endpoint));
    } catch (const std::invalid_argument&) {
      // No address, or its interface is gone.
    }
  }
  return found;
}

std::error_code find_in_hosts(System& system, std::string_view name, AddressFamily family,
                              std::vector<Endpoint>& found) {
  std::string text;
  const std::error_code error = read_settings(system, path, text);
  if (!error) found = find_in_hosts(text, name, family);
  return error;
}

}  // namespace pawl
