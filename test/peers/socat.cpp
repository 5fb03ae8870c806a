// SPDX-License-Identifier: MIT
// socat and nc at the other end of Unix sockets and of UDP.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "net/stream.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/server.hpp"
#include "peers/real_program.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Server;

namespace {

/// Sends back what comes, until the peer ends.
struct UnixEcho {
  UnixEcho(EventLoop& loop, const Endpoint& endpoint)
      : server(loop, endpoint, [](Connection& peer) {
          peer.set_allow_half_open(true);
          peer.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
          peer.on_eof([](Connection& self) { self.close(); });
        }) {}

  Server server;
};

}  // namespace

TEST_CASE("socat and nc send a megabyte to a Server's Unix socket and get it back") {
  const std::string socat = real_program("socat", "socat");
  const std::string nc = real_program("nc", "netcat-openbsd");
  if (socat.empty() || nc.empty()) return;
  EventLoop loop;
  const TemporaryDirectory folder;
  const std::string socket = folder.file("socket");
  UnixEcho echo(loop, Endpoint::parse("unix:" + socket));
  const std::string sent = noise(1024 * 1024);
  write_whole(folder.file("sent"), sent);
  std::string command;
  SECTION("socat") { command = socat + " -t 20 - UNIX-CONNECT:" + socket; }
  SECTION("nc") { command = nc + " -N -U " + socket; }
  const Ended ended = run_shell(loop, command + " <" + folder.file("sent"));
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(difference(ended.output, sent).empty());
  run_until(loop, [&] { return echo.server.connections() == 0; });
}

TEST_CASE("A Connection sends a megabyte to socat's Unix socket and gets it back") {
  const std::string socat = real_program("socat", "socat");
  if (socat.empty()) return;
  EventLoop loop;
  const TemporaryDirectory folder;
  const std::string socket = folder.file("socket");
  std::string name;
  std::string listen;
  SECTION("with a path") {
    name = "unix:" + socket;
    listen = "UNIX-LISTEN:" + socket;
  }
  SECTION("with an abstract name") {
    name = "unix:@" + socket;
    listen = "ABSTRACT-LISTEN:" + socket;
  }
  RunningProgram program(loop, {socat, "-t", "20", listen, "EXEC:cat"});
  const auto connection = connect_patiently(loop, Endpoint::parse(name));
  REQUIRE(program.has_processes());
  Recorder record;
  record.attach(*connection);
  const std::string sent = noise(1024 * 1024);
  connection->write(sent);
  connection->shutdown();
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(difference(record.data, sent).empty());
  CHECK(record.error == std::error_code());
  CHECK(program.wait() == 0);
}

TEST_CASE("socat's datagrams come to a DatagramSocket, and the answers go back") {
  const std::string socat = real_program("socat", "socat");
  if (socat.empty()) return;
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  socket.on_datagram([](DatagramSocket& self, const pawl::Datagram& datagram) {
    self.send_to("got " + std::string(datagram.bytes), datagram.from);
  });
  RunningProgram program(loop, {socat, "-", "UDP4:" + socket.local_endpoint().to_string()});
  program.type("one\n");
  program.wait_for("got one\n");
  program.type("two\n");
  program.wait_for("got two\n");
  CHECK(program.output() == "got one\ngot two\n");
}

TEST_CASE("A DatagramSocket's requests are answered by socat, those before it was up in vain") {
  const std::string socat = real_program("socat", "socat");
  if (socat.empty()) return;
  EventLoop loop;
  const std::uint16_t port = free_port();
  DatagramOptions options;
  options.peer = Endpoint::loopback(port);
  DatagramSocket socket(loop, Endpoint(), options);
  int refused = 0;
  std::string answer;
  socket.on_error([&](DatagramSocket&, const pawl::DatagramError& told) {
    CHECK(told.error == std::errc::connection_refused);
    ++refused;
  });
  socket.on_datagram(
      [&](DatagramSocket&, const pawl::Datagram& datagram) { answer = datagram.bytes; });
  socket.send("hello");
  run_until(loop, [&] { return refused == 1; });
  RunningProgram program(
      loop, {socat, "UDP4-LISTEN:" + std::to_string(port) + ",bind=127.0.0.1", "PIPE"});
  const pawl::ScopedHandle again(loop.call_every(20ms, [&] { socket.send("hello"); }));
  run_until(loop, [&] { return !answer.empty(); });
  CHECK(answer == "hello");
}
