// SPDX-License-Identifier: MIT
// Back pressure in three lines: a client that doesn't read what comes back isn't read any more, so
// it can't fill the server's memory.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: echo_server [--port N] [--host ADDRESS] [--verbose]

Sends back whatever comes, to as many clients as there are. The first line that
it prints says where it is:
  listening on 127.0.0.1:7000
Try it with: nc 127.0.0.1 7000
Ctrl-C sends what is still unsent, for a second at most, and ends with exit
code 0.

  --port N           0, the default, is a free one
  --host ADDRESS     default 127.0.0.1
  --verbose          a line for each connection, when it comes and when it goes)";

void echo(pawl::Connection& connection) {
  connection.on_data([](pawl::Connection& self, std::string_view bytes) {
    self.write(bytes);
    if (self.is_congested()) self.pause_reading();
  });
  connection.on_drained([](pawl::Connection& self) { self.resume_reading(); });
}

/// Says who comes and who goes.
void announce(pawl::Connection& connection) {
  const std::string peer = connection.peer_endpoint().to_string();
  std::printf("%s connected\n", peer.c_str());
  connection.on_closed([peer](pawl::Connection& self, std::error_code error) {
    std::printf("%s gone after %llu bytes%s%s\n", peer.c_str(),
                static_cast<unsigned long long>(self.bytes_received()), error ? ": " : "",
                error ? error.message().c_str() : "");
  });
}

int run(Options& words) {
  const auto port = static_cast<std::uint16_t>(words.number("--port", 0, 0, 65535));
  const std::string host = words.text("--host").value_or("127.0.0.1");
  const bool is_verbose = words.flag("--verbose");
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  words.expect_nothing_else();

  pawl::EventLoop loop(std::move(loop_options));
  pawl::Server server(loop, pawl::Endpoint::from_address(host, port),
                      [&](pawl::Connection& connection) {
                        echo(connection);
                        if (is_verbose) announce(connection);
                      });
  run_until_interrupt(loop, server);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("echo_server", help, argc, argv, run); }
