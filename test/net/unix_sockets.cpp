// SPDX-License-Identifier: MIT
// Stream sockets of the Unix family: names, files, descriptors on their way, who is there.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/fd_message.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/descriptor_limit.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Listener;
using pawl::Server;
using pawl::UniqueFd;

namespace {

using Fds = std::vector<UniqueFd>;

void echo(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
}

Endpoint path_endpoint(const std::string& path) { return Endpoint::parse("unix:" + path); }

bool exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

/// What `connect` to a server at `endpoint` came to.
std::error_code visit(EventLoop& loop, const Endpoint& endpoint) {
  const auto visitor = Connection::connect(loop, endpoint);
  Recorder record(*visitor);
  visitor->write("hello");
  run_until(loop, [&] { return record.data == "hello" || record.closed > 0; });
  return record.error;
}

/// A socket file that nobody listens at: what a program that was killed leaves.
void leave_socket_file(const std::string& path, int type = SOCK_STREAM) {
  pawl::System& system = pawl::System::real();
  const UniqueFd fd(system.socket(AF_UNIX, type, 0).fd());
  const pawl::SocketAddress address(path_endpoint(path));
  REQUIRE(system.bind(fd.get(), address.get(), address.bytes()).ok());
}

/// Two connections over a pair of Unix sockets, the second one recorded.
struct UnixLink {
  explicit UnixLink(EventLoop& loop, SocketPair pair = SocketPair())
      : sender(Connection::adopt(loop, std::move(pair.ours))),
        receiver(Connection::adopt(loop, std::move(pair.theirs))),
        record(*receiver) {
    receiver->on_fds([this](Connection&, Fds came) {
      counts.push_back(came.size());
      order += "[" + std::to_string(came.size()) + "]";
      for (UniqueFd& fd : came) fds.push_back(std::move(fd));
    });
    receiver->on_data([this](Connection&, std::string_view bytes) { order += bytes; });
  }

  std::unique_ptr<Connection> sender;
  std::unique_ptr<Connection> receiver;
  Recorder record;
  std::string order;  // the bytes, and the numbers of descriptors where they came
  std::vector<std::size_t> counts;
  Fds fds;
};

/// Descriptors that can be told apart: `count` files, the nth of which holds n.
Fds numbered_files(const TemporaryDirectory& directory, int count) {
  Fds fds;
  for (int i = 0; i < count; ++i) {
    const std::string path = directory.file(std::to_string(i));
    std::ofstream(path) << i;
    fds.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  return fds;
}

std::string content(int fd) {
  char buffer[16];
  const pawl::SystemResult got = pawl::System::real().pread(fd, buffer, sizeof buffer, 0);
  return got.ok() ? std::string(buffer, got.bytes()) : "unreadable";
}

Fds one_fd() {
  Fds fds;
  fds.push_back(std::move(Pipe().reader));
  return fds;
}

}  // namespace

// Names

TEST_CASE("A server and its clients meet at a path or at an abstract name") {
  EventLoop loop;
  const TemporaryDirectory directory;
  Endpoint where;
  SECTION("path") { where = path_endpoint(directory.file("socket")); }
  SECTION("abstract") {
    where = Endpoint::parse("unix:@pawl-" + std::to_string(::getpid()) + "-names");
  }
  Server server(loop, where, echo);
  CHECK(server.local_endpoint() == where);
  const auto client = Connection::connect(loop, where);
  Recorder record(*client);
  const std::string bytes = noise(300'000);
  client->write(bytes);
  run_until(loop, [&] { return record.data.size() == bytes.size(); });
  CHECK(difference(record.data, bytes) == "");
  CHECK(client->peer_endpoint() == where);
  CHECK_FALSE(client->tcp_info());
  CHECK_THAT(client->describe(), Catch::StartsWith("connection to " + where.to_string()));
  client->close();
  run_until(loop, [&] { return record.closed == 1 && server.connections() == 0; });
  CHECK_FALSE(record.error);
  CHECK(client->close_reason() == CloseReason::clean);
}

TEST_CASE("A server at an abstract name that is taken says so") {
  EventLoop loop;
  const Endpoint where = Endpoint::parse("unix:@pawl-" + std::to_string(::getpid()) + "-taken");
  const Server server(loop, where, echo);
  CHECK_THROWS_WITH(Server(loop, where, echo),
                    Catch::Contains("bind") && Catch::Contains(where.to_string()));
  CHECK_FALSE(visit(loop, where));
}

// Files

TEST_CASE("The file of a Unix socket goes with its listener") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  std::optional<Server> server;
  server.emplace(loop, path_endpoint(path), echo);
  CHECK(exists(path));
  SECTION("closed") {
    server->close();
    CHECK(directory.is_empty());
    server.reset();
  }
  SECTION("destroyed") { server.reset(); }
  SECTION("closed by its own callback") {
    server.emplace(loop, path_endpoint(directory.file("other")),
                   [&](Connection&) { server->close(1s); });
    CHECK(directory.is_empty() == false);
    CHECK_FALSE(exists(path));
    visit(loop, server->local_endpoint());
  }
  CHECK(directory.is_empty());
  CHECK(visit(loop, path_endpoint(path)) == std::errc::no_such_file_or_directory);
}

TEST_CASE("A listener that can't listen leaves no file behind") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const TemporaryDirectory directory;
  system.fail(Call::listen, ENOMEM);
  CHECK_THROWS_AS(Server(loop, path_endpoint(directory.file("socket")), echo), std::system_error);
  CHECK(directory.is_empty());
}

