// SPDX-License-Identifier: MIT
// Two connections made one: what each receives goes out at the other, and a side that takes nothing
// slows the other side's peer down (`pawl::relay`). The table shows each pair and its states.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "http_url.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/relay.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: tcp_proxy HOST:PORT [--port N] [--table] [--verbose]

Passes each connection that comes on to HOST:PORT, both ways, as fast as the
slower side takes it. The first line that it prints says where it is:
  listening on 127.0.0.1:9000
On a terminal it shows a table of the connections and their states.

  --port N           0, the default, is a free one
  --table            the table where there is no terminal too, when it changes
  --verbose          a line for each connection, when it comes and when it goes)";

/// A client's connection, and the one that was dialed for it.
struct Pair {
  std::string client;
  std::unique_ptr<pawl::Connection> accepted;
  std::unique_ptr<pawl::Connection> dialed;
};

class Proxy {
 public:
  Proxy(pawl::EventLoop& loop, HostAndPort target, std::uint16_t port, bool is_verbose)
      : loop_(loop),
        target_(std::move(target)),
        is_verbose_(is_verbose),
        listener_(loop, pawl::Endpoint::loopback(port),
                  [this](pawl::UniqueFd socket, const pawl::Endpoint& client) {
                    on_client(std::move(socket), client);
                  }) {}

  void on_failed(pawl::Function<void(std::error_code)> callback) {
    listener_.on_failed(std::move(callback));
  }
  std::string describe() const { return listener_.describe(); }
  pawl::Endpoint local_endpoint() const { return listener_.local_endpoint(); }
  std::size_t size() const { return pairs_.size(); }

  /// Lets each pair end in good order.
  void close() {
    listener_.close();
    for (Pair& pair : pairs_) {
      pair.accepted->close();
      pair.dialed->close();
    }
  }

  /// One line for each pair: who, the states of its two sides, and the bytes each way.
  std::string table() const {
    std::string text = line("client", "client side", "server side", "to server", "to client");
    for (const Pair& pair : pairs_) {
      text += line(pair.client, std::string(to_string(pair.accepted->state())),
                   std::string(to_string(pair.dialed->state())),
                   std::to_string(pair.dialed->bytes_sent()),
                   std::to_string(pair.dialed->bytes_received()));
    }
    return text;
  }

 private:
  void on_client(pawl::UniqueFd socket, const pawl::Endpoint& client) {
    const auto pair = pairs_.emplace(pairs_.end());
    pair->client = client.to_string();
    pair->accepted = pawl::Connection::adopt(loop_, std::move(socket));
    pair->dialed = pawl::Connection::connect(loop_, target_.host, target_.port);
    if (is_verbose_) std::printf("%s connected\n", pair->client.c_str());
    pawl::relay(*pair->accepted, *pair->dialed, [this, pair](std::error_code error) {
      say_goodbye(*pair, error);
      pairs_.erase(pair);
    });
  }

  void say_goodbye(const Pair& pair, std::error_code error) const {
    if (!is_verbose_ && !error) return;
    std::printf("%s gone: %llu bytes to the server, %llu back\n", pair.client.c_str(),
                static_cast<unsigned long long>(pair.dialed->bytes_sent()),
                static_cast<unsigned long long>(pair.dialed->bytes_received()));
    if (error) std::printf("  %s\n", failed_side(pair).describe().c_str());
  }

  static const pawl::Connection& failed_side(const Pair& pair) {
    return pair.dialed->error() ? *pair.dialed : *pair.accepted;
  }

  static std::string line(const std::string& client, const std::string& client_side,
                          const std::string& server_side, const std::string& to_server,
                          const std::string& to_client) {
    return padded(client, 22) + padded(client_side, 12) + padded(server_side, 12) +
           right_aligned(to_server, 12) + right_aligned(to_client, 12) + "\n";
  }

  pawl::EventLoop& loop_;
  HostAndPort target_;
  bool is_verbose_;
  std::list<Pair> pairs_;
  pawl::Listener listener_;
};

/// Prints the table when it has changed: over the old one on a terminal.
class Screen {
 public:
  explicit Screen(const Proxy& proxy) : proxy_(proxy) {}

  void draw() {
    std::string text = proxy_.table();
    if (text == shown_) return;
    if (is_terminal() && !shown_.empty()) {
      const auto lines = std::count(shown_.begin(), shown_.end(), '\n');
      std::printf("\033[%ldA\033[J", static_cast<long>(lines));
    }
    std::printf("%s", text.c_str());
    std::fflush(stdout);
    shown_ = std::move(text);
  }

 private:
  const Proxy& proxy_;
  std::string shown_;
};

int run(Options& words) {
  const auto port = static_cast<std::uint16_t>(words.number("--port", 0, 0, 65535));
  const bool shows_table = words.flag("--table") || is_terminal();
  const bool is_verbose = words.flag("--verbose");
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  const std::vector<std::string> arguments = words.rest();
  if (arguments.empty()) throw ShowHelp();
  if (arguments.size() != 1) throw std::invalid_argument("one server at a time");

  pawl::EventLoop loop(std::move(loop_options));
  Proxy proxy(loop, HostAndPort::parse(arguments[0]), port, is_verbose);
  proxy.on_failed([&](std::error_code) { throw std::runtime_error(proxy.describe()); });
  std::printf("listening on %s\n", proxy.local_endpoint().to_string().c_str());
  Screen screen(proxy);
  pawl::ScopedHandle drawing;
  if (shows_table && !is_verbose) {
    drawing = loop.call_every(std::chrono::milliseconds(200), [&] { screen.draw(); });
  }
  on_interrupt(loop, [&](int) {
    proxy.close();
    drawing.cancel();
    loop.call_later(std::chrono::seconds(1), [&] { loop.stop(); });
    if (proxy.size() == 0) loop.stop();
  });
  loop.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("tcp_proxy", help, argc, argv, run); }
