// SPDX-License-Identifier: MIT
// Giving input back, and giving the socket away.
#include <fcntl.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/server.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Server;
using pawl::UniqueFd;
using Released = pawl::Connection::Released;

namespace {

/// That `connection` is over because it was released, and has said so once.
void check_released(EventLoop& loop, const Connection& connection, const Recorder& record) {
  run_until(loop, [&] { return record.closed > 0; });
  passes(loop);
  CHECK(record.closed == 1);
  CHECK_FALSE(record.error);
  CHECK(connection.state() == ConnectionState::done);
  CHECK(connection.close_reason() == CloseReason::released);
  CHECK_THAT(connection.describe(), Catch::Contains("DONE: release in "));
}

}  // namespace

// release()

TEST_CASE("A released socket goes on with the same peer, under another connection too") {
  EventLoop loop;
  Link link(loop);
  Released released = link.connection->release();
  CHECK(link.connection->state() == ConnectionState::done);
  CHECK(link.record.closed == 0);  // not from inside the call
  CHECK(released.socket);
  CHECK(released.unread.empty());
  CHECK(released.unsent.empty());
  check_released(loop, *link.connection, link.record);
  link.connection.reset();
  const auto successor = Connection::adopt(loop, std::move(released.socket));
  Recorder record(*successor);
  link.peer.send("hello");
  successor->write("world");
  run_until(loop, [&] { return record.data == "hello" && link.peer.received() == "world"; });
}

