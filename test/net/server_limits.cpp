// SPDX-License-Identifier: MIT
// Whom a server lets in, and where its sockets come from.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/inherited_sockets.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/environment.hpp"
#include "support/forked.hpp"
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
using pawl::ServerOptions;
using pawl::UniqueFd;

namespace {

void echo(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
}

void ignore(Connection&) {}

/// A client that says hello, from an address of its own if there is one.
struct Client {
  Client(EventLoop& loop, const Endpoint& endpoint, const std::string& from = "")
      : connection(Connection::connect(loop, endpoint, options(from))), record(*connection) {
    connection->write("hello");
  }
  static ConnectionOptions options(const std::string& from) {
    ConnectionOptions options;
    if (!from.empty()) options.bind = Endpoint::from_address(from, 0);
    return options;
  }
  bool is_served() const { return record.data == "hello"; }
  bool is_over() const { return is_served() || record.closed > 0; }

  std::unique_ptr<Connection> connection;
  Recorder record;
};

}  // namespace

// Limits

TEST_CASE("A server takes so many connections of one address, and turns the others away") {
  EventLoop loop;
  ServerOptions options;
  options.max_connections_per_peer = 2;
  Server server(loop, Endpoint::any(0), echo, options);
  const Endpoint there = Endpoint::loopback(server.local_endpoint().port());
  Client first(loop, there);
  Client second(loop, there);
  run_until(loop, [&] { return first.is_served() && second.is_served(); });
  Client third(loop, there);
  run_until(loop, [&] { return third.is_over(); });
  CHECK_FALSE(third.is_served());
  CHECK(server.refused() == 1);
  CHECK(server.connections() == 2);
  Client elsewhere(loop, there, "127.0.0.9");
  run_until(loop, [&] { return elsewhere.is_over(); });
  CHECK(elsewhere.is_served());
  // One leaves, and there is room again, once.
  first.connection->abort();
  run_until(loop, [&] { return server.connections() == 2; });
  Client fourth(loop, there);
  run_until(loop, [&] { return fourth.is_over(); });
  CHECK(fourth.is_served());
  Client fifth(loop, there);
  run_until(loop, [&] { return fifth.is_over(); });
  CHECK_FALSE(fifth.is_served());
  CHECK(server.refused() == 2);
}

TEST_CASE("A connection that was released or couldn't be started makes room for its address") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.max_connections_per_peer = 1;
  UniqueFd released;
  Server server(
      loop, Endpoint::loopback(0),
      [&](Connection& peer) {
        peer.on_data([&](Connection& self, std::string_view bytes) {
          self.write(bytes);
          released = std::move(self.release().socket);
        });
      },
      options);
  for (int i = 0; i < 3; ++i) {
    Client client(loop, server.local_endpoint());
    run_until(loop, [&] { return client.is_over(); });
    CHECK(client.is_served());
    run_until(loop, [&] { return server.connections() == 0; });
  }
  CHECK(server.refused() == 0);
}

TEST_CASE("The clients of a Unix socket have no address, and no limit for one") {
  EventLoop loop;
  const TemporaryDirectory directory;
  ServerOptions options;
  options.max_connections_per_peer = 1;
  Server server(loop, Endpoint::parse("unix:" + directory.file("socket")), echo, options);
  Client first(loop, server.local_endpoint());
  Client second(loop, server.local_endpoint());
  run_until(loop, [&] { return first.is_over() && second.is_over(); });
  CHECK(first.is_served());
  CHECK(second.is_served());
}

TEST_CASE("A server that is paused accepts no one until it is resumed") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  server.pause();
  server.pause();
  Client client(loop, server.local_endpoint());
  passes(loop, 20);
  CHECK(client.record.order == "connected");  // the kernel's backlog has it
  CHECK(server.connections() == 0);
  CHECK_THAT(server.describe(), Catch::Contains("PAUSED, 0 connections"));
  server.resume();
  run_until(loop, [&] { return client.is_served(); });
}

