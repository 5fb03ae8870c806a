// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/core/state_table.hpp"

/// What of an HTTP/1.1 reply comes next.
enum class ResponseState : std::uint8_t {
  status_line,
  headers,
  body_by_length,    ///< Content-Length told how much
  chunk_size,        ///< the line before a chunk's bytes
  chunk_data,        ///< a chunk's bytes
  chunk_end,         ///< the empty line behind them
  trailers,          ///< headers behind the last chunk
  body_until_close,  ///< the peer's end is the body's
  done,
  failed,
};

enum class ResponseEvent : std::uint8_t {
  status,          ///< the status line has come
  interim,         ///< the headers end, but it was a 1xx: the reply itself is still to come
  no_body,         ///< the headers end, and that was all
  length,          ///< … and say how long the body is
  chunked,         ///< … and say that it comes in chunks
  until_close,     ///< … and say nothing
  chunk,           ///< the size of a chunk
  last_chunk,      ///< the size 0
  complete,        ///< the last byte of the body, or of a chunk
  chunk_ended,     ///< the line behind it
  trailers_ended,  ///< the last line of all
  malformed,       ///< this isn't HTTP
  peer_ended,      ///< the peer sends no more
};

namespace response {
using State = ResponseState;
using pawl::Cell;
constexpr Cell<State> no{};
constexpr Cell<State> status = State::status_line;
constexpr Cell<State> headers = State::headers;
constexpr Cell<State> length = State::body_by_length;
constexpr Cell<State> size = State::chunk_size;
constexpr Cell<State> data = State::chunk_data;
constexpr Cell<State> chunk_end = State::chunk_end;
constexpr Cell<State> trailers = State::trailers;
constexpr Cell<State> close = State::body_until_close;
constexpr Cell<State> done = State::done;
constexpr Cell<State> failed = State::failed;

// clang-format off
inline constexpr pawl::StateTable<ResponseState, ResponseEvent, 10, 13> table{
    "response",
    {"STATUS_LINE", "HEADERS", "BODY_BY_LENGTH", "CHUNK_SIZE", "CHUNK_DATA", "CHUNK_END",
     "TRAILERS", "BODY_UNTIL_CLOSE", "DONE", "FAILED"},
    {"status", "interim", "no body", "length", "chunked", "until close", "chunk", "last chunk",
     "complete", "chunk ended", "trailers ended", "malformed", "peer ended"},
    {{
      // status  interim no_body length  chunked until_close chunk  last_chunk complete   chunk_ended trailers_ended malformed peer_ended
      {{headers, no,     no,     no,     no,     no,         no,    no,        no,        no,         no,            failed,   failed}},
      {{no,      status, done,   length, size,   close,      no,    no,        no,        no,         no,            failed,   failed}},
      {{no,      no,     no,     no,     no,     no,         no,    no,        done,      no,         no,            no,       failed}},
      {{no,      no,     no,     no,     no,     no,         data,  trailers,  no,        no,         no,            failed,   failed}},
      {{no,      no,     no,     no,     no,     no,         no,    no,        chunk_end, no,         no,            no,       failed}},
      {{no,      no,     no,     no,     no,     no,         no,    no,        no,        size,       no,            failed,   failed}},
      {{no,      no,     no,     no,     no,     no,         no,    no,        no,        no,         done,          failed,   failed}},
      {{no,      no,     no,     no,     no,     no,         no,    no,        no,        no,         no,            no,       done}},
      {{done,    done,   done,   done,   done,   done,       done,  done,      done,      done,       done,          done,     done}},
      {{failed,  failed, failed, failed, failed, failed,     failed, failed,   failed,    failed,     failed,        failed,   failed}},
    }}};
// clang-format on

static_assert(table.every_state_is_reached_from(ResponseState::status_line));
static_assert(table.absorbs_all(ResponseState::done));
static_assert(table.absorbs_all(ResponseState::failed));
}  // namespace response

/// Reads one HTTP/1.1 reply to a GET, in pieces of any size.
///
/// Owns:     the headers, and never any of the body: that goes to `on_body` as it comes.
/// Calls:    `on_body` from inside `feed`; it must not destroy the reader.
/// Promises: how the bytes were cut into pieces makes no difference. A line may have 16 KiB, all
///           headers together 64 KiB.
/// Fails:    by the state FAILED and `problem()`, which says in words what was wrong.
class HttpResponseReader {
 public:
  using BodyCallback = pawl::Function<void(std::string_view)>;

