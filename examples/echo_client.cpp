// SPDX-License-Identifier: MIT
// A conversation as callbacks: the next message goes out when the last one has come back whole.
// With "-" it is a small `nc`: what is typed goes out, what comes is printed, and neither waits for
// the other.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "advice.hpp"
#include "console.hpp"
#include "http_url.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: echo_client HOST:PORT [--count N] [--size BYTES] [--timeout SECONDS]
       echo_client HOST:PORT -

Sends messages to an echo server, one after the other, looks whether each comes
back as it was, and says how long that took. With "-" it sends what is typed,
and prints what comes, until Ctrl-D. Exit code 1 when something went wrong, 130
on Ctrl-C.

  --count N          how many messages, default 100
  --size BYTES       how big each is, default 64
  --timeout SECONDS  how long to be patient with a silent server, default 30)";

/// How a conversation went: empty when all was well.
using Problem = std::string;

std::string problem_of(const pawl::Connection& connection, std::error_code error) {
  return connection.describe() + advice_on(error);
}

/// Sends `count` messages in turn and times each.
class RoundTrips {
 public:
  RoundTrips(pawl::Connection& connection, std::uint64_t count, std::size_t message_bytes)
      : connection_(connection), count_(count), message_bytes_(message_bytes) {
    connection.on_connected([this](pawl::Connection&) { send_next(); });
    connection.on_data([this](pawl::Connection&, std::string_view bytes) { on_echo(bytes); });
    connection.on_closed([this](pawl::Connection&, std::error_code error) { on_closed(error); });
  }

  const Problem& problem() const { return problem_; }

  void print_summary(const std::string& server) {
    std::sort(times_.begin(), times_.end());
    std::printf("%zu round trips of %zu bytes with %s: min %s, median %s, max %s\n", times_.size(),
                message_bytes_, server.c_str(), as_text(times_.front()).c_str(),
                as_text(times_[times_.size() / 2]).c_str(), as_text(times_.back()).c_str());
  }

 private:
  /// "message 17 message 17 mess": no two are alike.
  void send_next() {
    const std::string unit = "message " + std::to_string(times_.size() + 1) + "\n";
    message_.clear();
    while (message_.size() < message_bytes_) {
      message_ += unit.substr(0, message_bytes_ - message_.size());
    }
    echoed_ = 0;
    sent_at_ = connection_.loop().time();
    connection_.write(message_);
  }

  void on_echo(std::string_view bytes) {
    if (!problem_.empty()) return;
    const std::string_view expected = std::string_view(message_).substr(echoed_);
    const std::size_t common = std::min(bytes.size(), expected.size());
    const auto difference =
        std::mismatch(bytes.begin(), bytes.begin() + common, expected.begin()).first;
    const auto same = static_cast<std::size_t>(difference - bytes.begin());
    if (same < bytes.size()) return fail_at(echoed_ + same, bytes.substr(same));
    echoed_ += same;
    if (echoed_ < message_.size()) return;
    times_.push_back(connection_.loop().time() - sent_at_);
    if (times_.size() < count_) return send_next();
    is_complete_ = true;
    connection_.close();
  }

  void fail_at(std::size_t position, std::string_view came) {
    problem_ = "message " + std::to_string(times_.size() + 1) + " came back different at byte " +
               std::to_string(position) + ": " + quoted(came) + "; is that an echo server?";
    connection_.close();
  }

  void on_closed(std::error_code error) {
    forget_interrupt(connection_.loop());
    if (is_complete_ || !problem_.empty()) return;
    problem_ = problem_of(connection_, error);
    if (!error) problem_ += "; the server ended it";
    if (!message_.empty()) {
      problem_ += ", after " + std::to_string(times_.size()) + " of " + std::to_string(count_) +
                  " messages";
    }
  }

  pawl::Connection& connection_;
  std::uint64_t count_;
  std::size_t message_bytes_;
  std::string message_;
  std::size_t echoed_ = 0;    // bytes of the message that have come back
  bool is_complete_ = false;  // true exactly when the last message has come back
  pawl::TimePoint sent_at_{};
  std::vector<pawl::Duration> times_;
  Problem problem_;
};

