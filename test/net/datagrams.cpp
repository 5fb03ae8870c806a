// SPDX-License-Identifier: MIT
// Datagrams that go and come: whole, in order, in batches, within bounds.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "support/allocation_counter.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::DatagramState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;

namespace {

/// A name of this process's own.
Endpoint abstract_name(const char* name) {
  return Endpoint::parse("unix:@pawl-" + std::to_string(::getpid()) + "-" + name);
}

/// A Unix socket whose peer is full, so that one datagram waits in it.
struct FullPeer {
  explicit FullPeer(EventLoop& its_loop, DatagramOptions options = {})
      : loop(its_loop), peer(abstract_name("full")) {
    options.peer = peer.endpoint();
    socket = std::make_unique<DatagramSocket>(loop, Endpoint(), options);
    record = std::make_unique<DatagramRecorder>(*socket);
    do {
      socket->send(std::to_string(sent++));
      pass(loop);
    } while (socket->unsent_datagrams() == 0);
  }

  EventLoop& loop;
  RawDatagrams peer;
  std::unique_ptr<DatagramSocket> socket;
  std::unique_ptr<DatagramRecorder> record;
  std::size_t sent = 0;
};

}  // namespace

TEST_CASE("A datagram comes whole with its sender, who can be answered") {
  EventLoop loop;
  const auto [here, there] =
      GENERATE(std::make_pair(Endpoint::loopback(0), Endpoint::loopback(0)),
               std::make_pair(Endpoint::loopback_ipv6(0), Endpoint::loopback_ipv6(0)),
               std::make_pair(abstract_name("here"), abstract_name("there")));
  DatagramSocket socket(loop, here);
  DatagramRecorder record(socket);
  socket.on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
    record.from = datagram.from;
    CHECK(datagram.length == datagram.bytes.size());
    CHECK_FALSE(datagram.is_truncated());
    CHECK_FALSE(self.send_to("re: " + std::string(datagram.bytes), datagram.from));
  });
  RawDatagrams peer(there);
  peer.send("hello", socket.local_endpoint());
  run_until(loop, [&] { return socket.datagrams_sent() == 1; });
  CHECK(record.from == peer.endpoint());
  CHECK(peer.receive_all() == std::vector<std::string>{"re: hello"});
  CHECK(socket.datagrams_received() == 1);
  CHECK(socket.bytes_received() == 5);
  CHECK(socket.bytes_sent() == 9);
  CHECK(record.errors.empty());
}

TEST_CASE("Empty datagrams are sent and delivered") {
  EventLoop loop;
  const Endpoint local = GENERATE(Endpoint::loopback(0), abstract_name("empty"));
  DatagramSocket socket(loop, local);
  DatagramRecorder record(socket);
  CHECK_FALSE(socket.send_to("", socket.local_endpoint()));
  CHECK_FALSE(socket.send_to("x", socket.local_endpoint()));
  CHECK_FALSE(socket.send_to("", socket.local_endpoint()));
  run_until(loop, [&] { return record.bytes.size() == 3; });
  CHECK(record.bytes == std::vector<std::string>{"", "x", ""});
}

TEST_CASE("A datagram that is longer than the buffer comes cut, with its true length") {
  EventLoop loop;
  const Endpoint local =
      GENERATE(Endpoint::loopback(0), Endpoint::loopback_ipv6(0), abstract_name("cut"));
  DatagramOptions options;
  options.datagram_bytes = 10;
  DatagramSocket socket(loop, local, options);
  std::vector<bool> cut;
  std::vector<std::string> bytes;
  std::vector<std::size_t> lengths;
  socket.on_datagram([&](DatagramSocket&, const Datagram& datagram) {
    cut.push_back(datagram.is_truncated());
    bytes.emplace_back(datagram.bytes);
    lengths.push_back(datagram.length);
  });
  socket.send_to("0123456789", socket.local_endpoint());
  socket.send_to("0123456789ABC", socket.local_endpoint());
  socket.send_to("0123", socket.local_endpoint());
  run_until(loop, [&] { return bytes.size() == 3; });
  CHECK(bytes == std::vector<std::string>{"0123456789", "0123456789", "0123"});
  CHECK(lengths == std::vector<std::size_t>{10, 13, 4});
  CHECK(cut == std::vector<bool>{false, true, false});
}

