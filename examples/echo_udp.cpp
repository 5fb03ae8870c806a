// SPDX-License-Identifier: MIT
// Datagrams may be lost, and nobody says so: a client needs a timer for each, and sends it again.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/endpoint.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: echo_udp --serve [--port N] [--lose N]
       echo_udp ADDRESS:PORT [--count N] [--size BYTES] [--patience SECONDS]

The first sends every datagram back. The first line that it prints says where
it is:
  listening on 127.0.0.1:7000
The second sends datagrams to it, one after the other, and again when no answer
comes in time; after ten tries in vain it gives up with exit code 1.

  --port N            0, the default, is a free one
  --lose N            every Nth datagram is dropped, as a network may do
  --count N           how many datagrams, default 100
  --size BYTES        how big each is, default 64
  --patience SECONDS  before a datagram is sent again, default 0.2)";

constexpr int most_tries = 10;

int serve(pawl::EventLoop& loop, std::uint16_t port, std::uint64_t lose) {
  pawl::DatagramSocket socket(loop, pawl::Endpoint::loopback(port));
  std::uint64_t came = 0;
  socket.on_datagram([&](pawl::DatagramSocket& self, const pawl::Datagram& datagram) {
    const bool is_lost = lose > 0 && ++came % lose == 0;
    if (!is_lost) self.send_to(datagram.bytes, datagram.from);
  });
  on_interrupt(loop, [&](int) { socket.close(); });
  std::printf("listening on %s\n", socket.local_endpoint().to_string().c_str());
  loop.run();
  return 0;
}

/// Sends one datagram after the other; each waits for its echo.
class Client {
 public:
  Client(pawl::EventLoop& loop, const pawl::Endpoint& server, std::uint64_t count,
         std::size_t bytes, pawl::Duration patience)
      : loop_(loop),
        socket_(loop, pawl::Endpoint(), connected_to(server)),
        count_(count),
        bytes_(bytes),
        patience_(patience) {
    socket_.on_datagram(
        [this](pawl::DatagramSocket&, const pawl::Datagram& datagram) { on_echo(datagram.bytes); });
    // Nobody listens (an ICMP error): it may come back, so only the tries count.
    socket_.on_error([this](pawl::DatagramSocket&, const pawl::DatagramError& error) {
      last_error_ = error.to_string();
    });
    send_next();
  }

  std::string problem() const { return problem_; }
  std::string summary() const {
    return std::to_string(done_) + " datagrams of " + std::to_string(bytes_) + " bytes, " +
           std::to_string(repeated_) + " sent again, in " + as_text(took_);
  }
  void stop() { finish("interrupted"); }

 private:
  static pawl::DatagramOptions connected_to(const pawl::Endpoint& server) {
    pawl::DatagramOptions options;
    options.peer = server;
    return options;
  }

  /// Numbered, so that the echo of an earlier try isn't taken for this one's.
  void send_next() {
    datagram_ = std::to_string(done_) + " ";
    datagram_.resize(std::max(bytes_, datagram_.size()), '.');
    tries_ = 0;
    send();
  }

  void send() {
    if (++tries_ > most_tries) {
      return finish("no answer from " + socket_.peer_endpoint().to_string() + " after " +
                    std::to_string(most_tries) + " tries" +
                    (last_error_.empty() ? "" : "; " + last_error_));
    }
    if (tries_ > 1) ++repeated_;
    if (const std::error_code error = socket_.send(datagram_)) return finish(error.message());
    again_ = loop_.call_later(patience_, [this] { send(); });
  }

  void on_echo(std::string_view bytes) {
    if (bytes != datagram_) return;  // late, or a stranger's
    again_.cancel();
    if (++done_ == count_) return finish("");
    send_next();
  }

  void finish(const std::string& problem) {
    problem_ = problem;
    took_ = loop_.time() - started_;
    again_.cancel();
    socket_.close();
    forget_interrupt(loop_);
  }

  pawl::EventLoop& loop_;
  pawl::DatagramSocket socket_;
  std::uint64_t count_;
  std::size_t bytes_;
  pawl::Duration patience_;
  std::string datagram_;
  int tries_ = 0;  // of this datagram
  std::uint64_t done_ = 0;
  std::uint64_t repeated_ = 0;
  pawl::TimePoint started_ = loop_.time();
  pawl::Duration took_{};
  pawl::ScopedHandle again_;
  std::string last_error_;
  std::string problem_;
};

int run(Options& words) {
  const bool serves = words.flag("--serve");
  const auto port = static_cast<std::uint16_t>(words.number("--port", 0, 0, 65535));
  const std::uint64_t lose = words.number("--lose", 0, 0, 1'000'000);
  const std::uint64_t count = words.number("--count", 100, 1, 1'000'000);
  const auto size = static_cast<std::size_t>(words.number("--size", 64, 1, 65'507));
  const pawl::Duration patience = words.seconds("--patience", std::chrono::milliseconds(200));
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  const std::vector<std::string> arguments = words.rest();
  if (!serves && arguments.empty()) throw ShowHelp();
  if (arguments.size() != (serves ? 0 : 1)) throw std::invalid_argument("one server at a time");

  pawl::EventLoop loop(std::move(loop_options));
  if (serves) return serve(loop, port, lose);
  Client client(loop, pawl::Endpoint::parse(arguments[0]), count, size, patience);
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = 128 + signal;
    client.stop();
  });
  loop.run();
  if (interrupted_by != 0) return interrupted_by;
  if (!client.problem().empty()) throw std::runtime_error(client.problem());
  std::printf("%s\n", client.summary().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("echo_udp", help, argc, argv, run); }
