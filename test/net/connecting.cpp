// SPDX-License-Identifier: MIT
// Becoming connected, or not.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/resolving.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "pawl/net/server.hpp"
#include "support/no_threads.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::UniqueFd;

namespace {

/// A listener whose backlog is full: who comes now waits as long as it takes.
struct FullListener {
  RawListener listener{0};
  UniqueFd first = raw_connect(listener.endpoint());
};

/// Names that are never answered until `answer` is called.
class SlowNames final : public OneAnswer {
 public:
  explicit SlowNames(Endpoint endpoint) : OneAnswer(std::vector<Endpoint>{std::move(endpoint)}) {}
  ~SlowNames() override { wait_for_resolver_threads(); }

  void answer() { gate_.set_value(); }
  pawl::SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) override {
    is_asked = true;
    gate_.get_future().wait();
    return OneAnswer::getaddrinfo(node, service, hints, results);
  }

  std::atomic<bool> is_asked{false};

 private:
  std::promise<void> gate_;
};

/// The sockets that a loop was given, in their order.
class SocketSpy : public pawl::System {
 public:
  pawl::SystemResult socket(int family, int type, int protocol) override {
    return note(System::socket(family, type, protocol));
  }
  pawl::SystemResult accept(int fd, sockaddr* address, unsigned* address_bytes) override {
    return note(System::accept(fd, address, address_bytes));
  }
  int option(std::size_t index, int level, int name) {
    int value = -1;
    unsigned bytes = sizeof value;
    getsockopt(sockets_.at(index), level, name, &value, &bytes);
    return value;
  }

 private:
  pawl::SystemResult note(pawl::SystemResult result) {
    if (result.ok()) sockets_.push_back(result.fd());
    return result;
  }

  std::vector<int> sockets_;
};

}  // namespace

TEST_CASE("A connection to an endpoint is CONNECTING, then says once that it is connected") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  CHECK(connection->state() == ConnectionState::connecting);
  CHECK(connection->local_endpoint() == Endpoint());
  Recorder record(*connection);
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(connection->state() == ConnectionState::receiving);
  CHECK(connection->peer_endpoint() == listener.endpoint());
  CHECK(connection->local_endpoint().host() == "127.0.0.1");
  CHECK(connection->local_endpoint().port() != 0);
  passes(loop);
  CHECK(record.order == "connected");
}

TEST_CASE("A connection can be made to a numeric address without a lookup") {
  EventLoop loop;
  std::unique_ptr<pawl::Server> server;
  std::string host;
  SECTION("of IPv4") { host = "127.0.0.1"; }
  SECTION("of IPv6") { host = "::1"; }
  try {
    server = std::make_unique<pawl::Server>(loop, Endpoint::from_address(host, 0),
                                            [](Connection& accepted) { accepted.write("hello"); });
  } catch (const std::system_error& error) {
    WARN("there is no " << host << " on this machine: " << error.what());
    return;
  }
  const auto connection = Connection::connect(loop, host, server->local_endpoint().port());
  Recorder record(*connection);
  run_until(loop, [&] { return record.data == "hello"; });
  CHECK(record.order == "connected data");
  CHECK(connection->peer_endpoint() == server->local_endpoint());
  CHECK(loop.thread_pool().size() == 0);
}

TEST_CASE("A connection can be made to localhost") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, "localhost", listener.endpoint().port());
  Recorder record(*connection);
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
  CHECK(connection->peer_endpoint() == listener.endpoint());
}

TEST_CASE("An address that refuses, or that there is no route to, leads to the next one") {
  RawListener listener;
  const Endpoint there = listener.endpoint();
  // The listener is bound to 127.0.0.1 alone.
  OneAnswer names(
      {Endpoint::from_address("127.0.0.2", 0), Endpoint::from_address("127.0.0.3", 0), there});
  EventLoop loop(options_on(names));
  SECTION("refuses") {}
  SECTION("no route") { names.fail(Call::connect, ENETUNREACH, 2); }
  SECTION("no such family") { names.fail(Call::socket, EAFNOSUPPORT, 2); }
  const auto connection = Connection::connect(loop, "example", there.port());
  Recorder record(*connection);
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
  CHECK(connection->peer_endpoint() == there);
  CHECK(names.count(Call::socket) == 3);
  CHECK(names.asked == "example");
}