TEST_CASE(
    "The longest datagram that IP carries comes whole, and one byte more is refused at once") {
  EventLoop loop;
  const bool is_ipv4 = GENERATE(true, false);
  DatagramOptions options;
  options.send_buffer = 1024 * 1024;
  DatagramSocket socket(loop, is_ipv4 ? Endpoint::loopback(0) : Endpoint::loopback_ipv6(0),
                        options);
  DatagramRecorder record(socket);
  const std::string longest = noise(is_ipv4 ? 65'507 : 65'527);
  CHECK(socket.send_to(longest + "x", socket.local_endpoint()) == std::errc::message_size);
  CHECK_FALSE(socket.send_to(longest, socket.local_endpoint()));
  run_until(loop, [&] { return !record.bytes.empty() || !record.errors.empty(); });
  REQUIRE(record.errors.empty());
  CHECK(difference(record.bytes[0], longest).empty());
}

TEST_CASE("Sockets with buffers of different sizes share a loop") {
  EventLoop loop;
  std::vector<std::unique_ptr<DatagramSocket>> sockets;
  std::vector<std::unique_ptr<DatagramRecorder>> records;
  for (const std::size_t bytes : {100U, 1U, 1000U, 10U}) {
    DatagramOptions options;
    options.datagram_bytes = bytes;
    options.batch = bytes % 99 + 1;
    sockets.push_back(std::make_unique<DatagramSocket>(loop, Endpoint::loopback(0), options));
    records.push_back(std::make_unique<DatagramRecorder>(*sockets.back()));
  }
  const std::string text = noise(500);
  for (int round = 0; round < 3; ++round) {
    for (const auto& socket : sockets) sockets[0]->send_to(text, socket->local_endpoint());
    for (const auto& record : records) {
      run_until(loop, [&] { return record->bytes.size() == std::size_t(round + 1); });
      const std::size_t kept = record == records[0]   ? 100
                               : record == records[1] ? 1
                               : record == records[2] ? 500
                                                      : 10;
      CHECK(record->bytes.back() == text.substr(0, kept));
      CHECK(record->lengths.back() == 500);
    }
  }
}

// ---- batches

TEST_CASE("What is sent between two polls leaves in one system call a batch, in order") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramOptions options;
  options.batch = 20;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  for (const std::string& text : numbers(50)) socket.send_to(text, peer.endpoint());
  CHECK(system.count(Call::sendmmsg) == 0);
  CHECK(socket.state() == DatagramState::sending);
  CHECK(socket.unsent_datagrams() == 50);
  CHECK(socket.buffered() == 90);
  pass(loop);
  CHECK(system.count(Call::sendmmsg) == 3);
  CHECK(peer.receive_all() == numbers(50));
  CHECK(socket.state() == DatagramState::open);
}

TEST_CASE("The answers to a batch leave in one system call") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  socket.on_datagram([](DatagramSocket& self, const Datagram& datagram) {
    self.send_to(datagram.bytes, datagram.from);
  });
  for (const std::string& text : numbers(32)) peer.send(text, socket.local_endpoint());
  pass(loop);
  CHECK(system.count(Call::recvmmsg) == 1);
  CHECK(system.count(Call::sendmmsg) == 1);
  CHECK(peer.receive_all() == numbers(32));
}

TEST_CASE("A flood of datagrams gets one batch a pass") {
  EventLoop loop;
  DatagramOptions options;
  options.batch = 8;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  DatagramRecorder record(socket);
  RawDatagrams peer;
  for (const std::string& text : numbers(30)) peer.send(text, socket.local_endpoint());
  std::vector<std::size_t> seen;
  while (record.bytes.size() < 30) {
    pass(loop);
    seen.push_back(record.bytes.size());
  }
  CHECK(seen == std::vector<std::size_t>{8, 16, 24, 30});
  CHECK(record.bytes == numbers(30));
}

