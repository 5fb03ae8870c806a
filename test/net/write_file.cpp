// SPDX-License-Identifier: MIT
// Ranges of files among what a connection sends.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "support/open_fds.hpp"
#include "support/pipe_signals.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::UniqueFd;

namespace {

UniqueFd opened(const std::string& path, int flags = O_RDONLY) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

/// A file of its own that holds `bytes`.
class File {
 public:
  explicit File(std::string_view bytes) : path_(directory_.file("content")) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  UniqueFd open(int flags = O_RDONLY) const { return opened(path_, flags); }

 private:
  TemporaryDirectory directory_;
  std::string path_;
};

}  // namespace

TEST_CASE("A range of a file goes in order with what is written before and behind it") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const File file("0123456789");
  SECTION("as the kernel takes it") {}
  SECTION("three bytes at a time") { system.set_chunk_limit(3); }
  SECTION("when the kernel refuses now and then") { system.fail(Call::sendfile, EAGAIN, 2); }
  SECTION("when memory is short now and then") { system.fail(Call::sendfile, ENOMEM, 2); }
  SECTION("by way of memory") { system.fail(Call::sendfile, EINVAL, FaultySystem::forever); }
  SECTION("by way of memory, three bytes at a time") {
    system.fail(Call::sendfile, ENOSYS, FaultySystem::forever);
    system.set_chunk_limit(3);
  }
  SECTION("by way of memory, when the kernel refuses now and then") {
    system.fail(Call::sendfile, EINVAL, FaultySystem::forever);
    system.fail(Call::send, EAGAIN, 2, 1);
  }
  link.connection->write("before ");
  link.connection->write_file(file.open(), 0, 10);
  link.connection->write(" between ");
  link.connection->write_file(file.open(), 3, 4);
  link.connection->write_file(file.open(), 9, 1);
  link.connection->write_file(file.open(), 5, 0);  // nothing
  link.connection->write(" behind");
  CHECK(link.connection->buffered() == 7 + 10 + 9 + 4 + 1 + 7);
  CHECK(link.connection->state() == ConnectionState::sending);
  run_until(loop, [&] { return link.peer.received_bytes() >= 38; });
  CHECK(link.peer.received() == "before 0123456789 between 34569 behind");
  CHECK(link.connection->bytes_sent() == 38);
  CHECK(link.connection->buffered() == 0);
  CHECK(link.record.order.empty());
}

TEST_CASE("A file keeps its place behind and before pieces that are sent together") {
  EventLoop loop;
  Link link(loop);
  const File file("0123456789");
  std::string expected;
  const auto write_pieces = [&](std::uint32_t seed) {
    for (std::uint32_t i = 0; i < 3; ++i) {  // too big to be put together
      std::string piece = noise(20'000, seed + i);
      expected += piece;
      link.connection->write(std::move(piece));
    }
  };
  write_pieces(10);
  link.connection->write_file(file.open(), 0, 10);
  expected += "0123456789";
  write_pieces(20);
  run_until(loop, [&] { return link.peer.received_bytes() == expected.size(); });
  CHECK(difference(link.peer.received(), expected) == "");
}

TEST_CASE("A file for a peer that has gone ends the connection, and raises no SIGPIPE") {
  EventLoop loop;
  const PipeSignals signals;
  Link link(loop);
  const std::string content = noise(100'000);
  const File file(content);
  SECTION("as most programs have it") {}
  SECTION("while one waits already, which still does") {
    PipeSignals::block(true);
    ::raise(SIGPIPE);
  }
  link.peer.reset();
  passes(loop, 1);
  for (int i = 0; i < 3 && !link.is_closed(); ++i) {
    link.connection->write_file(file.open(), 0, content.size());
    passes(loop, 2);
  }
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.connection->close_reason() == CloseReason::peer_reset);
  CHECK(PipeSignals::count() == 0);
  const int waiting = PipeSignals::is_pending() ? 1 : 0;
  PipeSignals::block(false);
  CHECK(PipeSignals::count() == waiting);
}

TEST_CASE("A client that asks for a file and closes at once can't kill the process") {
  EventLoop loop;
  const PipeSignals signals;
  const std::string content = noise(3'000'000);
  const File file(content);
  int served = 0;
  std::vector<std::unique_ptr<Connection>> connections;
  for (int i = 0; i < 20; ++i) {
    TcpPair pair(tight);
    connections.push_back(Connection::adopt(loop, std::move(pair.ours)));
    connections.back()->on_data([&](Connection& self, std::string_view) {
      self.write_file(file.open(), 0, content.size());
    });
    connections.back()->on_closed([&](Connection&, std::error_code) { ++served; });
    RawPeer peer(loop, std::move(pair.theirs));
    peer.send("GET");
    passes(loop, i % 3);
    peer.close();  // with or without a reset, before and after the first bytes
  }
  run_until(loop, [&] { return served == 20; });
  CHECK(PipeSignals::count() == 0);
}

TEST_CASE("A file alone makes a connection SENDING, and on_drained tells when it has gone") {
  EventLoop loop;
  Link link(loop);
  link.record.attach_drained(*link.connection);
  const File file("hello");
  link.connection->write_file(file.open(), 0, 5);
  CHECK(link.connection->state() == ConnectionState::sending);
  run_until(loop, [&] { return link.record.drained == 1; });
  CHECK(link.connection->state() == ConnectionState::receiving);
  run_until(loop, [&] { return link.peer.received() == "hello"; });
}

TEST_CASE("A file that is written while CONNECTING goes when it is connected") {
  EventLoop loop;
  RawListener listener;
  const File file("hello");
  const auto connection = Connection::connect(loop, listener.endpoint());
  connection->write_file(file.open(), 0, 5);
  connection->close();
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.received() == "hello");
}

