// SPDX-License-Identifier: MIT
// Each system call that a datagram socket makes fails in turn.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/endpoint.hpp"
#include "support/call_sweep.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramSocket;
using pawl::Endpoint;

namespace {

/// Sends three until they are back; what is told as lost is sent again, a few times.
void echo_datagrams(CallTrial& trial, DatagramSocket& socket, const Endpoint& where) {
  DatagramSocket peer(trial.peers(), where);
  peer.on_datagram([](DatagramSocket& self, const Datagram& datagram) {
    self.send_to(std::string(datagram.bytes), datagram.from);
  });
  const Endpoint to = peer.local_endpoint();
  int right = 0;
  int errors = 0;
  bool is_closed = false;
  socket.on_datagram([&](DatagramSocket&, const Datagram& datagram) {
    trial.expect(datagram.bytes == "one" || datagram.bytes == "two" || datagram.bytes.empty(),
                 "wrong bytes");
    ++right;
  });
  socket.on_error([&](DatagramSocket&, const pawl::DatagramError&) { ++errors; });
  socket.on_closed([&](DatagramSocket&, std::error_code) { is_closed = true; });
  for (const char* text : {"one", "two", ""}) {
    if (socket.send_to(text, to)) ++errors;
  }
  // Where the kernel has no room for ever, they wait in the queue until the end.
  bool is_long = false;
  const pawl::ScopedHandle later(trial.loop().call_later(5s, [&] { is_long = true; }));
  trial.run_until([&] { return right + errors >= 3 || is_closed || is_long; });
  socket.close();
  trial.run_until([&] { return is_closed; });
}

}  // namespace

TEST_CASE("Datagrams whose calls fail come back right, or are told as lost") {
  each_call_fails([](CallTrial& trial) {
    DatagramSocket socket(trial.loop(), Endpoint::loopback(0));
    echo_datagrams(trial, socket, Endpoint::loopback(0));
  });
}

TEST_CASE("Datagrams of a Unix socket whose calls fail come back right, or are told as lost") {
  each_call_fails([](CallTrial& trial) {
    const TemporaryDirectory folder;
    DatagramSocket socket(trial.loop(), Endpoint::parse("unix:" + folder.file("ours")));
    echo_datagrams(trial, socket, Endpoint::parse("unix:" + folder.file("theirs")));
  });
}

TEST_CASE("A datagram socket with all options and a group says which of its calls failed") {
  each_call_fails([](CallTrial& trial) {
    pawl::DatagramOptions options;
    options.receive_buffer = 10'000;
    options.send_buffer = 10'000;
    options.reuse_address = options.reuse_port = options.broadcast = true;
    options.ttl = options.multicast_ttl = 2;
    options.multicast_interface = "lo";
    options.type_of_service = 4;
    DatagramSocket socket(trial.loop(), Endpoint::loopback(0), options);
    const Endpoint group = Endpoint::parse("239.1.2.3:0");
    if (!socket.join_group(group, "lo")) socket.leave_group(group, "lo");
    if (!socket.connect(Endpoint::loopback(9))) socket.connect(Endpoint());
  });
}
