// SPDX-License-Identifier: MIT
// How a datagram socket can be set up: Unix names, groups, broadcast, sizes, shared ports.
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "support/temporary_directory.hpp"

using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// Where a test's Unix sockets are.
class SocketFolder : public TemporaryDirectory {
 public:
  Endpoint endpoint(const char* name) const { return Endpoint::parse("unix:" + file(name)); }
  bool has(const char* name) const { return ::access(file(name).c_str(), F_OK) == 0; }
};

/// A socket option as the kernel has it.
int kernel_option(int fd, int level, int name) {
  int value = 0;
  unsigned bytes = sizeof value;
  pawl::System::real().getsockopt(fd, level, name, &value, &bytes);
  return value;
}

/// Remembers the socket that was made last.
class LastSocket final : public pawl::System {
 public:
  pawl::SystemResult socket(int family, int type, int protocol) override {
    const pawl::SystemResult result = System::socket(family, type, protocol);
    fd = result.fd();
    return result;
  }
  int fd = -1;
};

pawl::LoopOptions on(pawl::System& system) {
  pawl::LoopOptions options;
  options.system = &system;
  return options;
}

}  // namespace

// ---- Unix

TEST_CASE("Unix datagrams go to and from a path, whose file goes with the socket") {
  EventLoop loop;
  const SocketFolder folder;
  DatagramSocket server(loop, folder.endpoint("socket"));
  DatagramRecorder server_record(server);
  {
    DatagramSocket client(loop, folder.endpoint("client"));
    DatagramRecorder record(client);
    client.send_to("hello", folder.endpoint("socket"));
    run_until(loop, [&] { return server_record.bytes.size() == 1; });
    CHECK(server_record.from == folder.endpoint("client"));
    server.send_to("welcome", server_record.from);
    run_until(loop, [&] { return record.bytes.size() == 1; });
    CHECK(folder.has("client"));
  }
  CHECK_FALSE(folder.has("client"));
  CHECK(folder.has("socket"));
  server.close();
  CHECK_FALSE(folder.has("socket"));
}

TEST_CASE("A socket file that a dead process left behind is replaced") {
  EventLoop loop;
  const SocketFolder folder;
  RawDatagrams(folder.endpoint("socket")).close();
  REQUIRE(folder.has("socket"));
  DatagramSocket socket(loop, folder.endpoint("socket"));
  DatagramRecorder record(socket);
  RawDatagrams peer(Endpoint::parse("unix:@pawl-" + std::to_string(::getpid())));
  peer.send("x", folder.endpoint("socket"));
  run_until(loop, [&] { return record.bytes.size() == 1; });
}

TEST_CASE("A path where somebody listens, and one that is no socket, are left alone") {
  EventLoop loop;
  const SocketFolder folder;
  const Endpoint there = folder.endpoint("socket");
  const std::string refusal =
      "DatagramSocket at " + there.to_string() + ": bind: Address already in use";
  SECTION("a live datagram socket") {
    RawDatagrams alive(there);
    CHECK_THROWS_WITH(DatagramSocket(loop, there), refusal);
    RawDatagrams peer(Endpoint::parse("unix:@pawl-" + std::to_string(::getpid())));
    peer.send("still here", there);
    CHECK(alive.receive() == "still here");
  }
  SECTION("a plain file") {
    std::ofstream(folder.file("socket")) << "precious";
    CHECK_THROWS_WITH(DatagramSocket(loop, there), refusal);
  }
  CHECK(folder.has("socket"));
}

TEST_CASE("A file that another socket has put in its place stays") {
  EventLoop loop;
  const SocketFolder folder;
  auto first = std::make_unique<DatagramSocket>(loop, folder.endpoint("socket"));
  ::unlink(folder.file("socket").c_str());
  DatagramSocket second(loop, folder.endpoint("socket"));
  first.reset();
  CHECK(folder.has("socket"));
}

