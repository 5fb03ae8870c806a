// SPDX-License-Identifier: MIT
// Dials by name: they begin with what has come (RFC 8305 §3), and deadlines judge the peer.
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/resolving.hpp"
#include "net/socket_address.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/dial_attempt.hpp"
#include "pawl/net/resolver.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Resolver;
using pawl::ResolverOptions;
using pawl::SystemResult;
using Kind = KnownHost::Kind;

namespace {

const std::string four = "192.0.2.1";
const std::string other_four = "192.0.2.2";
const std::string six = "2001:db8::1";

std::string any_backend() {
  const std::vector<std::string_view> all = pawl::available_resolver_backends();
  const auto index = GENERATE_COPY(range(std::size_t{0}, all.size()));
  return std::string(all[index]);
}

/// Names as `KnowingSystem` has them; their made-up addresses lead to endpoints of loopback.
class RoutedNames final : public KnowingSystem {
 public:
  using KnowingSystem::KnowingSystem;

  SystemResult socket(int family, int type, int protocol) override {
    return KnowingSystem::socket(type == SOCK_STREAM ? AF_INET : family, type, protocol);
  }
  SystemResult connect(int fd, const sockaddr* address, unsigned bytes) override {
    const Endpoint to = Endpoint::from_sockaddr(address, bytes);
    const auto route = routes.find(to.host());
    if (route == routes.end() || to.port() != dialed_port) {
      return KnowingSystem::connect(fd, address, bytes);
    }
    tried.push_back(to.host());
    const pawl::SocketAddress real(route->second);
    return KnowingSystem::connect(fd, real.get(), real.bytes());
  }

  static constexpr std::uint16_t dialed_port = 4711;
  std::map<std::string, Endpoint> routes;
  std::vector<std::string> tried;
};

/// A listener whose backlog is full: who comes now waits as long as it takes.
struct Silent {
  RawListener listener{0};
  pawl::UniqueFd first = raw_connect(listener.endpoint());
};

/// A dial of "host.test." with either backend.
struct NamedDial {
  NamedDial(const std::string& backend, KnownHost host, ConnectionOptions options = {},
            ResolverOptions wanted = {})
      : hosts{{"host.test", std::move(host)}},
        system(hosts),
        loop(options_on(system)),
        server(loop, [this](const DnsQuestion& question) {
          return reply_to(hosts, question, system.is_silent());
        }) {
    system.routes = {
        {four, listener.endpoint()}, {other_four, listener.endpoint()}, {six, listener.endpoint()}};
    wanted.backend = backend;
    if (backend == "cares") wanted.servers = {server.endpoint()};
    resolver = std::make_unique<Resolver>(loop, wanted);
    kept = std::move(options);
    kept.resolver = resolver.get();
  }
  void dial() {
    connection = Connection::connect(loop, "host.test.", RoutedNames::dialed_port, kept);
    record.attach(*connection);
  }
  void end_silence() {
    system.end_silence();
    server.answer_again();
  }
  bool has_told() const { return !record.order.empty(); }

  KnownHosts hosts;
  RoutedNames system;
  EventLoop loop;
  NameServer server;
  RawListener listener;
  Silent silent;
  std::unique_ptr<Resolver> resolver;
  ConnectionOptions kept;
  std::unique_ptr<Connection> connection;
  Recorder record;
};

using Tried = std::vector<std::string>;

}  // namespace

TEST_CASE("A dial begins with the addresses of one family when the other's don't come") {
  const std::string backend = any_backend();
  const bool is_ipv4_silent = GENERATE(true, false);
  KnownHost host{Kind::found, {six, four}};
  (is_ipv4_silent ? host.ipv4 : host.ipv6) = Kind::silent;
  NamedDial there(backend, host);
  there.dial();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.system.tried == Tried{is_ipv4_silent ? six : four});
  CHECK(there.resolver->pending() == 0);  // nothing more is wanted
}

TEST_CASE("A dial waits for IPv6 as long as its options say, and takes what comes meanwhile") {
  ConnectionOptions options;
  options.resolution_delay = 1h;
  options.connect_timeout = 2h;
  NamedDial there(any_backend(), {Kind::found, {six, four}, 10, {}, Kind::late}, options);
  there.dial();
  run_until(there.loop, [&] { return there.system.questions() + there.server.count() > 0; });
  passes(there.loop, 50);
  CHECK(there.system.tried.empty());
  there.end_silence();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.system.tried.size() == 1);
}

TEST_CASE("A dial doesn't wait for IPv4 when IPv6 has come") {
  ConnectionOptions options;
  options.resolution_delay = 1h;
  options.connect_timeout = 2h;
  NamedDial there(any_backend(), {Kind::found, {six, four}, 10, Kind::silent, {}}, options);
  there.dial();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.system.tried == Tried{six});
}

TEST_CASE("Addresses that come while others are tried are tried too, the other family first") {
  NamedDial there(any_backend(), {Kind::found, {four, other_four, six}, 10, {}, Kind::late});
  there.system.routes[four] = there.silent.listener.endpoint();
  there.system.routes[other_four] = there.silent.listener.endpoint();
  there.kept.attempt_delay = 300ms;
  there.dial();
  run_until(there.loop, [&] { return !there.system.tried.empty(); });
  CHECK(there.record.order.empty());
  there.end_silence();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.connection->peer_endpoint().host() == six);
  // A machine that is slow may have tried the second one before the name server was read.
  CHECK(there.system.tried.front() == four);
  CHECK(there.system.tried.back() == six);
}