TEST_CASE("When no address answers, the error is the last one's") {
  const Endpoint nobody = refusing_endpoint();
  // The port was bound to 127.0.0.1, so nobody has it at the others either.
  OneAnswer names(
      {nobody, Endpoint::from_address("127.0.0.2", 0), Endpoint::from_address("127.0.0.3", 0)});
  EventLoop loop(options_on(names));
  std::error_code expected = std::make_error_code(std::errc::connection_refused);
  SECTION("refused") {}
  SECTION("unreachable") {
    names.fail(Call::connect, EHOSTUNREACH, 1, 2);
    expected = std::make_error_code(std::errc::host_unreachable);
  }
  const auto connection = Connection::connect(loop, "example", nobody.port());
  Recorder record(*connection);
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(record.order == "closed");
  CHECK(record.error == expected.default_error_condition());
  CHECK(names.count(Call::socket) == 3);
}

TEST_CASE("A refused connection ends with the kernel's error") {
  EventLoop loop;
  const auto connection = Connection::connect(loop, refusing_endpoint());
  Recorder record(*connection);
  connection->write("never sent");
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == std::errc::connection_refused);
  CHECK(connection->error() == record.error);
  CHECK(connection->state() == ConnectionState::done);
  CHECK(connection->buffered() == 10);
}

TEST_CASE("A name that can't be looked up ends the connection with the reason") {
  const struct {
    int code;
    int error;
    std::error_code expected;
  } cases[] = {
      {EAI_NONAME, 0, Errc::host_not_found},
#ifdef EAI_NODATA
      {EAI_NODATA, 0, Errc::no_address},
#endif
      {EAI_AGAIN, 0, Errc::resolve_failed},
      {EAI_FAIL, 0, Errc::bad_answer},
      {EAI_MEMORY, 0, pawl::system_error_code(ENOMEM)},
      {EAI_SYSTEM, EMFILE, pawl::system_error_code(EMFILE)},
      {0, 0, Errc::no_address},  // success, and not one address
  };
  for (const auto& [code, error, expected] : cases) {
    CAPTURE(code);
    OneAnswer names(code, error);
    EventLoop loop(options_on(names));
    const auto connection = Connection::connect(loop, "no.such.name", 80);
    Recorder record(*connection);
    loop.run();
    CHECK(record.order == "closed");
    CHECK(record.error == expected);
    CHECK(names.questions == 1);
  }
}

TEST_CASE("A name that can't be one fails before anybody is asked") {
  for (const std::string& name :
       {""s, " "s, "two words"s, "line\n"s, "tab\t"s, "nul\0"s, "\0"s, "\x7f"s, "\x1b[31mred"s,
        std::string(254, 'n'), std::string(100'000, 'n')}) {
    CAPTURE(name.size());
    OneAnswer names({Endpoint::loopback(0)});
    EventLoop loop(options_on(names));
    const auto connection = Connection::connect(loop, name, 80);
    CHECK(connection->state() == ConnectionState::connecting);
    Recorder record(*connection);
    loop.run();
    CHECK(record.order == "closed");
    CHECK(record.error == std::errc::invalid_argument);
    CHECK(names.questions == 0);
    CHECK(loop.thread_pool().size() == 0);
  }
}

TEST_CASE("The longest name that can be one is asked for") {
  std::string name;  // labels of 63 bytes: RFC 1035 §2.3.4
  for (int i = 0; i < 3; ++i) name += std::string(63, 'n') + ".";
  name += std::string(61, 'n');
  REQUIRE(name.size() == 253);
  SECTION("without the root's dot") {}
  SECTION("with it") { name += '.'; }
  OneAnswer names(EAI_NONAME);
  EventLoop loop(options_on(names));
  const auto connection = Connection::connect(loop, name, 80);
  Recorder record(*connection);
  loop.run();
  CHECK(record.error == Errc::host_not_found);
  CHECK(names.asked == name);
}

TEST_CASE("Whatever fails at once is told from the loop, never from inside connect()") {
  OneAnswer names(EAI_NONAME);
  std::error_code expected;
  std::string host = "127.0.0.1";
  const std::uint16_t port = refusing_endpoint().port();
  SECTION("no descriptor") {
    names.fail(Call::socket, EMFILE);
    expected = pawl::system_error_code(EMFILE);
  }
  SECTION("no route") {
    names.fail(Call::connect, ENETUNREACH);
    expected = pawl::system_error_code(ENETUNREACH);
  }
  SECTION("refused") { expected = pawl::system_error_code(ECONNREFUSED); }
  SECTION("no such name") {
    host = "name";
    expected = Errc::host_not_found;
  }
  SECTION("not a name") {
    host = "";
    expected = Errc::bad_name;
  }
  EventLoop loop(options_on(names));
  const auto connection = Connection::connect(loop, host, port);
  CHECK(connection->state() == ConnectionState::connecting);
  CHECK_FALSE(connection->error());
  Recorder record(*connection);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == expected);
}

TEST_CASE("A lookup for which no thread can be started ends the connection") {
  EventLoop loop;
  std::unique_ptr<Connection> connection;
  {
    const NoThreads none_can_start;
    connection = Connection::connect(loop, "host.test", 80);
  }
  Recorder record(*connection);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == std::errc::resource_unavailable_try_again);
}

