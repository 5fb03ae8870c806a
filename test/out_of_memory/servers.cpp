// SPDX-License-Identifier: MIT
// Servers and listeners, each allocation failing in turn.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "net/stream.hpp"
#include "out_of_memory/link.hpp"
#include "pawl/net/listener.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::Endpoint;
using pawl::Listener;
using pawl::Server;

namespace {

/// One client after the other is served until one is served whole: memory is there again.
void check_serves(Trial& trial, CountingServer& server) {
  const Endpoint endpoint = server.endpoint();
  for (int i = 0; i < 4; ++i) {
    Client client(trial);
    client.dial(endpoint);
    client.attach([](Connection& self) {
      self.write("hello");
      self.shutdown();
    });
    trial.run([&] { return client.is_over() && server.is_quiet(); });
    if (client.story.data == "hello" && !client.story.error) return;
  }
  FAIL("the server serves nobody any more");
}

}  // namespace

TEST_CASE("A server goes on accepting, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    CountingServer server(trial, echo);
    check_serves(trial, server);
    check_serves(trial, server);
    trial.must([&] { server.server.reset(); });
  });
}

TEST_CASE("A server of one place gives it to the next, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::ServerOptions options;
    options.max_connections = 1;
    options.max_connections_per_peer = 1;
    CountingServer server(trial, echo, options);
    check_serves(trial, server);
    check_serves(trial, server);
  });
}

TEST_CASE("A full server serves who waits in the backlog, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::ServerOptions options;
    options.max_connections = 2;
    CountingServer server(trial, echo, options);
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 5; ++i) {
      clients.push_back(std::make_unique<Client>(trial));
      clients.back()->dial(server.endpoint());
      clients.back()->attach([](Connection& self) {
        self.write("hello");
        self.shutdown();
      });
    }
    trial.run([&] {
      for (const auto& client : clients) {
        if (!client->is_over()) return false;
      }
      return server.is_quiet();
    });
    int served = 0;
    for (const auto& client : clients) served += client->story.data == "hello" ? 1 : 0;
    CHECK(served >= (trial.has_failed() ? 3 : 5));
    check_serves(trial, server);
  });
}

TEST_CASE("A server that closes ends everybody once, whichever allocation fails") {
  for (const pawl::Duration grace : {pawl::Duration(0s), pawl::Duration(5s)}) {
    each_allocation_fails([grace](Trial& trial) {
      CountingServer server(trial, echo);
      std::vector<std::unique_ptr<Client>> clients;
      for (int i = 0; i < 3; ++i) {
        clients.push_back(std::make_unique<Client>(trial));
        clients.back()->dial(server.endpoint());
        clients.back()->attach([](Connection& self) { self.write("hello"); });
      }
      trial.run([&] {
        for (const auto& client : clients) {
          if (!client->is_over() && client->story.data.empty()) return false;
        }
        return true;
      });
      trial.insist([&] { server.server->close(grace); });
      trial.run([&] {
        for (const auto& client : clients) {
          if (!client->is_over()) return false;
        }
        return server.is_quiet();
      });
      trial.run_dry();
    });
  }
}

TEST_CASE("A server visits, pauses and adopts, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    CountingServer server(trial, echo);
    trial.insist([&] { server.server->pause(); });
    trial.insist([&] { server.server->resume(); });
    TcpPair pair;
    trial.attempt([&] { server.server->adopt(std::move(pair.ours)); });
    RawPeer peer(trial.loop(), std::move(pair.theirs));
    trial.run([&] { return server.opened == 1 || trial.has_failed(); });
    trial.attempt([&] { server.server->for_each([](Connection& each) { each.close(); }); });
    peer.end();
    trial.run([&] { return server.is_quiet() || trial.has_failed(); });
    trial.attempt([&] { (void)server.server->describe(); });
    check_serves(trial, server);
  });
}

TEST_CASE("A server at a path takes its file along, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("socket");
    CountingServer server(trial, echo, {}, Endpoint::parse("unix:" + path));
    check_serves(trial, server);
    trial.must([&] { server.server.reset(); });
    CHECK(::access(path.c_str(), F_OK) != 0);
  });
}

TEST_CASE("A listener hands each socket over once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    std::unique_ptr<Listener> listener;
    int accepted = 0;
    trial.insist([&] {
      listener = std::make_unique<Listener>(trial.loop(), Endpoint::loopback(0),
                                            [&](pawl::UniqueFd, const Endpoint&) { ++accepted; });
    });
    trial.insist([&] { listener->on_exhausted([](std::error_code) {}); });
    const auto dial_three = [&] {
      std::vector<pawl::UniqueFd> peers;
      for (int i = 0; i < 3; ++i) peers.push_back(raw_connect(listener->local_endpoint()));
      const int wanted = accepted + 3;
      trial.run([&] { return accepted == wanted; });
    };
    dial_three();
    trial.insist([&] { listener->pause(); });
    trial.insist([&] { listener->resume(); });
    dial_three();
    trial.attempt([&] { (void)listener->describe(); });
    trial.must([&] { listener->close(); });
    trial.must([&] { listener.reset(); });
  });
}
