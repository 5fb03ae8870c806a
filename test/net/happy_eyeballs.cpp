// SPDX-License-Identifier: MIT
// Dials with more than one address (RFC 8305), and what a dial can be told about its socket.
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/dial_attempt.hpp"
#include "pawl/net/server.hpp"
#include "support/forked.hpp"
#include "support/open_fds.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::DialAttempt;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::SystemResult;
using pawl::UniqueFd;

namespace {

using Words = std::vector<std::string>;

/// A listener whose backlog is full: who comes now waits as long as it takes.
struct FullListener {
  RawListener listener{0};
  UniqueFd first = raw_connect(listener.endpoint());
};

/// A machine with a name for several addresses of a made-up internet, each of which leads to some
/// endpoint of loopback or to an errno; and with a clock that stands still.
class Internet final : public OneAnswer {
 public:
  explicit Internet(const Words& hosts) : OneAnswer(endpoints(hosts)) {}

  void lead(const std::string& host, const Endpoint& endpoint) { routes_[host] = {endpoint, 0}; }
  void fail_at_once(const std::string& host, int error) { routes_[host] = {{}, error}; }

  pawl::TimePoint now() override { return now_; }
  void advance(pawl::Duration span) { now_ += span; }
  SystemResult socket(int, int type, int protocol) override {
    return OneAnswer::socket(AF_INET, type, protocol);
  }
  SystemResult connect(int fd, const sockaddr* address, unsigned bytes) override {
    tried.push_back(Endpoint::from_sockaddr(address, bytes).host());
    const auto& [endpoint, error] = routes_.at(tried.back());
    if (error != 0) return {-1, error};
    const pawl::SocketAddress real(endpoint);
    return OneAnswer::connect(fd, real.get(), real.bytes());
  }

  Words tried;  // in this order

 private:
  static std::vector<Endpoint> endpoints(const Words& hosts) {
    std::vector<Endpoint> all;
    for (const std::string& host : hosts) all.push_back(Endpoint::from_address(host, 0));
    return all;
  }

  std::map<std::string, std::pair<Endpoint, int>> routes_;
  pawl::TimePoint now_{pawl::Duration(std::chrono::hours(1))};
};

/// Three addresses of two families in the order in which they are tried.
const std::string first = "2001:db8::1";
const std::string second = "192.0.2.1";
const std::string third = "2001:db8::2";
constexpr std::uint16_t port = 4711;

/// A dial of "example" in such an internet, recorded.
struct Dial {
  explicit Dial(EventLoop& loop, const ConnectionOptions& options = {})
      : connection(Connection::connect(loop, "example", port, options)), record(*connection) {}
  std::unique_ptr<Connection> connection;
  Recorder record;
};

Endpoint at(const std::string& host) { return Endpoint::from_address(host, port); }

/// A socket that listens at an abstract name, with the shortest backlog.
class UnixListener {
 public:
  UnixListener() {
    fd_.reset(system().socket(AF_UNIX, SOCK_STREAM, 0).fd());
    sockaddr any{};
    any.sa_family = AF_UNIX;  // unix(7), autobind
    REQUIRE(system().bind(fd_.get(), &any, sizeof any.sa_family).ok());
    REQUIRE(system().listen(fd_.get(), 0).ok());
  }
  Endpoint endpoint() const {
    pawl::SocketAddress address;
    system().getsockname(fd_.get(), address.get(), address.bytes_pointer());
    return address.endpoint();
  }
  UniqueFd accept() const { return UniqueFd(system().accept(fd_.get(), nullptr, nullptr).fd()); }
  UniqueFd connect() const {
    UniqueFd fd(system().socket(AF_UNIX, SOCK_STREAM, 0).fd());
    const pawl::SocketAddress address(endpoint());
    REQUIRE(system().connect(fd.get(), address.get(), address.bytes()).ok());
    return fd;
  }

