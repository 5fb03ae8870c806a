// SPDX-License-Identifier: MIT
// Whom a datagram was sent to, and where an answer comes from; groups; IPv4 at [::].
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using namespace std::string_view_literals;
using pawl::Connection;
using pawl::Datagram;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

using Strings = std::vector<std::string>;

/// Answers each datagram from the address that it was sent to, and notes that.
struct Answerer {
  Answerer(EventLoop& loop, const Endpoint& at, DatagramOptions options = telling())
      : socket(loop, at, options) {
    socket.on_datagram([this](DatagramSocket& self, const Datagram& datagram) {
      to.push_back(datagram.to.to_string());
      if (is_silent) return;
      refusal = self.send_to("re: " + std::string(datagram.bytes), datagram.from, datagram.to);
    });
  }
  static DatagramOptions telling() {
    DatagramOptions options;
    options.tells_destination = true;
    return options;
  }
  std::uint16_t port() const { return socket.local_endpoint().port(); }

  DatagramSocket socket;
  Strings to;
  std::error_code refusal;
  bool is_silent = false;
};

/// Asks from a connected socket, which hears nobody but whom it asked.
struct Asker {
  Asker(EventLoop& loop, const Endpoint& whom)
      : socket(loop, Endpoint(), options(whom)), record(socket) {
    socket.send("hello");
  }
  static DatagramOptions options(const Endpoint& whom) {
    DatagramOptions options;
    options.peer = whom;
    return options;
  }
  DatagramSocket socket;
  DatagramRecorder record;
};

int kernel_option(int fd, int level, int name) {
  int value = -1;
  unsigned bytes = sizeof value;
  pawl::System::real().getsockopt(fd, level, name, &value, &bytes);
  return value;
}

/// The kernel, but it remembers the last socket that was made.
struct LastSocket final : pawl::System {
  pawl::SystemResult socket(int family, int type, int protocol) override {
    const pawl::SystemResult result = System::socket(family, type, protocol);
    fd = result.fd();
    return result;
  }
  int fd = -1;
};

}  // namespace

TEST_CASE("A server at any address answers from the one that was asked") {
  EventLoop loop;
  SECTION("at 0.0.0.0") {
    Answerer server(loop, Endpoint::any(0));
    for (const char* host : {"127.0.0.1", "127.0.0.2", "127.9.8.7"}) {
      const Endpoint whom = Endpoint::from_address(host, server.port());
      Asker asker(loop, whom);
      run_until(loop, [&] { return asker.record.bytes == Strings{"re: hello"}; });
      CHECK(server.to.back() == whom.to_string());
    }
  }
  SECTION("at [::], for IPv4 too") {
    Answerer server(loop, Endpoint::parse("[::]:0"));
    for (const char* host : {"127.0.0.1", "127.0.0.2", "::1"}) {
      const Endpoint whom = Endpoint::from_address(host, server.port());
      Asker asker(loop, whom);
      run_until(loop, [&] { return asker.record.bytes == Strings{"re: hello"}; });
      CHECK_THAT(server.to.back(), Catch::Contains(host));
    }
    CHECK(server.to.front() == "[::ffff:127.0.0.1]:" + std::to_string(server.port()));
  }
  SECTION("many in a batch, with answers in the queue") {
    Answerer server(loop, Endpoint::any(0));
    std::vector<std::unique_ptr<Asker>> askers;
    for (int i = 1; i <= 100; ++i) {
      askers.push_back(std::make_unique<Asker>(
          loop, Endpoint::from_address("127.0.0." + std::to_string(i), server.port())));
    }
    for (const auto& asker : askers) {
      run_until(loop, [&] { return asker->record.bytes == Strings{"re: hello"}; });
    }
  }
}

TEST_CASE("Without being asked for a destination is nowhere, and answers leave as they did") {
  EventLoop loop;
  Answerer server(loop, Endpoint::any(0), {});
  RawDatagrams peer;
  peer.send("hello", Endpoint::from_address("127.0.0.2", server.port()));
  run_until(loop, [&] { return peer.receive() == "re: hello"; });
  CHECK(server.to == Strings{"-"});
}

TEST_CASE("Sockets that ask for destinations and others share a loop") {
  EventLoop loop;
  Answerer telling(loop, Endpoint::any(0));
  Answerer silent(loop, Endpoint::any(0), {});
  RawDatagrams peer;
  for (int i = 0; i < 3; ++i) {
    peer.send("a", Endpoint::from_address("127.0.0.2", telling.port()));
    peer.send("b", Endpoint::from_address("127.0.0.2", silent.port()));
    run_until(loop, [&] { return telling.to.size() + silent.to.size() == 2 * std::size_t(i + 1); });
  }
  CHECK(telling.to.back() == "127.0.0.2:" + std::to_string(telling.port()));
  CHECK(silent.to.back() == "-");
}