TEST_CASE("A Unix client without a name gets one, so that it can be answered") {
  EventLoop loop;
  const SocketFolder folder;
  DatagramSocket server(loop, folder.endpoint("socket"));
  server.on_datagram([](DatagramSocket& self, const pawl::Datagram& datagram) {
    CHECK_FALSE(self.send_to("re", datagram.from));
  });
  DatagramOptions options;
  options.peer = folder.endpoint("socket");
  DatagramSocket client(loop, Endpoint(), options);
  DatagramRecorder record(client);
  CHECK(client.local_endpoint().family() == Endpoint::Family::unix_abstract);
  client.send("x");
  run_until(loop, [&] { return record.bytes.size() == 1; });
}

// ---- groups and broadcast

TEST_CASE("A member of a group gets what is sent to it, until it leaves") {
  EventLoop loop;
  DatagramOptions options;
  options.reuse_address = true;
  DatagramSocket member(loop, Endpoint::any(0), options);
  DatagramRecorder record(member);
  const Endpoint group = Endpoint::from_address("239.255.71.7", member.local_endpoint().port());
  options = {};
  options.multicast_interface = "lo";
  DatagramSocket sender(loop, Endpoint::loopback(0), options);
  DatagramRecorder sender_record(sender);
  REQUIRE_FALSE(member.join_group(group, "lo"));
  CHECK(member.join_group(group, "lo") == std::errc::address_in_use);
  sender.send_to("one", group);
  run_until(loop, [&] { return !record.bytes.empty() || !sender_record.errors.empty(); });
  CHECK(sender_record.errors.empty());
  CHECK(record.from == sender.local_endpoint());
  REQUIRE_FALSE(member.leave_group(group, "lo"));
  CHECK(member.leave_group(group, "lo") == std::errc::address_not_available);
  sender.send_to("two", group);
  sender.send_to("directly", Endpoint::loopback(group.port()));
  run_until(loop, [&] { return record.bytes.size() >= 2; });
  CHECK(record.bytes == std::vector<std::string>{"one", "directly"});
}

TEST_CASE("IPv6 groups are joined and left too") {
  EventLoop loop;
  DatagramSocket member(loop, Endpoint::loopback_ipv6(0));
  const Endpoint group = Endpoint::from_address("ff12::7107", 0);
  REQUIRE_FALSE(member.join_group(group, "lo"));
  CHECK(member.join_group(Endpoint::from_address("ff12::7107%lo", 0)) == std::errc::address_in_use);
  REQUIRE_FALSE(member.leave_group(group, "lo"));
  CHECK(member.leave_group(group, "lo") == std::errc::address_not_available);
}

TEST_CASE("A group that can't be joined is an error at once") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  const Endpoint group = Endpoint::from_address("239.255.71.7", 1);
  CHECK(socket.join_group(group, "nosuch0") == std::errc::no_such_device);
  CHECK(socket.join_group(Endpoint::loopback(1), "lo") == std::errc::invalid_argument);
  CHECK(socket.leave_group(group, "lo"));
  socket.abort();
  CHECK(socket.join_group(group, "lo") == std::errc::bad_file_descriptor);
}

TEST_CASE("Broadcasts need the option; without it that send fails alone") {
  EventLoop loop;
  DatagramSocket receiver(loop, Endpoint::any(0));
  DatagramRecorder record(receiver);
  const Endpoint everyone =
      Endpoint::from_address("127.255.255.255", receiver.local_endpoint().port());
  DatagramOptions options;
  options.broadcast = GENERATE(false, true);
  DatagramSocket sender(loop, Endpoint::loopback(0), options);
  DatagramRecorder sender_record(sender);
  sender.send_to("to everyone", everyone);
  sender.send_to("to one", receiver.local_endpoint().with_port(everyone.port()));
  run_until(loop, [&] { return sender_record.drained == 1; });
  if (options.broadcast) {
    CHECK(sender_record.errors.empty());
    run_until(loop, [&] { return record.bytes.size() == 2; });
  } else {
    CHECK(sender_record.codes == std::vector<std::error_code>{pawl::system_error_code(EACCES)});
    run_until(loop, [&] { return record.bytes.size() == 1; });
  }
}

