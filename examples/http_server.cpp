// SPDX-License-Identifier: MIT
// A web server that answers from memory it doesn't have: a terabyte goes out with 64 KiB in hand,
// because the session stops writing when the connection is congested and goes on when it is
// drained.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "http_request.hpp"
#include "pawl/core/state_table.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: http_server [--port N] [--host ADDRESS] [--next SECONDS]
                   [--patience SECONDS] [--verbose]

Answers GET and HEAD; the path / lists what there is. The first line that it
prints says where it is:
  listening on http://127.0.0.1:8080
Ctrl-C sends what is still unsent, for a second at most, and ends with exit
code 0.

  --port N           0, the default, is a free one
  --host ADDRESS     default 127.0.0.1
  --next SECONDS     what /next answers: the delay before the next request,
                     default 1
  --patience SECONDS for the head of a request, from its first byte on, however
                     slowly it comes; default 10
  --verbose          a line for each request)";

constexpr const char* index_page =
    R"(/              this page
/hello         a line of text
/slow?ms=N     the same, after N milliseconds (1000)
/bytes?n=N     N bytes (1000), in lines of 16 that say where they are
/chunked?n=N   the same in chunks
/close?n=N     the same without a length: it ends with the connection
/next          how many seconds to wait before the next request
/drop          500 of 1000 bytes, and then a reset; with ?how=close an end in good order
)";

struct Settings {
  std::string next = "1";
  pawl::Duration patience = std::chrono::seconds(10);
  bool is_verbose = false;
};

// ---- What is answered

enum class Framing { length, chunked, until_close };
enum class Ending { keep, close, reset };

struct Answer {
  int status = 200;
  std::string text;                 ///< the body; or
  std::uint64_t pattern_bytes = 0;  ///< so many bytes of the pattern
  std::uint64_t promised_bytes = 0;
  Framing framing = Framing::length;
  Ending ending = Ending::keep;
  pawl::Duration delay{};
};

const char* phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 414: return "URI Too Long";
    case 431: return "Request Header Fields Too Large";
    case 505: return "HTTP Version Not Supported";
    default: return "-";
  }
}

Answer text_answer(int status, std::string text) {
  Answer answer;
  answer.status = status;
  answer.text = std::move(text);
  return answer;
}

Answer pattern_answer(std::uint64_t bytes, Framing framing) {
  Answer answer;
  answer.pattern_bytes = answer.promised_bytes = bytes;
  answer.framing = framing;
  return answer;
}

/// Half of what was promised.
Answer dropped_answer_to(const HttpRequest& request) {
  Answer answer = pattern_answer(500, Framing::length);
  answer.promised_bytes = 1000;
  answer.ending = request.parameter("how") == "close" ? Ending::close : Ending::reset;
  return answer;
}

/// What `make(number)` answers to the parameter `name`, 1000 where there is none; or what is wrong
/// with it.
template <typename Make>
Answer answer_with(const HttpRequest& request, const char* name, std::uint64_t highest, Make make) {
  const auto value = parse_number(request.parameter(name).value_or("1000"), 0, highest);
  if (value) return make(*value);
  return text_answer(
      400, std::string(name) + " is a number from 0 to " + std::to_string(highest) + "\n");
}

Answer pattern_answer_to(const HttpRequest& request, Framing framing) {
  constexpr std::uint64_t terabyte = 1'000'000'000'000;
  return answer_with(request, "n", terabyte,
                     [=](std::uint64_t bytes) { return pattern_answer(bytes, framing); });
}

Answer slow_answer_to(const HttpRequest& request) {
  return answer_with(request, "ms", 30'000, [](std::uint64_t milliseconds) {
    Answer answer = text_answer(200, "Hello from pawl, at last\n");
    answer.delay = std::chrono::milliseconds(milliseconds);
    return answer;
  });
}

Answer answer_to(const HttpRequest& request, const Settings& settings) {
  const std::string& path = request.path;
  if (request.refusal != 0)
    return text_answer(request.refusal, request.complaint + std::string("\n"));
  if (request.method != "GET" && request.method != "HEAD") {
    return text_answer(405, "only GET and HEAD work here\n");
  }
  if (path == "/") return text_answer(200, index_page);
  if (path == "/hello") return text_answer(200, "Hello from pawl\n");
  if (path == "/next") return text_answer(200, settings.next + "\n");
  if (path == "/slow") return slow_answer_to(request);
  if (path == "/bytes") return pattern_answer_to(request, Framing::length);
  if (path == "/chunked") return pattern_answer_to(request, Framing::chunked);
  if (path == "/close") return pattern_answer_to(request, Framing::until_close);
  if (path == "/drop") return dropped_answer_to(request);
  return text_answer(404, "there is no " + path + " here; / lists what there is\n");
}