 private:
  static pawl::System& system() { return pawl::System::real(); }
  UniqueFd fd_;
};

/// Remembers the last socket that was made.
class LastSocket final : public FaultySystem {
 public:
  SystemResult socket(int family, int type, int protocol) override {
    const SystemResult made = FaultySystem::socket(family, type, protocol);
    if (made.ok()) last_ = made.fd();
    return made;
  }
  unsigned tcp_options() {
    struct tcp_info info {};
    unsigned bytes = sizeof info;
    System::getsockopt(last_, IPPROTO_TCP, TCP_INFO, &info, &bytes);
    return info.tcpi_options;
  }
  int option(int level, int name) {
    int value = -1;
    unsigned bytes = sizeof value;
    System::getsockopt(last_, level, name, &value, &bytes);
    return value;
  }

 private:
  int last_ = -1;
};

}  // namespace

// Which, when and how many

TEST_CASE("The families of a name's addresses are tried in turn, beginning with the first one's") {
  Words found;
  Words expected;
  SECTION("IPv6 first") {
    found = {"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"};
    expected = {"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"};
  }
  SECTION("IPv4 first") {
    found = {"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1"};
    expected = {"192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "192.0.2.4"};
  }
  SECTION("mixed already") {
    found = {"192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"};
    expected = found;
  }
  SECTION("one family") {
    found = {"192.0.2.3", "192.0.2.1", "192.0.2.2"};
    expected = found;
  }
  Internet internet(found);
  for (const std::string& host : found) internet.fail_at_once(host, ENETUNREACH);
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return dial.record.closed > 0; });
  CHECK(internet.tried == expected);
  Words told;
  for (const DialAttempt& attempt : dial.connection->attempts())
    told.push_back(attempt.peer.host());
  CHECK(told == expected);
}

TEST_CASE("An address that doesn't answer within 250 ms has the next one tried beside it") {
  const FullListener silent;
  Internet internet({first, third, second});
  for (const std::string& host : {first, second, third}) {
    internet.lead(host, silent.listener.endpoint());
  }
  EventLoop loop(options_on(internet));
  const std::size_t before = open_fd_count();
  Dial dial(loop);
  spin_until(loop, [&] { return !internet.tried.empty(); });
  internet.advance(250ms - 1ns);
  passes(loop);
  CHECK(internet.tried == Words{first});
  internet.advance(1ns);
  passes(loop);
  CHECK(internet.tried == Words{first, second});
  internet.advance(249ms);
  passes(loop);
  CHECK(internet.tried.size() == 2);
  internet.advance(1ms);
  passes(loop);
  CHECK(internet.tried == Words{first, second, third});
  CHECK(open_fd_count() >= before + 3);  // all three are still running
  internet.advance(10s);
  passes(loop);
  CHECK(internet.tried.size() == 3);
  CHECK(dial.record.order.empty());
  CHECK(dial.connection->attempts().empty());
}

TEST_CASE("The delay between two addresses is an option") {
  const FullListener silent;
  Internet internet({first, second});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, silent.listener.endpoint());
  EventLoop loop(options_on(internet));
  ConnectionOptions options;
  SECTION("longer") {
    options.attempt_delay = 2s;
    Dial dial(loop, options);
    spin_until(loop, [&] { return !internet.tried.empty(); });
    internet.advance(2s - 1ns);
    passes(loop);
    CHECK(internet.tried.size() == 1);
    internet.advance(1ns);
    passes(loop);
    CHECK(internet.tried.size() == 2);
  }
  SECTION("none") {
    options.attempt_delay = {};
    Dial dial(loop, options);
    spin_until(loop, [&] { return internet.tried.size() == 2; });
  }
}