TEST_CASE("Datagrams in steady state allocate nothing") {
  EventLoop loop;
  DatagramSocket server(loop, Endpoint::loopback(0));
  server.on_datagram([](DatagramSocket& self, const Datagram& datagram) {
    self.send_to(datagram.bytes, datagram.from);
  });
  std::size_t received = 0;
  DatagramSocket client(loop, Endpoint::loopback(0));
  client.on_datagram([&](DatagramSocket&, const Datagram&) { ++received; });
  const Endpoint there = server.local_endpoint();
  const auto play = [&](std::size_t rounds) {
    for (std::size_t end = received + rounds; received < end;) {
      const std::size_t expected = received + 1;
      client.send_to("ping", there);
      run_until(loop, [&] { return received == expected; });
    }
  };
  play(20);
  const AllocationCounter counter;
  play(500);
  CHECK(counter.count() == 0);
}

// ---- the queue

TEST_CASE("A full queue refuses a datagram by name, and sends the others") {
  EventLoop loop;
  RawDatagrams peer;
  DatagramOptions options;
  options.queue_limit = 1000;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  DatagramRecorder record(socket);
  CHECK(socket.send_to(std::string(937, 'x'), peer.endpoint()) == Errc::write_limit);
  CHECK_FALSE(socket.send_to(std::string(436, 'a'), peer.endpoint()));
  CHECK_FALSE(socket.send_to(std::string(436, 'b'), peer.endpoint()));
  CHECK(socket.send_to("", peer.endpoint()) == Errc::write_limit);
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() ==
        std::vector<std::string>{std::string(436, 'a'), std::string(436, 'b')});
  CHECK_FALSE(socket.send_to(std::string(936, 'c'), peer.endpoint()));
  run_until(loop, [&] { return record.drained == 2; });
  CHECK(record.errors.empty());
}

TEST_CASE("Empty datagrams fill the queue too") {
  EventLoop loop;
  DatagramOptions options;
  options.queue_limit = 6400;
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  int accepted = 0;
  while (!socket.send_to("", socket.local_endpoint())) ++accepted;
  CHECK(accepted == 100);
}

TEST_CASE("A socket whose peer is full waits without spinning, and keeps the order") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  FullPeer full(loop);
  const int drained = full.record->drained;  // while it wasn't full
  const std::size_t waiting = 200;
  for (std::size_t i = 0; i < waiting; ++i) full.socket->send(std::to_string(full.sent++));
  pass(loop);
  const int calls = system.count(Call::sendmmsg);
  passes(loop, 20);
  CHECK(system.count(Call::sendmmsg) == calls);
  CHECK(full.socket->unsent_datagrams() == waiting + 1);
  CHECK(full.record->drained == drained);
  std::vector<std::string> received;
  run_until(loop, [&] {
    for (std::string& one : full.peer.receive_all()) received.push_back(std::move(one));
    return received.size() == full.sent;
  });
  CHECK(received == numbers(full.sent));
  CHECK(full.record->errors.empty());
}

TEST_CASE("What waits for a slow peer costs no more than it is") {
  EventLoop loop;
  DatagramOptions options;
  options.queue_limit = 200'000;
  FullPeer full(loop, options);
  const std::string text(1000, 'x');
  std::size_t received = 0;
  const HeldBytes held;
  for (int i = 0; i < 20'000; ++i) {
    while (!full.socket->send(text)) {
    }
    received += full.peer.receive().has_value() ? 1 : 0;
    pass(loop);
  }
  CHECK(received > 1000);
  CHECK(held.count() < 2'000'000);
}

