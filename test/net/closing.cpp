// SPDX-License-Identifier: MIT
// close() towards a peer that still sends: its last bytes arrive, and it doesn't listen for ever.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/server.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Server;
using pawl::UniqueFd;

namespace {

constexpr std::size_t more_than_enough = 3'000'000;  // of input, for a close() to stop listening
constexpr std::size_t answer_bytes = 40'000;         // that fit into the kernel here, not there

enum class Kind { tcp, unix_socket };

std::string answer() { return noise(answer_bytes); }

/// Who sends much and takes little.
constexpr BufferSizes of_uploader{256 * 1024, 4096};

struct Stream {
  UniqueFd ours;
  UniqueFd theirs;
};

/// The kernel keeps an answer on its way while theirs isn't read.
Stream stream_of(EventLoop& loop, Kind kind) {
  if (kind == Kind::unix_socket) {
    SocketPair pair;
    return {std::move(pair.ours), std::move(pair.theirs)};
  }
  RawListener listener(1, of_uploader);
  UniqueFd ours = raw_connect(listener.endpoint(), BufferSizes{256 * 1024, 0});
  return {std::move(ours), listener.accept(loop)};
}

/// A peer that sends without end, and reads when it is told to.
struct Uploader {
  Uploader(EventLoop& its_loop, UniqueFd socket)
      : loop(its_loop), peer(its_loop, std::move(socket)) {
    peer.stop_reading();
  }
  /// Sends what fits now. False when nobody takes it any more.
  bool send_some() {
    const std::string block(10'000, 'x');
    const pawl::SystemResult sent =
        pawl::System::real().send(peer.fd(), block.data(), block.size());
    if (sent.ok()) said += sent.bytes();
    return sent.ok() || sent.would_block();
  }
  /// Sends that much, in passes that don't wait.
  void send(std::size_t bytes) {
    const std::size_t end = said + bytes;
    spin_until(loop, [&] { return !send_some() || said >= end; });
  }
  void check_got_all() {
    CHECK(difference(peer.received(), answer()) == "");
    CHECK(peer.error() == 0);
    CHECK(peer.has_ended());
  }

  EventLoop& loop;
  RawPeer peer;
  std::size_t said = 0;
};

ConnectionOptions patient() {
  ConnectionOptions options;
  options.close_timeout = 1h;
  return options;
}

}  // namespace

TEST_CASE("close() lets nothing overtake its last bytes, however much the peer still sends") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  EventLoop loop;
  Stream pair = stream_of(loop, kind);
  const auto connection = Connection::adopt(loop, std::move(pair.ours), patient());
  Recorder record(*connection);
  Uploader uploader(loop, std::move(pair.theirs));
  connection->write(answer());
  if (GENERATE(false, true)) connection->shutdown();
  connection->close();
  uploader.send(more_than_enough);
  REQUIRE(record.closed == 0);
  SECTION("and goes on sending") {
    uploader.peer.start_reading();
    spin_until(loop, [&] { return !uploader.send_some() || record.closed > 0; });
  }
  SECTION("and then says no more") { uploader.peer.start_reading(); }
  SECTION("and then ends") {
    uploader.peer.end();
    uploader.peer.start_reading();
  }
  run_until(loop, [&] { return uploader.peer.is_over() && record.closed > 0; });
  uploader.check_got_all();
  CHECK_FALSE(record.error);
  CHECK(record.order == "closed");
  CHECK(connection->close_reason() == CloseReason::clean);
}

TEST_CASE(
    "close() that could not give the peer everything in time is no success, and the peer knows") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  FaultyClock system;
  EventLoop loop(options_on(system));
  Stream pair = stream_of(loop, kind);
  ConnectionOptions options;
  options.close_timeout = 10s;
  const auto connection = Connection::adopt(loop, std::move(pair.ours), options);
  Recorder record(*connection);
  Uploader uploader(loop, std::move(pair.theirs));
  connection->write(answer());
  connection->close();
  uploader.send(more_than_enough);
  system.advance(10s - 1ns);
  passes(loop);
  REQUIRE(record.closed == 0);
  system.advance(1ns);
  spin_until(loop, [&] { return record.closed > 0; });
  CHECK(record.error == Errc::unsent_data);
  CHECK(connection->close_reason() == CloseReason::close_timeout);
  INFO(connection->describe());
  CHECK(connection->describe().find(kind == Kind::tcp ? "unacknowledged" : "unread") !=
        std::string::npos);
  uploader.peer.start_reading();
  spin_until(loop, [&] { return uploader.peer.is_over(); });
  if (kind == Kind::tcp) {
    CHECK(uploader.peer.error() == ECONNRESET);
  } else {
    CHECK(uploader.peer.received_bytes() == answer_bytes);  // nothing can be taken back
  }
}