TEST_CASE("An address that fails has the next one tried at once, and the delay begins anew") {
  const FullListener silent;
  Internet internet({first, second, third});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, silent.listener.endpoint());
  internet.lead(third, silent.listener.endpoint());
  SECTION("when it is refused") { internet.lead(first, refusing_endpoint()); }
  SECTION("when it can't be tried") { internet.fail_at_once(first, EHOSTUNREACH); }
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return internet.tried.size() == 2; });
  passes(loop);
  CHECK(internet.tried.size() == 2);
  CHECK(dial.connection->attempts().size() == 1);  // it can be asked for meanwhile
  internet.advance(250ms - 1ns);
  passes(loop);
  CHECK(internet.tried.size() == 2);
  internet.advance(1ns);
  passes(loop);
  CHECK(internet.tried.size() == 3);
}

TEST_CASE("A running address that fails doesn't take another running one with it") {
  RawListener listener;
  const FullListener silent;
  Internet internet({first, second});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, refusing_endpoint());
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return !internet.tried.empty(); });
  internet.advance(250ms);
  spin_until(loop, [&] { return dial.connection->attempts().size() == 1; });
  passes(loop);
  CHECK(dial.record.order.empty());
  CHECK(dial.connection->state() == ConnectionState::connecting);
  internet.advance(30s);
  passes(loop);
  CHECK(dial.record.error == Errc::timed_out);
  CHECK(dial.connection->attempts().size() == 2);
}

TEST_CASE("The first address that answers wins, and the sockets of the others are closed") {
  RawListener listener;
  const FullListener silent;
  Internet internet({first, second, third});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, silent.listener.endpoint());
  internet.lead(third, listener.endpoint());
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return !internet.tried.empty(); });
  const std::size_t with_one = open_fd_count();
  internet.advance(250ms);
  spin_until(loop, [&] { return internet.tried.size() == 2; });
  CHECK(open_fd_count() == with_one + 1);
  internet.advance(250ms);
  spin_until(loop, [&] { return !dial.record.order.empty(); });
  CHECK(dial.record.order == "connected");
  CHECK(dial.connection->peer_endpoint() == at(third));
  CHECK(open_fd_count() == with_one);
  CHECK(dial.connection->attempts().empty());
  internet.advance(1h);  // the timers of the dial are gone too
  passes(loop);
  CHECK(internet.tried.size() == 3);
  CHECK(dial.record.order == "connected");
}

TEST_CASE("An address that leads back to its own socket is left for the next one") {
  class Mirror final : public OneAnswer {
   public:
    using OneAnswer::OneAnswer;
    SystemResult connect(int fd, const sockaddr* address, unsigned bytes) override {
      if (count(Call::connect) == 0) System::bind(fd, address, bytes);
      return OneAnswer::connect(fd, address, bytes);
    }
  };
  RawListener listener;
  const Endpoint there = listener.endpoint();
  Mirror system({Endpoint::from_address("127.0.0.2", 0), there});
  EventLoop loop(options_on(system));
  const auto connection = Connection::connect(loop, "example", there.port());
  Recorder record(*connection);
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
  CHECK(connection->peer_endpoint() == there);
  REQUIRE(connection->attempts().size() == 1);
  CHECK(connection->attempts()[0].error == Errc::self_connect);
}

// The end

TEST_CASE("One deadline holds for all addresses, and tells which were running") {
  const FullListener silent;
  Internet internet({first, second, third});
  for (const std::string& host : {first, second, third}) {
    internet.lead(host, silent.listener.endpoint());
  }
  EventLoop loop(options_on(internet));
  ConnectionOptions options;
  options.connect_timeout = 400ms;  // the third isn't reached
  Dial dial(loop, options);
  spin_until(loop, [&] { return !internet.tried.empty(); });
  internet.advance(250ms);
  spin_until(loop, [&] { return internet.tried.size() == 2; });
  internet.advance(150ms - 1ns);
  passes(loop);
  CHECK(dial.record.order.empty());
  internet.advance(1ns);
  spin_until(loop, [&] { return dial.record.closed > 0; });
  CHECK(dial.record.error == Errc::timed_out);
  CHECK(dial.connection->close_reason() == CloseReason::connect_timeout);
  const auto& attempts = dial.connection->attempts();
  REQUIRE(attempts.size() == 2);
  CHECK(attempts[0].peer == at(first));
  CHECK(attempts[0].took == 400ms);
  CHECK(attempts[0].error == Errc::timed_out);
  CHECK(attempts[1].peer == at(second));
  CHECK(attempts[1].took == 150ms);
  CHECK(attempts[1].phase == "connect");
  CHECK(dial.connection->describe() ==
        "connection to example:4711 DONE: connect in CONNECTING: timed out; tried "
        "[2001:db8::1]:4711: connect: timed out after 400.0 ms; tried 192.0.2.1:4711: connect: "
        "timed out after 150.0 ms");
  CHECK(internet.tried.size() == 2);
}