TEST_CASE("A release while CONNECTING gives the unsent bytes and no socket") {
  EventLoop loop;
  RawListener listener;
  OneAnswer names({listener.endpoint()});
  EventLoop named_loop(options_on(names));
  const std::size_t before = open_fd_count();
  const auto connection = Connection::connect(named_loop, "example", listener.endpoint().port());
  Recorder record(*connection);
  SECTION("during the lookup") {}
  SECTION("during the attempt") { pass(named_loop); }
  connection->write("one ");
  connection->write(std::string(20'000, '2'));
  REQUIRE(connection->state() == ConnectionState::connecting);
  const Released released = connection->release();
  CHECK_FALSE(released.socket);
  CHECK(released.unsent == "one " + std::string(20'000, '2'));
  check_released(named_loop, *connection, record);
  CHECK(record.order == "closed");
  CHECK(open_fd_count() <= before + 1);  // the pool's
}

TEST_CASE("A release sends what it can, and gives the rest to the caller") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.peer.stop_reading();
  const std::string bytes = noise(500'000);
  std::string head = "before ";
  SECTION("while RECEIVING, with what was written just now") {
    link.connection->write(head);
    link.connection->write(std::string(bytes));
  }
  SECTION("while SENDING") {
    link.connection->write(head);
    link.connection->write(std::string(bytes));
    passes(loop);
    REQUIRE(link.connection->state() == ConnectionState::sending);
  }
  SECTION("when little was written") {
    Link roomy(loop);
    roomy.connection->write("all of it");
    const Released released = roomy.connection->release();
    CHECK(released.unsent.empty());
    run_until(loop, [&] { return roomy.peer.received() == "all of it"; });
    return;
  }
  Released released = link.connection->release();
  CHECK_FALSE(released.unsent.empty());
  CHECK(released.unsent.size() < bytes.size());
  CHECK(link.connection->buffered() == released.unsent.size());
  CHECK(link.connection->bytes_sent() + released.unsent.size() == 7 + bytes.size());
  link.peer.start_reading();
  const auto successor = Connection::adopt(loop, std::move(released.socket));
  successor->write(std::move(released.unsent));
  run_until(loop, [&] { return link.peer.received_bytes() >= 7 + bytes.size(); });
  CHECK(difference(link.peer.received(), head + bytes) == "");
}

TEST_CASE("A release leaves what the connection hasn't read to the next reader") {
  EventLoop loop;
  Link link(loop);
  link.connection->pause_reading();
  link.peer.send("unread");
  passes(loop);
  Released released = link.connection->release();
  const auto successor = Connection::adopt(loop, std::move(released.socket));
  Recorder record(*successor);
  run_until(loop, [&] { return record.data == "unread"; });
}

TEST_CASE(
    "A release from inside a callback gives back what it was just given, and is the last one") {
  EventLoop loop;
  Link link(loop);
  Released released;
  int calls = 0;
  const auto release = [&](Connection& self, std::string_view rest) {
    ++calls;
    self.unread(rest);
    released = self.release();
    CHECK(link.record.closed == 0);
  };
  std::string expected;
  SECTION("on_data") {
    link.connection->on_data(
        [&](Connection& self, std::string_view bytes) { release(self, bytes.substr(8)); });
    link.peer.send("CONNECT the rest");
    expected = "the rest";
  }
  SECTION("on_data, with more behind it") {
    link.connection->on_data(
        [&](Connection& self, std::string_view bytes) { release(self, bytes.substr(8)); });
    link.peer.send("CONNECT " + std::string(200'000, 'x'));
  }
  SECTION("on_eof") {
    link.connection->on_eof([&](Connection& self) { release(self, ""); });
    link.peer.end();
  }
  SECTION("on_drained") {
    link.connection->on_drained([&](Connection& self) { release(self, ""); });
    link.connection->write("hello");
  }
  run_until(loop, [&] { return link.record.closed == 1; });
  CHECK(calls == 1);
  CHECK(released.socket);
  if (!expected.empty()) CHECK(released.unread == expected);
  // What came in all: the word, what was given back, what the kernel still has.
  const std::string_view unread = released.unread;
  CHECK(link.connection->bytes_received() == (unread.empty() ? 0 : 8 + unread.size()));
  check_released(loop, *link.connection, link.record);
}

TEST_CASE("A release from on_connected gives the new socket away") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  Released released;
  connection->write("early ");
  connection->on_connected([&](Connection& self) {
    self.write("late");
    released = self.release();
  });
  const RawPeer peer(loop, listener.accept(loop));
  check_released(loop, *connection, record);
  CHECK(record.order == "closed");
  CHECK(released.socket);
  run_until(loop, [&] { return peer.received() == "early late"; });
}

TEST_CASE("A release in the middle of an end is still a release") {
  EventLoop loop;
  Link link(loop);
  SECTION("after shutdown(), whose end the peer then sees") {
    link.connection->shutdown();
    const Released released = link.connection->release();
    run_until(loop, [&] { return link.peer.has_ended(); });
    CHECK(released.socket);
  }
  SECTION("after close()") {
    link.connection->close();
    const Released released = link.connection->release();
    CHECK(released.socket);
  }
  SECTION("after the peer's end") {
    link.connection->set_allow_half_open(true);
    link.peer.end();
    run_until(loop, [&] { return link.record.order == "eof"; });
    link.connection->write("answer");
    const Released released = link.connection->release();
    run_until(loop, [&] { return link.peer.received() == "answer"; });
    CHECK(released.socket);
  }
  check_released(loop, *link.connection, link.record);
}

TEST_CASE("Nothing is left to release of a connection that is DONE") {
  EventLoop loop;
  Link link(loop);
  CloseReason expected = CloseReason::released;
  SECTION("because it was released") {
    const UniqueFd socket = std::move(link.connection->release().socket);
    CHECK(socket);
  }
  SECTION("because it was aborted") {
    link.connection->write("never sent");
    link.connection->unread("never delivered");
    link.connection->abort();
    expected = CloseReason::aborted;
  }
  SECTION("in on_closed") {
    expected = CloseReason::aborted;
    link.connection->on_closed([&](Connection& self, std::error_code) {
      ++link.record.closed;
      const Released released = self.release();
      CHECK_FALSE(released.socket);
    });
    link.connection->abort();
  }
  const Released released = link.connection->release();
  CHECK_FALSE(released.socket);
  CHECK(released.unsent.empty());
  CHECK(released.unread.empty());
  run_until(loop, [&] { return link.is_closed(); });
  passes(loop);
  CHECK(link.record.closed == 1);
  CHECK(link.connection->close_reason() == expected);
}

TEST_CASE("A release with unsent files or descriptors is the caller's mistake, and it goes on") {
  EventLoop loop;
  pawl::System& system = pawl::System::real();
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.keep_nothing();
  peer.stop_reading();
  const std::string bytes = noise(1'000'000);
  connection->write(std::string(bytes));
  std::uint64_t expected = bytes.size();
  SECTION("a file, behind bytes") {
    connection->write_file(UniqueFd(system.open_null().fd()), 0, 1);
  }
  SECTION("descriptors, behind bytes") {
    std::vector<UniqueFd> fds;
    fds.push_back(std::move(Pipe().reader));
    connection->write_fds("descriptors", std::move(fds));
    expected += 11;
  }
  CHECK_THROWS_AS(connection->release(), std::logic_error);
  CHECK(connection->state() == ConnectionState::sending);
  CHECK(record.order.empty());
  peer.start_reading();
  run_until(loop, [&] { return peer.received_bytes() == expected; });
}

TEST_CASE("A release that can send a file and descriptors first does so") {
  EventLoop loop;
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  RawPeer peer(loop, std::move(pair.theirs));
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(Pipe().reader));
  connection->write_fds("descriptors", std::move(fds));
  const Released released = connection->release();
  CHECK(released.socket);
  CHECK(released.unsent.empty());
  run_until(loop, [&] { return peer.received() == "descriptors"; });
}

TEST_CASE("A server forgets a connection that was released, and its socket lives on") {
  EventLoop loop;
  Released released;
  int closed = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection& peer) {
    peer.on_data([&](Connection& self, std::string_view bytes) {
      self.unread(bytes);
      released = self.release();
      CHECK(server.connections() == 1);
    });
    peer.on_closed([&](Connection& self, std::error_code error) {
      ++closed;
      CHECK_FALSE(error);
      CHECK(self.close_reason() == CloseReason::released);
    });
  });
  RawPeer peer(loop, raw_connect(server.local_endpoint()));
  SECTION("from its callback") {}
  SECTION("from on_connection") {
    Server at_once(loop, Endpoint::loopback(0),
                   [&](Connection& accepted) { released = accepted.release(); });
    RawPeer other(loop, raw_connect(at_once.local_endpoint()));
    run_until(loop, [&] { return static_cast<bool>(released.socket); });
    CHECK(at_once.connections() == 0);
    released = {};
  }
  peer.send("hello");
  run_until(loop, [&] { return closed == 1; });
  CHECK(server.connections() == 0);
  CHECK(released.unread == "hello");
  server.close();
  const auto own = Connection::adopt(loop, std::move(released.socket));
  own->write("still here");
  run_until(loop, [&] { return peer.received() == "still here"; });
}

TEST_CASE("A connection may be destroyed in the callback that released it") {
  EventLoop loop;
  Link link(loop);
  Released released;
  link.connection->on_data([&](Connection& self, std::string_view) {
    released = self.release();
    link.connection.reset();
  });
  link.peer.send("hello");
  run_until(loop, [&] { return static_cast<bool>(released.socket); });
  passes(loop);
  CHECK(link.record.closed == 0);
}

// unread()

TEST_CASE("What is given back comes again in the next pass, before what follows it") {
  EventLoop loop;
  Link link(loop);
  std::string all;
  int calls = 0;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    if (++calls == 1) {
      self.unread(bytes.substr(2));
      all += bytes.substr(0, 2);
      link.peer.send("456");
    } else {
      all += bytes;
    }
  });
  link.peer.send("0123");
  run_until(loop, [&] { return calls == 1; });
  pass(loop);
  CHECK(calls > 1);
  run_until(loop, [&] { return all.size() == 7; });
  CHECK(all == "0123456");
  CHECK(link.connection->bytes_received() == 7);
}

