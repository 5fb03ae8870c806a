// SPDX-License-Identifier: MIT
// What was accepted and didn't go: the peer must not take a part for the whole.
#include <fcntl.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/server.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

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

constexpr std::size_t limit = 1'000'000;

ConnectionOptions with_limits() {
  ConnectionOptions options;
  options.idle_timeout = 10s;
  options.write_timeout = 20s;
  options.close_timeout = 5s;
  options.write_limit = limit;
  return options;
}

/// 40 kB fit into the kernel here, and not there.
constexpr BufferSizes roomy_here{64 * 1024, 4096};

/// Bytes that never fit into the smallest buffers.
std::string much() { return noise(500'000); }

std::size_t unread_at(const RawPeer& peer) {
  return pawl::System::real().unread_bytes(peer.fd()).bytes();
}

/// A peer that doesn't read, over TCP, in a loop whose clock stands still.
struct Stuck {
  explicit Stuck(BufferSizes sizes = tight) : link(loop, with_limits(), sizes) {
    link.peer.stop_reading();
  }
  void wait_for_end() {
    spin_until(loop, [&] { return link.is_closed(); });
    INFO(link.connection->describe());
    CHECK(link.record.error);
    CHECK(link.record.order == "closed");
  }
  /// That the peer gets a reset behind a part, and that the kernel doesn't go on sending.
  void check_cut() {
    wait_for_end();
    const std::uint64_t sent = link.connection->bytes_sent();
    const std::size_t arrived = unread_at(link.peer);
    link.peer.start_reading();
    spin_until(loop, [&] { return link.peer.is_over(); });
    INFO(link.connection->describe());
    CHECK(link.peer.error() == ECONNRESET);
    CHECK(link.peer.received_bytes() <= arrived);
    CHECK((sent == 0 || link.peer.received_bytes() < sent));
  }

  FaultyClock system;
  EventLoop loop{options_on(system)};
  Link link;
};

pawl::ServerOptions server_options(const ConnectionOptions& connection) {
  pawl::ServerOptions options;
  options.connection = connection;
  return options;
}

UniqueFd file_of(const TemporaryDirectory& directory, std::size_t bytes, int mode) {
  const std::string path = directory.file("file");
  UniqueFd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const std::string content = noise(bytes);
  REQUIRE(pawl::System::real().write(file.get(), content.data(), bytes).bytes() == bytes);
  return UniqueFd(::open(path.c_str(), mode | O_CLOEXEC));
}

}  // namespace

TEST_CASE("Whatever loses output ends a TCP connection with a reset, never with an end of a part") {
  Stuck stuck;
  const TemporaryDirectory directory;
  Connection& connection = *stuck.link.connection;
  const bool has_sent_some = GENERATE(false, true);
  if (has_sent_some) {
    connection.write(much());
    passes(stuck.loop);
    REQUIRE(connection.buffered() > 0);
  }
  SECTION("more than write_limit") { connection.write(std::string(limit + 8'000'000, 'x')); }
  SECTION("a file that is shorter than was said") {
    connection.write_file(file_of(directory, 1'000, O_RDONLY), 0, 2'000);
    stuck.link.peer.keep_nothing();
    stuck.link.peer.start_reading();
    spin_until(stuck.loop, [&] { return stuck.link.is_closed(); });
    CHECK(stuck.link.record.error == Errc::file_ended);
    spin_until(stuck.loop, [&] { return stuck.link.peer.is_over(); });
    CHECK(stuck.link.peer.error() == ECONNRESET);
    return;
  }
  SECTION("a file that can't be read") {
    connection.write_file(file_of(directory, 1'000, O_WRONLY), 0, 1'000);
    stuck.link.peer.start_reading();
    spin_until(stuck.loop, [&] { return stuck.link.is_closed(); });
    CHECK(stuck.link.record.error == std::errc::bad_file_descriptor);
    spin_until(stuck.loop, [&] { return stuck.link.peer.is_over(); });
    CHECK(stuck.link.peer.error() == ECONNRESET);
    return;
  }
  SECTION("write_timeout") {
    if (!has_sent_some) connection.write(much());
    passes(stuck.loop);
    for (int i = 0; i < 10 && !stuck.link.is_closed(); ++i) {  // the last look may find some room
      stuck.system.advance(20s);
      passes(stuck.loop);
    }
  }
  SECTION("close_timeout") {
    connection.write(much());
    connection.close();
    passes(stuck.loop);
    stuck.system.advance(5s);
  }
  SECTION("abort") {
    connection.write(much());
    connection.abort();
  }
  stuck.check_cut();
}

TEST_CASE("What the kernel holds back doesn't go on behind the back of who was told of a failure") {
  Stuck stuck(roomy_here);
  Connection& connection = *stuck.link.connection;
  connection.write(noise(40'000));
  passes(stuck.loop);
  REQUIRE(connection.buffered() == 0);
  SECTION("idle_timeout") { stuck.system.advance(10s); }
  SECTION("close_timeout") {
    connection.close();
    passes(stuck.loop);
    stuck.system.advance(5s);
  }
  SECTION("an error while it reads") {
    stuck.system.fail(Call::recv, EHOSTUNREACH);
    stuck.link.peer.send("hello");
  }
  CHECK(connection.buffered() == 0);
  stuck.check_cut();
  CHECK_THAT(connection.describe(), Catch::EndsWith(" bytes unacknowledged"));
}

TEST_CASE("An end that loses nothing is no reset, whatever it is") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  Link link(loop, with_limits());
  link.connection->write("all of it");
  spin_until(loop, [&] { return link.peer.received() == "all of it"; });
  SECTION("idle_timeout") { system.advance(10s); }
  SECTION("close_timeout") {
    link.connection->close();
    passes(loop);
    system.advance(5s);
  }
  spin_until(loop, [&] { return link.peer.is_over() && link.is_closed(); });
  CHECK(link.peer.has_ended());
  CHECK(link.peer.error() == 0);
}

TEST_CASE("A close that only waits for the peer to have everything isn't success before it has") {
  Stuck stuck(roomy_here);
  stuck.link.connection->write(noise(40'000));
  stuck.link.connection->close();
  passes(stuck.loop);
  stuck.system.advance(5s);
  stuck.wait_for_end();
  CHECK(stuck.link.record.error == Errc::unsent_data);
  CHECK(stuck.link.connection->close_reason() == CloseReason::close_timeout);
}

TEST_CASE("A server that is closed resets those to whom something is lost, and ends the others") {
  EventLoop loop;
  ConnectionOptions options = with_limits();
  options.write_timeout = {};
  Server server(
      loop, Endpoint::loopback(0), [](Connection& peer) { peer.write(noise(900'000)); },
      server_options(options));
  RawPeer reader(loop, raw_connect(server.local_endpoint()));
  RawPeer stuck(loop, raw_connect(server.local_endpoint(), tight));
  stuck.stop_reading();
  run_until(loop, [&] { return reader.received_bytes() == 900'000 && server.connections() == 2; });
  SECTION("without grace") { server.close(); }
  SECTION("when the grace is over") { server.close(20ms); }
  run_until(loop, [&] { return server.connections() == 0; });
  stuck.start_reading();
  run_until(loop, [&] { return reader.is_over() && stuck.is_over(); });
  CHECK(reader.error() == 0);
  CHECK(reader.has_ended());
  CHECK(stuck.error() == ECONNRESET);
  CHECK(stuck.received_bytes() < 900'000);
}

TEST_CASE("Over a Unix socket the peer gets what the kernel had taken, and then an end") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours), with_limits());
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.stop_reading();
  connection->write(noise(900'000));
  passes(loop);
  REQUIRE(connection->buffered() > 0);
  SECTION("write_limit") { connection->write(std::string(limit, 'x')); }
  SECTION("write_timeout") { system.advance(20s); }
  SECTION("abort") { connection->abort(); }
  spin_until(loop, [&] { return record.closed > 0; });
  CHECK(record.error);
  peer.start_reading();
  spin_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.has_ended());
  CHECK(peer.received_bytes() == connection->bytes_sent());
}
