// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

/// The head of a request, as far as the server needs it.
struct HttpRequest {
  std::string method;
  std::string path;
  std::string query;           ///< what stands behind the "?"
  bool is_http_1_0 = false;    ///< then the reply can't come in chunks
  bool is_last = false;        ///< the connection is to be closed behind the reply
  int refusal = 0;             ///< 400, 431 …: it can't be answered, and nothing behind it
  const char* complaint = "";  ///< why

  /// The value of "name=value" in the query.
  std::optional<std::string> parameter(std::string_view name) const {
    std::string_view rest = query;
    while (!rest.empty()) {
      const std::string_view pair = rest.substr(0, rest.find('&'));
      rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
      if (pair.substr(0, pair.find('=')) != name) continue;
      return std::string(pair.substr(std::min(name.size() + 1, pair.size())));
    }
    return std::nullopt;
  }
};

namespace request {

constexpr std::size_t longest_head = 8 * 1024;

inline HttpRequest refused(int status, const char* complaint) {
  HttpRequest request;
  request.is_last = true;
  request.refusal = status;
  request.complaint = complaint;
  return request;
}

inline bool contains(const std::string& list, std::string_view word) {
  return list.find(word) != std::string::npos;
}

inline std::string lowered(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return result;
}

/// Cuts the first line off, without its end.
inline std::string_view take_line(std::string_view& text) {
  const auto newline = text.find('\n');
  std::string_view line = text.substr(0, newline);
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

/// "GET /path?query HTTP/1.1"
inline HttpRequest parse_request_line(std::string_view line) {
  for (const char c : line) {
    if (c < ' ' || c > '~') return refused(400, "a request line is ASCII, and %XX what isn't");
  }
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == 0 || first == std::string_view::npos || first == last) {
    return refused(400, "a request begins like GET / HTTP/1.1");
  }
  const std::string_view version = line.substr(last + 1);
  if (version.substr(0, 5) != "HTTP/") return refused(400, "a request line ends with HTTP/1.1");
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return refused(505, "HTTP/1.1 is spoken here");
  std::string_view target = line.substr(first + 1, last - first - 1);
  if (target.find(' ') != std::string_view::npos) return refused(400, "a target has no spaces");
  if (lowered(target.substr(0, 7)) == "http://") {  // what a proxy gets: RFC 9112 §3.2.2
    const auto path = target.find_first_of("/?", 7);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  HttpRequest request;
  request.method = line.substr(0, first);
  request.path = target.substr(0, target.find('?'));
  request.query = target.substr(std::min(request.path.size() + 1, target.size()));
  request.is_http_1_0 = request.is_last = version == "HTTP/1.0";
  return request;
}

inline HttpRequest parse(std::string_view head) {
  HttpRequest request = parse_request_line(take_line(head));
  bool has_host = false;
  while (request.refusal == 0 && !head.empty()) {
    const std::string_view line = take_line(head);
    if (line.empty()) continue;
    const auto colon = line.find(':');
    if (colon == 0 || colon >= line.find_first_of(" \t")) {
      return refused(400, "a header looks like Name: value");
    }
    const std::string name = lowered(line.substr(0, colon));
    const std::string value = lowered(line.substr(colon + 1));
    if (name == "host") has_host = true;
    if (name == "connection" && contains(value, "close")) request.is_last = true;
    // A body isn't read here, and so what follows can't be told from it.
    if (name == "transfer-encoding") request.is_last = true;
    if (name == "content-length" && value.find_first_not_of(" \t0") != std::string::npos) {
      request.is_last = true;
    }
  }
  if (request.refusal == 0 && !has_host && !request.is_http_1_0) {
    return refused(400, "the header Host is missing");
  }
  return request;
}

/// Cuts the first whole head off `input`; none when more has to come. What can't become a request
/// any more is refused as soon as that is seen.
inline std::optional<HttpRequest> take(std::string_view& input) {
  while (!input.empty() && (input[0] == '\r' || input[0] == '\n')) input.remove_prefix(1);
  if (input.empty()) return std::nullopt;
  if (input[0] < 'A' || input[0] > 'Z') return refused(400, "a request begins like GET / HTTP/1.1");
  const auto first_line_end = input.find('\n');
  std::size_t end = first_line_end;
  while (end < longest_head) {  // npos isn't
    ++end;
    if (input.substr(end, 1) == "\n" || input.substr(end, 2) == "\r\n") {
      const std::string_view head = input.substr(0, end);
      input.remove_prefix(end);
      take_line(input);
      return parse(head);
    }
    end = input.find('\n', end);
  }
  if (input.size() >= longest_head) {
    return refused(431, "the head of a request has at most 8192 bytes here");
  }
  if (first_line_end == std::string_view::npos) return std::nullopt;
  std::string_view begin = input;
  HttpRequest request = parse_request_line(take_line(begin));
  if (request.refusal != 0) return request;
  return std::nullopt;
}

}  // namespace request
