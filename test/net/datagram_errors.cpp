// SPDX-License-Identifier: MIT
// What can go wrong with a datagram socket, and that it lives on.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::DatagramState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;

namespace {

/// Where nobody receives.
Endpoint deserted() { return RawDatagrams().endpoint(); }

}  // namespace

// ---- ICMP

TEST_CASE("A connected peer that isn't there is an event, and the socket lives until it is") {
  EventLoop loop;
  const bool is_ipv4 = GENERATE(true, false);
  RawDatagrams before(is_ipv4 ? Endpoint::loopback(0) : Endpoint::loopback_ipv6(0));
  const Endpoint there = before.endpoint();
  before.close();
  DatagramOptions options;
  options.peer = there;
  DatagramSocket socket(loop, Endpoint(), options);
  DatagramRecorder record(socket);
  socket.send("anyone?");
  run_until(loop, [&] { return !record.errors.empty(); });
  CHECK(record.errors ==
        std::vector<std::string>{"receive from " + there.to_string() + ": Connection refused"});
  CHECK(record.codes[0] == std::errc::connection_refused);
  CHECK(record.lost == 0);
  passes(loop, 5);
  CHECK(record.errors.size() == 1);

  RawDatagrams now(there);
  socket.send("hello");
  run_until(loop, [&] { return now.receive() == "hello"; });
  now.send("welcome", socket.local_endpoint());
  run_until(loop, [&] { return record.bytes.size() == 1; });
  CHECK(record.errors.size() == 1);
  CHECK(record.closed == 0);
}

TEST_CASE("A datagram that runs into an earlier one's ICMP error is sent all the same") {
  EventLoop loop;
  RawDatagrams before;
  const Endpoint there = before.endpoint();
  before.close();
  DatagramOptions options;
  options.peer = there;
  DatagramSocket socket(loop, Endpoint(), options);
  DatagramRecorder record(socket);
  socket.pause_reading();  // so that the error is still there when the next one is sent
  socket.send("lost on the way");
  pass(loop);
  RawDatagrams now(there);
  socket.send("arrives");
  run_until(loop, [&] { return now.receive() == "arrives"; });
  run_until(loop, [&] { return !record.errors.empty(); });
  CHECK(record.errors ==
        std::vector<std::string>{"receive from " + there.to_string() + ": Connection refused"});
  CHECK(socket.datagrams_sent() == 2);
  CHECK(socket.datagrams_lost() == 0);
}

TEST_CASE("An ICMP error that nobody listens for doesn't make the loop spin") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  DatagramOptions options;
  options.peer = deserted();
  DatagramSocket socket(loop, Endpoint(), options);
  socket.send("x");
  passes(loop, 10);
  const int calls = system.count(Call::recvmmsg);
  CHECK(calls >= 1);
  passes(loop, 20);
  CHECK(system.count(Call::recvmmsg) == calls);
}

TEST_CASE("A socket that isn't connected isn't told about receivers that aren't there") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  socket.send_to("x", deserted());
  passes(loop, 10);
  CHECK(record.order == "drained");
}

// ---- one datagram fails

TEST_CASE("What the kernel refuses fails alone, with its destination") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const auto [error, text] = GENERATE(std::make_pair(EPERM, "Operation not permitted"),
                                      std::make_pair(EMSGSIZE, "Message too long"),
                                      std::make_pair(EINVAL, "Invalid argument"),
                                      std::make_pair(ENETUNREACH, "Network is unreachable"));
  RawDatagrams peer;
  DatagramOptions options;
  options.batch = 1;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  DatagramRecorder record(socket);
  for (const std::string& each : numbers(5)) socket.send_to(each, peer.endpoint());
  system.fail(Call::sendmmsg, error, 1, 2);
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == std::vector<std::string>{"0", "1", "3", "4"});
  CHECK(record.errors == std::vector<std::string>{"send of 1 bytes to " +
                                                  peer.endpoint().to_string() + ": " + text});
  CHECK(record.codes[0] == pawl::system_error_code(error));
  CHECK(record.lost == 1);
  CHECK(record.order == "error drained");
  CHECK(socket.datagrams_lost() == 1);
  CHECK(socket.datagrams_sent() == 4);
  CHECK(socket.state() == DatagramState::open);
}

