// SPDX-License-Identifier: MIT
// HAProxy between a Connection and a Server: it passes bytes and ends on, and so must they.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "net/stream.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/server.hpp"
#include "peers/real_program.hpp"
#include "support/temporary_directory.hpp"

using pawl::CloseReason;
using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Server;

namespace {

constexpr const char* package = "haproxy";

/// In front of `server`, in tcp mode.
RealServer::Arguments haproxy(const std::string& path, const TemporaryDirectory& folder,
                              const Endpoint& server) {
  return [path, &folder, server](std::uint16_t port) {
    const std::string file = folder.file("haproxy.cfg");
    write_whole(file,
                "global\n  maxconn 200\n  nbthread 1\n"
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n"
                "  timeout server 20s\n  retries 0\n"
                "listen it\n  bind 127.0.0.1:" +
                    std::to_string(port) + "\n  server one " + server.to_string() + "\n");
    // -db: in the foreground, without a master process
    return std::vector<std::string>{path, "-db", "-q", "-f", file};
  };
}

}  // namespace

TEST_CASE("A server behind HAProxy ends, and the client has all its bytes and a clean end") {
  const std::string path = real_program("haproxy", package);
  if (path.empty()) return;
  const std::string page = noise(1024 * 1024);
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), [&](Connection& peer) {
    peer.write(page);
    peer.close();
  });
  const TemporaryDirectory folder;
  const RealServer proxy(loop, haproxy(path, folder, server.local_endpoint()));
  const auto connection = Connection::connect(loop, proxy.endpoint());
  Recorder record(*connection);
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(record.order == "connected data eof closed");
  CHECK(difference(record.data, page).empty());
  CHECK(record.error == std::error_code());
  CHECK(connection->close_reason() == CloseReason::peer_ended);
  run_until(loop, [&] { return server.connections() == 0; });
}

TEST_CASE("Clients that end behind HAProxy get the whole echo of what they sent") {
  const std::string path = real_program("haproxy", package);
  if (path.empty()) return;
  EventLoop loop;
  int unclean = 0;
  pawl::ServerOptions options;
  options.connection.allow_half_open = true;
  Server server(
      loop, Endpoint::loopback(0),
      [&](Connection& peer) {
        peer.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
        peer.on_eof([](Connection& self) { self.close(); });
        peer.on_closed([&](Connection& self, std::error_code) {
          // One without a byte is the test's question whether HAProxy is up, passed on by it.
          const bool is_client = self.bytes_received() > 0;
          unclean += is_client && self.close_reason() != CloseReason::peer_ended ? 1 : 0;
        });
      },
      options);
  const TemporaryDirectory folder;
  const RealServer proxy(loop, haproxy(path, folder, server.local_endpoint()));
  struct Client {
    std::string sent;
    std::unique_ptr<Connection> connection;
    Recorder record;
  };
  std::vector<std::unique_ptr<Client>> clients;
  for (std::uint32_t i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>());
    Client& client = *clients.back();
    client.sent = noise(200'000, i);
    client.connection = Connection::connect(loop, proxy.endpoint());
    client.record.attach(*client.connection);
    client.connection->write(client.sent);
    client.connection->shutdown();
  }
  for (const auto& client : clients) {
    run_until(loop, [&] { return client->record.closed > 0; });
    CHECK(difference(client->record.data, client->sent).empty());
    CHECK(client->record.error == std::error_code());
  }
  run_until(loop, [&] { return server.connections() == 0; });
  CHECK(unclean == 0);
}

TEST_CASE("A server behind HAProxy that aborts or isn't there ends the client, without bytes") {
  const std::string path = real_program("haproxy", package);
  if (path.empty()) return;
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), [](Connection& peer) { peer.abort(); });
  const TemporaryDirectory folder;
  const RealServer proxy(loop, haproxy(path, folder, server.local_endpoint()));
  SECTION("it isn't there") { server.close(); }
  SECTION("it aborts") {}
  const auto connection = Connection::connect(loop, proxy.endpoint());
  Recorder record(*connection);
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(record.data.empty());
  CHECK(connection->state() == pawl::ConnectionState::done);
  const CloseReason reason = connection->close_reason();  // HAProxy says it by FIN or by RST
  CHECK((reason == CloseReason::peer_ended || reason == CloseReason::peer_reset));
}
