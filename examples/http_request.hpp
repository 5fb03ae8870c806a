// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

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

/// What a token is made of: a method, a field's name (RFC 9110 §5.6.2).
inline bool is_token(std::string_view text) {
  constexpr std::string_view others = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    const bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return is_letter || (c >= '0' && c <= '9') || others.find(c) != std::string_view::npos;
  });
}

inline bool is_number(std::string_view text) {
  constexpr std::size_t most_digits = 18;  // what fits into 64 bits in any case
  return !text.empty() && text.size() <= most_digits &&
         text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Without the spaces and tabs around it.
inline std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// Cuts the first element off a list with commas.
inline std::string_view take_element(std::string_view& list) {
  const std::string_view element = list.substr(0, list.find(','));
  list.remove_prefix(std::min(element.size() + 1, list.size()));
  return trimmed(element);
}

inline bool has_element(std::string_view list, std::string_view wanted) {
  while (!list.empty()) {
    if (take_element(list) == wanted) return true;
  }
  return false;
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

/// "HTTP/1.1" → 1, "HTTP/1.0" → 0, what is no version at all → -1, and one of the others → -2.
inline int minor_version(std::string_view text) {
  const auto is_digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() != 8 || text.substr(0, 5) != "HTTP/" || text[6] != '.') return -1;
  if (!is_digit(5) || !is_digit(7)) return -1;
  return text[5] != '1' ? -2 : text[7] == '0' ? 0 : 1;
}

/// "GET /path?query HTTP/1.1"
inline HttpRequest parse_request_line(std::string_view line) {
  for (const char c : line) {
    if (c < ' ' || c > '~') return refused(400, "a request line is ASCII, and %XX what isn't");
  }
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !is_token(line.substr(0, first))) {
    return refused(400, "a request begins like GET / HTTP/1.1");
  }
  const int minor = minor_version(line.substr(last + 1));
  if (minor == -1) return refused(400, "a request line ends with HTTP/1.1");
  if (minor == -2) return refused(505, "HTTP/1.1 is spoken here");
  HttpRequest request;
  request.method = line.substr(0, first);
  std::string_view target = line.substr(first + 1, last - first - 1);
  if (target.empty()) return refused(400, "a request line has a target");
  if (target.find(' ') != std::string_view::npos) return refused(400, "a target has no spaces");
  if (lowered(target.substr(0, 7)) == "http://") {  // what a proxy gets: RFC 9112 §3.2.2
    const auto path = target.find_first_of("/?", 7);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  } else if (target[0] != '/' && (request.method == "GET" || request.method == "HEAD")) {
    return refused(400, "a target begins with /");
  }
  request.path = target.substr(0, target.find('?'));
  request.query = target.substr(std::min(request.path.size() + 1, target.size()));
  request.is_http_1_0 = request.is_last = minor == 0;
  return request;
}

/// What the lines of a head say about how it is to be read: the ways to smuggle a request past
/// whoever reads it otherwise (RFC 9112 §3.2, §6.3, §11.2). A complaint that isn't null refuses it.
class HeadFields {
 public:
  explicit HeadFields(HttpRequest& request) : request_(request) {}

  const char* take(std::string_view line) {
    const auto colon = line.find(':');
    // Nothing between name and colon, and no line that goes on with the one before (obs-fold).
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
      return "a header looks like Name: value";
    }
    for (const char c : line) {
      const bool is_control = (c >= 0 && c < ' ' && c != '\t') || c == '\x7f';
      if (is_control) return "a header has no control characters";
    }
    const std::string name = lowered(line.substr(0, colon));
    const std::string value = lowered(trimmed(line.substr(colon + 1)));
    if (name == "host") return take_host(value);
    if (name == "content-length") return take_length(value);
    if (name == "transfer-encoding") return take_encoding(value);
    if (name == "connection" && has_element(value, "close")) request_.is_last = true;
    return nullptr;
  }

  const char* end() const {
    if (!has_host_ && !request_.is_http_1_0) return "the header Host is missing";
    if (encoding_.empty()) return nullptr;
    if (request_.is_http_1_0) return "HTTP/1.0 knows no Transfer-Encoding";
    if (!length_.empty()) return "Content-Length and Transfer-Encoding contradict each other";
    return encoding_ == "chunked" ? nullptr : "a body comes in chunks here, and in nothing else";
  }

 private:
  const char* take_host(std::string_view value) {
    if (std::exchange(has_host_, true)) return "there is one Host";
    constexpr std::string_view no_part = " \t\"#%,/<>?@\\^`{|}";
    if (value.find_first_of(no_part) != std::string_view::npos) return "Host is a name and a port";
    const auto colon = value.rfind(':');
    if (colon == std::string_view::npos || value.back() == ']') return nullptr;
    const std::string_view port = value.substr(colon + 1);
    return port.empty() || is_number(port) ? nullptr : "Host is a name and a port";
  }

  const char* take_length(std::string_view value) {
    if (!is_number(value)) return "Content-Length is a number";
    if (!length_.empty() && length_ != value) return "there is one Content-Length";
    length_ = value;
    // A body isn't read here, and so what follows can't be told from it.
    if (value.find_first_not_of('0') != std::string_view::npos) request_.is_last = true;
    return nullptr;
  }

  const char* take_encoding(std::string_view value) {
    encoding_ += encoding_.empty() ? "" : ",";
    encoding_ += value.empty() ? "," : value;
    request_.is_last = true;
    return nullptr;
  }

  HttpRequest& request_;
  bool has_host_ = false;
  std::string length_;
  std::string encoding_;  // with a comma between those of several lines
};

inline HttpRequest parse(std::string_view head) {
  HttpRequest request = parse_request_line(take_line(head));
  if (request.refusal != 0) return request;
  HeadFields fields(request);
  while (!head.empty()) {
    const std::string_view line = take_line(head);
    if (line.empty()) continue;
    if (const char* complaint = fields.take(line)) return refused(400, complaint);
  }
  if (const char* complaint = fields.end()) return refused(400, complaint);
  return request;
}

/// Cuts the first whole head off `input`; none when more has to come. What can't become a request
/// any more is refused as soon as that is seen.
inline std::optional<HttpRequest> take(std::string_view& input) {
  while (input.substr(0, 1) == "\n" || input.substr(0, 2) == "\r\n") take_line(input);
  if (input.empty() || input == "\r") return std::nullopt;
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
  if (first_line_end >= longest_head && input.size() >= longest_head) {
    return refused(414, "the line of a request has at most 8192 bytes here");
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