TEST_CASE("What is given back keeps its place in a stream that never pauses") {
  EventLoop loop;
  Link link(loop);
  const std::string bytes = noise(3'000'000);
  std::string all;
  std::uint32_t turn = 0;
  link.connection->on_data([&](Connection& self, std::string_view data) {
    const std::size_t taken = ++turn % 3 == 0 ? data.size() : data.size() / 2 + 1;
    all += data.substr(0, taken);
    self.unread(data.substr(taken));
  });
  const auto writer = Connection::adopt(
      loop, UniqueFd(::fcntl(link.peer.fd(), F_DUPFD_CLOEXEC, 0)));  // the peer's own socket
  link.peer.stop_reading();
  writer->write(std::string(bytes));
  run_until(loop, [&] { return all.size() >= bytes.size(); });
  CHECK(difference(all, bytes) == "");
  CHECK(link.connection->bytes_received() == bytes.size());
}

TEST_CASE("What is given back in two parts comes in the order of the stream") {
  EventLoop loop;
  Link link(loop);
  std::string again;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    self.unread(bytes.substr(4));  // the later one first: each goes before what is there
    self.unread(bytes.substr(0, 4));
    self.on_data([&](Connection&, std::string_view rest) { again += rest; });
  });
  link.peer.send("headbody");
  run_until(loop, [&] { return again == "headbody"; });
}

