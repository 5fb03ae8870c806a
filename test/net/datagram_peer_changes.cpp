// SPDX-License-Identifier: MIT
// Whom a datagram socket is connected to, and what changes with that.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("What others had sent before connect() lies in the kernel and isn't heard after it") {
  EventLoop loop;
  const TemporaryDirectory directory;
  Endpoint at = Endpoint::loopback(0);
  Endpoint first = at;
  Endpoint second = at;
  SECTION("IPv4") {}
  SECTION("IPv6") { at = first = second = Endpoint::loopback_ipv6(0); }
  SECTION("IPv4 at [::]") { at = Endpoint::parse("[::]:0"); }
  SECTION("Unix") {
    at = Endpoint::parse("unix:" + directory.file("socket"));
    first = Endpoint::parse("unix:" + directory.file("peer"));
    second = Endpoint::parse("unix:" + directory.file("stranger"));
  }
  RawDatagrams peer(first);
  RawDatagrams stranger(second);
  DatagramSocket socket(loop, at);
  DatagramRecorder record(socket);
  Endpoint there = socket.local_endpoint();
  if (there.host() == "::") there = Endpoint::loopback(there.port());
  const bool is_unix = there.is_unix();            // whose queue is short
  for (int i = 0; i < (is_unix ? 5 : 100); ++i) {  // more than a batch
    stranger.send("no", there);
    if (i % 10 == 0) peer.send("yes", there);
  }
  REQUIRE_FALSE(socket.connect(peer.endpoint()));
  peer.send("last", there);
  run_until(loop, [&] { return !record.bytes.empty() && record.bytes.back() == "last"; });
  passes(loop);
  Strings expected(is_unix ? 1 : 10, "yes");
  expected.emplace_back("last");
  CHECK(record.bytes == expected);
  CHECK(socket.datagrams_received() == expected.size());
  REQUIRE_FALSE(socket.connect(Endpoint()));
  stranger.send("heard again", there);
  run_until(loop, [&] { return record.bytes.back() == "heard again"; });
}

TEST_CASE("A socket that connects in its callback hears nobody else of the batch") {
  EventLoop loop;
  RawDatagrams peer;
  RawDatagrams stranger;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  Strings heard;
  const bool pauses = GENERATE(false, true);
  socket.on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
    heard.emplace_back(datagram.bytes);
    if (heard.size() == 1) CHECK_FALSE(self.connect(datagram.from));
    if (pauses) self.pause_reading();
  });
  peer.send("first", socket.local_endpoint());
  for (int i = 0; i < 5; ++i) stranger.send("no", socket.local_endpoint());
  peer.send("second", socket.local_endpoint());
  run_until(loop, [&] {
    socket.resume_reading();
    return heard.size() == 2;
  });
  passes(loop);
  CHECK(heard == Strings{"first", "second"});
}

TEST_CASE("Each peer of a socket at any address is reached from the address that suits it") {
  EventLoop loop;
  RawDatagrams first;
  const bool is_bound = GENERATE(false, true);
  DatagramOptions options;
  if (!is_bound) options.peer = first.endpoint();
  DatagramSocket socket(loop, is_bound ? Endpoint::any(0) : Endpoint(), options);
  if (is_bound) REQUIRE_FALSE(socket.connect(first.endpoint()));
  const std::uint16_t port = socket.local_endpoint().port();
  CHECK(socket.local_endpoint() == Endpoint::loopback(port));
  REQUIRE_FALSE(socket.connect(Endpoint()));
  CHECK(socket.local_endpoint() == Endpoint::any(port));  // as it was bound
  RawDatagrams second(Endpoint::parse("127.0.0.2:0"));
  REQUIRE_FALSE(socket.connect(second.endpoint()));
  REQUIRE_FALSE(socket.connect(first.endpoint()));
  CHECK(socket.local_endpoint() == Endpoint::loopback(port));
  CHECK(socket.peer_endpoint() == first.endpoint());
  DatagramRecorder record(socket);
  socket.send("hello");
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(first.receive_all() == Strings{"hello"});
  REQUIRE_FALSE(socket.connect(Endpoint()));
  REQUIRE_FALSE(socket.connect(Endpoint()));  // nowhere already
  CHECK(socket.local_endpoint() == Endpoint::any(port));
  second.send("x", Endpoint::parse("127.0.0.9:" + std::to_string(port)));  // at any address
  run_until(loop, [&] { return record.bytes == Strings{"x"}; });
}

