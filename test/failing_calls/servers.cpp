// SPDX-License-Identifier: MIT
// Each system call that a server makes fails in turn.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "failing_calls/ends.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::Endpoint;

namespace {

/// Three clients, one after the other, who send `text` and their end, and want it back.
void serve_echo(CallTrial& trial, const Endpoint& where, const std::string& text) {
  pawl::ServerOptions options;
  options.connection = patient_options();
  int opened = 0;
  int closed = 0;
  std::error_code failure;
  bool was_exhausted = false;
  auto server = std::make_unique<pawl::Server>(
      trial.loop(), where,
      [&](Connection& connection) {
        ++opened;
        connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
        connection.on_closed([&](Connection&, std::error_code) { ++closed; });
      },
      options);
  server->on_failed([&](std::error_code error) { failure = error; });
  server->on_exhausted([&](std::error_code) { was_exhausted = true; });
  for (int i = 0; i < 3; ++i) {
    StreamEnd end;
    pawl::ConnectionOptions half_open;
    half_open.allow_half_open = true;
    const auto client = Connection::connect(trial.peers(), server->local_endpoint(), half_open);
    end.watch(*client);
    client->on_connected([&](Connection& self) {
      self.write(text);
      self.shutdown();
    });
    client->on_eof([](Connection& self) { self.close(); });
    trial.run_until([&] { return end.closed > 0 || failure || was_exhausted; });
    // A Unix socket knows no reset; see Connection::abort.
    const bool can_reset = where.to_string().compare(0, 5, "unix:") != 0;
    trial.expect(!can_reset || end.closed == 0 || end.error || end.data == text,
                 "a part looks whole: " + std::to_string(end.data.size()));
    trial.expect(text.compare(0, end.data.size(), end.data) == 0, "wrong bytes");
  }
  trial.run_until([&] { return closed == opened; });
  server->close(1s);
  trial.run_until([&] { return closed == opened && server->connections() == 0; });
}

}  // namespace

TEST_CASE("A server whose calls fail answers rightly, or its client sees an error") {
  const std::string text = long_text(50'000);
  each_call_fails([&](CallTrial& trial) { serve_echo(trial, Endpoint::loopback(0), text); });
}

TEST_CASE("A server at a path whose calls fail answers rightly, or its client sees an error") {
  each_call_fails([](CallTrial& trial) {
    const TemporaryDirectory folder;
    serve_echo(trial, Endpoint::parse("unix:" + folder.file("socket")), "text");
    trial.settle();
  });
}

TEST_CASE("A server that is closed with clients in its backlog loses none without an error") {
  each_call_fails([](CallTrial& trial) {
    int opened = 0;
    int closed = 0;
    pawl::ServerOptions options;
    options.connection = patient_options();
    pawl::Server server(
        trial.loop(), Endpoint::loopback(0),
        [&](Connection& connection) {
          ++opened;
          connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
          connection.on_closed([&](Connection&, std::error_code) { ++closed; });
        },
        options);
    StreamEnd ends[3];
    std::unique_ptr<Connection> clients[3];
    for (int i = 0; i < 3; ++i) {
      clients[i] = Connection::connect(trial.peers(), server.local_endpoint());
      ends[i].watch(*clients[i]);
      clients[i]->write("text");
    }
    while (clients[2]->state() == pawl::ConnectionState::connecting) trial.peers().run_once(1ms);
    server.close(1s);
    trial.run_until([&] {
      return closed == opened && server.connections() == 0 && ends[0].closed > 0 &&
             ends[1].closed > 0 && ends[2].closed > 0;
    });
  });
}
