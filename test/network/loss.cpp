// SPDX-License-Identifier: MIT
// A network that loses packets: what comes is right, and all of it comes.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "net/stream.hpp"
#include "network/two_hosts.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/server.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Server;

namespace {

/// Chance decides about each packet.
constexpr const char* three_in_ten = "numgen random mod 10 < 3 drop";

/// The same share, but never more than two in a row: chance would now and then lose so many that
/// TCP, which doubles its patience each time, waits for half a minute. And not the SYN, which costs
/// a second and has its own test.
constexpr const char* three_of_each_ten =
    "tcp flags & syn == syn accept\n"
    "numgen inc mod 10 vmap { 0 : drop, 1 : drop, 5 : drop }";

constexpr std::size_t megabyte = 1024 * 1024;

}  // namespace

TEST_CASE("A megabyte goes each way intact where three packets of each ten are lost") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.filter_both(three_of_each_ten);
  EventLoop loop;
  const std::string there = noise(megabyte, 1);
  const std::string back = noise(megabyte, 2);
  std::string arrived;
  CloseReason reason_there = CloseReason::open;
  std::optional<Server> server;
  hosts.on_far([&] {
    server.emplace(loop, TwoHosts::far(0), [&](Connection& peer) {
      peer.on_data([&](Connection&, std::string_view bytes) { arrived += bytes; });
      peer.on_closed(
          [&](Connection& self, std::error_code) { reason_there = self.close_reason(); });
      peer.write(back);
      peer.set_allow_half_open(true);
      peer.on_eof([](Connection& self) { self.close(); });
    });
  });
  const auto connection = Connection::connect(loop, server->local_endpoint());
  Recorder record(*connection);
  connection->set_allow_half_open(true);
  connection->write(there);
  connection->on_eof([](Connection& self) { self.close(); });
  run_until(loop, [&] {
    const bool is_all_there = arrived.size() >= megabyte && record.data.size() >= megabyte;
    return is_all_there || record.closed > 0 || reason_there != CloseReason::open;
  });
  const std::optional<pawl::TcpInfo> info = connection->tcp_info();
  connection->shutdown();
  run_until(loop, [&] { return record.closed > 0 && server->connections() == 0; });
  CHECK(difference(arrived, there).empty());
  CHECK(difference(record.data, back).empty());
  CHECK(record.error == std::error_code());
  CHECK(connection->close_reason() == CloseReason::clean);
  CHECK(reason_there == CloseReason::peer_ended);
  REQUIRE(info.has_value());
  CHECK(info->retransmissions > 0);  // the weather was as bad as it should be
}

TEST_CASE("A connection whose first SYN is lost comes with the second") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.filter_far("tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 drop");
  EventLoop loop;
  std::optional<Server> server;
  hosts.on_far([&] {
    server.emplace(loop, TwoHosts::far(0), [](Connection& peer) { peer.write("hello"); });
  });
  const pawl::TimePoint begin = loop.time();
  const auto connection = Connection::connect(loop, server->local_endpoint());
  Recorder record(*connection);
  run_until(loop, [&] { return record.closed > 0 || record.data == "hello"; });
  CHECK(record.order == "connected data");
  CHECK(connection->connected_at() - begin >= 900ms);  // RFC 6298 §2: one second, by a coarse clock
  CHECK(connection->attempts().empty());
}

TEST_CASE("Each datagram that is sent again until it is answered is answered, through any loss") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.filter_both(three_in_ten);
  EventLoop loop;
  std::optional<DatagramSocket> far;
  hosts.on_far([&] { far.emplace(loop, TwoHosts::far(0)); });
  far->on_datagram([](DatagramSocket& self, const pawl::Datagram& datagram) {
    self.send_to(datagram.bytes, datagram.from);
  });
  pawl::DatagramOptions options;
  options.peer = far->local_endpoint();
  DatagramSocket near(loop, Endpoint(), options);
  std::set<std::string> unanswered;
  for (int i = 0; i < 200; ++i) unanswered.insert(std::to_string(i));
  near.on_datagram([&](DatagramSocket&, const pawl::Datagram& datagram) {
    unanswered.erase(std::string(datagram.bytes));
  });
  int errors = 0;
  near.on_error([&](DatagramSocket&, const pawl::DatagramError&) { ++errors; });
  const auto send_all = [&] {
    for (const std::string& request : unanswered) near.send(request);
  };
  send_all();
  const pawl::ScopedHandle again(loop.call_every(20ms, send_all));
  run_until(loop, [&] { return unanswered.empty(); });
  CHECK(errors == 0);
  CHECK(near.datagrams_sent() > 200);  // some were lost
}