TEST_CASE("A socket at [::] goes from an IPv4 peer to one of IPv6 and back") {
  EventLoop loop;
  RawDatagrams four;
  RawDatagrams six(Endpoint::loopback_ipv6(0));
  DatagramSocket socket(loop, Endpoint::parse("[::]:0"));
  DatagramRecorder record(socket);
  const std::uint16_t port = socket.local_endpoint().port();
  for (int i = 1; i <= 2; ++i) {
    REQUIRE_FALSE(socket.connect(four.endpoint()));
    socket.send("to four");
    REQUIRE_FALSE(socket.connect(six.endpoint()));
    CHECK(socket.local_endpoint() == Endpoint::loopback_ipv6(port));
    socket.send("to six");
    run_until(loop, [&] { return record.drained == i; });
    CHECK(four.receive_all() == Strings{"to four"});
    CHECK(six.receive_all() == Strings{"to six"});
  }
  REQUIRE_FALSE(socket.connect(Endpoint()));
  CHECK(socket.local_endpoint() == Endpoint::parse("[::]:" + std::to_string(port)));
}

TEST_CASE("A bound address stays, whoever is the peer and when there is none any more") {
  EventLoop loop;
  RawDatagrams first;
  RawDatagrams second;
  DatagramSocket socket(loop, Endpoint::parse("127.0.0.3:0"));
  const Endpoint local = socket.local_endpoint();
  REQUIRE_FALSE(socket.connect(first.endpoint()));
  CHECK(socket.local_endpoint() == local);
  REQUIRE_FALSE(socket.connect(second.endpoint()));
  CHECK(socket.local_endpoint() == local);
  REQUIRE_FALSE(socket.connect(Endpoint()));
  CHECK(socket.local_endpoint() == local);
}

TEST_CASE("A peer that can't be connected to leaves the old one") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams first;
  RawDatagrams stranger;
  const bool is_bound_to_any = GENERATE(false, true);
  DatagramSocket socket(loop, is_bound_to_any ? Endpoint::any(0) : Endpoint::loopback(0));
  DatagramRecorder record(socket);
  REQUIRE_FALSE(socket.connect(first.endpoint()));
  const Endpoint local = socket.local_endpoint();
  CHECK(socket.connect(Endpoint::loopback_ipv6(1)) == std::errc::address_family_not_supported);
  system.fail(Call::connect, ENETUNREACH, 1, is_bound_to_any ? 1 : 0);
  CHECK(socket.connect(stranger.endpoint()) == std::errc::network_unreachable);
  CHECK(socket.peer_endpoint() == first.endpoint());
  CHECK(socket.local_endpoint() == local);
  stranger.send("no", local);
  first.send("yes", local);
  CHECK_FALSE(socket.send("hello"));
  run_until(loop, [&] { return record.drained == 1 && !record.bytes.empty(); });
  passes(loop);
  CHECK(record.bytes == Strings{"yes"});
  CHECK(first.receive_all() == Strings{"hello"});
}

TEST_CASE("What the network said of the old peer isn't told of the new one") {
  EventLoop loop;
  const Endpoint deserted = RawDatagrams().endpoint();
  RawDatagrams peer;
  DatagramOptions options;
  options.peer = deserted;
  DatagramSocket socket(loop, Endpoint(), options);
  Strings errors;
  socket.on_error([&](DatagramSocket&, const pawl::DatagramError& error) {
    errors.push_back(error.to_string());
  });
  bool is_drained = false;
  socket.pause_reading();  // so that the error is nobody's yet
  socket.send("to nobody");
  socket.on_drained([&](DatagramSocket&) { is_drained = true; });
  run_until(loop, [&] { return is_drained; });
  REQUIRE_FALSE(socket.connect(peer.endpoint()));
  socket.resume_reading();
  socket.send("hello");
  run_until(loop, [&] { return peer.receive() == "hello"; });
  run_until(loop, [&] { return !errors.empty(); });
  passes(loop);
  CHECK(errors == Strings{"receive from " + deserted.to_string() + ": Connection refused"});
}
