// SPDX-License-Identifier: MIT
// Ends in a process that has forked while a child holds copies of everything, and what a child does
// that was forked in the middle of several callbacks.
#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "net/stream.hpp"
#include "pawl/net/server.hpp"
#include "support/copy_holder.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"

using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// A server with silent clients that it has accepted.
struct Crowd {
  explicit Crowd(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      clients.push_back(std::make_unique<RawPeer>(loop, raw_connect(server.local_endpoint())));
    }
    run_until(loop, [&] { return server.connections() == count; });
  }

  EventLoop loop;
  ForkInCallback fork;
  pawl::Server server{loop, Endpoint::loopback(0), [](Connection&) {}};
  std::vector<std::unique_ptr<RawPeer>> clients;
};

}  // namespace

TEST_CASE("A visit of a server's connections that forks is the last in the child") {
  Crowd that(3);
  int visits = 0;
  that.loop.call_soon([&] {
    that.server.for_each([&](Connection&) {
      ++visits;
      that.fork.fork();
    });
    if (that.fork.is_child()) that.server.for_each([&](Connection&) { ++visits; });
  });
  const auto run = [&] { that.loop.run_once(); };
  CHECK(that.fork.child_code(run, [&] { return visits == 1 ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(visits == 3);
}