  /// The observer (which may be null) sees the transitions of "response `label`".
  explicit HttpResponseReader(BodyCallback on_body, pawl::Observer* observer = nullptr,
                              std::string label = {})
      : on_body_(std::move(on_body)), observer_(observer), label_(std::move(label)) {}

  /// Takes what came. Returns what lies behind the end of the reply, if that was in it.
  std::string_view feed(std::string_view bytes) {
    while (!bytes.empty() && !is_over()) bytes.remove_prefix(take(bytes));
    return bytes;
  }

  /// The peer sends no more.
  void end() {
    if (is_over()) return;
    if (state() != ResponseState::body_until_close) problem_ = what_is_missing();
    step(ResponseEvent::peer_ended);
  }

  ResponseState state() const { return machine_.state(); }
  bool is_over() const {
    return state() == ResponseState::done || state() == ResponseState::failed;
  }
  /// 200, 404 …; 0 while it hasn't come.
  int status() const { return status_; }
  /// The first header of that name, in any case; empty when there is none.
  std::string_view header(std::string_view name) const {
    for (const Header& header : headers_) {
      if (is_same_name(header.name, name)) return header.value;
    }
    return {};
  }
  /// How much of the body has come.
  std::uint64_t body_bytes() const { return body_bytes_; }
  /// How much there will be, where Content-Length told.
  std::optional<std::uint64_t> body_length() const { return body_length_; }
  /// Why it FAILED.
  const std::string& problem() const { return problem_; }

 private:
  struct Header {
    std::string name;
    std::string value;
  };

  static constexpr std::size_t longest_line = 16 * 1024;
  static constexpr std::size_t longest_headers = 64 * 1024;
  static constexpr int most_interims = 16;  // replies of 1xx

  void step(ResponseEvent event) { machine_.step(event, observer_, this, label_); }

  void refuse(std::string problem) {
    problem_ = std::move(problem);
    step(ResponseEvent::malformed);
  }

  /// Takes some of the bytes, at least one, and returns how many.
  std::size_t take(std::string_view bytes) {
    switch (state()) {
      case ResponseState::body_by_length:
      case ResponseState::chunk_data: return take_counted(bytes);
      case ResponseState::body_until_close: return take_body(bytes);
      default: return take_line(bytes);
    }
  }

  std::size_t take_body(std::string_view bytes) {
    body_bytes_ += bytes.size();
    if (on_body_) on_body_(bytes);
    return bytes.size();
  }

  std::size_t take_counted(std::string_view bytes) {
    const std::string_view part = bytes.substr(0, std::min<std::uint64_t>(left_, bytes.size()));
    left_ -= part.size();
    take_body(part);
    if (left_ == 0) step(ResponseEvent::complete);
    return part.size();
  }

  /// Puts a line together, and lets the state at its end say what it means.
  std::size_t take_line(std::string_view bytes) {
    const auto newline = bytes.find('\n');
    const bool is_whole = newline != std::string_view::npos;
    const std::size_t taken = is_whole ? newline + 1 : bytes.size();
    line_ += bytes.substr(0, is_whole ? newline : bytes.size());
    if (line_.size() > longest_line) {
      refuse("a line has more than " + std::to_string(longest_line) + " bytes");
    } else if (is_whole) {
      if (!line_.empty() && line_.back() == '\r') line_.pop_back();
      on_line(std::exchange(line_, {}));
    }
    return taken;
  }

  void on_line(const std::string& line) {
    switch (state()) {
      case ResponseState::status_line: return on_status_line(line);
      case ResponseState::chunk_size: return on_chunk_size(line);
      case ResponseState::chunk_end:
        if (line.empty()) return step(ResponseEvent::chunk_ended);
        return refuse("a chunk is longer than its size says");
      default: return on_header_line(line);
    }
  }

  /// "HTTP/1.1 200 OK"
  void on_status_line(const std::string& line) {
    const bool is_http = line.size() >= 12 && line.compare(0, 7, "HTTP/1.") == 0 &&
                         is_digit(line[7]) && line[8] == ' ' && line[9] >= '1' &&
                         is_digit(line[9]) && is_digit(line[10]) && is_digit(line[11]) &&
                         (line.size() == 12 || line[12] == ' ');
    if (!is_http) return refuse("not the beginning of an HTTP/1.1 reply: " + quoted(line));
    status_ = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    step(ResponseEvent::status);
  }

