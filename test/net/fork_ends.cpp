// SPDX-License-Identifier: MIT
// Ends in a process that has forked while a child holds copies of everything, and what a child does
// that was forked in the middle of several callbacks.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/resolving.hpp"
#include "net/socket_address.hpp"
#include "net/stream.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/resolver.hpp"
#include "pawl/net/server.hpp"
#include "support/copy_holder.hpp"
#include "support/faulty_system.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// A server with silent clients that it has accepted.
struct Crowd {
  explicit Crowd(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      clients.push_back(std::make_unique<RawPeer>(loop, raw_connect(server.local_endpoint())));
    }
    run_until(loop, [&] { return server.connections() == count; });
  }

  EventLoop loop;
  ForkInCallback fork;
  pawl::Server server{loop, Endpoint::loopback(0), [](Connection&) {}};
  std::vector<std::unique_ptr<RawPeer>> clients;
};

/// A socket of `type` that is connected to `endpoint`.
pawl::UniqueFd connected(int type, const Endpoint& endpoint) {
  const pawl::SocketAddress address(endpoint);
  pawl::UniqueFd fd(::socket(address.family(), type | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(fd.get(), address.get(), address.bytes()) == 0);
  make_blocking(fd.get(), false);
  return fd;
}

/// The errno of sending a byte, or 0.
int error_of_send(int fd) { return ::send(fd, "x", 1, MSG_NOSIGNAL) == 1 ? 0 : errno; }

/// The errno of receiving, -1 for a byte, or 0 for an end.
int error_of_receive(int fd) {
  char byte = 0;
  const ssize_t got = ::recv(fd, &byte, 1, MSG_DONTWAIT);
  return got > 0 ? -1 : got == 0 ? 0 : errno;
}

bool is_ready(int fd, short events) {
  pollfd each{fd, events, 0};
  return ::poll(&each, 1, 10'000) == 1;
}

/// An endpoint of UDP at which nobody is.
Endpoint free_endpoint(const Endpoint& at) { return RawDatagrams(at).endpoint(); }

const auto close_it = [](std::optional<DatagramSocket>& socket) { socket->close(); };
const auto destroy_it = [](std::optional<DatagramSocket>& socket) { socket.reset(); };
using DatagramAct = std::function<void(std::optional<DatagramSocket>&)>;

}  // namespace

TEST_CASE("A visit of a server's connections that forks is the last in the child") {
  Crowd that(3);
  int visits = 0;
  that.loop.call_soon([&] {
    that.server.for_each([&](Connection&) {
      ++visits;
      that.fork.fork();
    });
    if (that.fork.is_child()) that.server.for_each([&](Connection&) { ++visits; });
  });
  const auto run = [&] { that.loop.run_once(); };
  CHECK(that.fork.child_code(run, [&] { return visits == 1 ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(visits == 3);
}

TEST_CASE("A port that the kernel chose for datagrams is free, though a child holds a copy") {
  const DatagramAct end = GENERATE(DatagramAct(close_it), DatagramAct(destroy_it));
  const Endpoint at = GENERATE(Endpoint::loopback(0), Endpoint::any(0), Endpoint::loopback_ipv6(0),
                               Endpoint::from_address("::", 0));
  const bool is_connected = GENERATE(false, true);
  EventLoop loop;
  std::optional<DatagramSocket> socket;
  socket.emplace(loop, at);
  const Endpoint local = socket->local_endpoint();
  if (is_connected) REQUIRE_FALSE(socket->connect(local));
  const CopyHolder holder;
  end(socket);
  CHECK_NOTHROW(RawDatagrams(local));
}

TEST_CASE("Who sends to a closed datagram socket is refused, though a child holds a copy") {
  const DatagramAct end = GENERATE(DatagramAct(close_it), DatagramAct(destroy_it));
  const Endpoint at = GENERATE(Endpoint::loopback(0), Endpoint::any(0), Endpoint::loopback_ipv6(0),
                               Endpoint::from_address("::", 0));
  const bool is_asked_for = GENERATE(false, true);
  EventLoop loop;
  std::optional<DatagramSocket> socket;
  socket.emplace(loop, is_asked_for ? free_endpoint(at) : at);
  const Endpoint local = socket->local_endpoint();
  const bool is_ipv4 = at.family() == Endpoint::Family::ipv4;
  const auto peer = connected(SOCK_DGRAM, is_ipv4 ? Endpoint::loopback(local.port())
                                                  : Endpoint::loopback_ipv6(local.port()));
  const CopyHolder holder;
  CHECK(error_of_send(peer.get()) == 0);
  end(socket);
  CHECK(error_of_send(peer.get()) == 0);  // whose answer comes by ICMP
  CHECK(is_ready(peer.get(), POLLIN));
  CHECK(error_of_receive(peer.get()) == ECONNREFUSED);
}

TEST_CASE("Of two who share a port the one that stays gets all, though a child holds the other") {
  EventLoop loop;
  DatagramOptions options;
  options.reuse_port = true;
  std::optional<DatagramSocket> gone;
  const Endpoint at = free_endpoint(Endpoint::loopback(0));
  gone.emplace(loop, at, options);
  DatagramSocket stays(loop, at, options);
  int got = 0;
  stays.on_datagram([&](DatagramSocket&, const pawl::Datagram&) { ++got; });
  const CopyHolder holder;
  gone.reset();
  constexpr int count = 64;  // of as many senders, among whom the kernel would choose
  for (int i = 0; i < count; ++i) RawDatagrams().send("x", at);
  run_until(loop, [&] { return got == count; });
}

TEST_CASE(
    "Who is connected to a closed Unix datagram socket hears it, though a child holds a copy") {
  const DatagramAct end = GENERATE(DatagramAct(close_it), DatagramAct(destroy_it));
  const TemporaryDirectory folder;
  const std::string name = GENERATE(std::string("path"), std::string("abstract"));
  const Endpoint at = Endpoint::parse(name == "path" ? "unix:" + folder.file("socket")
                                                     : "unix:@pawl-fork-" + folder.file("socket"));
  EventLoop loop;
  std::optional<DatagramSocket> socket;
  socket.emplace(loop, at);
  const auto idle = connected(SOCK_DGRAM, at);
  const auto stuck = connected(SOCK_DGRAM, at);
  while (error_of_send(stuck.get()) == 0) {
  }
  const CopyHolder holder;
  end(socket);
  CHECK(is_ready(stuck.get(), POLLOUT));
  CHECK(error_of_send(stuck.get()) == EPIPE);
  CHECK(error_of_send(idle.get()) == EPIPE);
}

TEST_CASE(
    "Who waits in a closed listener's backlog hears of its end, though a child holds a copy") {
  const TemporaryDirectory folder;
  const bool is_unix = GENERATE(false, true);
  const int way = GENERATE(0, 1, 2);
  const bool is_shared = GENERATE(true, false);
  EventLoop loop;
  std::optional<pawl::Listener> listener;
  const auto accept = [](pawl::UniqueFd, const Endpoint&) {};
  const Endpoint at =
      is_unix ? Endpoint::parse("unix:" + folder.file("socket")) : Endpoint::loopback(0);
  listener.emplace(loop, at, accept);
  const auto first = connected(SOCK_STREAM, listener->local_endpoint());
  const auto second = connected(SOCK_STREAM, listener->local_endpoint());
  std::optional<CopyHolder> holder;
  if (is_shared) holder.emplace();
  if (way == 0) listener->close();
  if (way == 1) listener.reset();
  if (way == 2) {
    listener->pause();
    listener->close();
  }
  const bool is_end = is_unix && is_shared;  // a Unix socket has no reset, but when it is closed
  for (const int fd : {first.get(), second.get()}) {
    CHECK(is_ready(fd, POLLIN));
    CHECK(error_of_receive(fd) == (is_end ? 0 : ECONNRESET));
  }
}

TEST_CASE("Where a listener was another one may listen, though a child holds a copy") {
  const TemporaryDirectory folder;
  const bool is_unix = GENERATE(false, true);
  EventLoop loop;
  std::optional<pawl::Listener> listener;
  const auto accept = [](pawl::UniqueFd, const Endpoint&) {};
  listener.emplace(
      loop, is_unix ? Endpoint::parse("unix:" + folder.file("socket")) : Endpoint::loopback(0),
      accept);
  const Endpoint at = listener->local_endpoint();
  const CopyHolder holder;
  listener.reset();
  int accepted = 0;
  const pawl::Listener next(loop, at, [&](pawl::UniqueFd, const Endpoint&) { ++accepted; });
  const auto client = connected(SOCK_STREAM, at);
  run_until(loop, [&] { return accepted == 1; });
}

TEST_CASE("An end with unread input is a reset, whether or not a child holds a copy") {
  const bool is_shared = GENERATE(false, true);
  EventLoop loop;
  std::optional<pawl::Server> server;
  Connection* connection = nullptr;
  server.emplace(loop, Endpoint::loopback(0), [&](Connection& each) {
    connection = &each;
    each.pause_reading();
  });
  RawPeer peer(loop, raw_connect(server->local_endpoint()));
  peer.start_reading();
  peer.send("unread");
  run_until(loop, [&] { return connection != nullptr; });
  std::optional<CopyHolder> holder;
  if (is_shared) holder.emplace();
  server->close();
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.error() == ECONNRESET);
}

TEST_CASE("A reset that the kernel refuses at first, because a child waits there, comes") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const CopyHolder holder;
  system.fail(Call::connect, EBUSY, 3);
  link.connection->abort();
  CHECK(system.count(Call::connect) == 4);
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == ECONNRESET);
}

TEST_CASE("A reset that the kernel goes on refusing is an end") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const CopyHolder holder;
  system.fail(Call::connect, EBUSY, FaultySystem::forever);
  link.connection->abort();
  CHECK(system.count(Call::connect) < 200);
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == 0);
}