TEST_CASE("A deadline tells what was running, not what another address had failed in") {
  const FullListener silent;
  Internet internet({first, second});
  internet.lead(first, silent.listener.endpoint());
  internet.fail(Call::socket, EMFILE, 1, 1);  // the second's
  EventLoop loop(options_on(internet));
  ConnectionOptions options;
  options.connect_timeout = 400ms;
  Dial dial(loop, options);
  spin_until(loop, [&] { return !internet.tried.empty(); });
  internet.advance(400ms);
  spin_until(loop, [&] { return dial.record.closed > 0; });
  CHECK(dial.record.error == Errc::timed_out);
  CHECK_THAT(
      dial.connection->describe(),
      Catch::StartsWith("connection to example:4711 DONE: connect in CONNECTING: timed out"));
  REQUIRE(dial.connection->attempts().size() == 2);
  CHECK(dial.connection->attempts()[0].phase == "socket");
}

TEST_CASE("A dial that fails tells each address with what was tried, why not, and how long") {
  const FullListener silent;
  Internet internet({first, second, third});
  internet.lead(first, refusing_endpoint());
  internet.lead(second, refusing_endpoint());
  internet.fail_at_once(third, EHOSTUNREACH);
  internet.fail(Call::socket, EMFILE, 1, 1);  // the second's
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return dial.record.closed > 0; });
  CHECK(dial.record.order == "closed");
  CHECK(dial.record.error == std::errc::host_unreachable);
  CHECK(dial.connection->close_reason() == CloseReason::failed);
  const auto& attempts = dial.connection->attempts();
  REQUIRE(attempts.size() == 3);
  CHECK(attempts[0].error == std::errc::connection_refused);
  CHECK(attempts[0].phase == "connect");
  CHECK(attempts[0].peer == at(first));
  CHECK(attempts[1].error == pawl::system_error_code(EMFILE));
  CHECK(attempts[1].phase == "socket");
  CHECK(attempts[1].peer == at(second));
  CHECK(attempts[2].error == std::errc::host_unreachable);
  const std::string words = dial.connection->describe();
  CHECK_THAT(words, Catch::StartsWith("connection to example:4711 DONE: connect in CONNECTING: "));
  for (const DialAttempt& attempt : attempts) {
    CHECK_THAT(words, Catch::Contains("; tried " + to_string(attempt)));
  }
}

TEST_CASE("A connection that was made in the end doesn't blame the addresses before it") {
  RawListener listener;
  Internet internet({first, second});
  internet.fail_at_once(first, ENETUNREACH);
  internet.lead(second, listener.endpoint());
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return !dial.record.order.empty(); });
  CHECK(dial.connection->attempts().size() == 1);
  dial.connection->abort();
  spin_until(loop, [&] { return dial.record.closed > 0; });
  CHECK(
      dial.connection->describe() ==
      "connection to example:4711 (192.0.2.1:4711) DONE: abort in RECEIVING: aborted by this side");
  CHECK(dial.connection->attempts().size() == 1);
}