// ---- ports, sizes, hops

TEST_CASE("Sockets that both want it share a port, and each datagram goes to one") {
  EventLoop loop;
  DatagramOptions options;
  options.reuse_port = true;
  DatagramSocket first(loop, Endpoint::loopback(0), options);
  DatagramSocket second(loop, first.local_endpoint(), options);
  DatagramRecorder first_record(first);
  DatagramRecorder second_record(second);
  std::vector<RawDatagrams> peers(64);
  for (RawDatagrams& peer : peers) peer.send("x", first.local_endpoint());
  run_until(loop, [&] { return first_record.bytes.size() + second_record.bytes.size() == 64; });
  CHECK(first_record.bytes.size() > 0);
  CHECK(second_record.bytes.size() > 0);
}

TEST_CASE("Each option reaches the kernel") {
  LastSocket system;
  EventLoop loop(on(system));
  DatagramOptions options;
  options.receive_buffer = 20'000;
  options.send_buffer = 10'000;
  options.reuse_address = true;
  options.broadcast = true;
  options.is_ipv6_only = true;
  options.ttl = 7;
  options.multicast_ttl = 9;
  options.multicast_loop = false;
  options.multicast_interface = "lo";
  options.type_of_service = 0x28;
  const bool is_ipv4 = GENERATE(true, false);
  const DatagramSocket socket(loop, is_ipv4 ? Endpoint::loopback(0) : Endpoint::loopback_ipv6(0),
                              options);
  const int fd = system.fd;
  CHECK(kernel_option(fd, SOL_SOCKET, SO_RCVBUF) == 40'000);  // socket(7): doubled
  CHECK(kernel_option(fd, SOL_SOCKET, SO_SNDBUF) == 20'000);
  CHECK(kernel_option(fd, SOL_SOCKET, SO_REUSEADDR) == 1);
  CHECK(kernel_option(fd, SOL_SOCKET, SO_REUSEPORT) == 0);
  CHECK(kernel_option(fd, SOL_SOCKET, SO_BROADCAST) == 1);
  if (is_ipv4) {
    CHECK(kernel_option(fd, IPPROTO_IP, IP_TTL) == 7);
    CHECK(kernel_option(fd, IPPROTO_IP, IP_MULTICAST_TTL) == 9);
    CHECK(kernel_option(fd, IPPROTO_IP, IP_MULTICAST_LOOP) == 0);
    CHECK(kernel_option(fd, IPPROTO_IP, IP_TOS) == 0x28);
  } else {
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) == 7);
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS) == 9);
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP) == 0);
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF) == 1);
    CHECK(kernel_option(fd, IPPROTO_IPV6, IPV6_TCLASS) == 0x28);
  }
}

TEST_CASE("An IPv6 socket takes IPv4 datagrams too unless it is told not to") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::parse("[::]:0"));
  std::vector<std::string> received;
  socket.on_datagram([&](DatagramSocket& self, const pawl::Datagram& datagram) {
    received.emplace_back(datagram.from.host());
    self.send_to("re", datagram.from);
  });
  RawDatagrams peer;
  peer.send("x", Endpoint::loopback(socket.local_endpoint().port()));
  run_until(loop, [&] { return peer.receive() == "re"; });
  CHECK(received == std::vector<std::string>{"::ffff:127.0.0.1"});
}

TEST_CASE("What the kernel dropped for want of room is counted") {
  EventLoop loop;
  DatagramOptions options;
  options.receive_buffer = 4096;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  DatagramRecorder record(socket);
  CHECK(socket.dropped_by_kernel() == 0);
  RawDatagrams peer;
  for (int i = 0; i < 100; ++i) peer.send(std::string(1000, 'x'), socket.local_endpoint());
  passes(loop, 10);
  CHECK(record.bytes.size() < 100);
  CHECK(socket.dropped_by_kernel().value_or(0) + record.bytes.size() == 100);
}
