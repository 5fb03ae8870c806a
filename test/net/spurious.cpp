// SPDX-License-Identifier: MIT
// Readiness may be spurious. Here it always is: a selector that reports whatever is registered,
// ready or not, in each wait.
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "net/stream.hpp"
#include "pawl/net/server.hpp"
#include "pawl/selector/selector.hpp"
#include "support/virtual_clock.hpp"

using pawl::Connection;
using pawl::ConnectionState;
using pawl::Duration;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Interest;

namespace {

class Nagger final : public pawl::Selector {
 public:
  Nagger() : Selector("nagger", ClosedFdCheck::by_base) {}

 private:
  int change(int fd, Interest, Interest to) override {
    interests_[fd] = to;
    return 0;
  }
  int wait(std::optional<Duration>) override {
    for (const auto& [fd, interest] : interests_) {
      if (interest != Interest::none) report(fd, interest, generation(fd));
    }
    return 0;
  }

  std::map<int, Interest> interests_;
};

class NaggingSystem final : public pawl::System {
 public:
  std::unique_ptr<pawl::Selector> make_selector(std::string_view) override {
    return std::make_unique<Nagger>();
  }
};

}  // namespace

TEST_CASE("A dial doesn't take a spurious wake-up for an answer") {
  NaggingSystem system;
  EventLoop loop(options_on(system));
  RawListener full(0);
  const pawl::UniqueFd first = raw_connect(full.endpoint());
  const auto connection = Connection::connect(loop, full.endpoint());
  Recorder record(*connection);
  passes(loop, 100);
  CHECK(connection->state() == ConnectionState::connecting);
  CHECK(record.order.empty());
}

TEST_CASE("Connections and servers work on readiness that is always spurious") {
  NaggingSystem system;
  EventLoop loop(options_on(system));
  std::string at_server;
  int closed_at_server = 0;
  pawl::Server server(loop, Endpoint::loopback(0), [&](Connection& accepted) {
    accepted.on_data([&](Connection& self, std::string_view bytes) {
      at_server += bytes;
      self.write(bytes);
    });
    accepted.on_closed([&](Connection&, std::error_code error) {
      CHECK_FALSE(error);
      ++closed_at_server;
    });
  });
  passes(loop);
  CHECK(server.connections() == 0);
  const auto client = Connection::connect(loop, server.local_endpoint());
  Recorder record(*client);
  const std::string sent = noise(2'000'000);
  client->write(sent);
  run_until(loop, [&] { return record.data.size() == sent.size(); });
  CHECK(difference(at_server, sent) == "");
  CHECK(difference(record.data, sent) == "");
  passes(loop);
  CHECK(server.connections() == 1);
  client->close();
  run_until(loop, [&] { return record.closed == 1 && closed_at_server == 1; });
  CHECK_FALSE(record.error);
  CHECK(server.connections() == 0);
}

TEST_CASE("A paused connection hears nothing, whatever the selector says") {
  NaggingSystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->pause_reading();
  link.peer.send("later");
  passes(loop);
  CHECK(link.record.order.empty());
  link.connection->resume_reading();
  run_until(loop, [&] { return link.record.data == "later"; });
}
