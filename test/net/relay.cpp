// SPDX-License-Identifier: MIT
// Two connections, each of which gets what the other one receives.
#include "pawl/net/relay.hpp"

#include <fcntl.h>

#include <algorithm>
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

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::relay;
using pawl::Server;

namespace {

/// What `done` was told, and how often.
struct Done {
  auto callback() {
    return [this](std::error_code reason) {
      ++calls;
      error = reason;
    };
  }
  int calls = 0;
  std::error_code error;
};

/// left's raw peer ↔ left ↔ right ↔ right's raw peer, the middle being the relay.
struct Relayed {
  explicit Relayed(EventLoop& loop, ConnectionOptions options = {}, BufferSizes sizes = {})
      : left(loop, options, sizes), right(loop, options, sizes) {
    relay(*left.connection, *right.connection, done.callback());
  }
  Link& side(int index) { return index == 0 ? left : right; }
  bool is_over() const { return done.calls > 0; }

  Link left;
  Link right;
  Done done;
};

/// That `done` doesn't come again.
void check_once(EventLoop& loop, const Done& done) {
  run_until(loop, [&] { return done.calls > 0; });
  passes(loop);
  CHECK(done.calls == 1);
}

}  // namespace

// Bytes

TEST_CASE("Bytes pass through a relay both ways at once, whole and in order") {
  EventLoop loop;
  BufferSizes sizes;
  std::size_t size = 20'000'000;
  SECTION("through big buffers") {}
  SECTION("through small ones") {
    sizes = tight;
    size = 1'000'000;
  }
  TcpPair left_pair(sizes);
  TcpPair right_pair(sizes);
  const auto left = Connection::adopt(loop, std::move(left_pair.ours));
  const auto right = Connection::adopt(loop, std::move(right_pair.ours));
  Done done;
  relay(*left, *right, done.callback());
  struct End {
    End(EventLoop& loop, pawl::UniqueFd socket, std::size_t bytes, std::uint32_t seed)
        : connection(Connection::adopt(loop, std::move(socket))) {
      const std::string text = noise(bytes, seed);
      sent.add(text);
      connection->on_data([this](Connection&, std::string_view data) { received.add(data); });
      connection->on_eof([this](Connection&) { has_ended = true; });
      connection->set_allow_half_open(true);
      for (std::size_t at = 0; at < text.size(); at += 1'000'000) {
        connection->write(text.substr(at, 1'000'000));
      }
      connection->shutdown();
    }
    std::unique_ptr<Connection> connection;
    Checksum sent;
    Checksum received;
    bool has_ended = false;
  };
  End first(loop, std::move(left_pair.theirs), std::min<std::size_t>(size, 16'000'000), 1);
  End second(loop, std::move(right_pair.theirs), size / 2, 2);
  std::size_t most = 0;
  run_until(loop, [&] {
    most = std::max({most, left->buffered(), right->buffered()});
    return done.calls > 0 && first.has_ended && second.has_ended;
  });
  CHECK(first.received == second.sent);
  CHECK(second.received == first.sent);
  CHECK_FALSE(done.error);
  CHECK(most <= 64 * 1024 + 64 * 1024);  // high_water and one read
  check_once(loop, done);
  CHECK_FALSE(left->error());
  CHECK_FALSE(right->error());
}

TEST_CASE("A relay to a peer that never reads stops reading, and keeps no more than high_water") {
  EventLoop loop;
  ConnectionOptions options;
  options.write_timeout = {};
  Relayed relayed(loop, options);
  const int index = GENERATE(0, 1);
  Link& deaf = relayed.side(index);
  Link& eager = relayed.side(1 - index);
  deaf.peer.stop_reading();
  const auto source =
      Connection::adopt(loop, pawl::UniqueFd(::fcntl(eager.peer.fd(), F_DUPFD_CLOEXEC, 0)));
  eager.peer.stop_reading();
  const std::string chunk = noise(1'000'000);
  std::size_t fed = 0;
  source->on_drained([&](Connection& self) {
    fed += chunk.size();
    self.write(chunk);
  });
  source->write(chunk);
  std::size_t most = 0;
  run_until(loop, [&] {
    most = std::max(most, deaf.connection->buffered());
    return eager.connection->is_reading_paused();
  });
  CHECK(most > 16 * 1024);  // it was 64 KiB when it paused; the kernel may have taken some since
  CHECK(most <= 2 * 64 * 1024);
  // The other direction isn't held up by it.
  deaf.peer.send("still here");
  std::string heard;
  source->on_data([&](Connection&, std::string_view bytes) { heard += bytes; });
  run_until(loop, [&] { return heard == "still here"; });
  // When it reads again, all goes on.
  deaf.peer.keep_nothing();
  deaf.peer.start_reading();
  const std::size_t before = deaf.peer.received_bytes();
  run_until(loop, [&] { return deaf.peer.received_bytes() > before + 20'000'000; });
  CHECK(relayed.done.calls == 0);
}