TEST_CASE("While the kernel has no room for a datagram the socket waits, and says so once") {
  const int error = GENERATE(ENOBUFS, ENOMEM);
  FaultyClock system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  for (int episode = 1; episode <= 2; ++episode) {
    const int before = system.count(Call::sendmmsg);
    system.fail(Call::sendmmsg, error, FaultySystem::forever);
    for (const std::string& each : numbers(5)) socket.send_to(each, peer.endpoint());
    passes(loop, 1000);
    CHECK(system.count(Call::sendmmsg) == before + 1);
    for (int tries = 2; tries <= 5; ++tries) {
      system.advance(50ms);
      passes(loop);
      CHECK(system.count(Call::sendmmsg) == before + tries);
    }
    socket.send_to("5", peer.endpoint());  // waits behind the others
    passes(loop, 100);
    CHECK(system.count(Call::sendmmsg) == before + 5);
    CHECK(socket.unsent_datagrams() == 6);
    system.heal(Call::sendmmsg);
    system.advance(50ms);
    spin_until(loop, [&] { return record.drained == episode; });
    CHECK(peer.receive_all() == numbers(6));
    CHECK(record.codes.size() == std::size_t(episode));
    CHECK(record.codes.back() == pawl::system_error_code(error));
    CHECK_THAT(record.errors.back(),
               Catch::StartsWith("send of 1 bytes to " + peer.endpoint().to_string() +
                                 ", again in a while: "));
  }
  CHECK(record.lost == 0);
  CHECK(socket.datagrams_lost() == 0);
}

TEST_CASE("A socket that closes while the kernel has no room gives up after its close timeout") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  system.fail(Call::sendmmsg, ENOBUFS, FaultySystem::forever);
  socket.send_to("hello", peer.endpoint());
  passes(loop);
  socket.close();
  const bool heals = GENERATE(false, true);
  if (heals) system.heal(Call::sendmmsg);
  system.advance(heals ? 50ms : 1s);
  spin_until(loop, [&] { return record.closed == 1; });
  CHECK(peer.receive_all().size() == (heals ? 1 : 0));
  CHECK(record.error == (heals ? std::error_code() : make_error_code(pawl::Errc::unsent_data)));
}

TEST_CASE(
    "Whatever the network said of earlier datagrams, the next one of a connected socket is sent") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  // What the kernel makes of ICMP's answers, in the order of their codes: icmp_err_convert.
  const int error = GENERATE(ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED, EMSGSIZE,
                             EOPNOTSUPP, EHOSTDOWN, ENONET, EPROTO, EACCES);
  RawDatagrams peer;
  DatagramOptions options;
  options.peer = peer.endpoint();
  DatagramSocket socket(loop, Endpoint(), options);
  DatagramRecorder record(socket);
  system.fail(Call::sendmmsg, error);
  socket.send("arrives");
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == std::vector<std::string>{"arrives"});
  CHECK(record.lost == 0);
  CHECK(record.codes == std::vector<std::error_code>{pawl::system_error_code(error)});
}

TEST_CASE("A connected socket's own error is told once, as that datagram's") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramOptions options;
  options.batch = 1;
  options.peer = peer.endpoint();
  DatagramSocket socket(loop, Endpoint(), options);
  DatagramRecorder record(socket);
  for (const std::string& each : numbers(3)) socket.send(each);
  system.fail(Call::sendmmsg, ENETUNREACH, 2, 1);  // refused again when it is tried again
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == std::vector<std::string>{"0", "2"});
  CHECK(record.lost == 1);
  CHECK(record.codes.size() == 1);
}

TEST_CASE("A datagram that the send buffer can never hold fails alone, in the middle of a batch") {
  EventLoop loop;
  DatagramOptions options;
  options.send_buffer = 4096;
  DatagramSocket socket(loop, Endpoint::parse("unix:@pawl-" + noise(4)), options);
  RawDatagrams peer(Endpoint::parse("unix:@pawl-peer-" + noise(4)));
  DatagramRecorder record(socket);
  socket.send_to("first", peer.endpoint());
  socket.send_to(std::string(100'000, 'x'), peer.endpoint());
  socket.send_to("last", peer.endpoint());
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == std::vector<std::string>{"first", "last"});
  CHECK(record.codes == std::vector<std::error_code>{pawl::system_error_code(EMSGSIZE)});
}

TEST_CASE("A Unix receiver that isn't there fails the datagram to it") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::parse("unix:@pawl-a" + noise(4)));
  RawDatagrams peer(Endpoint::parse("unix:@pawl-b" + noise(4)));
  DatagramRecorder record(socket);
  socket.send_to("nobody", Endpoint::parse("unix:@pawl-nobody"));
  socket.send_to("somebody", peer.endpoint());
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(record.errors ==
        std::vector<std::string>{"send of 6 bytes to unix:@pawl-nobody: Connection refused"});
  CHECK(peer.receive_all() == std::vector<std::string>{"somebody"});
}