TEST_CASE("A pause and a full server hold the door together") {
  EventLoop loop;
  ServerOptions options;
  options.max_connections = 1;
  Server server(loop, Endpoint::loopback(0), echo, options);
  auto first = std::make_unique<Client>(loop, server.local_endpoint());
  run_until(loop, [&] { return first->is_served(); });
  Client second(loop, server.local_endpoint());
  passes(loop);
  CHECK_FALSE(second.is_served());
  SECTION("paused while it was full: room alone doesn't open it") {
    server.pause();
    first->connection->abort();
    run_until(loop, [&] { return server.connections() == 0; });
    passes(loop, 20);
    CHECK_FALSE(second.is_served());
    server.resume();
  }
  SECTION("resumed while it is full: that alone doesn't open it") {
    server.pause();
    server.resume();
    passes(loop, 20);
    CHECK_FALSE(second.is_served());
    CHECK(server.connections() == 1);
    first->connection->abort();
  }
  run_until(loop, [&] { return second.is_served(); });
}

TEST_CASE("A server may be paused from inside on_connection, and the rest of a burst waits") {
  EventLoop loop;
  std::optional<Server> server;
  server.emplace(loop, Endpoint::loopback(0), [&](Connection& peer) {
    echo(peer);
    server->pause();
  });
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<Client>(loop, server->local_endpoint()));
  }
  for (std::size_t i = 1; i <= 5; ++i) {
    run_until(loop, [&] { return server->connections() == i; });
    passes(loop, 20);
    CHECK(server->connections() == i);
    server->resume();
  }
}

TEST_CASE("A server that is closed stays closed, whatever is paused or resumed") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  SECTION("while it was paused") { server.pause(); }
  SECTION("while it wasn't") {}
  server.close();
  server.pause();
  server.resume();
  CHECK_THAT(server.describe(), Catch::Contains(" DONE, "));
  Client client(loop, server.local_endpoint());
  run_until(loop, [&] { return client.is_over(); });
  CHECK(client.record.error == std::errc::connection_refused);
}

// for_each

TEST_CASE("A server visits each of its connections, which may be ended meanwhile") {
  EventLoop loop;
  std::optional<Server> server(std::in_place, loop, Endpoint::loopback(0), ignore);
  std::vector<std::unique_ptr<RawPeer>> peers;
  for (int i = 0; i < 5; ++i) {
    peers.push_back(std::make_unique<RawPeer>(loop, raw_connect(server->local_endpoint())));
  }
  run_until(loop, [&] { return server->connections() == 5; });
  int visits = 0;
  SECTION("aborted") {
    server->for_each([&](Connection& connection) {
      ++visits;
      connection.abort();
    });
    CHECK(visits == 5);
    CHECK(server->connections() == 5);  // not yet told
    run_until(loop, [&] { return server->connections() == 0; });
  }
  SECTION("closed") {
    server->for_each([&](Connection& connection) {
      ++visits;
      connection.close();
    });
    CHECK(visits == 5);
    for (const auto& peer : peers) {
      run_until(loop, [&] { return peer->has_ended(); });
      peer->end();
    }
    run_until(loop, [&] { return server->connections() == 0; });
  }
  SECTION("released") {
    std::vector<UniqueFd> sockets;
    server->for_each([&](Connection& connection) {
      ++visits;
      sockets.push_back(std::move(connection.release().socket));
    });
    CHECK(visits == 5);
    run_until(loop, [&] { return server->connections() == 0; });
  }
  SECTION("with the server destroyed by the second visit") {
    server->for_each([&](Connection&) {
      if (++visits == 2) server.reset();
    });
    CHECK(visits == 2);
    for (const auto& peer : peers) run_until(loop, [&] { return peer->is_over(); });
  }
  SECTION("from a callback of one of them, which is among them") {
    server->for_each([&](Connection& connection) {
      connection.on_data([&](Connection&, std::string_view) {
        server->for_each([&](Connection& each) {
          ++visits;
          each.abort();
        });
        CHECK(server->connections() == 5);
      });
    });
    peers[2]->send("now");
    run_until(loop, [&] { return server->connections() == 0; });
    CHECK(visits == 5);
  }
  SECTION("with an exception") {
    CHECK_THROWS_AS(server->for_each([&](Connection&) { throw Thrown(); }), Thrown);
    CHECK(server->connections() == 5);
  }
}