TEST_CASE("What is given back goes to the next on_data") {
  EventLoop loop;
  Link link(loop);
  std::string line;
  std::string body;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    line = bytes.substr(0, 5);
    self.on_data([&](Connection&, std::string_view rest) { body += rest; });
    self.unread(bytes.substr(5));
  });
  link.peer.send("line\nbody");
  run_until(loop, [&] { return body == "body"; });
  CHECK(line == "line\n");
}

TEST_CASE("What is given back waits while reading is paused") {
  EventLoop loop;
  Link link(loop);
  int calls = 0;
  std::string again;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    if (++calls > 1) {
      again += bytes;
      return;
    }
    self.unread(bytes);
    self.pause_reading();
  });
  link.peer.send("hello");
  run_until(loop, [&] { return calls == 1; });
  link.peer.send(" world");
  passes(loop, 20);
  CHECK(calls == 1);
  SECTION("resumed") {
    link.connection->resume_reading();
    CHECK(calls == 1);  // not from inside the call
    run_until(loop, [&] { return again.size() == 11; });
    CHECK(again == "hello world");
  }
  SECTION("resumed and paused again") {
    link.connection->resume_reading();
    link.connection->pause_reading();
    passes(loop, 20);
    CHECK(again.empty());
  }
  SECTION("closed") {
    link.connection->close();
    link.peer.end();
    run_until(loop, [&] { return link.is_closed(); });
    CHECK(again.empty());
    CHECK_FALSE(link.record.error);
  }
  SECTION("released") {
    const Released released = link.connection->release();
    CHECK(released.unread == "hello");
  }
}

TEST_CASE("The peer's end comes behind what was given back") {
  EventLoop loop;
  Link link(loop);
  std::string expected = "data eof closed";
  int calls = 0;
  std::string again;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    if (++calls <= 3) return self.unread(bytes);
    again += bytes;
    link.record.order += "data";
  });
  link.peer.send("hello");
  SECTION("in good order") { link.peer.end(); }
  SECTION("in the middle") {
    run_until(loop, [&] { return calls == 2; });
    link.peer.end();
  }
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(again == "hello");
  CHECK(link.record.order == expected);
}

TEST_CASE("A connection that is destroyed by what was given back says no more") {
  EventLoop loop;
  Link link(loop);
  int calls = 0;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    self.unread(bytes);
    if (++calls == 2) link.connection.reset();
  });
  link.peer.send("hello");
  run_until(loop, [&] { return calls == 2; });
  passes(loop);
  CHECK(calls == 2);
  CHECK(link.record.closed == 0);
}

TEST_CASE("What is given back after close() is dropped") {
  EventLoop loop;
  Link link(loop);
  link.connection->close();
  link.connection->unread("too late");
  passes(loop);
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "closed");
}

TEST_CASE("on_drained comes beside what is given back") {
  EventLoop loop;
  Link link(loop);
  int drained = 0;
  std::string data;
  link.connection->on_drained([&](Connection&) { ++drained; });
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    data += bytes;
    if (bytes.size() == 1) return;
    self.write("answer");
    self.unread(bytes.substr(1, 1));
  });
  link.peer.send("hello");
  run_until(loop, [&] { return data == "helloe"; });
  passes(loop);
  CHECK(drained == 1);
}

TEST_CASE("What is given back makes on_drained come no second time") {
  EventLoop loop;
  Link link(loop);
  link.record.attach_drained(*link.connection);
  link.connection->write("hello");
  run_until(loop, [&] { return link.record.drained == 1; });
  for (const char* expected : {"x", "xy"}) {
    link.connection->unread(std::string_view(expected).substr(link.record.data.size()));
    run_until(loop, [&] { return link.record.data == expected; });
  }
  CHECK(link.record.drained == 1);
}

TEST_CASE("The end is told once, whatever is done after it to what was given back") {
  EventLoop loop;
  Link link(loop);
  link.connection->pause_reading();
  link.connection->unread("never delivered");
  link.connection->abort();
  run_until(loop, [&] { return link.is_closed(); });
  link.record.attach(*link.connection);
  link.connection->resume_reading();
  passes(loop);
  CHECK(link.record.order == "closed");
  CHECK(link.record.closed == 1);
}

TEST_CASE("Giving back to a connection that is DONE does nothing") {
  EventLoop loop;
  Link link(loop);
  link.connection->abort();
  link.connection->unread("late");
  run_until(loop, [&] { return link.is_closed(); });
  passes(loop);
  CHECK(link.record.order == "closed");
}