TEST_CASE("A file of 64 MiB goes through a small buffer whole, and none of it is kept in memory") {
  EventLoop loop;
  constexpr std::size_t block = 1024 * 1024;
  constexpr std::size_t count = 64;
  Checksum expected;
  std::string bytes;
  for (std::uint32_t i = 0; i < count; ++i) bytes += noise(block, i);
  const File file(bytes);
  expected.add(bytes);
  bytes = {};
  ConnectionOptions options;
  options.write_limit = block;
  TcpPair pair(BufferSizes{65536, 65536});
  const auto sender = Connection::adopt(loop, std::move(pair.ours), options);
  const auto receiver = Connection::adopt(loop, std::move(pair.theirs));
  Checksum received;
  receiver->on_data([&](Connection&, std::string_view data) { received.add(data); });
  sender->write_file(file.open(), 0, block * count);
  CHECK(sender->buffered() == block * count);
  CHECK_FALSE(sender->is_congested());
  sender->close();
  run_until(loop, [&] { return sender->state() == ConnectionState::done; });
  CHECK(received == expected);
  CHECK(sender->close_reason() == CloseReason::clean);
}

TEST_CASE("A file may have more bytes than a 32-bit number counts") {
  EventLoop loop;
  Link link(loop);
  constexpr std::uint64_t size = (std::uint64_t{1} << 32) + 5;
  const File file("");
  const UniqueFd hole = file.open(O_RDWR);
  REQUIRE(::ftruncate(hole.get(), size) == 0);
  REQUIRE(::pwrite(hole.get(), "hello", 5, size - 5) == 5);
  link.connection->write_file(file.open(), 0, size);
  CHECK(link.connection->buffered() ==
        std::min<std::uint64_t>(size, std::numeric_limits<std::size_t>::max()));
  CHECK_THAT(link.connection->describe(), Catch::Contains("4294967301 bytes unsent"));
  link.connection->abort();
  Link end(loop);
  end.connection->write_file(file.open(), size - 5, 5);
  run_until(loop, [&] { return end.peer.received() == "hello"; });
}

TEST_CASE("Files count neither for high_water nor for write_limit, other bytes do") {
  EventLoop loop;
  ConnectionOptions options;
  options.high_water = 100;
  options.write_limit = 1000;
  Link link(loop, options, tight);
  link.peer.stop_reading();
  const File file(noise(1'000'000));
  link.connection->write_file(file.open(), 0, 1'000'000);
  passes(loop, 3);
  CHECK_FALSE(link.connection->is_congested());
  CHECK(link.connection->error() == std::error_code());
  link.connection->write_file(file.open(), 0, 1'000'000);
  link.connection->write(std::string(1000, 'x'));
  CHECK(link.connection->is_congested());
  CHECK_FALSE(link.connection->error());
  link.connection->write("x");
  CHECK(link.connection->error() == Errc::write_limit);
  CHECK(link.connection->close_reason() == CloseReason::limit);
  CHECK(link.connection->buffered() > 1'000'000);
  run_until(loop, [&] { return link.is_closed(); });
}