TEST_CASE("A dial that is given up still tells what was tried in vain") {
  const FullListener silent;
  Internet internet({first, second});
  internet.fail_at_once(first, ENETUNREACH);
  internet.lead(second, silent.listener.endpoint());
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  spin_until(loop, [&] { return internet.tried.size() == 2; });
  SECTION("closed") { dial.connection->close(); }
  SECTION("aborted") { dial.connection->abort(); }
  SECTION("by a write that is too much") {
    dial.connection->write(std::string(17 * 1024 * 1024, 'x'));
  }
  REQUIRE(dial.connection->attempts().size() == 1);
  CHECK(dial.connection->attempts()[0].peer == at(first));
  CHECK_FALSE(loop.run_once(0ms));
  CHECK(dial.record.order == "closed");
}

TEST_CASE("A dial may be destroyed at any moment, without a leak or a late callback") {
  RawListener listener;
  const FullListener silent;
  Internet internet({first, second, third});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, silent.listener.endpoint());
  internet.lead(third, listener.endpoint());
  EventLoop loop(options_on(internet));
  passes(loop);
  const std::size_t before = open_fd_count();
  auto dial = std::make_unique<Dial>(loop);
  Connection& connection = *dial->connection;
  int calls = 0;
  connection.on_connected([&](Connection&) { ++calls; });
  connection.on_closed([&](Connection&, std::error_code) { ++calls; });
  const auto reaches = [&](std::size_t addresses) {
    spin_until(loop, [&] { return !internet.tried.empty(); });
    while (internet.tried.size() < addresses) {
      internet.advance(250ms);
      pass(loop);
    }
  };
  SECTION("during the lookup") {}
  SECTION("with one address running") { reaches(1); }
  SECTION("with two") { reaches(2); }
  SECTION("with one that has answered, and is about to say so") {
    reaches(2);
    internet.advance(250ms);
    while (internet.tried.size() < 3) pass(loop);
    CHECK(calls == 0);
  }
  SECTION("when its last address has failed, and that is about to be told") {
    internet.fail_at_once(first, ENETUNREACH);
    internet.fail_at_once(second, ENETUNREACH);
    internet.fail_at_once(third, ENETUNREACH);
    reaches(3);
    CHECK(calls == 0);
  }
  dial.reset();
  internet.advance(1h);
  spin_until(loop, [&] { return !loop.run_once(0ms); });
  CHECK(calls == 0);
  CHECK(open_fd_count() == before);
}

TEST_CASE("A dial may be destroyed by the callback that tells of its end") {
  RawListener listener;
  const FullListener silent;
  Internet internet({first, second});
  internet.lead(first, silent.listener.endpoint());
  internet.lead(second, listener.endpoint());
  bool is_refused = false;
  SECTION("on_connected") {}
  SECTION("on_closed") {
    is_refused = true;
    internet.fail_at_once(first, ENETUNREACH);
    internet.lead(second, refusing_endpoint());
  }
  EventLoop loop(options_on(internet));
  Dial dial(loop);
  int calls = 0;
  const auto destroy = [&] {
    ++calls;
    dial.connection.reset();
  };
  dial.connection->on_connected([&](Connection&) { destroy(); });
  dial.connection->on_closed([&](Connection&, std::error_code error) {
    CHECK(error == std::errc::connection_refused);
    CHECK(is_refused);
    destroy();
  });
  spin_until(loop, [&] { return !internet.tried.empty(); });
  internet.advance(250ms);
  spin_until(loop, [&] { return calls == 1; });
  internet.advance(1h);
  passes(loop);
  CHECK(calls == 1);
}

// What a dial is told about its socket

