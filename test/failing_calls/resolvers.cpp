// SPDX-License-Identifier: MIT
// Each system call that a resolver, and what waits on a descriptor of the user's, makes fails in
// turn.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"
#include "pawl/net/sock.hpp"
#include "support/call_sweep.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Endpoint;

TEST_CASE("A lookup whose calls fail gives addresses or an error") {
  each_call_fails([](CallTrial& trial) {
    pawl::Resolver resolver(trial.loop());
    bool is_done = false;
    resolver.resolve("ip6-localhost.invalid", 80,
                     [&](std::error_code error, const std::vector<Endpoint>& endpoints) {
                       trial.expect(error || !endpoints.empty(), "neither error nor address");
                       is_done = true;
                     });
    trial.run_until([&] { return is_done; });
  });
}

TEST_CASE("A lookup by c-ares whose calls fail gives addresses or an error") {
  each_call_fails([](CallTrial& trial) {
    pawl::ResolverOptions options;
    options.backend = "cares";
    options.servers = {Endpoint::parse("127.0.0.1:1")};
    options.timeout = 20s;
    try {
      pawl::Resolver resolver(trial.loop(), options);
      bool is_done = false;
      resolver.resolve("name.example", 80,
                       [&](std::error_code error, const std::vector<Endpoint>& endpoints) {
                         trial.expect(error || !endpoints.empty(), "neither error nor address");
                         is_done = true;
                       });
      trial.run_until([&] { return is_done; });
    } catch (const std::invalid_argument&) {  // built without it
      trial.loop();
    }
  });
}

TEST_CASE("sock_* operations whose calls fail bring the right bytes or an error") {
  each_call_fails([](CallTrial& trial) {
    pawl::EventLoop& loop = trial.loop();
    const SocketPair pair;
    std::string got;
    int left = 2;
    std::error_code error;
    pawl::SockHandle receiving =
        pawl::sock_recv(loop, pair.theirs.get(), 100, [&](std::error_code with, std::string bytes) {
          got = bytes;
          if (with) error = with;
          --left;
        });
    pawl::sock_sendall(loop, pair.ours.get(), "all of it", [&](std::error_code with, std::size_t) {
      if (with) error = with;
      --left;
    });
    trial.run_until([&] { return left == 0 || error; });
    receiving.cancel();
    trial.expect(error || got == "all of it", "wrong bytes");
  });
}