TEST_CASE("A socket file that nobody listens at any more is replaced") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  leave_socket_file(path);
  REQUIRE(exists(path));
  const Server server(loop, path_endpoint(path), echo);
  CHECK_FALSE(visit(loop, path_endpoint(path)));
}

TEST_CASE("The path of a listener that lives isn't taken from it") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  const auto living = std::make_unique<Server>(loop, path_endpoint(path), echo);
  SECTION("with room in its backlog") {}
  SECTION("even when its backlog is full") {
    living->close();
    pawl::System& system = pawl::System::real();
    const UniqueFd full(system.socket(AF_UNIX, SOCK_STREAM, 0).fd());
    const UniqueFd waiting(system.socket(AF_UNIX, SOCK_STREAM, 0).fd());
    const pawl::SocketAddress address(path_endpoint(path));
    REQUIRE(system.bind(full.get(), address.get(), address.bytes()).ok());
    REQUIRE(system.listen(full.get(), 0).ok());
    REQUIRE(system.connect(waiting.get(), address.get(), address.bytes()).ok());
    CHECK_THROWS_AS(Server(loop, path_endpoint(path), echo), std::system_error);
    CHECK(exists(path));
    return;
  }
  try {
    const Server second(loop, path_endpoint(path), echo);
    FAIL("the second server took the path");
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::address_in_use);
    CHECK_THAT(error.what(), Catch::Contains("Listener at unix:" + path + ": bind"));
  }
  CHECK_FALSE(visit(loop, path_endpoint(path)));
}

TEST_CASE("What isn't a stream socket's file is never removed for a listener") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("precious");
  std::optional<UniqueFd> datagram;
  SECTION("a plain file") { std::ofstream(path) << "data"; }
  SECTION("a directory") { std::filesystem::create_directory(path); }
  SECTION("a link to a socket that nobody listens at") {
    leave_socket_file(directory.file("left"));
    std::filesystem::create_symlink(directory.file("left"), path);
  }
  SECTION("a datagram socket that lives") {
    pawl::System& system = pawl::System::real();
    datagram.emplace(system.socket(AF_UNIX, SOCK_DGRAM, 0).fd());
    const pawl::SocketAddress address(path_endpoint(path));
    REQUIRE(system.bind(datagram->get(), address.get(), address.bytes()).ok());
  }
  const pawl::SystemResult before = pawl::System::real().socket_inode(path.c_str());
  try {
    const Server server(loop, path_endpoint(path), echo);
    FAIL("the server took the path");
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::address_in_use);
  }
  CHECK(exists(path));
  const pawl::SystemResult after = pawl::System::real().socket_inode(path.c_str());
  CHECK(before.value == after.value);
  CHECK(before.error == after.error);
}