TEST_CASE("A dial comes from the address and port that it is told to") {
  EventLoop loop;
  Endpoint from;
  pawl::Server server(loop, Endpoint::loopback(0),
                      [&](Connection& peer) { from = peer.peer_endpoint(); });
  ConnectionOptions options;
  SECTION("an address") { options.bind = Endpoint::from_address("127.0.0.5", 0); }
  SECTION("an address and a port") {
    options.bind = Endpoint::from_address("127.0.0.5", refusing_endpoint().port());
  }
  SECTION("a port") { options.bind = Endpoint::any(refusing_endpoint().port()); }
  for (int round = 0; round < 2; ++round) {  // the second while the port is in TIME_WAIT
    const auto connection = Connection::connect(loop, server.local_endpoint(), options);
    Recorder record(*connection);
    run_until(loop, [&] { return from.port() != 0; });
    run_until(loop, [&] { return record.order == "connected"; });
    if (options.bind != Endpoint::any(options.bind.port())) CHECK(from.host() == "127.0.0.5");
    if (options.bind.port() != 0) CHECK(from.port() == options.bind.port());
    CHECK(connection->local_endpoint() == from);
    from = {};
    connection->close();
    run_until(loop, [&] { return record.closed > 0 && server.connections() == 0; });
    CHECK_FALSE(record.error);
  }
}

TEST_CASE("A source that can't be had is told as the phase bind") {
  RawListener listener;
  FaultySystem system;
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  int expected = EADDRNOTAVAIL;
  SECTION("not of this machine") { options.bind = Endpoint::from_address("192.0.2.1", 0); }
  SECTION("taken") {
    options.bind = listener.endpoint();
    expected = EADDRINUSE;
  }
  SECTION("of another family") {
    options.bind = Endpoint::loopback_ipv6(0);
    expected = EAFNOSUPPORT;
  }
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  Recorder record(*connection);
  CHECK(connection->state() == ConnectionState::connecting);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == pawl::system_error_code(expected));
  REQUIRE(connection->attempts().size() == 1);
  CHECK(connection->attempts()[0].phase == "bind");
  CHECK_THAT(connection->describe(), Catch::Contains(": bind in CONNECTING: "));
}

TEST_CASE("A dial from an address without a port leaves that to the kernel until it has the peer") {
  LastSocket system;
  EventLoop loop(options_on(system));
  RawListener listener;
  ConnectionOptions options;
  options.bind = Endpoint::from_address("127.0.0.5", 0);
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  CHECK(system.option(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 1);
}

TEST_CASE("A dial whose outcome can't be asked for has failed") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawListener listener;
  system.fail(Call::getsockopt, ENOBUFS);
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "closed");
  CHECK(record.error == std::errc::no_buffer_space);
}

TEST_CASE("A source of one family leaves the addresses of that family") {
  RawListener listener;
  Internet internet({first, second, third});
  internet.lead(second, listener.endpoint());
  EventLoop loop(options_on(internet));
  ConnectionOptions options;
  options.bind = Endpoint::from_address("127.0.0.7", 0);
  Dial dial(loop, options);
  spin_until(loop, [&] { return !dial.record.order.empty(); });
  CHECK(dial.record.order == "connected");
  CHECK(dial.connection->local_endpoint().host() == "127.0.0.7");
  CHECK(internet.tried == Words{second});
  REQUIRE(dial.connection->attempts().size() == 1);
  CHECK(dial.connection->attempts()[0].error == std::errc::address_family_not_supported);
}