// Ends

TEST_CASE("The end of one stream becomes the other's, and the way back stays open") {
  EventLoop loop;
  Relayed relayed(loop);
  const int index = GENERATE(0, 1);
  RawPeer& first = relayed.side(index).peer;
  RawPeer& second = relayed.side(1 - index).peer;
  first.send("question");
  first.end();
  run_until(loop, [&] { return second.is_over(); });
  CHECK(second.received() == "question");
  CHECK(second.has_ended());
  passes(loop);
  CHECK_FALSE(first.is_over());
  second.send("answer");
  run_until(loop, [&] { return first.received() == "answer"; });
  CHECK(relayed.done.calls == 0);
  second.end();
  run_until(loop, [&] { return first.is_over(); });
  CHECK(first.has_ended());
  check_once(loop, relayed.done);
  CHECK_FALSE(relayed.done.error);
  CHECK(relayed.side(index).connection->close_reason() == CloseReason::peer_ended);
  CHECK(relayed.side(1 - index).connection->close_reason() == CloseReason::clean);
}

TEST_CASE("A reset becomes a reset") {
  EventLoop loop;
  Relayed relayed(loop);
  const int index = GENERATE(0, 1);
  std::error_code expected = pawl::system_error_code(ECONNRESET);
  SECTION("by the peer") { relayed.side(index).peer.reset(); }
  SECTION("by this side") {
    relayed.side(index).connection->abort();
    expected = Errc::aborted;
  }
  RawPeer& other = relayed.side(1 - index).peer;
  run_until(loop, [&] { return other.is_over(); });
  CHECK(other.error() == ECONNRESET);
  check_once(loop, relayed.done);
  CHECK(relayed.done.error == expected);
  CHECK(relayed.side(1 - index).connection->close_reason() == CloseReason::aborted);
}