TEST_CASE("A dial that takes longer than connect_timeout ends with timed_out") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const FullListener full;
  ConnectionOptions options;
  options.connect_timeout = 10s;
  const auto connection = Connection::connect(loop, full.listener.endpoint(), options);
  Recorder record(*connection);
  passes(loop);
  clock.advance(10s - 1ns);
  passes(loop);
  CHECK(record.order.empty());
  clock.advance(1ns);
  spin_until(loop, [&] { return record.closed > 0; });
  CHECK(record.order == "closed");
  CHECK(record.error == Errc::timed_out);
  CHECK_FALSE(loop.run_once(pawl::Duration::zero()));
}

TEST_CASE("One connect_timeout is for all of a dial, the lookup included") {
  class SlowNamesAndClock final : public OneAnswer {
   public:
    using OneAnswer::OneAnswer;
    pawl::TimePoint now() override { return now_; }
    void advance(pawl::Duration span) { now_ += span; }

   private:
    pawl::TimePoint now_{pawl::Duration(std::chrono::hours(1))};
  };
  const FullListener full;
  SlowNamesAndClock system({full.listener.endpoint()});
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  options.connect_timeout = 10s;
  const auto connection =
      Connection::connect(loop, "example", full.listener.endpoint().port(), options);
  Recorder record(*connection);
  system.advance(6s);
  spin_until(loop, [&] { return system.count(Call::connect) == 1; });
  system.advance(4s - 1ns);
  passes(loop);
  CHECK(record.order.empty());
  system.advance(1ns);
  spin_until(loop, [&] { return record.closed > 0; });
  CHECK(record.error == Errc::timed_out);
}

TEST_CASE("A connect_timeout of zero is none") {
  VirtualClock clock;
  EventLoop loop(options_on(clock));
  const FullListener full;
  ConnectionOptions options;
  options.connect_timeout = {};
  const auto connection = Connection::connect(loop, full.listener.endpoint(), options);
  Recorder record(*connection);
  clock.advance(10'000h);
  passes(loop);
  CHECK(record.order.empty());
  CHECK(connection->state() == ConnectionState::connecting);
}

TEST_CASE("A connection may be destroyed while it dials") {
  EventLoop loop;
  const FullListener full;
  auto connection = Connection::connect(loop, full.listener.endpoint());
  const Recorder record(*connection);
  Recorder again(*connection);
  passes(loop);
  connection.reset();
  CHECK_FALSE(loop.run_once());
  CHECK(again.order.empty());
}

TEST_CASE("A connection may be given up while it dials") {
  EventLoop loop;
  const FullListener full;
  const auto connection = Connection::connect(loop, full.listener.endpoint());
  Recorder record(*connection);
  passes(loop);
  SECTION("closed") {
    connection->close();
    CHECK(connection->state() == ConnectionState::done);
  }
  SECTION("aborted") { connection->abort(); }
  CHECK(record.order.empty());
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == (connection->error() ? make_error_code(Errc::aborted) : std::error_code()));
}

TEST_CASE("A late answer to a lookup is dropped") {
  RawListener listener;
  SlowNames names(listener.endpoint());
  EventLoop loop(options_on(names));
  ConnectionOptions options;
  const std::uint16_t port = listener.endpoint().port();
  std::unique_ptr<Connection> connection;
  Recorder record;
  SECTION("after the connection was destroyed") {
    connection = Connection::connect(loop, "example", port, options);
    record.attach(*connection);
    spin_until(loop, [&] { return names.is_asked.load(); });
    connection.reset();
    CHECK_FALSE(loop.run_once());
    CHECK(record.order.empty());
  }
  SECTION("after connect_timeout") {
    options.connect_timeout = 1ms;
    connection = Connection::connect(loop, "example", port, options);
    record.attach(*connection);
    loop.run();
    CHECK(record.order == "closed");
    CHECK(record.error == Errc::timed_out);
    CHECK(connection->describe() == "connection to example:" + std::to_string(port) +
                                        " DONE: resolve in CONNECTING: timed out");
  }
  names.answer();
  const std::string before = record.order;
  if (names.is_asked) run_until(loop, [&] { return names.questions == 1; });
  passes(loop);
  CHECK(record.order == before);
}