TEST_CASE("A file that is shorter than was said ends the connection behind its last byte") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const File file("0123456789");
  std::uint64_t offset = 0;
  std::string expected = "before 0123456789";
  SECTION("by the kernel") {}
  SECTION("by way of memory") { system.fail(Call::sendfile, EINVAL, FaultySystem::forever); }
  SECTION("from behind its end") {
    offset = 100;
    expected = "before ";
  }
  bool is_asked = false;
  SECTION("in a callback") { is_asked = true; }
  const auto write = [&](Connection& self) {
    self.write("before ");
    self.write_file(file.open(), offset, 11);
    self.write("behind");
  };
  link.connection->on_data([&](Connection& self, std::string_view) { write(self); });
  if (is_asked) link.peer.send("now");
  if (!is_asked) write(*link.connection);
  run_until(loop, [&] { return link.is_closed() && link.peer.is_over(); });
  CHECK(link.peer.received() == expected);
  CHECK(link.record.error == Errc::file_ended);
  CHECK(link.connection->close_reason() == CloseReason::failed);
  CHECK(link.connection->buffered() == 7 + 11 + 6 - expected.size());
  CHECK_THAT(link.connection->describe(), Catch::Contains("DONE: write_file in SENDING: "));
  CHECK(link.record.closed == 1);
  CHECK(system.count(Call::shutdown) == 0);
}

TEST_CASE("A file that is cut short while it goes ends the connection") {
  EventLoop loop;
  Link link(loop, {}, tight);
  const File file(noise(1'000'000));
  link.connection->write_file(file.open(), 0, 1'000'000);
  link.peer.stop_reading();
  passes(loop, 3);
  REQUIRE(link.connection->buffered() > 10);
  REQUIRE(::ftruncate(file.open(O_RDWR).get(), 10) == 0);
  link.peer.start_reading();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == Errc::file_ended);
}

TEST_CASE("What can't be read as a file ends the connection with the kernel's error") {
  EventLoop loop;
  FaultySystem system;
  EventLoop faulty_loop(options_on(system));
  const File file("0123456789");
  UniqueFd unreadable;
  int expected = 0;
  std::size_t unsent = 10 + 7;
  SECTION("write-only") {
    unreadable = file.open(O_WRONLY);
    expected = EBADF;
  }
  SECTION("a directory") {
    unreadable = opened("/", O_RDONLY | O_DIRECTORY);
    expected = EISDIR;
  }
  SECTION("a pipe, which has no offsets") {
    unreadable = std::move(Pipe().reader);
    expected = ESPIPE;
  }
  SECTION("a socket") {
    unreadable = std::move(SocketPair().ours);
    expected = ESPIPE;
  }
  SECTION("no descriptor at all") {
    expected = EBADF;
    unsent = 7;  // "before "
  }
  SECTION("a broken disk") {
    unreadable = file.open();
    system.fail(Call::sendfile, EIO);
    system.fail(Call::pread, EIO);
    expected = EIO;
  }
  Link link(faulty_loop);
  link.connection->write("before ");
  link.connection->write_file(std::move(unreadable), 0, 10);
  link.connection->write(" behind");
  run_until(faulty_loop, [&] { return link.is_closed() && link.peer.is_over(); });
  CHECK(link.record.error == pawl::system_error_code(expected));
  CHECK(link.connection->close_reason() == CloseReason::failed);
  CHECK(link.connection->buffered() == unsent);
  CHECK_THAT(link.connection->describe(), Catch::Contains("write_file in "));
}

TEST_CASE("A file that the kernel makes up as it is read can be sent") {
  EventLoop loop;
  Link link(loop);
  std::string expected;
  std::getline(std::ifstream("/proc/version"), expected, '\0');
  REQUIRE(expected.size() > 20);
  link.connection->write_file(opened("/proc/version"), 0, expected.size());
  run_until(loop, [&] { return link.peer.received_bytes() >= expected.size(); });
  CHECK(link.peer.received() == expected);
}

TEST_CASE("A peer that has gone ends a file with the socket's error") {
  EventLoop loop;
  Link link(loop, {}, tight);
  const File file(noise(1'000'000));
  link.peer.stop_reading();
  link.connection->write_file(file.open(), 0, 1'000'000);
  passes(loop, 3);
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == std::errc::connection_reset);
  CHECK(link.connection->close_reason() == CloseReason::peer_reset);
  CHECK(link.connection->buffered() > 0);
}