TEST_CASE("A listener doesn't remove the file of its successor") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  std::optional<Server> old(std::in_place, loop, path_endpoint(path), echo);
  REQUIRE(::unlink(path.c_str()) == 0);  // as an operator does to make room for the next one
  std::optional<Server> successor(std::in_place, loop, path_endpoint(path), echo);
  SECTION("closed") { old->close(); }
  SECTION("destroyed") { old.reset(); }
  CHECK(exists(path));
  CHECK_FALSE(visit(loop, path_endpoint(path)));
  successor.reset();
  CHECK_FALSE(exists(path));
}

TEST_CASE("A listener whose file somebody has removed or replaced goes without a word") {
  EventLoop loop;
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  Server server(loop, path_endpoint(path), echo);
  REQUIRE(::unlink(path.c_str()) == 0);
  SECTION("removed") {
    server.close();
    CHECK(directory.is_empty());
  }
  SECTION("replaced by a plain file") {
    std::ofstream(path) << "data";
    server.close();
    CHECK(exists(path));
  }
}

// Descriptors

TEST_CASE("Descriptors arrive, open and close-on-exec, before the bytes that they came with") {
  EventLoop loop;
  UnixLink link(loop);
  const TemporaryDirectory directory;
  int count = 1;
  SECTION("one") {}
  SECTION("several") { count = 5; }
  SECTION("as many as the kernel takes") { count = 253; }
  link.sender->write_fds("look", numbered_files(directory, count));
  run_until(loop, [&] { return link.order.size() >= 4 + 3; });
  CHECK(link.order == "[" + std::to_string(count) + "]look");
  REQUIRE(link.fds.size() == static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const int fd = link.fds[static_cast<std::size_t>(i)].get();
    if (content(fd) != std::to_string(i)) FAIL("descriptor " << i << " is another one");
    if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) FAIL("descriptor " << i << " is inherited");
  }
  CHECK(link.receiver->bytes_received() == 4);
  CHECK(link.sender->bytes_sent() == 4);
}

TEST_CASE("What can't be sent with descriptors is the caller's mistake, and nothing is kept") {
  EventLoop loop;
  UnixLink link(loop);
  const TemporaryDirectory directory;
  const std::size_t before = open_fd_count();
  CHECK_THROWS_AS(link.sender->write_fds("x", numbered_files(directory, 254)), std::logic_error);
  CHECK_THROWS_AS(link.sender->write_fds("", one_fd()), std::logic_error);
  CHECK_THROWS_AS(link.sender->write_fds("x", Fds()), std::logic_error);
  CHECK(open_fd_count() == before);
  CHECK(link.sender->state() == ConnectionState::receiving);
  link.sender->write("fine");
  run_until(loop, [&] { return link.order == "fine"; });
}

TEST_CASE("Descriptors over anything but a Unix socket are the caller's mistake") {
  EventLoop loop;
  const std::size_t before = open_fd_count();
  Link link(loop);
  CHECK_THROWS_AS(link.connection->write_fds("x", one_fd()), std::logic_error);
  const auto dial = Connection::connect(loop, refusing_endpoint());
  CHECK_THROWS_AS(dial->write_fds("x", one_fd()), std::logic_error);
  CHECK(open_fd_count() <= before + 4);
}

TEST_CASE("Descriptors that were written while CONNECTING go when it is connected") {
  EventLoop loop;
  const TemporaryDirectory directory;
  std::size_t came = 0;
  std::string data;
  Server server(loop, path_endpoint(directory.file("socket")), [&](Connection& peer) {
    peer.on_fds([&](Connection&, Fds fds) { came += fds.size(); });
    peer.on_data([&](Connection&, std::string_view bytes) { data += bytes; });
  });
  const auto client = Connection::connect(loop, server.local_endpoint());
  client->write("one ");
  client->write_fds("two ", numbered_files(directory, 3));
  client->write("three");
  run_until(loop, [&] { return data == "one two three"; });
  CHECK(came == 3);
}