TEST_CASE("A dial's socket is set up as the options say") {
  LastSocket system;
  EventLoop loop(options_on(system));
  RawListener listener;
  ConnectionOptions options;
  options.keep_alive = 61s;
  options.keep_alive_interval = 1500ms;  // in whole seconds: 2
  options.keep_alive_probes = 3;
  options.user_timeout = 1'500'100us;  // in whole milliseconds: 1501
  options.send_buffer = 50'000;
  options.receive_buffer = 60'000;
  options.type_of_service = 0x28;
  options.fast_open = true;
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  CHECK(system.option(SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPIDLE) == 61);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPINTVL) == 2);
  CHECK(system.option(IPPROTO_TCP, TCP_KEEPCNT) == 3);
  CHECK(system.option(IPPROTO_TCP, TCP_USER_TIMEOUT) == 1501);
  CHECK(system.option(SOL_SOCKET, SO_SNDBUF) == 100'000);
  CHECK(system.option(SOL_SOCKET, SO_RCVBUF) == 120'000);
  CHECK(system.option(IPPROTO_IP, IP_TOS) == 0x28);
  CHECK(system.option(IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 1);
  Recorder record(*connection);
  run_until(loop, [&] { return record.order == "connected"; });
}

TEST_CASE("What isn't asked for is left as the kernel has it") {
  LastSocket system;
  EventLoop loop(options_on(system));
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  CHECK(system.option(SOL_SOCKET, SO_KEEPALIVE) == 0);
  CHECK(system.option(IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 0);
  CHECK(system.option(IPPROTO_IP, IP_TOS) == 0);
  CHECK(system.count(Call::setsockopt) == 1);  // TCP_NODELAY
}

TEST_CASE("A setting that fails ends the dial, with the setting's name") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  RawListener listener;
  ConnectionOptions options;
  options.no_delay = false;
  std::string expected;
  int error = EPERM;
  SECTION("without the right to") {
    options.mark = 7;
    system.fail(Call::setsockopt, EPERM);
    expected = "SO_MARK";
  }
  SECTION("behind one that could be set") {
    options.no_delay = true;
    options.mark = 7;
    system.fail(Call::setsockopt, EPERM, 1, 1);
    expected = "SO_MARK";
  }
  SECTION("an interface that isn't there") {
    options.interface = "no-such-one";
    expected = "SO_BINDTODEVICE";
    error = ENODEV;
  }
  SECTION("a number that the kernel refuses") {
    options.keep_alive = 1s;
    options.keep_alive_probes = 1000;
    expected = "TCP_KEEPCNT";
    error = EINVAL;
  }
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  Recorder record(*connection);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == pawl::system_error_code(error));
  REQUIRE(connection->attempts().size() == 1);
  CHECK(connection->attempts()[0].phase == expected);
  CHECK_THAT(connection->describe(), Catch::Contains(": " + expected + " in CONNECTING: "));
  CHECK(system.count(Call::connect) == 0);
}

TEST_CASE("A dial can be kept to one interface") {
  EventLoop loop;
  RawListener listener;
  ConnectionOptions options;
  options.interface = "lo";
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  Recorder record(*connection);
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
}

TEST_CASE("A connection that is adopted is set up as the options say, or ends") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  options.keep_alive = 61s;
  options.user_timeout = 7s;
  TcpPair pair;
  const int fd = pair.ours.get();
  SECTION("set up") {
    const auto connection = Connection::adopt(loop, std::move(pair.ours), options);
    int value = 0;
    unsigned bytes = sizeof value;
    system.getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &bytes);
    CHECK(value == 61);
    system.getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &bytes);
    CHECK(value == 7000);
    CHECK(connection->state() == ConnectionState::receiving);
  }
  SECTION("refused") {
    system.fail(Call::setsockopt, EPERM, 1, 1);
    const auto connection = Connection::adopt(loop, std::move(pair.ours), options);
    Recorder record(*connection);
    CHECK_FALSE(system.is_open(fd));
    loop.run();
    CHECK(record.order == "closed");
    CHECK(record.error == std::errc::operation_not_permitted);
    CHECK_THAT(connection->describe(), Catch::StartsWith("connection to 127.0.0.1:") &&
                                           Catch::Contains("DONE: SO_KEEPALIVE in "));
  }
}

// Fast Open

TEST_CASE("A kernel without Fast Open dials as ever") {
  LastSocket system;
  EventLoop loop(options_on(system));
  RawListener listener;
  ConnectionOptions options;
  options.fast_open = true;
  options.no_delay = false;
  system.fail(Call::setsockopt, ENOPROTOOPT);
  const auto connection = Connection::connect(loop, listener.endpoint(), options);
  CHECK(system.option(IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 0);
  connection->write("hello");
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.received() == "hello"; });
}