/// Bytes `offset` to `offset + count` of the pattern: lines of 16 bytes, each of which is its own
/// offset in 15 digits. So whoever gets them sees what is missing, doubled or in the wrong place.
void append_pattern(std::string& text, std::uint64_t offset, std::size_t count) {
  constexpr std::size_t digits = 15;
  std::size_t column = static_cast<std::size_t>(offset % (digits + 1));
  std::string line = std::to_string(offset - column);
  line = std::string(digits - line.size(), '0') + line + "\n";
  while (count > 0) {
    const std::size_t part = std::min(line.size() - column, count);
    text.append(line, column, part);
    count -= part;
    column = 0;
    int carry = digits + 1;
    for (std::size_t i = digits; carry > 0 && i-- > 0; carry /= 10) {
      carry += line[i] - '0';
      line[i] = static_cast<char>('0' + carry % 10);
    }
  }
}

// ---- One client's requests, one after the other

enum class SessionState : std::uint8_t {
  reading,  ///< until there is a whole request
  waiting,  ///< until the answer's time has come
  answering,
  done,  ///< the last answer was given, or the connection has ended
};

enum class SessionEvent : std::uint8_t { slow_request, request, due, answered, last };

// clang-format off
constexpr pawl::StateTable<SessionState, SessionEvent, 4, 5> session_table{
    "session",
    {"READING", "WAITING", "ANSWERING", "DONE"},
    {"slow request", "request", "due", "answered", "last"},
    {{
      // slow_request          request                  due                      answered               last
      {{SessionState::waiting, SessionState::answering, {},                      {},                    SessionState::done}},
      {{{},                    {},                      SessionState::answering, {},                    SessionState::done}},
      {{{},                    {},                      {},                      SessionState::reading, SessionState::done}},
      {{SessionState::done,    SessionState::done,      SessionState::done,      SessionState::done,    SessionState::done}},
    }}};
// clang-format on
static_assert(session_table.every_state_reaches(SessionState::done));
static_assert(session_table.absorbs_all(SessionState::done));

/// Lives in the callbacks of its connection, and goes with them.
class Session {
 public:
  Session(pawl::Connection& connection, const Settings& settings)
      : connection_(connection),
        settings_(settings),
        client_(connection.peer_endpoint().to_string()) {}

  void on_data(std::string_view bytes) {
    input_ += bytes;
    const std::uint64_t requests = requests_;
    go_on();
    // The idle timeout won't end a client that sends a byte now and then.
    const bool has_begun = !input_.empty() || requests == requests_;
    if (state() == SessionState::reading && has_begun && !is_head_timed_) time_head();
  }

  void on_drained() {
    if (is_resetting_) return connection_.abort();
    go_on();
  }

  /// The client asks no more, but still listens: `nc -N` does that.
  void on_eof() {
    has_client_ended_ = true;
    go_on();
  }

  void on_closed() {
    timer_.cancel();
    head_timer_.cancel();
    step(SessionEvent::last);
  }

 private:
  static constexpr std::size_t piece_bytes = 16 * 1024;
  static constexpr std::size_t most_input = 64 * 1024;  // of requests that wait for their turn

  SessionState state() const { return machine_.state(); }

  void step(SessionEvent event) {
    machine_.step(event, connection_.loop().observer(), this, client_);
  }

  /// Does what the state asks for, until it has to wait: for the client, the clock, or the kernel.
  void go_on() {
    bool is_moving = true;
    while (is_moving) {
      switch (state()) {
        case SessionState::reading: is_moving = read_request(); break;
        case SessionState::answering: is_moving = send_some(); break;
        case SessionState::waiting:
        case SessionState::done: is_moving = false;
      }
    }
    if (input_.size() > most_input) return connection_.pause_reading();
    if (connection_.is_reading_paused()) connection_.resume_reading();
  }

  void time_head() {
    is_head_timed_ = true;
    head_timer_ = connection_.loop().call_later(settings_.patience, [this] {
      answer(request::refused(408, "the head of a request takes too long"));
      go_on();
    });
  }

  bool read_request() {
    std::string_view rest = std::string_view(input_).substr(taken_);
    const std::optional<HttpRequest> request = request::take(rest);
    taken_ = input_.size() - rest.size();
    if (!request) {
      input_.erase(0, std::exchange(taken_, 0));
      if (has_client_ended_) finish();
      return false;
    }
    return answer(*request);
  }

  /// False when it has to wait for its time.
  bool answer(const HttpRequest& request) {
    ++requests_;
    is_head_timed_ = false;
    head_timer_.cancel();
    choose_answer(request);
    if (answer_.delay <= pawl::Duration::zero()) {
      step(SessionEvent::request);
      begin_answer();
      return true;
    }
    step(SessionEvent::slow_request);
    timer_ = connection_.loop().call_later(answer_.delay, [this] {
      step(SessionEvent::due);
      begin_answer();
      go_on();
    });
    return false;
  }