TEST_CASE(
    "A full Unix receiver fails the datagrams to it, not those to others, and nothing spins") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawDatagrams stuck(abstract_name("stuck"));
  RawDatagrams lively(abstract_name("lively"));
  DatagramSocket socket(loop, abstract_name("sender"));
  DatagramRecorder record(socket);
  std::size_t sent = 0;
  while (record.codes.empty()) {
    REQUIRE_FALSE(socket.send_to(std::to_string(sent++), stuck.endpoint()));
    passes(loop, 3);
  }
  CHECK(record.codes[0] == std::errc::resource_unavailable_try_again);
  record.codes.clear();
  for (int i = 0; i < 5; ++i) {
    socket.send_to("lost", stuck.endpoint());
    socket.send_to("found", lively.endpoint());
  }
  run_until(loop, [&] { return socket.unsent_datagrams() == 0; });
  passes(loop, 3);
  CHECK(record.codes.size() == 5);
  CHECK(lively.receive_all() == std::vector<std::string>(5, "found"));
  CHECK(stuck.receive_all() == numbers(sent - 1));
  const int calls = system.count(Call::sendmmsg);
  passes(loop, 20);
  CHECK(system.count(Call::sendmmsg) == calls);
  CHECK(socket.datagrams_lost() == 6);
}

TEST_CASE("on_drained comes once after sends, and is the place to send more") {
  EventLoop loop;
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  int drained = 0;
  socket.on_drained([&](DatagramSocket& self) {
    CHECK(self.unsent_datagrams() == 0);
    if (++drained < 5) self.send_to(std::to_string(drained), peer.endpoint());
  });
  socket.send_to("0", peer.endpoint());
  CHECK(drained == 0);
  run_until(loop, [&] { return drained == 5; });
  passes(loop, 5);
  CHECK(drained == 5);
  CHECK(peer.receive_all() == numbers(5));
}

// ---- pausing

TEST_CASE("A paused socket delivers nothing, not even the rest of a batch, and loses nothing") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  std::vector<std::string> received;
  socket.on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
    received.emplace_back(datagram.bytes);
    CHECK(datagram.from == self.local_endpoint());
    if (received.size() % 4 == 0) self.pause_reading();
  });
  for (const std::string& text : numbers(10)) socket.send_to(text, socket.local_endpoint());
  run_until(loop, [&] { return received.size() == 4; });
  passes(loop, 5);
  CHECK(received.size() == 4);
  CHECK(socket.is_reading_paused());
  socket.resume_reading();
  CHECK(received.size() == 4);
  run_until(loop, [&] { return received.size() == 8; });
  passes(loop, 5);
  CHECK(received.size() == 8);
  socket.send_to("10", socket.local_endpoint());
  passes(loop, 5);
  socket.resume_reading();
  run_until(loop, [&] { return received.size() == 11; });
  CHECK(received == numbers(11));
}

TEST_CASE("Pausing and resuming a datagram socket at once changes nothing") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  socket.pause_reading();
  socket.resume_reading();
  socket.send_to("x", socket.local_endpoint());
  run_until(loop, [&] { return record.bytes.size() == 1; });
}

TEST_CASE("A datagram socket that has nothing to tell lets the loop sleep") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  for (const std::string& text : numbers(3)) socket.send_to(text, socket.local_endpoint());
  run_until(loop, [&] { return record.bytes.size() == 3 && record.drained == 1; });
  SECTION("when everything has been told") {}
  SECTION("while what is here waits for it to be resumed") {
    socket.on_datagram([](DatagramSocket& self, const Datagram&) { self.pause_reading(); });
    for (const std::string& text : numbers(3)) socket.send_to(text, socket.local_endpoint());
    run_until(loop, [&] { return socket.datagrams_received() == 4; });
  }
  SECTION("when it is over") {
    socket.close();
    run_until(loop, [&] { return record.closed == 1; });
  }
  passes(loop);
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("A batch is at least one datagram and at most what fits into one call") {
  EventLoop loop;
  DatagramOptions options;
  options.batch = GENERATE(0U, 1U, 1'000'000U);
  DatagramSocket socket(loop, Endpoint::loopback(0), options);
  DatagramRecorder record(socket);
  for (const std::string& text : numbers(100)) socket.send_to(text, socket.local_endpoint());
  run_until(loop, [&] { return record.bytes.size() == 100; });
  CHECK(record.bytes == numbers(100));
}

