// SPDX-License-Identifier: MIT
// Sockets from elsewhere that become connections, and what can't become one.
#include <fcntl.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <memory>
#include <system_error>
#include <utility>

#include "net/stream.hpp"
#include "support/sockets.hpp"

using pawl::Connection;
using pawl::ConnectionState;
using pawl::EventLoop;
using pawl::UniqueFd;

TEST_CASE("A blocking socket that is adopted doesn't hold the loop up") {
  EventLoop loop;
  TcpPair pair;
  const int fd = pair.ours.get();
  make_blocking(fd);
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.send("hello");
  run_until(loop, [&] { return record.data == "hello"; });
  passes(loop);  // each of which would wait for more
  connection->write("world");
  run_until(loop, [&] { return peer.received() == "world"; });
}

TEST_CASE("Adopting what is no connected stream socket closes it and ends the connection at once") {
  EventLoop loop;
  UniqueFd adopted;
  std::errc expected = std::errc::not_a_socket;
  SECTION("a datagram socket") {
    adopted = std::move(SocketPair(SOCK_DGRAM).ours);
    expected = std::errc::wrong_protocol_type;
  }
  SECTION("one of packets in sequence") {
    adopted = std::move(SocketPair(SOCK_SEQPACKET).ours);
    expected = std::errc::wrong_protocol_type;
  }
  SECTION("a listening socket") {
    adopted.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::listen(adopted.get(), 1) == 0);
    expected = std::errc::not_connected;
  }
  SECTION("a stream socket that isn't connected") {
    adopted.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    expected = std::errc::not_connected;
  }
  SECTION("one of the machine that isn't connected") {
    adopted.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    expected = std::errc::not_connected;
  }
  SECTION("a file") { adopted.reset(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); }
  SECTION("a directory") { adopted.reset(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }
  SECTION("a device") { adopted.reset(::open("/dev/null", O_RDWR | O_CLOEXEC)); }
  const int fd = adopted.get();
  REQUIRE(fd >= 0);
  const auto connection = Connection::adopt(loop, std::move(adopted));
  CHECK_FALSE(adopted);
  CHECK(connection->state() == ConnectionState::done);
  CHECK(::fcntl(fd, F_GETFD) == -1);  // it was the connection's, which has closed it
  const UniqueFd other(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(other.get() == fd);  // the number is somebody else's now
  Recorder record(*connection);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == expected);
  CHECK(::fcntl(fd, F_GETFD) != -1);  // and isn't closed a second time
}