TEST_CASE("Descriptors keep their place among other bytes, however full the socket is") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  UnixLink link(loop);
  const TemporaryDirectory directory;
  SECTION("written at once") {}
  SECTION("a few bytes at a time") { system.set_chunk_limit(3); }
  SECTION("when the kernel refuses now and then") {
    system.fail(Call::sendmsg, EAGAIN, 3, 1);
    system.fail(Call::send, ENOBUFS, 2, 1);
  }
  std::string expected;
  const auto write = [&](const std::string& bytes) {
    link.sender->write(bytes);
    expected += bytes;
  };
  const auto write_fds = [&](const std::string& bytes, int count) {
    link.sender->write_fds(bytes, numbered_files(directory, count));
    expected += bytes;
  };
  write("before ");
  write_fds("with two ", 2);
  write_fds("with three ", 3);
  write("between ");
  write_fds("with one ", 1);
  write("behind");
  std::string bytes;
  run_until(loop, [&] {
    bytes.clear();
    bool is_count = false;
    for (const char c : link.order) {
      if (c == '[') is_count = true;
      if (!is_count) bytes += c;
      if (c == ']') is_count = false;
    }
    return bytes.size() == expected.size();
  });
  CHECK(bytes == expected);
  CHECK(link.counts == std::vector<std::size_t>{2, 3, 1});
  // Those of a message come no later than its first byte, and after the message before it.
  CHECK(link.order.find("[3]") > link.order.find("[2]"));
  CHECK(link.order.find("[3]") <= link.order.find("with three "));
  CHECK(link.order.find("[1]") <= link.order.find("with one "));
}