// adopt

TEST_CASE("A server takes a socket that somebody else accepted, from the loop") {
  EventLoop loop;
  TcpPair pair;
  int shown = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    ++shown;
    CHECK(connection.state() == ConnectionState::receiving);
    CHECK(connection.peer_endpoint().host() == "127.0.0.1");
    echo(connection);
  });
  RawPeer peer(loop, std::move(pair.theirs));
  peer.send("hello");
  server.adopt(std::move(pair.ours));
  CHECK(shown == 0);  // no call calls back before it returns
  run_until(loop, [&] { return peer.received() == "hello"; });
  CHECK(shown == 1);
  CHECK(server.connections() == 1);
  server.close();
  run_until(loop, [&] { return peer.is_over(); });
}

TEST_CASE("The limits of a server don't hold for what it adopts, but it counts") {
  EventLoop loop;
  ServerOptions options;
  options.max_connections = 1;
  Server server(loop, Endpoint::loopback(0), echo, options);
  TcpPair one;
  TcpPair two;
  server.adopt(std::move(one.ours));
  server.adopt(std::move(two.ours));
  run_until(loop, [&] { return server.connections() == 2; });
  Client client(loop, server.local_endpoint());
  passes(loop, 20);
  CHECK_FALSE(client.is_served());
  one.theirs.reset();
  run_until(loop, [&] { return server.connections() == 1; });
  passes(loop, 20);
  CHECK_FALSE(client.is_served());
  two.theirs.reset();
  run_until(loop, [&] { return client.is_served(); });
}

TEST_CASE("What a server was to adopt is closed when it has gone or was closed meanwhile") {
  EventLoop loop;
  TcpPair pair;
  TcpPair other;
  RawPeer peer(loop, std::move(pair.theirs));
  RawPeer other_peer(loop, std::move(other.theirs));
  int shown = 0;
  std::optional<Server> server;
  server.emplace(loop, Endpoint::loopback(0), [&](Connection&) {
    ++shown;
    server.reset();
  });
  SECTION("destroyed") {
    server->adopt(std::move(pair.ours));
    server->adopt(std::move(other.ours));
    server.reset();
    passes(loop);
    CHECK(shown == 0);
  }
  SECTION("destroyed by the first of them") {
    server->adopt(std::move(pair.ours));
    server->adopt(std::move(other.ours));
    run_until(loop, [&] { return shown > 0; });
    passes(loop);
    CHECK(shown == 1);
  }
  SECTION("closed before") {
    server->close();
    server->adopt(std::move(pair.ours));
    server->adopt(std::move(other.ours));
    passes(loop);
    CHECK(shown == 0);
    CHECK(server->connections() == 0);
  }
  SECTION("closed after") {
    server->adopt(std::move(pair.ours));
    server->adopt(std::move(other.ours));
    server->close(1s);
    passes(loop);
    CHECK(shown == 0);
  }
  run_until(loop, [&] { return peer.is_over() && other_peer.is_over(); });
}

TEST_CASE("What can't be a connection is dropped by the server that was to adopt it") {
  EventLoop loop;
  int shown = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection&) { ++shown; });
  SECTION("no descriptor") { server.adopt(UniqueFd()); }
  SECTION("one that is watched already") {
    TcpPair pair;
    const int fd = pair.ours.get();
    loop.add_reader(fd, [] {});
    server.adopt(std::move(pair.ours));
    passes(loop);
    loop.remove_reader(fd);
  }
  passes(loop);
  CHECK(shown == 0);
  CHECK(server.connections() == 0);
}

