// SPDX-License-Identifier: MIT
// shutdown(), close(), abort() and release() from each callback, on TCP and on Unix sockets, and a
// peer that half-closes or goes in each state.
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
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/server.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;

namespace {

enum class Kind { tcp, unix_socket };
enum class Place { on_data, on_drained, on_eof, call_soon };
enum class What { shutdown, close, abort, release, destroy };

/// What was released, if it is that.
pawl::UniqueFd make_end(What what, std::unique_ptr<Connection>& connection) {
  switch (what) {
    case What::shutdown: connection->shutdown(); break;
    case What::close: connection->close(); break;
    case What::abort: connection->abort(); break;
    case What::release: return connection->release().socket;
    case What::destroy: connection.reset(); break;
  }
  return {};
}

ConnectionOptions half_open() {
  ConnectionOptions options;
  options.allow_half_open = true;
  return options;
}

/// A connection and its raw peer over either kind of socket.
struct Stream {
  Stream(EventLoop& loop, Kind kind) : Stream(loop, kind, TcpPair(), SocketPair()) {}
  Stream(EventLoop& loop, Kind kind, TcpPair tcp, SocketPair local)
      : connection(Connection::adopt(loop, std::move(kind == Kind::tcp ? tcp.ours : local.ours),
                                     half_open())),
        peer(loop, std::move(kind == Kind::tcp ? tcp.theirs : local.theirs)),
        record(*connection) {}

  std::unique_ptr<Connection> connection;
  RawPeer peer;
  Recorder record;
};

}  // namespace

TEST_CASE("Each end may be made in each callback, and what was written before it arrives") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  const Place place = GENERATE(Place::on_data, Place::on_drained, Place::on_eof, Place::call_soon);
  const What what =
      GENERATE(What::shutdown, What::close, What::abort, What::release, What::destroy);
  CAPTURE(static_cast<int>(kind), static_cast<int>(place), static_cast<int>(what));
  EventLoop loop;
  Stream stream(loop, kind);
  pawl::UniqueFd released;
  bool is_done = false;
  const auto end = [&] {
    if (std::exchange(is_done, true)) return;
    Connection& self = *stream.connection;
    self.write("last");
    released = make_end(what, stream.connection);
  };
  switch (place) {
    case Place::on_data:
      stream.connection->on_data([&](Connection&, std::string_view) { end(); });
      break;
    case Place::on_drained:
      stream.connection->on_drained([&](Connection&) { end(); });
      stream.connection->write("first ");
      break;
    case Place::on_eof: stream.connection->on_eof([&](Connection&) { end(); }); break;
    case Place::call_soon: loop.call_soon(end); break;
  }
  stream.peer.send("question");
  run_until(loop, [&] { return is_done || place == Place::on_eof; });
  stream.peer.end();
  run_until(loop, [&] { return is_done; });
  if (what == What::release) released.reset();
  run_until(loop, [&] { return stream.peer.is_over(); });
  passes(loop);
  const bool is_cut = what == What::abort || what == What::destroy;
  if (!is_cut) CHECK(stream.peer.error() == 0);
  if (is_cut && kind == Kind::tcp) CHECK(stream.peer.error() != 0);
  const std::string expected = place == Place::on_drained ? "first last" : "last";
  if (!is_cut) CHECK(stream.peer.received() == expected);
  if (what == What::destroy) return;
  CHECK(stream.record.closed == 1);
  CHECK(stream.record.error ==
        (what == What::abort ? make_error_code(Errc::aborted) : std::error_code()));
}

TEST_CASE("Each end may be made when it is connected, and what was written before it arrives") {
  const What what =
      GENERATE(What::shutdown, What::close, What::abort, What::release, What::destroy);
  CAPTURE(static_cast<int>(what));
  EventLoop loop;
  RawListener listener;
  auto connection = Connection::connect(loop, listener.endpoint(), half_open());
  Recorder record(*connection);
  pawl::UniqueFd released;
  bool is_done = false;
  connection->on_connected([&](Connection& self) {
    is_done = true;
    self.write("last");
    released = make_end(what, connection);
  });
  RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return is_done; });
  released.reset();
  peer.end();
  run_until(loop, [&] { return peer.is_over(); });
  const bool is_cut = what == What::abort || what == What::destroy;
  CHECK((peer.error() != 0) == is_cut);
  if (!is_cut) CHECK(peer.received() == "last");
  if (what == What::destroy) return;
  run_until(loop, [&] { return record.closed > 0; });
  passes(loop);
  CHECK(record.closed == 1);
  CHECK(record.error == (what == What::abort ? make_error_code(Errc::aborted) : std::error_code()));
}