/// Standard input to the connection, the connection to standard output.
class Terminal {
 public:
  explicit Terminal(pawl::Connection& connection) : connection_(connection) {
    connection.on_data([](pawl::Connection&, std::string_view bytes) {
      std::fwrite(bytes.data(), 1, bytes.size(), stdout);
      std::fflush(stdout);
    });
    connection.on_drained([this](pawl::Connection&) { listen(); });
    connection.on_closed([this](pawl::Connection& self, std::error_code error) {
      self.loop().remove_reader(STDIN_FILENO);
      forget_interrupt(self.loop());
      if (error && problem_.empty()) problem_ = problem_of(self, error);
      if (!error && !has_input_ended_) problem_ = "the server ended the connection";
    });
    listen();
  }

  const Problem& problem() const { return problem_; }

 private:
  void listen() {
    if (has_input_ended_) return;
    const std::error_code error =
        connection_.loop().add_reader(STDIN_FILENO, [this] { on_input(); });
    if (error) throw std::system_error(error, "standard input");
  }

  void on_input() {
    std::array<char, 16 * 1024> buffer;
    pawl::EventLoop& loop = connection_.loop();
    const pawl::SystemResult result =
        loop.system().read(STDIN_FILENO, buffer.data(), buffer.size());
    if (result.error == EAGAIN) return;
    if (result.ok() && result.bytes() > 0) {
      connection_.write(std::string_view(buffer.data(), result.bytes()));
      if (connection_.is_congested()) loop.remove_reader(STDIN_FILENO);  // on_drained listens again
      return;
    }
    has_input_ended_ = true;
    loop.remove_reader(STDIN_FILENO);
    if (result.ok()) return connection_.shutdown();
    problem_ = "standard input: " + result.code().message();
    connection_.abort();  // the server mustn't take a part for the whole
  }

  pawl::Connection& connection_;
  bool has_input_ended_ = false;  // true exactly after Ctrl-D
  Problem problem_;
};

/// Runs the loop until nothing is left, which is when the connection is DONE. Returns the exit code
/// of an interrupt, or 0.
int run_to_the_end(pawl::EventLoop& loop) {
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    loop.stop();
  });
  loop.run();
  return interrupted_by == 0 ? 0 : 128 + interrupted_by;
}

int run(Options& words) {
  const std::uint64_t count = words.number("--count", 100, 1, 1'000'000);
  const auto size = static_cast<std::size_t>(words.number("--size", 64, 1, 1024 * 1024));
  pawl::ConnectionOptions options;
  options.connect_timeout = words.seconds("--timeout", std::chrono::seconds(30));
  options.write_timeout = options.idle_timeout = options.connect_timeout;
  options.close_timeout = std::chrono::seconds(1);
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  const std::vector<std::string> arguments = words.rest();
  if (arguments.empty()) throw ShowHelp();
  const bool is_typed = arguments.size() == 2 && arguments[1] == "-";
  if (arguments.size() != 1 && !is_typed) {
    throw std::invalid_argument("one server at a time, and \"-\" behind it");
  }
  const HostAndPort server = HostAndPort::parse(arguments[0]);
  if (is_typed) options.idle_timeout = {};  // a person may think

  pawl::EventLoop loop(std::move(loop_options));
  const auto connection = pawl::Connection::connect(loop, server.host, server.port, options);
  Problem problem;
  int exit_code = 0;
  if (is_typed) {
    Terminal terminal(*connection);
    exit_code = run_to_the_end(loop);
    problem = terminal.problem();
  } else {
    RoundTrips round_trips(*connection, count, size);
    exit_code = run_to_the_end(loop);
    problem = round_trips.problem();
    if (exit_code == 0 && problem.empty()) round_trips.print_summary(arguments[0]);
  }
  if (problem.empty() || exit_code != 0) return exit_code;
  throw std::runtime_error(problem);
}

}  // namespace

int main(int argc, char** argv) { return run_program("echo_client", help, argc, argv, run); }