  void choose_answer(const HttpRequest& request) {
    answer_ = answer_to(request, settings_);
    is_head_ = request.method == "HEAD";
    if (request.is_http_1_0 && answer_.framing == Framing::chunked) {
      answer_.framing = Framing::until_close;
    }
    const bool is_last = request.is_last || answer_.framing == Framing::until_close;
    if (is_last && answer_.ending == Ending::keep) answer_.ending = Ending::close;
    if (!settings_.is_verbose) return;
    const bool is_refused = request.refusal != 0;
    const std::string what = is_refused ? request.complaint : request.method + " " + request.path;
    std::printf("%s %d %s\n", client_.c_str(), answer_.status, what.c_str());
  }

  void begin_answer() {
    std::string head = "HTTP/1.1 " + std::to_string(answer_.status) + " " + phrase(answer_.status) +
                       "\r\nContent-Type: text/plain; charset=utf-8\r\n";
    if (answer_.status == 405) head += "Allow: GET, HEAD\r\n";
    if (answer_.framing == Framing::chunked) head += "Transfer-Encoding: chunked\r\n";
    if (answer_.framing == Framing::length) {
      const std::uint64_t length = answer_.text.size() + answer_.promised_bytes;
      head += "Content-Length: " + std::to_string(length) + "\r\n";
    }
    if (answer_.ending != Ending::keep) head += "Connection: close\r\n";
    head += "\r\n";
    if (!is_head_) head += answer_.text;
    sent_ = is_head_ ? answer_.pattern_bytes : 0;
    connection_.write(std::move(head));
  }

  /// Writes one piece, or ends the answer. False when the kernel has enough for now.
  bool send_some() {
    if (connection_.is_congested()) return false;
    const std::uint64_t left = answer_.pattern_bytes - sent_;
    if (left == 0) return end_answer();
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left, piece_bytes));
    std::string piece;
    piece.reserve(count + 16);
    if (answer_.framing == Framing::chunked) {
      char size[16];
      std::snprintf(size, sizeof size, "%zx\r\n", count);
      piece = size;
    }
    append_pattern(piece, sent_, count);
    if (answer_.framing == Framing::chunked) piece += "\r\n";
    sent_ += count;
    connection_.write(std::move(piece));
    return true;
  }

  bool end_answer() {
    if (answer_.framing == Framing::chunked && !is_head_) connection_.write("0\r\n\r\n");
    if (answer_.ending == Ending::keep) {
      step(SessionEvent::answered);
      return true;
    }
    if (answer_.ending == Ending::reset) {
      is_resetting_ = true;  // when the first half has gone
      step(SessionEvent::last);
    } else {
      finish();
    }
    return false;
  }

  void finish() {
    step(SessionEvent::last);
    connection_.close();
  }

  pawl::Connection& connection_;
  const Settings& settings_;
  std::string client_;
  pawl::StateMachine<session_table> machine_{SessionState::reading};
  std::string input_;
  std::size_t taken_ = 0;          // of the input
  bool has_client_ended_ = false;  // true exactly after on_eof
  bool is_resetting_ = false;      // true exactly when the connection is to be reset once drained
  bool is_head_ = false;           // true exactly when the request was HEAD: no body
  Answer answer_;
  std::uint64_t sent_ = 0;  // of the pattern
  pawl::ScopedHandle timer_;
  std::uint64_t requests_ = 0;  // that were taken
  bool is_head_timed_ = false;  // true exactly while head_timer_ is to come
  pawl::ScopedHandle head_timer_;
};

void serve(pawl::Connection& connection, const Settings& settings) {
  const auto session = std::make_shared<Session>(connection, settings);
  connection.on_data(
      [session](pawl::Connection&, std::string_view bytes) { session->on_data(bytes); });
  connection.on_drained([session](pawl::Connection&) { session->on_drained(); });
  connection.on_eof([session](pawl::Connection&) { session->on_eof(); });
  connection.on_closed([session](pawl::Connection&, std::error_code) { session->on_closed(); });
}

int run(Options& words) {
  const auto port = static_cast<std::uint16_t>(words.number("--port", 0, 0, 65535));
  const std::string host = words.text("--host").value_or("127.0.0.1");
  Settings settings;
  settings.is_verbose = words.flag("--verbose");
  settings.patience = words.seconds("--patience", settings.patience);
  if (const std::optional<std::string> next = words.text("--next")) {
    if (!parse_seconds(*next)) throw std::invalid_argument("--next is a number of seconds");
    settings.next = *next;
  }
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  words.expect_nothing_else();

  pawl::EventLoop loop(std::move(loop_options));
  pawl::ServerOptions options;
  options.max_connections = 1000;
  options.connection.allow_half_open = true;
  options.connection.idle_timeout = std::chrono::seconds(60);
  pawl::Server server(
      loop, pawl::Endpoint::from_address(host, port),
      [&](pawl::Connection& connection) { serve(connection, settings); }, options);
  run_until_interrupt(loop, server, "http://");
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("http_server", help, argc, argv, run); }