TEST_CASE("A thousand datagrams that can't be sent are a thousand errors") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  system.fail(Call::sendmmsg, EPERM, FaultySystem::forever);
  for (int i = 0; i < 1000; ++i) REQUIRE_FALSE(socket.send_to("x", peer.endpoint()));
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(record.lost == 1000);
  CHECK(socket.datagrams_lost() == 1000);
}

TEST_CASE("Without on_error, debug mode says what was lost") {
  FaultySystem system;
  pawl::LoopOptions loop_options = options_on(system);
  loop_options.debug = true;
  EventLoop loop(loop_options);
  std::string report;
  loop.set_report_sink([&](std::string_view line) { report += line; });
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  system.fail(Call::sendmmsg, EPERM);
  socket.send_to("hello", peer.endpoint());
  passes(loop, 3);
  CHECK(report.find("send of 5 bytes to " + peer.endpoint().to_string() +
                    ": Operation not permitted") != std::string::npos);
}

// ---- receiving fails

TEST_CASE("A kernel that is short of memory is told, and asked again after a while, not at once") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  const int error = GENERATE(ENOMEM, ENOBUFS);
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  RawDatagrams peer;
  system.fail(Call::recvmmsg, error, FaultySystem::forever);
  peer.send("x", socket.local_endpoint());
  passes(loop, 20);
  CHECK(system.count(Call::recvmmsg) == 1);
  CHECK(record.codes == std::vector<std::error_code>{pawl::system_error_code(error)});
  system.heal(Call::recvmmsg);
  passes(loop, 5);
  CHECK(record.bytes.empty());
  system.advance(50ms);
  spin_until(loop, [&] { return record.bytes.size() == 1; });
}

TEST_CASE("A descriptor that is of no use ends the socket") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  RawDatagrams peer;
  const int error = GENERATE(EBADF, ENOTSOCK, EFAULT);
  system.fail(Call::recvmmsg, error);
  peer.send("x", socket.local_endpoint());
  run_until(loop, [&] { return record.closed == 1; });
  CHECK(record.error == pawl::system_error_code(error));
  CHECK(record.order == "closed");
  CHECK(socket.state() == DatagramState::done);
}

// ---- it can't be made

TEST_CASE("What keeps a datagram socket from being made is thrown with operation and endpoint") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams other;
  const std::string there = other.endpoint().to_string();
  DatagramOptions options;
  CHECK_THROWS_WITH(DatagramSocket(loop, other.endpoint()),
                    "DatagramSocket at " + there + ": bind: Address already in use");
  system.fail(Call::socket, EMFILE);
  CHECK_THROWS_WITH(DatagramSocket(loop, other.endpoint()),
                    "DatagramSocket at " + there + ": socket: Too many open files");
  system.fail(Call::connect, EACCES);
  options.peer = other.endpoint();
  CHECK_THROWS_WITH(DatagramSocket(loop, Endpoint(), options),
                    "DatagramSocket at " + there + ": connect: Permission denied");
  system.fail(Call::setsockopt, EINVAL);
  options.ttl = 300;
  CHECK_THROWS_WITH(DatagramSocket(loop, Endpoint(), options),
                    "DatagramSocket at " + there + ": ttl: Invalid argument");
  CHECK_THROWS_AS(DatagramSocket(loop, Endpoint()), std::invalid_argument);
  options = {};
  options.multicast_interface = "nosuch0";
  CHECK_THROWS_WITH(DatagramSocket(loop, Endpoint::loopback(0), options),
                    "DatagramSocket at 127.0.0.1:0: multicast_interface: No such device");
  CHECK(loop.selector().size() == 1);  // the wake-up
}