TEST_CASE("A file is closed when it has gone, and when it can't go any more") {
  EventLoop loop;
  const File file("0123456789");
  auto link = std::make_unique<Link>(loop);
  const std::size_t before = open_fd_count();
  Connection& connection = *link->connection;
  std::size_t expected = before;
  SECTION("gone") {
    connection.write_file(file.open(), 0, 10);
    CHECK(open_fd_count() == before + 1);
    run_until(loop, [&] { return connection.buffered() == 0; });
  }
  SECTION("of no length") { connection.write_file(file.open(), 0, 0); }
  SECTION("after close()") {
    connection.close();
    connection.write_file(file.open(), 0, 10);
  }
  SECTION("aborted") {
    connection.write_file(file.open(), 0, 10);
    connection.abort();
    expected = before - 1;
    CHECK(connection.buffered() == 10);
  }
  SECTION("after the end") {
    connection.abort();
    connection.write_file(file.open(), 0, 10);
    expected = before - 1;
    CHECK(connection.buffered() == 0);
  }
  SECTION("destroyed") {
    connection.write_file(file.open(), 0, 10);
    link->connection.reset();
    expected = before - 1;
  }
  SECTION("never connected") {
    const auto dial = Connection::connect(loop, refusing_endpoint());
    dial->write_file(file.open(), 0, 10);
    run_until(loop, [&] { return dial->state() == ConnectionState::done; });
    CHECK(dial->buffered() == 10);
  }
  CHECK(open_fd_count() == expected);
}

TEST_CASE("Many files go in order, and each is closed when it has gone") {
  EventLoop loop;
  Link link(loop);
  const std::string bytes = noise(100'000);
  const File file(bytes);
  std::string expected;
  const std::size_t before = open_fd_count();
  for (std::size_t i = 0; i < 300; ++i) {
    const std::size_t offset = i * 97;
    const std::size_t length = i * 13;
    link.connection->write_file(file.open(), offset, length);
    expected += bytes.substr(offset, length);
    if (i % 3 != 0) continue;
    link.connection->write("|");
    expected += '|';
  }
  run_until(loop, [&] { return link.peer.received_bytes() >= expected.size(); });
  CHECK(difference(link.peer.received(), expected) == "");
  run_until(loop, [&] { return link.connection->buffered() == 0; });
  CHECK(open_fd_count() == before);
}

TEST_CASE("A file behind a close or a shutdown request is finished before the end is told") {
  EventLoop loop;
  Link link(loop, {}, tight);
  const std::string bytes = noise(500'000);
  const File file(bytes);
  link.connection->write_file(file.open(), 0, bytes.size());
  SECTION("closed") { link.connection->close(); }
  SECTION("shut down") { link.connection->shutdown(); }
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(difference(link.peer.received(), bytes) == "");
  CHECK(link.peer.error() == 0);
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK_FALSE(link.record.error);
}

TEST_CASE(
    "A file that doesn't move ends the connection after write_timeout, one that does doesn't") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  options.write_timeout = 10s;
  Link link(loop, options, tight);
  const File file(noise(2'000'000));
  link.peer.stop_reading();
  link.connection->write_file(file.open(), 0, 2'000'000);
  passes(loop);
  for (int i = 0; i < 5; ++i) {
    system.advance(6s);
    const std::uint64_t before = link.connection->bytes_sent();
    spin_until(loop, [&] {
      link.peer.read(100'000);
      return link.connection->bytes_sent() > before;
    });
  }
  passes(loop);
  CHECK_FALSE(link.is_closed());
  system.advance(10s);
  passes(loop);
  CHECK(link.record.error == Errc::timed_out);
  CHECK(link.connection->close_reason() == CloseReason::write_timeout);
}

TEST_CASE("A file over a Unix socket arrives") {
  EventLoop loop;
  SocketPair pair;
  const std::string bytes = noise(1'000'000);
  const File file(bytes);
  const auto sender = Connection::adopt(loop, std::move(pair.ours));
  RawPeer peer(loop, std::move(pair.theirs));
  sender->write_file(file.open(), 0, bytes.size());
  run_until(loop, [&] { return peer.received_bytes() >= bytes.size(); });
  CHECK(difference(peer.received(), bytes) == "");
}

TEST_CASE("A big file to a quick reader leaves other connections their turn") {
  EventLoop loop;
  Link big(loop);
  Link small(loop);
  big.peer.keep_nothing();
  constexpr std::uint64_t length = 32 * 1024 * 1024;
  const File file(std::string(length, 'x'));
  big.connection->write_file(file.open(), 0, length);
  small.connection->on_data([](Connection& self, std::string_view data) { self.write(data); });
  small.peer.send("ping");
  run_until(loop, [&] { return small.peer.received() == "ping"; });
  CHECK(big.connection->buffered() > 0);
}
