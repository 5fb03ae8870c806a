// SPDX-License-Identifier: MIT
// Dials that a network drops, refuses or can't deliver: the right error, in time.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "network/two_hosts.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/server.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::DialAttempt;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Server;

namespace {

ConnectionOptions impatient() {
  ConnectionOptions options;
  options.connect_timeout = 400ms;
  return options;
}

/// A dial, and when it came to its end, one or the other.
struct Dial {
  Dial(EventLoop& loop, const Endpoint& peer, const ConnectionOptions& options = {})
      : Dial{loop.time(), Connection::connect(loop, peer, options)} {}
  Dial(EventLoop& loop, const char* name, std::uint16_t port, const ConnectionOptions& options = {})
      : Dial{loop.time(), Connection::connect(loop, name, port, options)} {}

  Dial& wait() {
    EventLoop& loop = connection->loop();
    run_until(loop, [&] { return !record.order.empty(); });
    took = loop.time() - begin;
    return *this;
  }

  pawl::TimePoint begin;
  std::unique_ptr<Connection> connection;
  Recorder record;
  pawl::Duration took{};

 private:
  Dial(pawl::TimePoint begin_of_it, std::unique_ptr<Connection> dialed)
      : begin(begin_of_it), connection(std::move(dialed)), record(*connection) {}
};

void check_failure(const Dial& dial, int error, const Endpoint& peer) {
  CHECK(dial.record.order == "closed");
  CHECK(dial.record.error == pawl::system_error_code(error));
  CHECK(dial.connection->close_reason() == CloseReason::failed);
  REQUIRE(dial.connection->attempts().size() == 1);
  const DialAttempt& attempt = dial.connection->attempts()[0];
  CHECK(attempt.peer == peer);
  CHECK(attempt.phase == "connect");
  CHECK(attempt.error == dial.record.error);
  CHECK(dial.connection->describe().find(peer.to_string()) != std::string::npos);
}

}  // namespace

TEST_CASE("A dial whose SYNs vanish ends at its deadline") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.filter_far("drop");
  EventLoop loop;
  Dial dial(loop, TwoHosts::far(80), impatient());
  dial.wait();
  CHECK(dial.record.order == "closed");
  CHECK(dial.record.error == Errc::timed_out);
  CHECK(dial.connection->close_reason() == CloseReason::connect_timeout);
  CHECK(dial.took >= 400ms);
  CHECK(dial.took < 3s);
  REQUIRE(dial.connection->attempts().size() == 1);
  CHECK(dial.connection->attempts()[0].peer == TwoHosts::far(80));
  CHECK(dial.connection->attempts()[0].error == Errc::timed_out);
  CHECK(dial.connection->attempts()[0].took >= 400ms);
}

TEST_CASE("A dial by name lists all addresses that never answered") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.filter_far("drop");
  OneAnswer names({TwoHosts::far_ipv6(0), TwoHosts::far(0)});
  EventLoop loop(options_on(names));
  Dial dial(loop, "far.test", 80, impatient());
  dial.wait();
  CHECK(dial.record.error == Errc::timed_out);
  CHECK(dial.connection->close_reason() == CloseReason::connect_timeout);
  REQUIRE(dial.connection->attempts().size() == 2);
  CHECK(dial.connection->attempts()[0].peer == TwoHosts::far_ipv6(80));
  CHECK(dial.connection->attempts()[1].peer == TwoHosts::far(80));
  // The second began a stagger of 250 ms after the first.
  CHECK(dial.connection->attempts()[1].took < dial.connection->attempts()[0].took - 200ms);
}

