// SPDX-License-Identifier: MIT
#include "net/hosts_file.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr const char* path = "/etc/hosts";
constexpr std::string_view blanks = " \t\r";

std::string_view next_word(std::string_view& text) {
  const std::size_t begin = std::min(text.find_first_not_of(blanks), text.size());
  const std::size_t end = std::min(text.find_first_of(blanks, begin), text.size());
  const std::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return word;
}

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
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
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

std::vector<Endpoint> find_in_hosts(System& system, std::string_view name, AddressFamily family) {
  std::string text;
  if (!system.read_file(path, text).ok()) return {};
  return find_in_hosts(text, name, family);
}

}  // namespace pawl
