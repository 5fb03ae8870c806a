// SPDX-License-Identifier: MIT
// Traps of the format, as glibc's res_init.c has them: a word counts only at the beginning of its
// line; the last one of "search" and "domain" wins; numbers are capped; the dot alone is the root;
// an IPv6 server may have a scope.
#include "net/resolver_config.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "net/host_name.hpp"
#include "net/settings_file.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr std::size_t most_servers = 3;
constexpr std::uint16_t dns_port = 53;
constexpr const char* path = "/etc/resolv.conf";

/// The number after "ndots:" and its like, as atoi(3) reads it; -1 when `word` is another one.
int number_of(std::string_view word, std::string_view name, int most) {
  if (word.substr(0, name.size()) != name) return -1;
  int number = 0;
  for (const char c : word.substr(name.size())) {
    if (c < '0' || c > '9' || number > most) break;
    number = 10 * number + (c - '0');
  }
  return std::min(number, most);
}

/// An address whose interface is gone stays, and can't be reached.
void add_server(std::vector<Endpoint>& servers, std::string_view text) {
  if (servers.size() >= most_servers) return;
  for (const std::string_view each : {text, text.substr(0, text.find('%'))}) {
    try {
      servers.push_back(Endpoint::from_address(each, dns_port));
      return;
    } catch (const std::invalid_argument&) {
      // Without its scope, then.
    }
  }
}

bool is_absolute(std::string_view name) { return !name.empty() && name.back() == '.'; }

/// `name` below `suffix`, as an absolute name; empty when there can be no such name.
std::string below(std::string_view name, std::string_view suffix) {
  std::string whole(name);
  if (!suffix.empty()) whole.append(".").append(suffix);
  if (HostName::parse(whole).kind != HostName::Kind::name) return {};
  return whole + ".";
}

}  // namespace

std::error_code ResolverConfig::read(System& system) {
  std::string text;
  const std::error_code error = read_settings(system, path, text);
  if (error) return error;
  ResolverConfig config;
  config.take_file(text);
  if (const char* words = std::getenv("LOCALDOMAIN")) config.take_search(words);
  if (const char* words = std::getenv("RES_OPTIONS")) config.take_options(words);
  std::string name;
  // Where nobody says, what this machine's own name is below.
  if (!config.has_search && system.host_name(name).ok()) {
    const std::size_t dot = name.find('.');
    if (dot != std::string::npos) config.take_search(name.substr(dot + 1));
  }
  *this = std::move(config);
  return {};
}

void ResolverConfig::take_file(std::string_view text) {
  while (!text.empty()) {
    std::string_view line = next_line(text);
    if (line.empty() || line.front() == ' ' || line.front() == '\t') continue;
    const std::string_view word = next_word(line);
    if (line.empty()) continue;  // nothing after it
    if (word == "nameserver") add_server(servers, next_word(line));
    if (word == "search") take_search(line);
    if (word == "domain") take_search(next_word(line));
    if (word == "options") take_options(line);
  }
}

void ResolverConfig::take_search(std::string_view words) {
  search.clear();
  has_search = true;
  for (std::string_view word = next_word(words); !word.empty(); word = next_word(words)) {
    if (word.front() == '.') word.remove_prefix(1);
    if (is_absolute(word)) word.remove_suffix(1);
    search.emplace_back(word);
  }
}

void ResolverConfig::take_options(std::string_view words) {
  for (std::string_view word = next_word(words); !word.empty(); word = next_word(words)) {
    const int dots = number_of(word, "ndots:", 15);
    const int seconds = number_of(word, "timeout:", 30);
    const int times = number_of(word, "attempts:", 5);
    if (dots >= 0) ndots = static_cast<std::size_t>(dots);
    if (seconds >= 0) timeout = std::chrono::seconds(std::max(seconds, 1));
    if (times >= 0) attempts = std::max(times, 1);
    if (word == "rotate") rotates = true;
    if (word == "use-vc") uses_tcp = true;
    if (word == "no-aaaa") asks_ipv6 = false;
    if (word == "no-tld-query") tries_single_labels = false;
  }
}

ResolverConfig::Candidates ResolverConfig::candidates(std::string_view name) const {
  Candidates found;
  if (is_absolute(name)) {
    found.names.emplace_back(name);
    found.begins_as_is = true;
    return found;
  }
  const auto dots = static_cast<std::size_t>(std::count(name.begin(), name.end(), '.'));
  const std::string as_is = below(name, {});
  found.begins_as_is = dots >= ndots;
  if (found.begins_as_is) found.names.push_back(as_is);
  bool is_root_named = false;
  for (const std::string& suffix : search) {
    if (suffix.empty()) is_root_named = true;
    std::string whole = below(name, suffix);
    if (!whole.empty()) found.names.push_back(std::move(whole));
  }
  const bool is_wanted_bare = dots > 0 || search.empty() || tries_single_labels;
  found.ends_as_is = !found.begins_as_is && !is_root_named && is_wanted_bare;
  if (found.ends_as_is) found.names.push_back(as_is);
  return found;
}

}  // namespace pawl