TEST_CASE("Descriptors keep their place behind pieces that are sent together") {
  EventLoop loop;
  UnixLink link(loop);
  for (int i = 0; i < 3; ++i) link.sender->write(std::string(20'000, 'x'));
  link.sender->write_fds("with one ", one_fd());
  link.sender->write("behind");
  run_until(loop, [&] { return link.receiver->bytes_received() == 60'000 + 15; });
  CHECK(link.order.size() == 60'000 + 3 + 15);
  CHECK(link.order.find("[1]") <= link.order.find("with one "));
}

TEST_CASE("A message that is bigger than the socket's buffer takes its descriptors once") {
  EventLoop loop;
  UnixLink link(loop);
  const TemporaryDirectory directory;
  const std::string bytes = noise(3'000'000);
  link.sender->write_fds(bytes, numbered_files(directory, 2));
  std::string received;
  link.receiver->on_data([&](Connection&, std::string_view data) { received += data; });
  run_until(loop, [&] { return received.size() == bytes.size(); });
  CHECK(difference(received, bytes) == "");
  CHECK(link.counts == std::vector<std::size_t>{2});
}

TEST_CASE("Descriptors that were sent are closed here, those that weren't too") {
  EventLoop loop;
  const std::size_t before = open_fd_count();
  UnixLink link(loop);
  const std::size_t with_link = open_fd_count();
  SECTION("when they have gone") {
    link.sender->write_fds("x", one_fd());
    run_until(loop, [&] { return link.fds.size() == 1; });
    link.fds.clear();
    CHECK(open_fd_count() == with_link);
  }
  SECTION("when the connection is destroyed first") {
    link.sender->write_fds("x", one_fd());
    CHECK(open_fd_count() == with_link + 1);
    link.sender.reset();
    CHECK(open_fd_count() == with_link - 1);
  }
  SECTION("when it is aborted first") {
    link.sender->write_fds("x", one_fd());
    link.sender->abort();
    CHECK(open_fd_count() == with_link - 1);
    CHECK(link.sender->buffered() == 1);
  }
  SECTION("when it has been closed before") {
    link.sender->close();
    link.sender->write_fds("x", one_fd());
    CHECK(open_fd_count() == with_link);
  }
  SECTION("when it is over") {
    link.sender->abort();
    link.sender->write_fds("x", one_fd());
    CHECK(open_fd_count() == with_link - 1);
  }
  SECTION("when they are too much") {
    ConnectionOptions options;
    options.write_limit = 10;
    SocketPair pair;
    ::fill(pair.ours.get());
    const auto limited = Connection::adopt(loop, std::move(pair.ours), options);
    limited->write_fds("more than ten bytes", one_fd());
    CHECK(limited->error() == Errc::write_limit);
    pair.theirs.reset();
    CHECK(open_fd_count() == with_link);
  }
  link.sender.reset();
  link.receiver.reset();
  CHECK(open_fd_count() == before);
}

TEST_CASE("A connection that wants descriptors is told when it can't read any more") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  UnixLink link(loop);
  system.fail(Call::recvmsg, EIO);
  link.sender->write("x");
  run_until(loop, [&] { return link.record.closed > 0; });
  CHECK(link.record.error == std::errc::io_error);
  CHECK(link.order.empty());
}

TEST_CASE("What comes with descriptors counts for the idle timeout") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  UnixLink link(loop);
  system.advance(1s);
  link.sender->write_fds("look", one_fd());
  spin_until(loop, [&] { return link.order == "[1]look"; });
  CHECK(link.receiver->last_received_at() == system.now());
}

TEST_CASE("A connection that wants no descriptors gets the bytes, and the descriptors are closed") {
  EventLoop loop;
  UnixLink link(loop);
  link.receiver->on_fds({});
  const std::size_t before = open_fd_count();
  link.sender->write_fds("bytes", one_fd());
  run_until(loop, [&] { return link.order == "bytes"; });
  CHECK(open_fd_count() == before);
}

TEST_CASE("A connection that is closing drops the descriptors that still come") {
  EventLoop loop;
  UnixLink link(loop);
  const std::size_t before = open_fd_count();
  link.receiver->close();
  link.sender->on_eof([](Connection& self) { self.write_fds("bytes", one_fd()); });
  run_until(loop, [&] { return link.record.closed == 1; });
  CHECK(link.order == "");
  CHECK(link.fds.empty());
  CHECK(open_fd_count() == before - 2 + (link.sender->state() == ConnectionState::done ? 0 : 1));
}

TEST_CASE("Descriptors don't leak from a receiver that ends in its own on_fds") {
  EventLoop loop;
  UnixLink link(loop);
  const std::size_t before = open_fd_count();
  int calls = 0;
  std::size_t expected = before - 1;
  bool has_thrown = false;
  SECTION("destroyed") {
    link.receiver->on_fds([&](Connection&, Fds) {
      ++calls;
      link.receiver.reset();
    });
  }
  SECTION("destroyed, by another who takes them with it") {
    Fds kept;
    link.receiver->on_fds([&calls, &link](Connection&, Fds fds) {
      ++calls;
      const Fds mine = std::move(fds);
      link.receiver.reset();
    });
  }
  SECTION("aborted") {
    link.receiver->on_fds([&](Connection& self, Fds) {
      ++calls;
      self.abort();
    });
  }
  SECTION("by an exception") {
    expected = before;
    has_thrown = true;
    link.receiver->on_fds([&](Connection&, Fds) {
      ++calls;
      throw Thrown();
    });
  }
  link.sender->write_fds("bytes", one_fd());
  bool is_caught = false;
  run_until(loop, [&] {
    try {
      pass(loop);
    } catch (const Thrown&) {
      is_caught = true;
    }
    return calls == 1;
  });
  CHECK(is_caught == has_thrown);
  passes(loop);
  CHECK(calls == 1);
  if (has_thrown) {
    CHECK(link.order == "bytes");
  } else {
    CHECK(link.order == "");
    run_until(loop, [&] { return link.sender->state() == ConnectionState::done; });
    --expected;
  }
  CHECK(open_fd_count() == expected);
}

TEST_CASE("A receiver that pauses or is released in on_fds keeps the bytes that came along") {
  EventLoop loop;
  UnixLink link(loop);
  std::string unread;
  UniqueFd socket;
  bool is_released = false;
  SECTION("paused") {
    link.receiver->on_fds([&](Connection& self, Fds) { self.pause_reading(); });
  }
  SECTION("released") {
    is_released = true;
    link.receiver->on_fds([&](Connection& self, Fds) {
      Connection::Released released = self.release();
      unread = released.unread;
      socket = std::move(released.socket);
    });
  }
  link.sender->write_fds("bytes", one_fd());
  passes(loop, 5);
  CHECK(link.order == "");
  if (is_released) {
    CHECK(unread == "bytes");
    CHECK(link.record.closed == 1);
  } else {
    link.receiver->resume_reading();
    passes(loop, 3);
    CHECK(link.order == "bytes");
  }
}

TEST_CASE("Descriptors for which there is no room end the connection, and none leaks") {
  EventLoop loop;
  UnixLink link(loop);
  const TemporaryDirectory directory;
  const std::size_t before = open_fd_count();
  link.receiver->pause_reading();
  link.sender->write_fds("bytes", numbered_files(directory, 5));
  run_until(loop, [&] { return link.sender->buffered() == 0; });
  link.receiver->resume_reading();
  REQUIRE(link.record.closed == 0);
  {
    const NoDescriptorLeft full;
    run_until(loop, [&] { return link.receiver->state() == ConnectionState::done; });
  }
  run_until(loop, [&] { return link.record.closed == 1; });
  CHECK(link.fds.empty());
  CHECK(link.order == "bytes");  // that they came with
  CHECK(link.record.error == pawl::system_error_code(EMFILE));
  CHECK(link.receiver->close_reason() == CloseReason::failed);
  CHECK_THAT(link.receiver->describe(), Catch::Contains("receive descriptors in RECEIVING"));
  run_until(loop, [&] { return link.sender->state() == ConnectionState::done; });
  CHECK(open_fd_count() == before - 2);
}

TEST_CASE("A listening socket can be handed over to another connection's owner") {
  EventLoop loop;
  UnixLink link(loop);
  RawListener listener;
  const Endpoint there = listener.endpoint();
  Fds fds;
  fds.emplace_back(::fcntl(listener.fd(), F_DUPFD_CLOEXEC, 0));
  listener.close();
  link.sender->write_fds("serve", std::move(fds));
  run_until(loop, [&] { return link.fds.size() == 1; });
  const Server server(loop, std::move(link.fds[0]), echo);
  CHECK(server.local_endpoint() == there);
  CHECK_FALSE(visit(loop, there));
}

// Who is there

TEST_CASE("A connection over a Unix socket knows who is at its other end") {
  EventLoop loop;
  const TemporaryDirectory directory;
  std::optional<pawl::PeerCredentials> client_seen;
  Server server(loop, path_endpoint(directory.file("socket")),
                [&](Connection& peer) { client_seen = peer.peer_credentials(); });
  const auto client = Connection::connect(loop, server.local_endpoint());
  CHECK_FALSE(client->peer_credentials());  // not connected
  run_until(loop, [&] { return client_seen.has_value(); });
  const auto server_seen = client->peer_credentials();
  REQUIRE(server_seen);
  for (const pawl::PeerCredentials& seen : {*client_seen, *server_seen}) {
    CHECK(seen.process == ::getpid());
    CHECK(seen.user == ::getuid());
    CHECK(seen.group == ::getgid());
  }
  client->abort();
  CHECK_FALSE(client->peer_credentials());
}

TEST_CASE("A connection over TCP knows nobody's credentials") {
  EventLoop loop;
  const Link link(loop);
  CHECK_FALSE(link.connection->peer_credentials());
  CHECK(link.connection->tcp_info());
}