TEST_CASE("A Fast Open whose SYN took no bytes along sends them when it is connected") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  system.fail(Call::send, EINPROGRESS);
  link.connection->write("hello");
  run_until(loop, [&] { return link.peer.received() == "hello"; });
  CHECK(link.record.order.empty());
}

TEST_CASE("Fast Open sends first bytes with the SYN, and a SYN when there are none") {
  // In a network of its own, where Fast Open can be allowed on both sides: ip-sysctl, tcp_fastopen.
  constexpr int not_allowed = 77;
  const int code = exit_code_of_fork([] {
    if (::unshare(CLONE_NEWNET) != 0) return not_allowed;
    std::ofstream("/proc/sys/net/ipv4/tcp_fastopen") << "3";
    ifreq loopback{};
    std::strcpy(loopback.ifr_name, "lo");
    loopback.ifr_flags = IFF_UP | IFF_RUNNING;
    LastSocket system;
    EventLoop loop(options_on(system));
    const UniqueFd any(loop.system().socket(AF_INET, SOCK_DGRAM, 0).fd());
    if (::ioctl(any.get(), SIOCSIFFLAGS, &loopback) != 0) return not_allowed;
    pawl::ServerOptions server_options;
    server_options.fast_open_queue = 16;
    pawl::Server server(
        loop, Endpoint::loopback(0), [](Connection& peer) { peer.write("welcome"); },
        server_options);
    for (int round = 0; round < 3; ++round) {  // the first gets the cookie
      ConnectionOptions options;
      options.fast_open = true;
      const auto connection = Connection::connect(loop, server.local_endpoint(), options);
      Recorder record(*connection);
      if (round < 2) connection->write("hello");  // the third waits for the server to begin
      for (int i = 0; i < 100 && record.data.empty() && record.closed == 0; ++i) {
        loop.run_once(100ms);
      }
      if (record.data != "welcome") return 1 + round;
      const bool has_syn_data = (system.tcp_options() & TCPI_OPT_SYN_DATA) != 0;
      if (has_syn_data != (round == 1)) return 11 + round;
    }
    return 0;
  });
  if (code == not_allowed) {
    WARN("no right to make a network of its own: Fast Open isn't tried for real");
  } else {
    CHECK(code == 0);
  }
}

// Unix sockets

TEST_CASE("A Unix socket whose backlog is full is dialed again until there is room") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const UnixListener listener;
  const UniqueFd before = listener.connect();
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  record.attach_drained(*connection);
  connection->write("hello");
  for (int i = 0; i < 5; ++i) {
    clock.advance(10ms);
    passes(loop);
  }
  CHECK(record.order.empty());
  CHECK(connection->state() == ConnectionState::connecting);
  SECTION("room comes") {
    const UniqueFd first_one = listener.accept();
    clock.advance(10ms);
    passes(loop);
    CHECK(record.order == "connected drained");
    RawPeer peer(loop, listener.accept());
    passes(loop);
    CHECK(peer.received() == "hello");
    CHECK(connection->attempts().empty());
  }
  SECTION("no room comes") {
    clock.advance(30s);
    passes(loop);
    CHECK(record.order == "closed");
    CHECK(record.error == Errc::timed_out);
    CHECK(connection->close_reason() == CloseReason::connect_timeout);
    REQUIRE(connection->attempts().size() == 1);
    CHECK(connection->attempts()[0].error == pawl::system_error_code(EAGAIN));
    CHECK(connection->attempts()[0].took == 30s + 50ms);
  }
  SECTION("it is given up") {
    connection->abort();
    clock.advance(10ms);
    passes(loop);
    CHECK(record.order == "closed");
    CHECK_FALSE(loop.run_once(0ms));
  }
}

TEST_CASE("A Unix socket that nobody listens at refuses") {
  Endpoint nobody;
  {
    const UnixListener listener;
    nobody = listener.endpoint();
  }
  EventLoop loop;
  const auto connection = Connection::connect(loop, nobody);
  Recorder record(*connection);
  loop.run();
  CHECK(record.error == std::errc::connection_refused);
}