TEST_CASE("Where IPv6 vanishes silently, IPv4 answers after the stagger") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  OneAnswer names({TwoHosts::far_ipv6(0), TwoHosts::far(0)});
  EventLoop loop(options_on(names));
  std::optional<Server> server;
  hosts.on_far([&] {
    server.emplace(loop, Endpoint::parse("[::]:0"), [](Connection& peer) { peer.write("hello"); });
  });
  const std::uint16_t port = server->local_endpoint().port();
  SECTION("it vanishes") {
    hosts.filter_far("meta nfproto ipv6 drop");
    Dial dial(loop, "far.test", port);
    dial.wait();
    CHECK(dial.record.order == "connected");
    CHECK(dial.connection->peer_endpoint() == TwoHosts::far(port));
    CHECK(dial.took >= 250ms);
    CHECK(dial.took < 2s);
  }
  SECTION("it is refused, and nobody waits for the stagger") {
    hosts.filter_far("meta nfproto ipv6 meta l4proto tcp reject with tcp reset");
    ConnectionOptions options;
    options.attempt_delay = 20s;
    Dial dial(loop, "far.test", port, options);
    dial.wait();
    CHECK(dial.record.order == "connected");
    CHECK(dial.connection->peer_endpoint() == TwoHosts::far(port));
    CHECK(dial.took < 10s);
    REQUIRE(dial.connection->attempts().size() == 1);
    CHECK(dial.connection->attempts()[0].peer == TwoHosts::far_ipv6(port));
    CHECK(dial.connection->attempts()[0].error == std::errc::connection_refused);
  }
  SECTION("it works") {
    Dial dial(loop, "far.test", port);
    dial.wait();
    CHECK(dial.record.order == "connected");
    CHECK(dial.connection->peer_endpoint() == TwoHosts::far_ipv6(port));
  }
  run_until(loop, [&] { return server->connections() <= 1; });
}

TEST_CASE("What a firewall answers to a dial is the error of the dial") {
  if (!TwoHosts::are_possible()) return;
  struct Answer {
    const char* rule;
    bool is_ipv6;
    int error;
  };
  // What the kernel makes of each ICMP code: icmp(7), and net/ipv6/icmp.c: tab_unreach.
  const std::vector<Answer> answers{
      {"reject with tcp reset", false, ECONNREFUSED},
      {"reject with tcp reset", true, ECONNREFUSED},
      {"reject with icmp type host-unreachable", false, EHOSTUNREACH},
      {"reject with icmp type net-unreachable", false, ENETUNREACH},
      {"reject with icmp type port-unreachable", false, ECONNREFUSED},
      {"reject with icmp type admin-prohibited", false, EHOSTUNREACH},
      {"reject with icmpv6 type addr-unreachable", true, EHOSTUNREACH},
      {"reject with icmpv6 type no-route", true, ENETUNREACH},
      {"reject with icmpv6 type admin-prohibited", true, EACCES},
  };
  TwoHosts hosts;
  std::string rules;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    rules += "tcp dport " + std::to_string(100 + i) + " " + answers[i].rule + "\n";
  }
  hosts.filter_far(rules);
  EventLoop loop;
  // All at once: the kernel doesn't hear an ICMP error that comes while connect(2) still runs, and
  // takes the one that comes for the next SYN, a second later.
  std::vector<std::unique_ptr<Dial>> dials;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto port = static_cast<std::uint16_t>(100 + i);
    dials.push_back(std::make_unique<Dial>(
        loop, answers[i].is_ipv6 ? TwoHosts::far_ipv6(port) : TwoHosts::far(port)));
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    INFO(answers[i].rule);
    check_failure(dials[i]->wait(), answers[i].error, dials[i]->connection->peer_endpoint());
    CHECK(dials[i]->took < 10s);
  }
}

TEST_CASE("A dial to an address that nobody has on the link can't reach the host") {
  if (!TwoHosts::are_possible()) return;
  const TwoHosts hosts;
  EventLoop loop;
  for (const char* address : {"192.0.2.99", "2001:db8::99"}) {
    const Endpoint nobody = Endpoint::from_address(address, 80);
    Dial dial(loop, nobody);
    dial.wait();
    check_failure(dial, EHOSTUNREACH, nobody);
    CHECK(dial.took < 10s);
  }
}

TEST_CASE("A dial to where no route leads fails at once") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  for (const char* address : {"198.51.100.1", "2001:db8:1::1"}) {
    const Endpoint nowhere = Endpoint::from_address(address, 80);
    check_failure(Dial(loop, nowhere).wait(), ENETUNREACH, nowhere);
  }
  SECTION("the link goes down") {
    hosts.set_link(false);
    check_failure(Dial(loop, TwoHosts::far(80)).wait(), ENETUNREACH, TwoHosts::far(80));
  }
}