TEST_CASE("The rest of a batch that was put off keeps its destinations") {
  EventLoop loop;
  Answerer server(loop, Endpoint::any(0));
  server.is_silent = true;
  RawDatagrams peer;
  for (int i = 1; i <= 5; ++i) {
    peer.send("x", Endpoint::from_address("127.0.0." + std::to_string(i), server.port()));
  }
  Strings to;
  server.socket.on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
    to.push_back(datagram.to.host());
    self.pause_reading();
  });
  run_until(loop, [&] {
    server.socket.resume_reading();
    return to.size() == 5;
  });
  CHECK(to == Strings{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"});
}

TEST_CASE("A source that a datagram can't have is refused at once, or fails it alone") {
  EventLoop loop;
  DatagramSocket four(loop, Endpoint::any(0));
  DatagramSocket six(loop, Endpoint::parse("[::]:0"));
  DatagramRecorder record(four);
  RawDatagrams peer;
  CHECK(four.send_to("x", peer.endpoint(), Endpoint::loopback_ipv6(0)) ==
        std::errc::address_family_not_supported);
  CHECK(four.send_to("x", peer.endpoint(), Endpoint::parse("unix:@x")) ==
        std::errc::address_family_not_supported);
  for (const char* group : {"224.0.0.1", "239.255.1.1", "255.255.255.255"}) {
    CHECK(four.send_to("x", peer.endpoint(), Endpoint::from_address(group, 1)) ==
          std::errc::invalid_argument);
    CHECK(six.send_to("x", peer.endpoint(), Endpoint::from_address(group, 1)) ==
          std::errc::invalid_argument);
  }
  CHECK(six.send_to("x", peer.endpoint(), Endpoint::from_address("ff02::1", 1)) ==
        std::errc::invalid_argument);
  // Not an address of this machine.
  CHECK_FALSE(four.send_to("no", peer.endpoint(), Endpoint::from_address("192.0.2.1", 0)));
  CHECK_FALSE(four.send_to("yes", peer.endpoint(), Endpoint::from_address("127.0.0.5", 0)));
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == Strings{"yes"});
  CHECK(record.lost == 1);
}

// ---- groups

TEST_CASE("A socket hears the groups that it has joined, not those of others on this machine") {
  EventLoop loop;
  DatagramOptions options;
  options.reuse_address = true;
  const bool is_ipv6 = GENERATE(false, true);
  const Endpoint any = is_ipv6 ? Endpoint::parse("[::]:0") : Endpoint::any(0);
  DatagramSocket member(loop, any, options);
  DatagramRecorder member_record(member);
  const std::uint16_t port = member.local_endpoint().port();
  DatagramSocket other(loop, any.with_port(port), options);
  DatagramRecorder other_record(other);
  options.multicast_all = true;
  DatagramSocket curious(loop, any.with_port(port), options);
  DatagramRecorder curious_record(curious);
  const Endpoint group = Endpoint::from_address("239.255.71.8", port);
  REQUIRE_FALSE(member.join_group(group, "lo"));
  options = {};
  options.multicast_interface = "lo";
  DatagramSocket sender(loop, Endpoint::loopback(0), options);
  sender.send_to("to the group", group);
  CAPTURE(is_ipv6);
  run_until(loop, [&] { return !member_record.bytes.empty(); });
  passes(loop);
  CHECK(curious_record.bytes == Strings{"to the group"});
  passes(loop);
  CHECK(other_record.bytes.empty());
  CHECK(member_record.bytes == Strings{"to the group"});
}

TEST_CASE("A group can be joined for some of its sources") {
  EventLoop loop;
  DatagramSocket member(loop, Endpoint::any(0));
  DatagramRecorder record(member);
  const Endpoint group = Endpoint::from_address("232.1.71.9", member.local_endpoint().port());
  const Endpoint wanted = Endpoint::from_address("127.0.0.2", 0);
  REQUIRE_FALSE(member.join_source_group(group, wanted, "lo"));
  CHECK(member.join_source_group(group, wanted, "lo") == std::errc::address_not_available);
  CHECK(member.join_source_group(group, Endpoint::loopback_ipv6(0), "lo") ==
        std::errc::address_family_not_supported);
  CHECK(member.join_source_group(group, wanted, "nosuch0") == std::errc::no_such_device);
  CHECK(member.join_source_group(group, wanted, "lo\0x"sv) == std::errc::no_such_device);
  DatagramOptions options;
  options.multicast_interface = "lo";
  DatagramSocket good(loop, wanted, options);
  DatagramSocket bad(loop, Endpoint::loopback(0), options);
  const auto send_both = [&](const std::string& round) {
    bad.send_to("bad " + round, group);
    good.send_to("good " + round, group);
    good.send_to("direct " + round, Endpoint::loopback(group.port()));
    run_until(loop, [&] { return record.bytes.back() == "direct " + round; });
  };
  record.bytes = {""};
  send_both("one");
  REQUIRE_FALSE(member.join_source_group(group, Endpoint::loopback(0), "lo"));
  send_both("two");
  REQUIRE_FALSE(member.leave_source_group(group, wanted, "lo"));
  send_both("three");
  CHECK(record.bytes == Strings{"", "good one", "direct one", "bad two", "good two", "direct two",
                                "bad three", "direct three"});
  DatagramSocket six(loop, Endpoint::parse("[::]:0"));
  const Endpoint group_of_six = Endpoint::from_address("ff32::7109", 0);
  REQUIRE_FALSE(six.join_source_group(group_of_six, Endpoint::loopback_ipv6(0), "lo"));
  REQUIRE_FALSE(six.leave_source_group(group_of_six, Endpoint::loopback_ipv6(0), "lo"));
  six.abort();
  CHECK(six.join_source_group(group_of_six, Endpoint::loopback_ipv6(0), "lo") ==
        std::errc::bad_file_descriptor);
}

