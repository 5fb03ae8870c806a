// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "console.hpp"
#include "program.hpp"

/// Where to connect to: "example.org:80", "127.0.0.1:80", "[::1]:80".
struct HostAndPort {
  std::string host;  ///< without brackets
  std::uint16_t port = 0;

  /// A missing port is `default_port`, and an error where that is 0. Throws
  /// `std::invalid_argument`, which quotes `whole`, or else the text.
  static HostAndPort parse(std::string_view text, std::uint16_t default_port = 0,
                           std::string_view whole = {}) {
    const auto refuse = [&](const char* reason) {
      throw std::invalid_argument(quoted(whole.empty() ? text : whole) + ": " + reason);
    };
    const bool is_bracketed = !text.empty() && text[0] == '[';
    const auto bracket = is_bracketed ? text.find(']') : 0;
    if (bracket == std::string_view::npos) refuse("the ] is missing");
    const std::string_view host = text.substr(0, text.find(':', bracket));
    const std::string_view port = text.substr(std::min(host.size() + 1, text.size()));
    HostAndPort result;
    result.host = is_bracketed ? host.substr(1, bracket - 1) : host;
    result.port = default_port;
    if (result.host.empty()) refuse("the host is missing");
    if (is_bracketed && host.size() != bracket + 1) refuse("only a port can follow the ]");
    if (port.empty() && default_port == 0) refuse("the port is missing, as in 127.0.0.1:8080");
    if (port.empty()) return result;
    const auto number = parse_number(port, 1, 65535);
    if (!number) refuse("the port is from 1 to 65535, and an IPv6 address stands in brackets");
    result.port = static_cast<std::uint16_t>(*number);
    return result;
  }
};

/// An http:// URL, taken apart.
struct HttpUrl {
  std::string text;       ///< as it was typed
  std::string authority;  ///< "example.org:8080", for the Host header
  std::string target;     ///< "/path?query", for the request line
  HostAndPort server;

  /// Throws `std::invalid_argument`, which quotes the text and says what is wrong with it.
  static HttpUrl parse(std::string_view text) {
    constexpr std::string_view scheme = "http://";
    const auto refuse = [&](const char* reason) {
      throw std::invalid_argument(quoted(text) + ": " + reason);
    };
    for (const char c : text) {
      if (c <= ' ' || c > '~') refuse("a URL has no spaces, and %XX for what isn't ASCII");
    }
    if (text.substr(0, 8) == "https://") refuse("https isn't supported yet, only http://");
    if (text.substr(0, scheme.size()) != scheme) refuse("a URL here begins with http://");
    std::string_view rest = text.substr(scheme.size());
    rest = rest.substr(0, rest.find('#'));
    const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
    if (authority.find('@') != std::string_view::npos)
      refuse("names and passwords don't work here");
    rest.remove_prefix(authority.size());

    HttpUrl url;
    url.text = text;
    url.authority = authority;
    url.target = rest.empty() || rest[0] == '?' ? "/" + std::string(rest) : std::string(rest);
    url.server = HostAndPort::parse(authority, 80, text);
    return url;
  }
};
