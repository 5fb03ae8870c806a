// SPDX-License-Identifier: MIT
// Bytes that come before anybody listens for them.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/server.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;
using pawl::Server;

namespace {

/// A connection without on_data, and its raw peer.
struct Unheard {
  explicit Unheard(EventLoop& loop, ConnectionOptions options = {})
      : Unheard(loop, TcpPair(), options) {}
  template <typename Pair>
  Unheard(EventLoop& loop, Pair pair, ConnectionOptions options)
      : connection(Connection::adopt(loop, std::move(pair.ours), options)),
        peer(loop, std::move(pair.theirs)) {
    connection->on_eof([this](Connection&) { order += "eof "; });
    connection->on_closed([this](Connection&, std::error_code reason) {
      order += "closed";
      error = reason;
    });
  }
  void listen() {
    connection->on_data([this](Connection&, std::string_view bytes) { data += bytes; });
  }

  std::unique_ptr<Connection> connection;
  RawPeer peer;
  std::string order;
  std::string data;
  std::error_code error;
};

}  // namespace

TEST_CASE("What comes before on_data is set comes when it is") {
  EventLoop loop;
  const bool is_unix = GENERATE(false, true);
  Unheard unheard = is_unix ? Unheard(loop, SocketPair(), {}) : Unheard(loop);
  unheard.peer.send("early ");
  passes(loop);
  CHECK(unheard.connection->bytes_received() == 0);
  SECTION("from outside") { unheard.listen(); }
  SECTION("from a callback of its own") {
    unheard.connection->on_drained([&](Connection&) { unheard.listen(); });
    unheard.connection->write("x");
  }
  SECTION("behind a pause") {
    unheard.connection->pause_reading();
    unheard.listen();
    passes(loop);
    CHECK(unheard.data.empty());
    unheard.connection->resume_reading();
  }
  unheard.peer.send("and late");
  run_until(loop, [&] { return unheard.data == "early and late"; });
  unheard.peer.end();
  run_until(loop, [&] { return !unheard.error && unheard.order == "eof closed"; });
}

TEST_CASE("Bytes that nobody listens for slow their peer down, and cost no work") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Unheard unheard(loop, TcpPair(tight), {});
  std::size_t queued = 0;
  std::size_t before_that = 0;
  do {  // buffers move between two fills
    before_that = queued;
    queued += fill(unheard.peer.fd());
    passes(loop, 20);
  } while (queued != before_that);
  CHECK(queued < 1'000'000);
  const int before = system.count(Call::recvmsg) + system.count(Call::recv);
  passes(loop, 100);
  CHECK(system.count(Call::recvmsg) + system.count(Call::recv) == before);
  unheard.listen();
  run_until(loop, [&] { return unheard.data.size() == queued; });
}

TEST_CASE("A side that only writes hears of the peer's end") {
  EventLoop loop;
  const bool is_unix = GENERATE(false, true);
  Unheard unheard = is_unix ? Unheard(loop, SocketPair(), {}) : Unheard(loop);
  unheard.connection->write("hello");
  passes(loop);
  SECTION("in order") {
    unheard.peer.close();
    run_until(loop, [&] { return unheard.order == "eof closed"; });
    CHECK_FALSE(unheard.error);
  }
  SECTION("by a reset") {
    if (is_unix) return;
    unheard.peer.reset();
    run_until(loop, [&] { return unheard.order == "closed"; });
    CHECK(unheard.error == std::errc::connection_reset);
  }
}

TEST_CASE("A side that only writes hears of a reset behind bytes that nobody reads") {
  EventLoop loop;
  Unheard unheard(loop);
  unheard.peer.send("unread");
  passes(loop);
  unheard.peer.reset();
  run_until(loop, [&] { return unheard.order == "closed"; });
  CHECK(unheard.error == std::errc::connection_reset);
}

TEST_CASE("The peer's end behind bytes that nobody listens for waits for them to be read") {
  EventLoop loop;
  Unheard unheard(loop);
  unheard.peer.send("last words");
  unheard.peer.end();
  passes(loop);
  CHECK(unheard.order.empty());
  SECTION("they are read") {
    unheard.listen();
    run_until(loop, [&] { return unheard.order == "eof closed"; });
    CHECK(unheard.data == "last words");
  }
  SECTION("they are dropped, as on_data set to nothing means") {
    unheard.connection->on_data({});
    run_until(loop, [&] { return unheard.order == "eof closed"; });
    CHECK(unheard.connection->bytes_received() == 10);
  }
  SECTION("closing drops them") {
    unheard.connection->close();
    run_until(loop, [&] { return unheard.order == "closed"; });
  }
  CHECK_FALSE(unheard.error);
}

TEST_CASE("A callback that unsets on_data drops what comes then") {
  EventLoop loop;
  Unheard unheard(loop);
  unheard.connection->on_data([&](Connection& self, std::string_view bytes) {
    unheard.data += bytes;
    self.on_data({});
  });
  unheard.peer.send("one");
  run_until(loop, [&] { return unheard.data == "one"; });
  unheard.peer.send("two");
  run_until(loop, [&] { return unheard.connection->bytes_received() == 6; });
  unheard.listen();
  unheard.peer.send("three");
  run_until(loop, [&] { return unheard.data == "onethree"; });
}