TEST_CASE("What was written before it was connected is sent first") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  connection->write("one ");
  connection->write("two ");
  CHECK(connection->buffered() == 8);
  connection->on_connected([](Connection& self) {
    CHECK(self.state() == ConnectionState::sending);
    self.write("three");
  });
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.received() == "one two three"; });
  CHECK(connection->buffered() == 0);
  CHECK(connection->bytes_sent() == 13);
}

TEST_CASE("What was written and closed before it was connected arrives, and the end after it") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  connection->write("a whole message");
  SECTION("closed") { connection->close(); }
  SECTION("shut down") { connection->shutdown(); }
  connection->write("too late");
  RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.received() == "a whole message");
  CHECK(peer.error() == 0);
  CHECK(record.closed == 0);
  peer.end();
  run_until(loop, [&] { return record.closed > 0; });
  CHECK_FALSE(record.error);
}

TEST_CASE("A connection may be paused before it is connected") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  connection->pause_reading();
  RawPeer peer(loop, listener.accept(loop));
  peer.send("hello");
  passes(loop, 20);
  CHECK(record.order == "connected");
  connection->resume_reading();
  run_until(loop, [&] { return record.data == "hello"; });
}

TEST_CASE("A dial that meets itself is an error, not a connection") {
  // Such a dial comes from the port that it goes to; here that isn't left to chance.
  class SamePort final : public pawl::System {
   public:
    pawl::SystemResult connect(int fd, const sockaddr* address, unsigned bytes) override {
      const pawl::SystemResult bound = System::bind(fd, address, bytes);
      return bound.ok() ? System::connect(fd, address, bytes) : bound;
    }
  };
  SamePort system;
  EventLoop loop(options_on(system));
  const auto connection = Connection::connect(loop, refusing_endpoint());
  Recorder record(*connection);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == Errc::self_connect);
}

TEST_CASE("Small writes go out at once unless the options say otherwise") {
  for (const bool no_delay : {true, false}) {
    CAPTURE(no_delay);
    SocketSpy spy;
    EventLoop loop(options_on(spy));
    pawl::ServerOptions options;
    options.connection.no_delay = no_delay;
    pawl::Server server(
        loop, Endpoint::loopback(0), [](Connection&) {}, options);
    const auto connection = Connection::connect(loop, server.local_endpoint(), options.connection);
    run_until(loop, [&] { return server.connections() == 1; });
    CHECK((spy.option(1, IPPROTO_TCP, TCP_NODELAY) == 1) == no_delay);  // 0 is the listener
    CHECK((spy.option(2, IPPROTO_TCP, TCP_NODELAY) == 1) == no_delay);
  }
}

TEST_CASE("A socket that is connected already can be adopted") {
  EventLoop loop;
  Link link(loop);
  CHECK(link.connection->state() == ConnectionState::receiving);
  CHECK(link.connection->peer_endpoint().host() == "127.0.0.1");
  link.peer.send("hello");
  run_until(loop, [&] { return link.record.data == "hello"; });
  link.connection->write("world");
  run_until(loop, [&] { return link.peer.received() == "world"; });
  CHECK(link.record.order == "data");
}

TEST_CASE("Adopting what can't be watched ends the connection, from the loop") {
  EventLoop loop;
  UniqueFd socket;
  std::error_code expected = std::make_error_code(std::errc::bad_file_descriptor);
  int watched = -1;
  SECTION("no descriptor at all") {}
  SECTION("one that is watched already") {
    socket = TcpPair().ours;
    watched = socket.get();
    loop.add_reader(watched, [] {});
    expected = Errc::already_registered;
  }
  const auto connection = Connection::adopt(loop, std::move(socket));
  loop.remove_reader(watched);
  Recorder record(*connection);
  CHECK(connection->state() == ConnectionState::done);
  loop.run();
  CHECK(record.order == "closed");
  CHECK(record.error == expected.default_error_condition());
}
