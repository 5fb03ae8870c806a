// SPDX-License-Identifier: MIT
// What a network says about datagrams: an event each, and the socket lives.
#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "network/two_hosts.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"

using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::DatagramState;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// On the near host, connected to `port` of the far one.
struct Caller {
  Caller(EventLoop& loop, std::uint16_t port)
      : socket(loop, Endpoint(), to(TwoHosts::far(port))), record(socket) {}

  static DatagramOptions to(const Endpoint& peer) {
    DatagramOptions options;
    options.peer = peer;
    return options;
  }

  DatagramSocket socket;
  DatagramRecorder record;
};

}  // namespace

TEST_CASE("A host that says it has no such port is an event, and the socket hears who comes") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  constexpr std::uint16_t port = 4711;  // of a host that no one else is on
  Caller caller(loop, port);
  for (std::size_t i = 1; i <= 3; ++i) {
    REQUIRE_FALSE(caller.socket.send("is anyone there?"));
    run_until(loop, [&] { return caller.record.codes.size() == i; });
    CHECK(caller.record.codes.back() == std::errc::connection_refused);
  }
  CHECK(caller.record.lost == 0);
  CHECK(caller.record.errors.back().find("192.0.2.2:4711") != std::string::npos);
  CHECK(caller.socket.state() == DatagramState::open);

  std::optional<DatagramSocket> far;
  hosts.on_far([&] { far.emplace(loop, TwoHosts::far(port)); });
  far->on_datagram([](DatagramSocket& self, const pawl::Datagram& datagram) {
    self.send_to("yes", datagram.from);
  });
  REQUIRE_FALSE(caller.socket.send("now?"));
  run_until(loop, [&] { return !caller.record.bytes.empty(); });
  CHECK(caller.record.bytes == std::vector<std::string>{"yes"});
  CHECK(caller.record.closed == 0);
}

TEST_CASE("What a firewall answers to a datagram for good is an event with its own error") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  Caller caller(loop, 4711);
  const auto answer = [&](const char* rule) {
    hosts.filter_far(rule);
    const std::size_t before = caller.record.codes.size();
    REQUIRE_FALSE(caller.socket.send("hello"));
    run_until(loop, [&] { return caller.record.codes.size() > before; });
    return caller.record.codes.back();
  };
  std::error_code code = answer("reject with icmp type admin-prohibited");
  CHECK(code == std::errc::host_unreachable);
  code = answer("reject with icmp type port-unreachable");
  CHECK(code == std::errc::connection_refused);
  CHECK(caller.record.lost == 0);
  CHECK(caller.socket.state() == DatagramState::open);
}

TEST_CASE("A router that can't find the host for now is no event: udp(7) leaves it to patience") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  std::optional<DatagramSocket> far;
  hosts.on_far([&] { far.emplace(loop, TwoHosts::far(0)); });
  DatagramRecorder heard(*far);
  Caller caller(loop, far->local_endpoint().port());
  hosts.filter_far("reject with icmp type host-unreachable");
  REQUIRE_FALSE(caller.socket.send("lost"));
  run_until(loop, [&] { return hosts.filtered_far() > 0; });
  passes(loop);
  hosts.heal();
  REQUIRE_FALSE(caller.socket.send("hello"));
  run_until(loop, [&] { return !heard.bytes.empty(); });
  CHECK(heard.bytes == std::vector<std::string>{"hello"});
  CHECK(caller.record.codes.empty());
}

TEST_CASE("A datagram that this host's own firewall refuses fails alone") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  std::optional<DatagramSocket> far;
  hosts.on_far([&] { far.emplace(loop, TwoHosts::far(0)); });
  DatagramRecorder heard(*far);
  Caller caller(loop, far->local_endpoint().port());
  hosts.filter_near_output("udp length 15 drop");  // with its header: 7 bytes
  for (const char* text : {"one", "refused", "three", "refused", "five"}) {
    REQUIRE_FALSE(caller.socket.send(text));
  }
  run_until(loop, [&] { return caller.record.lost == 2 && heard.bytes.size() == 3; });
  CHECK(heard.bytes == std::vector<std::string>{"one", "three", "five"});
  for (const std::error_code& code : caller.record.codes) {
    CHECK(code == std::errc::operation_not_permitted);
  }
  CHECK(caller.socket.state() == DatagramState::open);
}

TEST_CASE("Datagrams to a host that isn't there fail, and those to others still go") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  std::optional<DatagramSocket> far;
  hosts.on_far([&] { far.emplace(loop, TwoHosts::far(0)); });
  DatagramRecorder heard(*far);
  DatagramSocket near(loop, TwoHosts::near(0));
  DatagramRecorder record(near);
  near.send_to("nobody", Endpoint::parse("198.51.100.1:80"));  // where no route leads
  near.send_to("hello", far->local_endpoint());
  run_until(loop, [&] { return !heard.bytes.empty() && !record.codes.empty(); });
  CHECK(heard.bytes == std::vector<std::string>{"hello"});
  CHECK(record.codes[0] == std::errc::network_unreachable);
  CHECK(record.lost == 1);
}
