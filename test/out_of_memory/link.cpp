// SPDX-License-Identifier: MIT
#include "out_of_memory/link.hpp"

using pawl::Connection;
using pawl::Server;

CountingServer::CountingServer(Trial& trial, std::function<void(Connection&)> on_connection,
                               pawl::ServerOptions options, const pawl::Endpoint& endpoint) {
  const auto greet = [this, on_connection = std::move(on_connection)](Connection& peer) {
    or_abort(peer, [&] {
      peer.on_closed([this](Connection&, std::error_code) { ++closed; });
      ++opened;
      on_connection(peer);
    });
  };
  trial.insist([&] { server = std::make_unique<Server>(trial.loop(), endpoint, greet, options); });
}

bool Client::dial(const pawl::Endpoint& endpoint, pawl::ConnectionOptions options) {
  return trial.attempt([&] { connection = Connection::connect(trial.loop(), endpoint, options); });
}

bool Client::dial(const std::string& host, std::uint16_t port, pawl::ConnectionOptions options) {
  return trial.attempt(
      [&] { connection = Connection::connect(trial.loop(), host, port, options); });
}

void Client::attach(std::function<void(Connection&)> begin) {
  if (connection == nullptr) return;
  const auto insist = [&](auto set) { trial.insist([&] { set(*connection); }); };
  insist([&](Connection& self) {
    self.on_closed([this](Connection&, std::error_code error) { story.end(error); });
  });
  insist([&](Connection& self) {
    self.on_data([this](Connection&, std::string_view bytes) { story.take(bytes); });
  });
  insist([&](Connection& self) { self.on_eof([this](Connection&) { ++story.ends; }); });
  insist([&](Connection& self) {
    self.on_connected([this, begin](Connection& connected) {
      ++story.connected;
      or_abort(connected, [&] { begin(connected); });
    });
  });
}

void echo(Connection& connection) {
  connection.on_data(
      [](Connection& self, std::string_view bytes) { or_abort(self, [&] { self.write(bytes); }); });
}