TEST_CASE("An exception from on_datagram leaves run(), and the rest of the batch comes") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  std::vector<std::string> received;
  socket.on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
    received.emplace_back(datagram.bytes);
    if (received.size() < 20) self.send_to(datagram.bytes, self.local_endpoint());
    if (received.size() == 3) throw std::runtime_error("thrown by a callback");
  });
  for (const std::string& text : numbers(10)) socket.send_to(text, socket.local_endpoint());
  CHECK_THROWS_WITH(run_until(loop, [&] { return received.size() == 10; }), "thrown by a callback");
  CHECK(received.size() == 3);
  run_until(loop, [&] { return received.size() == 29; });
  CHECK(std::vector<std::string>(received.begin(), received.begin() + 10) == numbers(10));
}

// ---- peers

TEST_CASE("A connected socket sends to its peer and hears nobody else") {
  EventLoop loop;
  RawDatagrams peer;
  RawDatagrams stranger;
  DatagramOptions options;
  options.peer = peer.endpoint();
  DatagramSocket socket(loop, Endpoint(), options);
  DatagramRecorder record(socket);
  CHECK(socket.peer_endpoint() == peer.endpoint());
  CHECK(socket.local_endpoint().host() == "127.0.0.1");
  CHECK_FALSE(socket.send("to the peer"));
  CHECK_FALSE(socket.send_to("to the stranger", stranger.endpoint()));
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(peer.receive_all() == std::vector<std::string>{"to the peer"});
  CHECK(stranger.receive_all() == std::vector<std::string>{"to the stranger"});
  stranger.send("not heard", socket.local_endpoint());
  peer.send("heard", socket.local_endpoint());
  run_until(loop, [&] { return !record.bytes.empty(); });
  CHECK(record.bytes == std::vector<std::string>{"heard"});
}

TEST_CASE("A socket can change its peer; what was queued still goes to the old one") {
  EventLoop loop;
  RawDatagrams first;
  RawDatagrams second;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  const Endpoint local = socket.local_endpoint();
  CHECK(socket.send("nobody") == std::errc::destination_address_required);
  REQUIRE_FALSE(socket.connect(first.endpoint()));
  socket.send("one");
  REQUIRE_FALSE(socket.connect(second.endpoint()));
  socket.send("two");
  REQUIRE_FALSE(socket.connect(Endpoint()));
  CHECK(socket.send("nobody") == std::errc::destination_address_required);
  CHECK(socket.peer_endpoint() == Endpoint());
  run_until(loop, [&] { return record.drained == 1; });
  CHECK(first.receive_all() == std::vector<std::string>{"one"});
  CHECK(second.receive_all() == std::vector<std::string>{"two"});
  first.send("heard again", local);
  run_until(loop, [&] { return record.bytes.size() == 1; });
  CHECK(socket.local_endpoint() == local);
}

TEST_CASE("A destination of another family is refused at once") {
  EventLoop loop;
  DatagramSocket ipv4(loop, Endpoint::loopback(0));
  DatagramSocket name(loop, abstract_name("family"));
  CHECK(ipv4.send_to("x", Endpoint::loopback_ipv6(1)) == std::errc::address_family_not_supported);
  CHECK(ipv4.send_to("x", abstract_name("y")) == std::errc::address_family_not_supported);
  CHECK(name.send_to("x", Endpoint::loopback(1)) == std::errc::address_family_not_supported);
  CHECK(ipv4.send_to("x", Endpoint()) == std::errc::destination_address_required);
  CHECK(ipv4.state() == DatagramState::open);
}

// ---- words

TEST_CASE("A datagram socket says where it is, to whom, and what is unsent") {
  EventLoop loop;
  RawDatagrams peer;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  const std::string name = "datagram socket at " + socket.local_endpoint().to_string();
  CHECK(socket.describe() == name + " OPEN, 0 datagrams unsent");
  REQUIRE_FALSE(socket.connect(peer.endpoint()));
  socket.send("x");
  const std::string whole = name + " to " + peer.endpoint().to_string();
  CHECK(socket.describe() == whole + " SENDING, 1 datagram unsent");
  CHECK(loop.why_alive().find(whole + " SENDING") != std::string::npos);
  socket.abort();
  CHECK(socket.describe() ==
        whole + " DONE: abort in SENDING: aborted by this side, 1 datagram unsent");
}