TEST_CASE("A blocking socket that a server adopts doesn't hold the loop up") {
  EventLoop loop;
  TcpPair pair;
  make_blocking(pair.ours.get());
  Server server(loop, Endpoint::loopback(0), echo);
  RawPeer peer(loop, std::move(pair.theirs));
  server.adopt(std::move(pair.ours));
  peer.send("hello");
  run_until(loop, [&] { return peer.received() == "hello"; });
  passes(loop);  // each of which would wait for more
}

TEST_CASE("What is no connected stream socket is closed by the server that was to adopt it") {
  EventLoop loop;
  int shown = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection&) { ++shown; });
  const std::size_t before = open_fd_count();
  server.adopt(std::move(SocketPair(SOCK_DGRAM).ours));
  server.adopt(std::move(SocketPair(SOCK_SEQPACKET).ours));
  server.adopt(bound_socket(SOCK_STREAM));  // which listens
  server.adopt(std::move(Pipe().reader));
  passes(loop);
  CHECK(shown == 0);
  CHECK(server.connections() == 0);
  CHECK(open_fd_count() == before);
}

TEST_CASE("A server isn't made of a listening socket that isn't of streams") {
  EventLoop loop;
  pawl::System& system = pawl::System::real();
  UniqueFd socket(system.socket(AF_UNIX, SOCK_SEQPACKET, 0).fd());
  const sockaddr unnamed{AF_UNIX, {}};
  REQUIRE(system.bind(socket.get(), &unnamed, sizeof unnamed.sa_family).ok());
  REQUIRE(system.listen(socket.get(), 1).ok());
  CHECK_THROWS_WITH(Server(loop, std::move(socket), ignore),
                    Catch::Contains("is no stream socket"));
}

// Sockets from elsewhere

TEST_CASE("A server serves at a socket that listens already") {
  EventLoop loop;
  UniqueFd socket = bound_socket(SOCK_STREAM);
  make_blocking(socket.get());
  const int fd = socket.get();
  Server server(loop, std::move(socket), echo);
  CHECK(server.local_endpoint().port() == ntohs(address_of(fd).sin_port));
  CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);  // or accept() would hold the loop up
  Client client(loop, server.local_endpoint());
  run_until(loop, [&] { return client.is_served(); });
  server.close();
  CHECK_FALSE(pawl::System::real().is_open(fd));
}

TEST_CASE("What isn't a listening socket is refused in clear words, and closed") {
  EventLoop loop;
  const bool is_server = GENERATE(true, false);
  const std::size_t before = open_fd_count();
  UniqueFd socket;
  int expected = EINVAL;
  SECTION("a connected socket") { socket = std::move(TcpPair().ours); }
  SECTION("a pipe") {
    socket = std::move(Pipe().reader);
    expected = ENOTSOCK;
  }
  SECTION("no descriptor") { expected = EBADF; }
  SECTION("a datagram socket") { socket = bound_socket(SOCK_DGRAM); }
  const std::string name = "descriptor " + std::to_string(socket.get());
  try {
    if (is_server) Server(loop, std::move(socket), ignore);
    if (!is_server) Listener(loop, std::move(socket), [](UniqueFd, const Endpoint&) {});
    FAIL("it was taken");
  } catch (const std::system_error& error) {
    CHECK(error.code() == pawl::system_error_code(expected));
    CHECK_THAT(error.what(), Catch::Contains(name + ": is no listening socket"));
  }
  CHECK(open_fd_count() == before);
}