TEST_CASE("A server's connection may get its on_data later than its bytes") {
  EventLoop loop;
  Connection* accepted = nullptr;
  Server server(loop, Endpoint::loopback(0), [&](Connection& peer) { accepted = &peer; });
  RawPeer client(loop, raw_connect(server.local_endpoint()));
  client.send("request");
  run_until(loop, [&] { return accepted != nullptr; });
  passes(loop);
  std::string data;
  accepted->on_data([&](Connection& self, std::string_view bytes) {
    data += bytes;
    self.write("answer");
  });
  run_until(loop, [&] { return client.received() == "answer"; });
  CHECK(data == "request");
}

TEST_CASE("A dialed connection may get its on_data later than its bytes") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  RawPeer peer(loop, listener.accept(loop));
  peer.send("greeting");
  passes(loop);
  std::string data;
  connection->on_data([&](Connection&, std::string_view bytes) { data += bytes; });
  run_until(loop, [&] { return data == "greeting"; });
}

TEST_CASE("What a reader that goes has left waits for whoever reads next") {
  EventLoop loop;
  Unheard unheard(loop);
  std::string messages;
  auto reader = std::make_unique<MessageReader>(*unheard.connection, Framing::lines());
  reader->on_message([&](Connection&, std::string_view line) {
    messages += line;
    reader.reset();
  });
  unheard.peer.send("one\ntwo\nth");
  run_until(loop, [&] { return messages == "one"; });
  unheard.peer.send("ree\n");
  unheard.peer.end();
  passes(loop);
  CHECK(unheard.order.empty());
  SECTION("another reader") {
    reader = std::make_unique<MessageReader>(*unheard.connection, Framing::lines());
    reader->on_message(
        [&](Connection&, std::string_view line) { messages += "|" + std::string(line); });
    run_until(loop, [&] { return messages == "one|two|three"; });
  }
  SECTION("on_data") {
    unheard.listen();
    run_until(loop, [&] { return unheard.data == "two\nthree\n"; });
  }
  SECTION("a relay") {
    Link other(loop);
    pawl::relay(*unheard.connection, *other.connection);
    run_until(loop, [&] { return other.peer.has_ended(); });
    CHECK(other.peer.received() == "two\nthree\n");
  }
  SECTION("whoever gets the socket") {
    const Connection::Released released = unheard.connection->release();
    CHECK(released.unread == "two\nth");
  }
}

TEST_CASE("Bytes that were given back wait for on_data, and cost no work") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Unheard unheard(loop);
  unheard.connection->unread("given back ");
  unheard.peer.send("and new");
  passes(loop);
  const int before = system.count(Call::recvmsg) + system.count(Call::recv);
  passes(loop, 100);
  CHECK(system.count(Call::recvmsg) + system.count(Call::recv) == before);
  unheard.listen();
  run_until(loop, [&] { return unheard.data == "given back and new"; });
}

TEST_CASE("Descriptors wait for on_data too") {
  EventLoop loop;
  SocketPair pair;
  auto sender = Connection::adopt(loop, std::move(pair.ours));
  auto receiver = Connection::adopt(loop, std::move(pair.theirs));
  std::string order;
  receiver->on_fds(
      [&](Connection&, std::vector<pawl::UniqueFd> fds) { order += std::to_string(fds.size()); });
  std::vector<pawl::UniqueFd> fds;
  fds.push_back(bound_socket(SOCK_STREAM));
  sender->write_fds("with one", std::move(fds));
  passes(loop);
  CHECK(order.empty());
  receiver->on_data([&](Connection&, std::string_view bytes) { order += bytes; });
  run_until(loop, [&] { return order == "1with one"; });
}

TEST_CASE("The idle timeout runs while nothing comes, not while bytes wait for on_data") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  options.idle_timeout = 10s;
  Unheard unheard(loop, options);
  const auto advance = [&](pawl::Duration span) {
    system.advance(span);
    passes(loop);
  };
  SECTION("nothing comes") {
    advance(10s);
    CHECK(unheard.error == Errc::timed_out);
  }
  SECTION("bytes wait") {
    unheard.peer.send("unread");
    passes(loop);
    advance(1h);
    CHECK(unheard.order.empty());
    unheard.listen();
    passes(loop);
    CHECK(unheard.data == "unread");
    advance(10s - 1ns);
    CHECK(unheard.order.empty());
    advance(1ns);
    CHECK(unheard.error == Errc::timed_out);
  }
}

TEST_CASE("An on_data that throws at what was given back doesn't cost on_drained") {
  EventLoop loop;
  Link link(loop);
  auto reader = std::make_unique<pawl::MessageReader>(*link.connection, pawl::Framing::lines());
  reader->on_message([](Connection&, std::string_view) {});
  link.peer.send("half a line");
  passes(loop);
  reader.reset();
  int drained = 0;
  int heard = 0;
  link.connection->on_drained([&](Connection&) { ++drained; });
  link.connection->on_data([&](Connection&, std::string_view) {
    ++heard;
    throw std::runtime_error("of on_data");
  });
  link.connection->write("");
  CHECK_THROWS_AS(passes(loop), std::runtime_error);
  passes(loop);
  CHECK(heard == 1);
  CHECK(drained == 1);
}