TEST_CASE("A peer is reset though a child waits in a call on its copy of the socket") {
  EventLoop loop;
  TcpPair pair;
  const int fd = pair.ours.get();
  Link link(loop, std::move(pair), {});
  const pid_t child = start_fork([&] {
    make_blocking(fd);
    char byte = 0;
    ::recv(fd, &byte, 1, 0);
    return 0;
  });
  while ((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) {
  }
  link.connection->abort();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == ECONNRESET);
  CHECK(exit_code_of(child) == 0);
}

TEST_CASE("A connection that was released goes on in a child when the parent closes its number") {
  const bool is_before = GENERATE(true, false);
  EventLoop loop;
  Connection::Released released;
  Pipe closed;  // its end tells the child that the parent has closed
  make_blocking(closed.reader.get());
  TcpPair pair;
  const int fd = pair.ours.get();
  auto connection = Connection::adopt(loop, std::move(pair.ours));
  RawPeer peer(loop, std::move(pair.theirs));
  peer.start_reading();
  if (is_before) released = connection->release();
  const pid_t child = start_fork([&] {
    closed.writer.reset();
    char byte = 0;
    if (::read(closed.reader.get(), &byte, 1) != 0) return 1;
    return ::send(fd, "served", 6, MSG_NOSIGNAL) == 6 ? 0 : 2;
  });
  if (!is_before) released = connection->release();
  released.socket.reset();
  closed.writer.reset();
  CHECK(exit_code_of(child) == 0);
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.received() == "served");
  CHECK(peer.error() == 0);
}