TEST_CASE("A good end closes the other side in good order, behind what it still has to send") {
  EventLoop loop;
  Relayed relayed(loop);
  const int index = GENERATE(0, 1);
  Link& ending = relayed.side(index);
  Link& other = relayed.side(1 - index);
  const std::string bytes = noise(100'000);
  ending.peer.send(bytes);
  run_until(loop, [&] { return ending.connection->bytes_received() == bytes.size(); });
  SECTION("closed") {
    ending.connection->close();
    ending.peer.end();
  }
  SECTION("released") { ending.connection->release(); }
  run_until(loop, [&] { return other.peer.is_over(); });
  CHECK(other.peer.has_ended());
  CHECK(other.peer.received() == bytes);
  other.peer.end();
  check_once(loop, relayed.done);
  CHECK_FALSE(relayed.done.error);
}

TEST_CASE("A side that ended by a timeout or a limit resets the other: its stream was cut") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  ConnectionOptions options;
  options.idle_timeout = 60s;
  options.write_timeout = 20s;
  options.close_timeout = 5s;
  options.write_limit = 300'000;
  Relayed relayed(loop, options, tight);
  const int index = GENERATE(0, 1);
  Link& ending = relayed.side(index);
  Link& other = relayed.side(1 - index);
  std::error_code expected = Errc::timed_out;
  ending.peer.send("the first part");
  spin_until(loop, [&] { return other.peer.received() == "the first part"; });
  SECTION("idle") {
    system.advance(59s);
    other.connection->write("touched");
    passes(loop);
    system.advance(2s);
  }
  SECTION("a peer that takes nothing") {
    ending.peer.stop_reading();
    ending.connection->write(noise(200'000));
    passes(loop);
    for (int i = 0; i < 10 && !relayed.is_over(); ++i) {  // the last look may find some room
      system.advance(20s);
      passes(loop);
    }
  }
  SECTION("a limit") {
    ending.peer.stop_reading();
    ending.connection->write(noise(200'000));
    passes(loop);
    ending.connection->write(noise(8'000'000));  // more than the kernel takes
    expected = Errc::write_limit;
  }
  SECTION("closed, and not all could be sent") {
    ending.peer.stop_reading();
    ending.connection->write(noise(200'000));
    ending.connection->close();
    passes(loop);
    system.advance(5s);
    expected = Errc::unsent_data;
  }
  spin_until(loop, [&] { return other.peer.is_over(); });
  CHECK(other.peer.error() == ECONNRESET);
  CHECK(other.connection->close_reason() == CloseReason::aborted);
  spin_until(loop, [&] { return relayed.is_over(); });
  passes(loop);
  CHECK(relayed.done.calls == 1);
  CHECK(relayed.done.error == expected);
}

// Destroying

TEST_CASE("A side of a relay that is destroyed aborts the other") {
  EventLoop loop;
  Relayed relayed(loop);
  const int index = GENERATE(0, 1);
  Link& gone = relayed.side(index);
  Link& left_over = relayed.side(1 - index);
  SECTION("before anything came") {}
  SECTION("with bytes on their way") {
    gone.peer.send("to nobody");
    left_over.peer.send(std::string(200'000, 'x'));
    pass(loop);
  }
  SECTION("when it is half-closed") {
    gone.peer.end();
    passes(loop);
  }
  SECTION("when the other is half-closed") {
    left_over.peer.end();
    passes(loop);
  }
  gone.connection.reset();
  CHECK(relayed.done.calls == 0);  // not from inside the destructor
  check_once(loop, relayed.done);
  CHECK(relayed.done.error == Errc::aborted);
  CHECK(left_over.connection->close_reason() == CloseReason::aborted);
  run_until(loop, [&] { return left_over.peer.is_over(); });
  // Whoever has had the end already reads no more.
  CHECK((left_over.peer.error() == ECONNRESET || left_over.peer.has_ended()));
}

TEST_CASE("Both sides of a relay may be destroyed, one after the other") {
  EventLoop loop;
  Relayed relayed(loop);
  const int index = GENERATE(0, 1);
  relayed.side(index).connection.reset();
  SECTION("at once") {}
  SECTION("a pass later") { pass(loop); }
  relayed.side(1 - index).connection.reset();
  check_once(loop, relayed.done);
}

TEST_CASE("Both sides of a relay may be destroyed in done, with done's own captures") {
  EventLoop loop;
  struct Session {
    Session(EventLoop& loop) : left(loop), right(loop) {}
    Link left;
    Link right;
  };
  auto session = std::make_shared<Session>(loop);
  Session& ends = *session;
  const std::weak_ptr<Session> watch = session;
  relay(*ends.left.connection, *ends.right.connection,
        [session = std::move(session)](std::error_code) mutable { session.reset(); });
  SECTION("after good order") {
    ends.left.peer.end();
    ends.right.peer.end();
  }
  SECTION("after a reset") { ends.left.peer.reset(); }
  run_until(loop, [&] { return watch.expired(); });
  passes(loop);
}

TEST_CASE("A side of a relay may be destroyed by a callback of its own or of the other") {
  EventLoop loop;
  RawListener listener;
  Link link(loop);
  auto dial = Connection::connect(loop, listener.endpoint());
  Done done;
  bool is_called = false;
  relay(*link.connection, *dial, done.callback());
  const bool destroys_dial = GENERATE(true, false);
  dial->on_connected([&](Connection&) {
    is_called = true;
    destroys_dial ? dial.reset() : link.connection.reset();
  });
  link.peer.send("hello");
  check_once(loop, done);
  CHECK(is_called);
  CHECK(done.error == Errc::aborted);
}

TEST_CASE("A loop that is destroyed first takes done along, uncalled") {
  Done done;
  const auto token = std::make_shared<int>(7);
  {
    EventLoop loop;
    Link left(loop);
    Link right(loop);
    relay(*left.connection, *right.connection, [&, token](std::error_code) { ++done.calls; });
    CHECK(token.use_count() == 2);
    left.connection.reset();
    right.connection.reset();
  }
  CHECK(done.calls == 0);
  CHECK(token.use_count() == 1);
}

TEST_CASE("A relay needs no done") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  relay(*left.connection, *right.connection);
  left.peer.send("hello");
  left.peer.end();
  right.peer.end();
  run_until(loop, [&] { return left.peer.is_over() && right.peer.is_over(); });
  CHECK(right.peer.received() == "hello");
}

TEST_CASE("An exception from done leaves the loop's run, and the loop goes on") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  relay(*left.connection, *right.connection,
        [](std::error_code) { throw std::runtime_error("from done"); });
  left.connection->abort();
  CHECK_THROWS_WITH(loop.run_for(30s), "from done");
  run_until(loop, [&] { return right.peer.is_over(); });
}

// Beginnings

TEST_CASE("A relay to a side that is CONNECTING keeps what came meanwhile") {
  EventLoop loop;
  RawListener listener;
  Link link(loop);
  const auto dial = Connection::connect(loop, listener.endpoint());
  Done done;
  bool is_first = GENERATE(true, false);
  is_first ? relay(*dial, *link.connection, done.callback())
           : relay(*link.connection, *dial, done.callback());
  link.peer.send("early ");
  link.peer.end();
  RawPeer upstream(loop, listener.accept(loop));
  run_until(loop, [&] { return upstream.is_over(); });
  CHECK(upstream.received() == "early ");
  upstream.send("answer");
  upstream.end();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "answer");
  check_once(loop, done);
  CHECK_FALSE(done.error);
}

TEST_CASE("A side that can't be connected resets the other") {
  EventLoop loop;
  Link link(loop);
  const auto dial = Connection::connect(loop, refusing_endpoint());
  Done done;
  relay(*link.connection, *dial, done.callback());
  link.peer.send("early ");
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == ECONNRESET);
  check_once(loop, done);
  CHECK(done.error == std::errc::connection_refused);
}

TEST_CASE("A side that had stopped reading is read, one whose peer is slow isn't yet") {
  EventLoop loop;
  Link left(loop);
  Link right(loop, {}, tight);
  left.connection->pause_reading();
  left.peer.send("kept back");
  passes(loop);
  SECTION("a quick peer") {
    relay(*left.connection, *right.connection);
    run_until(loop, [&] { return right.peer.received() == "kept back"; });
  }
  SECTION("a slow one") {
    right.peer.stop_reading();
    right.connection->write(noise(500'000));
    passes(loop);
    REQUIRE(right.connection->is_congested());
    relay(*left.connection, *right.connection);
    passes(loop);
    CHECK(left.connection->bytes_received() == 0);
    right.peer.start_reading();
    run_until(loop, [&] { return right.peer.received_bytes() == 500'009; });
  }
}

TEST_CASE("A side that is half-closed already passes that on") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  left.connection->set_allow_half_open(true);
  left.peer.end();
  run_until(loop, [&] { return left.record.order == "eof"; });
  CHECK(left.connection->has_peer_ended());
  CHECK_FALSE(right.connection->has_peer_ended());
  Done done;
  relay(*left.connection, *right.connection, done.callback());
  run_until(loop, [&] { return right.peer.has_ended(); });
  right.peer.send("answer");
  right.peer.end();
  run_until(loop, [&] { return left.peer.received() == "answer"; });
  check_once(loop, done);
  CHECK_FALSE(done.error);
}

TEST_CASE("A side that is DONE already ends the other") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  const int index = GENERATE(0, 1);
  Link& over = index == 0 ? left : right;
  Link& other = index == 0 ? right : left;
  Done done;
  SECTION("told") {
    over.connection->abort();
    run_until(loop, [&] { return over.is_closed(); });
  }
  SECTION("not yet told") { over.connection->abort(); }
  SECTION("both") {
    over.connection->abort();
    other.connection->abort();
  }
  relay(*left.connection, *right.connection, done.callback());
  CHECK(done.calls == 0);
  check_once(loop, done);
  CHECK(done.error == Errc::aborted);
  CHECK(other.connection->close_reason() == CloseReason::aborted);
}

TEST_CASE("A side that has ended in good order closes the other") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  const int index = GENERATE(0, 1);
  Link& over = index == 0 ? left : right;
  Link& other = index == 0 ? right : left;
  const pawl::UniqueFd socket = over.connection->release().socket;
  Done done;
  relay(*left.connection, *right.connection, done.callback());
  CHECK(other.connection->state() == ConnectionState::receiving);
  CHECK(other.connection->is_closing());
  other.peer.end();
  check_once(loop, done);
  CHECK_FALSE(done.error);
  CHECK(other.connection->close_reason() == CloseReason::clean);
}

// As it is used

TEST_CASE("A proxy of a server and dials carries many conversations at once") {
  EventLoop loop;
  Server upstream(loop, Endpoint::loopback(0), [](Connection& peer) {
    peer.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  });
  std::vector<std::unique_ptr<Connection>> dials;
  int over = 0;
  Server proxy(loop, Endpoint::loopback(0), [&](Connection& client) {
    dials.push_back(Connection::connect(loop, upstream.local_endpoint()));
    relay(client, *dials.back(), [&](std::error_code error) {
      CHECK_FALSE(error);
      ++over;
    });
  });
  struct Client {
    Client(EventLoop& loop, const Endpoint& endpoint, std::uint32_t seed)
        : connection(Connection::connect(loop, endpoint)),
          record(*connection),
          text(noise(50'000 + seed * 1000, seed)) {
      connection->write(text);
    }
    std::unique_ptr<Connection> connection;
    Recorder record;
    std::string text;
  };
  std::vector<std::unique_ptr<Client>> clients;
  for (std::uint32_t i = 1; i <= 40; ++i) {
    clients.push_back(std::make_unique<Client>(loop, proxy.local_endpoint(), i));
  }
  for (const auto& client : clients) {
    run_until(loop, [&] { return client->record.data.size() >= client->text.size(); });
    CHECK(difference(client->record.data, client->text) == "");
    client->connection->close();
  }
  run_until(loop, [&] { return over == 40; });
  CHECK(proxy.connections() == 0);
  run_until(loop, [&] { return upstream.connections() == 0; });
}