TEST_CASE("An interface's name with NUL is refused, not cut") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::any(0));
  const Endpoint group = Endpoint::from_address("239.255.71.7", 1);
  CHECK(socket.join_group(group, "lo\0x"sv) == std::errc::no_such_device);
  CHECK(socket.leave_group(group, "lo\0x"sv) == std::errc::no_such_device);
  DatagramOptions options;
  options.multicast_interface = "lo\0x"sv;
  CHECK_THROWS_WITH(DatagramSocket(loop, Endpoint::any(0), options),
                    Catch::EndsWith("multicast_interface: No such device"));
  pawl::ListenerOptions listening;
  for (const std::string_view name : {"lo\0x"sv, "a-name-longer-than-15"sv}) {
    listening.interface = name;
    CHECK_THROWS_WITH(
        pawl::Listener(
            loop, Endpoint::loopback(0), [](pawl::UniqueFd, const Endpoint&) {}, listening),
        Catch::EndsWith("SO_BINDTODEVICE: No such device"));
  }
  CHECK_THROWS_AS(Endpoint::parse("unix:/tmp/x\0y"sv), std::invalid_argument);
  CHECK_THROWS_AS(Endpoint::parse("[fe80::1%lo\0x]:1"sv), std::invalid_argument);
  CHECK_THROWS_AS(Endpoint::from_address("127.0.0.1\0x"sv, 1), std::invalid_argument);
}

// ---- [::]

TEST_CASE("At [::] each option holds for IPv4 too, unless it takes IPv6 alone") {
  LastSocket system;
  EventLoop loop(options_on(system));
  DatagramOptions options;
  options.ttl = 7;
  options.multicast_ttl = 9;
  options.multicast_loop = false;
  options.multicast_interface = "lo";
  options.type_of_service = 0x28;
  options.is_ipv6_only = GENERATE(false, true);
  const DatagramSocket socket(loop, Endpoint::parse("[::]:0"), options);
  const auto either = [&](int set, int untouched) {
    return options.is_ipv6_only ? untouched : set;
  };
  CHECK(kernel_option(system.fd, IPPROTO_IP, IP_TTL) == either(7, 64));
  CHECK(kernel_option(system.fd, IPPROTO_IP, IP_MULTICAST_TTL) == either(9, 1));
  CHECK(kernel_option(system.fd, IPPROTO_IP, IP_MULTICAST_LOOP) == either(0, 1));
  CHECK(kernel_option(system.fd, IPPROTO_IP, IP_MULTICAST_ALL) == 0);
  CHECK(kernel_option(system.fd, IPPROTO_IP, IP_TOS) == either(0x28, 0));
  CHECK(kernel_option(system.fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) == 7);
  CHECK(kernel_option(system.fd, IPPROTO_IPV6, IPV6_TCLASS) == 0x28);
}

TEST_CASE("A socket at [::] joins IPv4 groups, and sends to them where its options say") {
  EventLoop loop;
  DatagramOptions options;
  options.multicast_interface = "lo";
  DatagramSocket member(loop, Endpoint::parse("[::]:0"), options);
  DatagramRecorder record(member);
  const Endpoint group = Endpoint::from_address("239.255.71.6", member.local_endpoint().port());
  REQUIRE_FALSE(member.join_group(group, "lo"));
  member.send_to("to itself", group);
  run_until(loop, [&] { return !record.bytes.empty() || !record.errors.empty(); });
  CHECK(record.bytes == Strings{"to itself"});
  REQUIRE_FALSE(member.leave_group(group, "lo"));
}

TEST_CASE("A listener and a server at [::] take IPv4 too, unless they are told not to") {
  EventLoop loop;
  const bool is_only = GENERATE(false, true);
  const auto ends_with = [&](std::uint16_t port) {
    const auto connection = Connection::connect(loop, Endpoint::loopback(port));
    Recorder record(*connection);
    run_until(loop, [&] { return !record.order.empty(); });
    return record.order;
  };
  pawl::ListenerOptions listening;
  listening.is_ipv6_only = is_only;
  pawl::Listener listener(
      loop, Endpoint::parse("[::]:0"), [](pawl::UniqueFd, const Endpoint&) {}, listening);
  CHECK(ends_with(listener.local_endpoint().port()) == (is_only ? "closed" : "connected"));
  pawl::ServerOptions serving;
  serving.is_ipv6_only = is_only;
  pawl::Server server(
      loop, Endpoint::parse("[::]:0"), [](Connection&) {}, serving);
  CHECK(ends_with(server.local_endpoint().port()) == (is_only ? "closed" : "connected"));
}