TEST_CASE("The sockets that a program was started with are taken once, with their names") {
  const UniqueFd socket = bound_socket(SOCK_STREAM);
  const UniqueFd other = bound_socket(SOCK_STREAM);
  const UniqueFd client(pawl::System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
  const int code = exit_code_of_fork([&] {
    const int first_fd = ::fcntl(socket.get(), F_DUPFD, 100);  // out of the way of 3 and 4
    const int second_fd = ::fcntl(other.get(), F_DUPFD, 100);
    const sockaddr_in where = address_of(first_fd);
    ::dup2(first_fd, 3);
    ::dup2(second_fd, 4);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "2", 1);
    ::setenv("LISTEN_FDNAMES", "web:admin", 1);
    auto sockets = pawl::inherited_sockets();
    if (sockets.size() != 2) return 1;
    if (sockets[0].name != "web" || sockets[1].name != "admin") return 2;
    if (sockets[0].socket.get() != 3 || sockets[1].socket.get() != 4) return 3;
    if ((::fcntl(3, F_GETFD) & FD_CLOEXEC) == 0) return 4;
    for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
      if (std::getenv(name) != nullptr) return 5;
    }
    if (!pawl::inherited_sockets().empty()) return 6;
    EventLoop loop;
    Server server(loop, std::move(sockets[0].socket), echo);
    if (server.local_endpoint().port() != ntohs(where.sin_port)) return 7;
    Client visitor(loop, server.local_endpoint());
    for (int i = 0; i < 1000 && !visitor.is_over(); ++i) loop.run_once(100ms);
    return visitor.is_served() ? 0 : 8;
  });
  CHECK(code == 0);
}

TEST_CASE("A program that was started with no sockets, or others' ones, gets none") {
  const std::string own = std::to_string(::getpid());
  const char* pid = own.c_str();
  const char* count = "1";
  bool stays = true;
  SECTION("nothing is said") { pid = count = nullptr; }
  SECTION("they are another process's") { pid = "1"; }
  SECTION("whose they are isn't said") { pid = nullptr; }
  SECTION("whose they are is nonsense") { pid = "self"; }
  SECTION("none") {
    count = "0";
    stays = false;
  }
  SECTION("fewer than none") {
    count = "-1";
    stays = false;
  }
  SECTION("how many isn't said") {
    count = nullptr;
    stays = false;
  }
  SECTION("how many is nonsense") {
    count = "3x";
    stays = false;
  }
  SECTION("more than there are numbers") {
    count = "99999999999999999999";
    stays = false;
  }
  const ScopedVariable process("LISTEN_PID", pid);
  const ScopedVariable sockets("LISTEN_FDS", count);
  const std::size_t before = open_fd_count();
  CHECK(pawl::inherited_sockets().empty());
  CHECK(open_fd_count() == before);
  // What is for another process is left for it.
  CHECK((std::getenv("LISTEN_PID") != nullptr) == (stays && pid != nullptr));
}

TEST_CASE("Sockets that were announced and aren't there are left out, and names may be missing") {
  const UniqueFd socket = bound_socket(SOCK_STREAM);
  const int code = exit_code_of_fork([&] {
    const int kept = ::fcntl(socket.get(), F_DUPFD, 100);
    for (int fd = 3; fd < 20; ++fd) ::close(fd);
    ::dup2(kept, 3);
    ::dup2(kept, 5);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "2147483647", 1);  // first_fd + this is no int
    ::setenv("LISTEN_FDNAMES", "a:b", 1);
    const auto sockets = pawl::inherited_sockets();
    if (sockets.size() < 2) return 1;
    if (sockets[0].name != "a" || sockets[0].socket.get() != 3) return 2;
    if (!sockets[1].name.empty() || sockets[1].socket.get() != 5) return 3;
    return 0;
  });
  CHECK(code == 0);
}

// Options