TEST_CASE("A number that was released before a fork and closed after it isn't heard of any more") {
  EventLoop loop;
  Link link(loop);
  passes(loop);
  Connection::Released released = link.connection->release();
  const CopyHolder holder;
  released.socket.reset();
  link.peer.send("to whoever holds it");
  passes(loop);
  std::vector<pawl::Ready> ready;
  const std::clock_t begin = std::clock();
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(loop.selector().select(20ms, ready));
    CHECK(ready.empty());
  }
  const auto busy = std::chrono::duration<double>(double(std::clock() - begin) / CLOCKS_PER_SEC);
  CHECK(busy < 150ms);  // of 200
}

TEST_CASE(
    "A child's datagram socket can't be connected, nor join a group: it is the parent's too") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::any(0));
  const Endpoint at = Endpoint::loopback(socket.local_endpoint().port());
  const Endpoint group = Endpoint::from_address("239.1.2.3", 0);
  REQUIRE_FALSE(socket.join_group(group, "lo"));
  int got = 0;
  socket.on_datagram([&](DatagramSocket&, const pawl::Datagram&) { ++got; });
  RawDatagrams peer;
  CHECK(exit_code_of_fork([&] {
          const std::error_code errors[] = {
              socket.connect(Endpoint::loopback(1)), socket.connect(Endpoint()),
              socket.join_group(group, "lo"), socket.leave_group(group, "lo"),
              socket.join_source_group(group, Endpoint::loopback(0), "lo")};
          int code = 0;
          for (const std::error_code error : errors) {
            if (error != pawl::Errc::used_after_fork) return code + 1;
            ++code;
          }
          return 0;
        }) == 0);
  peer.send("x", at);
  run_until(loop, [&] { return got == 1; });
  CHECK_FALSE(socket.leave_group(group, "lo"));
}

TEST_CASE("A child's lookup asks nobody, and doesn't wait for a thread that isn't there") {
  for (const std::string_view backend : pawl::available_resolver_backends()) {
    CAPTURE(backend);
    Resolving there(backend, {{"late.test", {KnownHost::Kind::late, {"127.0.0.7"}}}});
    Found first;
    pawl::Lookup lookup = there.resolver->resolve("late.test.", 1, first.callback());
    passes(there.loop);
    there.system.wait_for_idle_threads();
    const int asked = there.questions();
    CHECK(exit_code_of_fork([&] {
            Found found;
            pawl::Lookup second = there.resolver->resolve("late.test.", 1, found.callback());
            pawl::Lookup third = there.resolver->resolve("other.test.", 1, found.callback());
            pawl::ConnectionOptions options;
            options.resolver = there.resolver.get();
            const auto dial = Connection::connect(there.loop, "another.test.", 1, options);
            lookup.cancel();
            third.cancel();
            there.resolver.reset();
            return found.calls;
          }) == 0);
    passes(there.loop);
    CHECK(there.questions() == asked);
    there.end_silence();
    run_until(there.loop, [&] { return first.calls > 0; });
  }
}