TEST_CASE("A server that closes with grace lets nothing overtake its connections' last bytes") {
  EventLoop loop;
  pawl::ServerOptions options;
  options.connection = patient();
  Connection* accepted = nullptr;
  Server server(
      loop, Endpoint::loopback(0),
      [&](Connection& peer) {
        accepted = &peer;
        peer.write(answer());
      },
      options);
  Uploader uploader(loop, raw_connect(server.local_endpoint(), of_uploader));
  spin_until(loop, [&] { return accepted != nullptr && accepted->buffered() == 0; });
  std::error_code error = Errc::aborted;
  accepted->on_closed([&](Connection&, std::error_code reason) { error = reason; });
  server.close(1h);
  uploader.send(more_than_enough);
  REQUIRE(server.connections() == 1);
  uploader.peer.start_reading();
  run_until(loop, [&] { return server.connections() == 0 && uploader.peer.is_over(); });
  uploader.check_got_all();
  CHECK_FALSE(error);
}

TEST_CASE(
    "A close that waits for the peer to have everything looks now and then, and doesn't spin") {
  class CountsLooks final : public FaultySystem {
   public:
    pawl::SystemResult unacknowledged_bytes(int fd) override {
      ++looks;
      return System::unacknowledged_bytes(fd);
    }
    int looks = 0;
  };
  CountsLooks system;
  EventLoop loop(options_on(system));
  Stream pair = stream_of(loop, Kind::tcp);
  const auto connection = Connection::adopt(loop, std::move(pair.ours), patient());
  Uploader uploader(loop, std::move(pair.theirs));
  connection->write(answer());
  connection->close();
  uploader.send(more_than_enough);
  spin_until(loop, [&] { return connection->bytes_received() == uploader.said; });
  const int before = system.looks;
  CHECK(before > 0);
  int count = 0;
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < 300ms) {
    loop.run_once(50ms);
    ++count;
  }
  CHECK(count < 30);
  CHECK(system.looks - before < 10);
  CHECK(connection->state() != pawl::ConnectionState::done);
}

// Through a relay

TEST_CASE("A relay delivers a stream that was whole, although its sender is gone") {
  EventLoop loop;
  Stream client_pair = stream_of(loop, Kind::tcp);
  TcpPair upstream_pair;
  const auto to_client = Connection::adopt(loop, std::move(client_pair.ours), patient());
  const auto to_upstream = Connection::adopt(loop, std::move(upstream_pair.ours), patient());
  bool is_done = false;
  relay(*to_client, *to_upstream, [&](std::error_code) { is_done = true; });
  Uploader client(loop, std::move(client_pair.theirs));
  RawPeer upstream(loop, std::move(upstream_pair.theirs));
  upstream.send(answer());  // which comes before the question has been heard
  upstream.end();
  spin_until(loop, [&] { return to_upstream->has_peer_ended(); });
  upstream.reset();
  client.send(more_than_enough);
  client.peer.start_reading();
  run_until(loop, [&] { return client.peer.is_over() && is_done; });
  client.check_got_all();
}

// Fast Open

TEST_CASE("An end waits for the answer to a Fast Open's SYN, which it would take back otherwise") {
  class UnansweredSyn final : public FaultySystem {
   public:
    pawl::SystemResult getsockopt(int fd, int level, int name, void* value,
                                  unsigned* bytes) override {
      const pawl::SystemResult result = FaultySystem::getsockopt(fd, level, name, value, bytes);
      if (level == IPPROTO_TCP && name == TCP_INFO && is_unanswered) {
        *static_cast<std::uint8_t*>(value) = TCP_SYN_SENT;
      }
      return result;
    }
    bool is_unanswered = true;
  };
  UnansweredSyn system;
  EventLoop loop(options_on(system));
  ConnectionOptions options = patient();
  options.fast_open = true;
  Link link(loop, options);
  link.connection->write("request");
  const bool closes = GENERATE(false, true);
  closes ? link.connection->close() : link.connection->shutdown();
  passes(loop);
  CHECK(system.count(Call::shutdown) == 0);
  CHECK(link.peer.received() == "request");
  CHECK_FALSE(link.peer.has_ended());
  system.is_unanswered = false;
  run_until(loop, [&] { return link.peer.has_ended(); });
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK_FALSE(link.record.error);
  CHECK(link.connection->close_reason() == CloseReason::clean);
}