TEST_CASE("What a server accepts has the options of its listener, without a call for each") {
  class Accepted final : public FaultySystem {
   public:
    pawl::SystemResult accept(int fd, sockaddr* address, unsigned* bytes) override {
      const pawl::SystemResult result = FaultySystem::accept(fd, address, bytes);
      if (result.ok()) last = result.fd();
      return result;
    }
    int option(int level, int name) {
      int value = -1;
      unsigned bytes = sizeof value;
      System::getsockopt(last, level, name, &value, &bytes);
      return value;
    }
    int last = -1;
  };
  Accepted system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.connection.keep_alive = 61s;
  options.connection.keep_alive_interval = 7s;
  options.connection.keep_alive_probes = 3;
  options.connection.user_timeout = 7s;
  options.connection.send_buffer = 50'000;
  options.connection.receive_buffer = 60'000;
  options.connection.type_of_service = 0x28;
  Server server(loop, Endpoint::loopback(0), ignore, options);
  const int calls = system.count(Call::setsockopt);
  const RawPeer peer(loop, raw_connect(server.local_endpoint()));
  run_until(loop, [&] { return server.connections() == 1; });
  CHECK(system.count(Call::setsockopt) == calls);
  CHECK(system.option(IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(system.option(SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPIDLE) == 61);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPINTVL) == 7);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPCNT) == 3);
  CHECK(system.option(IPPROTO_TCP, TCP_USER_TIMEOUT) == 7000);
  CHECK(system.option(SOL_SOCKET, SO_SNDBUF) == 100'000);
  CHECK(system.option(SOL_SOCKET, SO_RCVBUF) == 120'000);
  CHECK(system.option(IPPROTO_IP, IP_TOS) == 0x28);
}

TEST_CASE("A stream's type of service at [::] holds for IPv4 too, when accepted and when dialed") {
  struct Sockets final : public FaultySystem {
    pawl::SystemResult socket(int family, int type, int protocol) override {
      return noted(dialed, FaultySystem::socket(family, type, protocol));
    }
    pawl::SystemResult accept(int fd, sockaddr* address, unsigned* bytes) override {
      return noted(accepted, FaultySystem::accept(fd, address, bytes));
    }
    static pawl::SystemResult noted(int& place, pawl::SystemResult result) {
      if (result.ok()) place = result.fd();
      return result;
    }
    int option(int fd, int level, int name) {
      int value = -1;
      unsigned bytes = sizeof value;
      System::getsockopt(fd, level, name, &value, &bytes);
      return value;
    }
    int dialed = -1;
    int accepted = -1;
  };
  Sockets system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.connection.type_of_service = 0x28;
  Server server(loop, Endpoint::parse("[::]:0"), ignore, options);
  const std::uint16_t port = server.local_endpoint().port();
  const std::string host = GENERATE("127.0.0.1", "::1", "::ffff:127.0.0.1");
  const auto client = Connection::connect(loop, host, port, options.connection);
  const Recorder record(*client);
  run_until(loop, [&] { return server.connections() == 1; });
  for (const int fd : {system.dialed, system.accepted}) {
    CHECK(system.option(fd, IPPROTO_IP, IP_TOS) == 0x28);
    if (host != "127.0.0.1" || fd == system.accepted) {
      CHECK(system.option(fd, IPPROTO_IPV6, IPV6_TCLASS) == 0x28);
    }
  }
}

TEST_CASE("A listener's setting that fails is an exception that names it") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  std::string expected;
  SECTION("mark") {
    options.connection.no_delay = false;
    options.connection.mark = 7;
    system.fail(Call::setsockopt, EPERM, 1, 1);  // behind SO_REUSEADDR
    expected = "SO_MARK";
  }
  SECTION("interface") {
    options.connection.interface = "no-such-one";
    expected = "SO_BINDTODEVICE";
  }
  SECTION("reuse_port") {
    options.reuse_port = true;
    system.fail(Call::setsockopt, ENOPROTOOPT, 1, 2);
    expected = "SO_REUSEPORT";
  }
  CHECK_THROWS_WITH(Server(loop, Endpoint::loopback(0), ignore, options),
                    Catch::Contains("Listener at 127.0.0.1:0: " + expected));
}

TEST_CASE("A server that takes Fast Open asks for it, and does without where it can't be had") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.fast_open_queue = 16;
  const bool is_refused = GENERATE(false, true);
  if (is_refused) system.fail(Call::setsockopt, ENOPROTOOPT, 1, 2);
  Server server(loop, Endpoint::loopback(0), echo, options);
  CHECK(system.count(Call::setsockopt) == 3);  // SO_REUSEADDR, TCP_NODELAY, TCP_FASTOPEN
  Client client(loop, server.local_endpoint());
  run_until(loop, [&] { return client.is_served(); });
}