TEST_CASE("Each end in on_closed does nothing more, and on_closed stays the last") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  const What what =
      GENERATE(What::shutdown, What::close, What::abort, What::release, What::destroy);
  CAPTURE(static_cast<int>(kind), static_cast<int>(what));
  EventLoop loop;
  Stream stream(loop, kind);
  int closed = 0;
  stream.connection->on_closed([&](Connection& self, std::error_code error) {
    ++closed;
    CHECK_FALSE(error);
    self.write("too late");
    CHECK_FALSE(make_end(what, stream.connection));
  });
  stream.connection->write("last");
  stream.connection->close();
  stream.peer.end();
  run_until(loop, [&] { return closed > 0 && stream.peer.is_over(); });
  passes(loop);
  CHECK(closed == 1);
  CHECK(stream.peer.received() == "last");
  CHECK(stream.peer.error() == 0);
  if (stream.connection) CHECK_FALSE(stream.connection->error());
}

TEST_CASE("A relay and a server's grace end what a callback closes, whichever callback it is") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  EventLoop loop;
  Stream left(loop, kind);
  Stream right(loop, kind);
  int calls = 0;
  std::error_code error = Errc::aborted;
  pawl::relay(*left.connection, *right.connection, [&](std::error_code reason) {
    ++calls;
    error = reason;
  });
  left.peer.send("question");
  run_until(loop, [&] { return right.peer.received() == "question"; });
  SECTION("shutdown() of a side") { right.connection->shutdown(); }
  SECTION("close() of a side") { right.connection->close(); }
  SECTION("close() of both") {
    left.connection->close();
    right.connection->close();
  }
  left.peer.end();
  right.peer.end();
  run_until(loop, [&] { return calls > 0 && left.peer.is_over() && right.peer.is_over(); });
  passes(loop);
  CHECK(calls == 1);
  CHECK_FALSE(error);
  CHECK(left.peer.error() == 0);
  CHECK(right.peer.error() == 0);
}

TEST_CASE(
    "A side of a relay that is closed while the other's stream still comes is cut, not ended") {
  EventLoop loop;
  Stream left(loop, Kind::tcp);
  Stream right(loop, Kind::tcp);
  std::error_code error;
  pawl::relay(*left.connection, *right.connection, [&](std::error_code reason) { error = reason; });
  right.peer.send("the first half");
  run_until(loop, [&] { return left.peer.received() == "the first half"; });
  left.connection->pause_reading();
  right.peer.send(", the second half");
  left.connection->close();
  run_until(loop, [&] { return left.peer.is_over() && right.peer.is_over(); });
  passes(loop);
  CHECK(right.peer.error() == ECONNRESET);
  CHECK(error == Errc::aborted);
}

TEST_CASE("A connection that a MessageReader reads ends as any other, from each of its callbacks") {
  const Kind kind = GENERATE(Kind::tcp, Kind::unix_socket);
  EventLoop loop;
  Stream stream(loop, kind);
  MessageReader reader(*stream.connection, Framing::lines());
  int messages = 0;
  std::string expected = "answer";
  SECTION("on_message") {
    reader.on_message([&](Connection& self, std::string_view) {
      ++messages;
      self.write("answer");
      self.close();
    });
  }
  SECTION("on_end") {
    reader.on_message([&](Connection&, std::string_view) { ++messages; });
    reader.on_end([&](Connection& self, std::error_code) {
      self.write("answer");
      self.close();
    });
  }
  SECTION("on_end, by halves") {
    reader.on_message([&](Connection&, std::string_view) { ++messages; });
    reader.on_end([&](Connection& self, std::error_code) {
      self.write("answer");
      self.shutdown();
    });
  }
  stream.peer.send("one\n");
  stream.peer.end();
  run_until(loop, [&] { return stream.record.closed > 0 && stream.peer.is_over(); });
  CHECK(messages == 1);
  CHECK(stream.peer.received() == expected);
  CHECK(stream.peer.error() == 0);
  CHECK_FALSE(stream.record.error);
}

TEST_CASE("What a release leaves undone because sending had failed is told") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->pause_reading();
  link.peer.send("unread");
  system.fail(Call::send, EPIPE);
  link.connection->write("lost");
  passes(loop);
  const pawl::UniqueFd socket = link.connection->release().socket;
  CHECK(socket);
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == std::errc::broken_pipe);
  CHECK(link.connection->close_reason() == CloseReason::released);
  CHECK(link.connection->buffered() == 4);
}

TEST_CASE(
    "A shutdown that the kernel refuses is an error, not an end that the peer never hears of") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  system.fail(Call::shutdown, ENOBUFS);
  SECTION("shutdown()") { link.connection->shutdown(); }
  SECTION("close()") { link.connection->close(); }
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == pawl::system_error_code(ENOBUFS));
  CHECK_THAT(link.connection->describe(), Catch::Contains("shutdown in RECEIVING"));
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == ECONNRESET);
}