  void on_header_line(const std::string& line) {
    if (line.empty()) {
      if (state() == ResponseState::trailers) return step(ResponseEvent::trailers_ended);
      return on_headers_end();
    }
    header_bytes_ += line.size();
    if (header_bytes_ > longest_headers) {
      return refuse("the headers have more than " + std::to_string(longest_headers) + " bytes");
    }
    if (state() == ResponseState::trailers) return;  // they could say nothing that matters here
    const bool is_continued = line[0] == ' ' || line[0] == '\t';  // RFC 9112 §5.2
    if (is_continued && !headers_.empty()) {
      headers_.back().value += " " + trimmed(line);
      return;
    }
    const auto colon = line.find(':');
    const bool has_name = colon > 0 && colon < line.find_first_of(" \t");
    if (!has_name) return refuse("not a header: " + quoted(line));
    headers_.push_back(Header{line.substr(0, colon), trimmed(line.substr(colon + 1))});
  }

  /// Where the body ends: RFC 9112 §6.3.
  void on_headers_end() {
    if (status_ < 200) {
      if (++interims_ > most_interims) return refuse("interim replies without an end");
      headers_.clear();
      return step(ResponseEvent::interim);
    }
    if (status_ == 204 || status_ == 304) return step(ResponseEvent::no_body);
    if (const auto coding = all_values("Transfer-Encoding")) {
      if (is_same_name(*coding, "chunked")) return step(ResponseEvent::chunked);
      return refuse("the transfer coding " + quoted(*coding) + " isn't known here");
    }
    if (const auto length = all_values("Content-Length")) return on_content_length(*length);
    step(ResponseEvent::until_close);
  }

  /// "5"; or "5, 5", which is two headers that say the same.
  void on_content_length(const std::string& text) {
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const auto length = parse(trimmed(text.substr(begin, end - begin)), 10);
      if (!length || (body_length_ && *body_length_ != *length)) {
        return refuse("Content-Length makes no sense: " + quoted(text));
      }
      body_length_ = length;
      begin = end + 1;
    }
    left_ = *body_length_;
    step(left_ == 0 ? ResponseEvent::no_body : ResponseEvent::length);
  }

  /// "1f4" or "1f4;extension"
  void on_chunk_size(const std::string& line) {
    const auto size = parse(trimmed(line.substr(0, line.find(';'))), 16);
    if (!size) return refuse("not the size of a chunk: " + quoted(line));
    left_ = *size;
    step(left_ == 0 ? ResponseEvent::last_chunk : ResponseEvent::chunk);
  }

  std::string what_is_missing() const {
    const std::string so_far = std::to_string(body_bytes_);
    switch (state()) {
      case ResponseState::status_line:
        return line_.empty() ? "the server ended the connection without a reply"
                             : "the reply ends in its first line: " + quoted(line_);
      case ResponseState::headers: return "the reply ends in its headers";
      case ResponseState::body_by_length:
        return "the body ends after " + so_far + " of " + std::to_string(*body_length_) + " bytes";
      default: return "the body ends after " + so_far + " bytes, before its last chunk was over";
    }
  }

  /// The values of all headers of that name, with commas between them; none when there is none.
  std::optional<std::string> all_values(std::string_view name) const {
    std::optional<std::string> values;
    for (const Header& header : headers_) {
      if (!is_same_name(header.name, name)) continue;
      values = values ? *values + ", " + header.value : header.value;
    }
    return values;
  }

  static std::optional<std::uint64_t> parse(const std::string& digits, int base) {
    std::uint64_t value = 0;
    const char* end = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), end, value, base);
    if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
    return value;
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  static char lowered(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

  static bool is_same_name(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return lowered(x) == lowered(y); });
  }

  static std::string trimmed(const std::string& text) {
    const auto begin = text.find_first_not_of(" \t");
    if (begin == std::string::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
  }

  pawl::StateMachine<response::table> machine_{ResponseState::status_line};
  BodyCallback on_body_;
  pawl::Observer* observer_;
  std::string label_;
  std::string line_;  // what has come of the current one
  std::size_t header_bytes_ = 0;
  int interims_ = 0;
  int status_ = 0;
  std::vector<Header> headers_;
  std::optional<std::uint64_t> body_length_;
  std::uint64_t left_ = 0;  // of the body by length, or of the chunk
  std::uint64_t body_bytes_ = 0;
  std::string problem_;
};