TEST_CASE("Addresses that come when all others have failed are tried at once") {
  NamedDial there(any_backend(), {Kind::found, {four, six}, 10, {}, Kind::late});
  there.system.routes[four] = refusing_endpoint();
  there.dial();
  run_until(there.loop, [&] { return there.connection->attempts().size() == 1; });
  CHECK(there.record.order.empty());
  there.end_silence();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.system.tried == Tried{four, six});
}

TEST_CASE("A dial whose every address failed waits a second for those that don't come") {
  NamedDial there(any_backend(), {Kind::found, {four, six}, 10, {}, Kind::silent});
  there.system.routes[four] = refusing_endpoint();
  there.dial();
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "closed");
  CHECK(there.record.error == std::errc::connection_refused);
  REQUIRE(there.connection->attempts().size() == 1);
  CHECK(there.connection->attempts()[0].error == std::errc::connection_refused);
}

TEST_CASE("A half-resolved dial can be given up at each moment") {
  const std::string backend = any_backend();
  const int count = GENERATE(0, 1, 2, 5, 20, 60);
  NamedDial there(backend, {Kind::found, {four, six}, 10, {}, Kind::late});
  there.system.routes[four] = there.silent.listener.endpoint();
  there.dial();
  for (int i = 0; i < count && !there.has_told(); ++i) there.loop.run_once(5ms);
  SECTION("destroyed") { there.connection.reset(); }
  SECTION("aborted") { there.connection->abort(); }
  SECTION("with its resolver") {
    there.resolver.reset();
    there.connection.reset();
  }
  there.end_silence();
  passes(there.loop);
  CHECK(there.record.closed <= 1);
  if (there.resolver != nullptr) CHECK(there.resolver->pending() == 0);
}

// Deadlines while this process stands still

TEST_CASE("A dial that was answered while the loop stood still isn't timed out") {
  FaultyClock clock;
  EventLoop loop(options_on(clock));
  RawListener listener;
  ConnectionOptions options;
  options.connect_timeout = 1s;
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  Recorder record(*connection);
  // The deadline is due in the first pass, whatever that has fetched by then.
  clock.advance(5s);
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
}

TEST_CASE("A dial whose name was answered while the loop stood still is given its time") {
  ConnectionOptions options;
  options.connect_timeout = 10s;
  NamedDial there(any_backend(), {Kind::found, {four}}, options);
  there.system.stop_clock();
  there.dial();
  const pawl::UniqueFd fd(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
  there.loop.add_reader(fd.get(), [&] {  // after the poll, before the timers
    there.loop.remove_reader(fd.get());
    if (there.resolver->backend() == "system") {
      while (there.system.questions() == 0) {
      }
      there.system.wait_for_idle_threads();
    } else {
      while (there.server.questions.size() < 2) there.server.serve_now();
    }
    there.system.advance(11s);
  });
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
}

TEST_CASE("An address whose turn came late, because the loop stood still, is given its time") {
  ConnectionOptions options;
  options.connect_timeout = 10s;
  NamedDial there(any_backend(), {Kind::found, {four, other_four}}, options);
  there.system.routes[four] = there.silent.listener.endpoint();
  there.dial();
  run_until(there.loop, [&] { return !there.system.tried.empty(); });
  there.system.advance(11s);  // over its turn and the deadline
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "connected");
  CHECK(there.system.tried == Tried{four, other_four});
}

TEST_CASE("A dial is put off once, and then times out") {
  ConnectionOptions options;
  options.connect_timeout = 10s;
  NamedDial there(any_backend(), {Kind::found, {four, other_four}}, options);
  there.system.routes[four] = there.system.routes[other_four] = there.silent.listener.endpoint();
  there.dial();
  run_until(there.loop, [&] { return !there.system.tried.empty(); });
  there.system.advance(11s);
  run_until(there.loop, [&] { return there.system.tried.size() == 2; });
  passes(there.loop);
  CHECK_FALSE(there.has_told());
  there.system.advance(10s);
  run_until(there.loop, [&] { return there.has_told(); });
  CHECK(there.record.order == "closed");
  CHECK(there.record.error == Errc::timed_out);
  CHECK(there.connection->attempts().size() == 2);
}

TEST_CASE("A refusal that is looked at before the loop tells of it isn't lost") {
  NamedDial there(any_backend(), {Kind::found, {four, other_four}});
  there.system.routes[four] = refusing_endpoint();
  there.system.routes[other_four] = there.silent.listener.endpoint();
  there.kept.attempt_delay = 0s;  // its turn comes in the pass of the refusal, or before
  there.dial();
  run_until(there.loop, [&] { return there.connection->attempts().size() == 1; });
  CHECK(there.connection->attempts()[0].error == std::errc::connection_refused);
  CHECK(there.system.tried == Tried{four, other_four});
}
