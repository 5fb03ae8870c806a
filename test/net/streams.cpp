// SPDX-License-Identifier: MIT
// Bytes in both directions: that they arrive, in order, and with how many system calls.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/net/server.hpp"
#include "support/interrupter.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::SystemResult;

namespace {

/// The kernel, and what `send` and `sendmsg` were given.
class SendSpy final : public FaultySystem {
 public:
  SystemResult send(int fd, const void* data, std::size_t bytes) override {
    pieces.emplace_back(static_cast<const char*>(data), bytes);
    return FaultySystem::send(fd, data, bytes);
  }
  SystemResult sendmsg(int fd, const msghdr* message, int flags) override {
    for (std::size_t i = 0; i < message->msg_iovlen; ++i) {
      const iovec& piece = message->msg_iov[i];
      pieces.emplace_back(static_cast<const char*>(piece.iov_base), piece.iov_len);
    }
    return FaultySystem::sendmsg(fd, message, flags);
  }
  int sends() const { return count(Call::send) + count(Call::sendmsg); }

  std::vector<std::string_view> pieces;  // dangling once they are sent: for their addresses
};

/// A kernel that takes and gives as few bytes at once as it likes: a random number of them, none
/// now and then.
class Miser final : public pawl::System {
 public:
  explicit Miser(std::size_t most) : most_(most) {}
  SystemResult send(int fd, const void* data, std::size_t bytes) override {
    return is_stubborn() ? not_now() : System::send(fd, data, few(bytes));
  }
  SystemResult recv(int fd, void* buffer, std::size_t bytes) override {
    return is_stubborn() ? not_now() : System::recv(fd, buffer, few(bytes));
  }
  SystemResult sendmsg(int fd, const msghdr* message, int flags) override {
    if (is_stubborn()) return not_now();
    std::vector<iovec> pieces(message->msg_iov, message->msg_iov + message->msg_iovlen);
    std::size_t left = few(~std::size_t{0});
    for (iovec& piece : pieces) {
      piece.iov_len = std::min(piece.iov_len, left);
      left -= piece.iov_len;
    }
    msghdr shorter = *message;
    shorter.msg_iov = pieces.data();
    return System::sendmsg(fd, &shorter, flags);
  }

 private:
  bool is_stubborn() { return next() % 4 == 0; }
  std::size_t few(std::size_t bytes) { return std::min(bytes, next() % most_ + 1); }
  static SystemResult not_now() { return {-1, EAGAIN}; }
  std::uint32_t next() { return state_ = state_ * 1664525U + 1013904223U, state_ >> 8; }

  std::size_t most_;
  std::uint32_t state_ = 1;
};

/// Sends `total` bytes in blocks whenever there is room for more, then closes.
class Feeder {
 public:
  Feeder(Connection& connection, std::size_t total, std::size_t block)
      : block_(noise(block)), left_(total) {
    connection.on_drained([this](Connection& self) { feed(self); });
    feed(connection);
  }
  const Checksum& sum() const { return sum_; }
  std::size_t most_buffered() const { return most_buffered_; }

 private:
  void feed(Connection& connection) {
    while (left_ > 0 && !connection.is_congested()) {
      const std::string_view bytes(block_.data(), std::min(block_.size(), left_));
      sum_.add(bytes);
      connection.write(bytes);
      left_ -= bytes.size();
      most_buffered_ = std::max(most_buffered_, connection.buffered());
    }
    if (left_ == 0) connection.shutdown();
  }

  std::string block_;
  std::size_t left_;
  std::size_t most_buffered_ = 0;
  Checksum sum_;
};

/// Two connections of pawl's that are connected to each other.
struct Both {
  Both(EventLoop& loop, TcpPair pair, ConnectionOptions options = {})
      : near(Connection::adopt(loop, std::move(pair.ours), options)),
        far(Connection::adopt(loop, std::move(pair.theirs), options)) {}
  std::unique_ptr<Connection> near;
  std::unique_ptr<Connection> far;
};

}  // namespace

TEST_CASE("Bytes go both ways, and are counted") {
  EventLoop loop;
  Link link(loop);
  link.connection->write("to the peer");
  link.peer.send("from the peer");
  run_until(loop, [&] {
    return link.peer.received() == "to the peer" && link.record.data == "from the peer";
  });
  CHECK(link.connection->bytes_sent() == 11);
  CHECK(link.connection->bytes_received() == 13);
  CHECK(link.connection->buffered() == 0);
}

TEST_CASE("Data of any size arrives whole and in order") {
  EventLoop loop;
  // One byte less and more than what is read, put together, or sent as a piece of its own.
  for (const std::size_t size :
       {1U, 16383U, 16384U, 16385U, 65535U, 65536U, 65537U, 262144U, 1000000U}) {
    CAPTURE(size);
    Both both(loop, TcpPair());
    const std::string sent = noise(size);
    std::string received;
    bool has_ended = false;
    both.far->on_data([&](Connection&, std::string_view bytes) { received += bytes; });
    both.far->on_eof([&](Connection&) { has_ended = true; });
    both.near->write(sent);
    both.near->shutdown();
    run_until(loop, [&] { return has_ended; });
    CHECK(difference(received, sent) == "");
  }
}

TEST_CASE("Writes of mixed sizes, copied and taken over, keep their order") {
  EventLoop loop;
  Both both(loop, TcpPair(tight));
  std::string sent;
  std::string received;
  both.far->on_data([&](Connection&, std::string_view bytes) { received += bytes; });
  std::uint32_t seed = 1;
  const auto write_some = [&] {
    for (const std::size_t size : {1U, 20000U, 5U, 16384U, 16383U, 0U, 70000U, 7U, 40000U, 3U}) {
      std::string bytes = noise(size, ++seed);
      sent += bytes;
      if (seed % 2 == 0) {
        both.near->write(std::move(bytes));
      } else {
        both.near->write(std::string_view(bytes));
      }
    }
  };
  for (int i = 0; i < 10; ++i) {
    write_some();
    pass(loop);
  }
  run_until(loop, [&] { return received.size() == sent.size(); });
  CHECK(difference(received, sent) == "");
}

TEST_CASE("Writes that are made in one callback leave together when it returns") {
  SendSpy system;
  EventLoop loop(options_on(system));
  Link link(loop);
  int sends_inside = -1;
  std::string expected;
  const auto expect = [&](std::string_view bytes) {
    link.connection->write(bytes);
    expected += bytes;
  };
  SECTION("small ones in one piece") {
    link.connection->on_data([&](Connection&, std::string_view) {
      for (int i = 0; i < 10; ++i) expect("0123456789");
      sends_inside = system.sends();
    });
  }
  SECTION("big ones in one call") {
    link.connection->on_data([&](Connection&, std::string_view) {
      for (int i = 0; i < 5; ++i) {
        expect("small");
        expect(noise(20000));
      }
      sends_inside = system.sends();
    });
  }
  link.peer.send("go");
  run_until(loop, [&] { return !expected.empty() && link.peer.received() == expected; });
  CHECK(sends_inside == 0);
  CHECK(system.sends() == 1);
}

TEST_CASE(
    "Writes that are made outside of the connection's callbacks leave before the loop waits") {
  SendSpy system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const auto write = [&] {
    for (int i = 0; i < 10; ++i) link.connection->write("0123456789");
    CHECK(system.sends() == 0);
  };
  SECTION("before the loop runs") { write(); }
  SECTION("from call_soon") { loop.call_soon(write); }
  SECTION("from a timer") { loop.call_later(1ms, write); }
  SECTION("from another thread's post") { loop.call_soon_threadsafe(write); }
  SECTION("from another connection's callback") {
    Link other(loop);
    other.connection->on_data([&](Connection&, std::string_view) { write(); });
    other.peer.send("go");
    run_until(loop, [&] { return link.peer.received_bytes() == 100; });
  }
  run_until(loop, [&] { return link.peer.received_bytes() == 100; });
  CHECK(system.sends() == 1);
}

TEST_CASE("What was written may be changed at once") {
  EventLoop loop;
  Link link(loop);
  std::string expected;
  const auto write = [&] {
    for (const std::size_t size : {10U, 3'000U, 20'000U, 100U}) {
      std::string bytes = noise(size, static_cast<std::uint32_t>(size));
      link.connection->write(std::string_view(bytes));
      expected += bytes;
      bytes.assign(size, '?');
    }
  };
  SECTION("outside of callbacks") { write(); }
  SECTION("inside of one") {
    link.connection->on_data([&](Connection&, std::string_view) { write(); });
    link.peer.send("go");
  }
  run_until(loop, [&] { return link.peer.received_bytes() == 23'110; });
  CHECK(difference(link.peer.received(), expected) == "");
}

TEST_CASE("What is read and answered costs one recv and one send") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  const int recvs = system.count(Call::recv);
  for (int i = 1; i <= 10; ++i) {
    link.peer.send("ping");
    run_until(loop, [&] { return link.peer.received_bytes() == 4U * static_cast<unsigned>(i); });
  }
  CHECK(system.count(Call::recv) - recvs == 10);
  CHECK(system.count(Call::send) == 10);
  CHECK(system.count(Call::sendmsg) == 0);
}

TEST_CASE("A big string that is handed over isn't copied") {
  SendSpy system;
  EventLoop loop(options_on(system));
  Link link(loop);
  const std::size_t size = GENERATE(20'000U, 200'000U);
  std::string big = noise(size);
  big.shrink_to_fit();
  const std::string copy = big;
  const char* address = big.data();
  link.connection->write("before");
  link.connection->write(std::move(big));
  SECTION("alone") {}
  SECTION("with something small behind it") { link.connection->write("after"); }
  run_until(loop, [&] { return link.connection->buffered() == 0; });
  REQUIRE(system.pieces.size() >= 2);
  CHECK(system.pieces[0].size() == 6);
  CHECK(system.pieces[1].data() == address);
  run_until(loop, [&] { return link.peer.received_bytes() == link.connection->bytes_sent(); });
  CHECK(difference(link.peer.received().substr(6, copy.size()), copy) == "");
}

TEST_CASE("Writing nothing sends nothing") {
  SendSpy system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->write("");
  link.connection->write(std::string());
  link.connection->write(std::string_view());
  passes(loop);
  CHECK(system.sends() == 0);
  CHECK(link.connection->state() == ConnectionState::receiving);
  CHECK(link.record.order.empty());
  link.connection->on_data([](Connection& self, std::string_view bytes) {
    self.write(bytes.substr(0, 0));
    self.write("");
    CHECK(self.state() == ConnectionState::receiving);
  });
  link.peer.send("no answer");
  run_until(loop, [&] { return link.connection->bytes_received() == 9; });
  CHECK(system.sends() == 0);
}

TEST_CASE("64 MiB get through a send buffer of 4 KiB, and their checksum is right") {
  constexpr std::size_t total = 64 * 1024 * 1024;
  EventLoop loop;
  TcpPair pair(BufferSizes{4096, 0});
  int send_buffer = 0;
  unsigned bytes = sizeof send_buffer;
  loop.system().getsockopt(pair.ours.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, &bytes);
  REQUIRE(send_buffer <= 8192);  // the kernel doubles what it is asked for
  Both both(loop, std::move(pair));
  Checksum received;
  bool has_ended = false;
  std::error_code near_error = pawl::Errc::aborted;
  both.far->on_data([&](Connection&, std::string_view block) { received.add(block); });
  both.far->on_eof([&](Connection&) { has_ended = true; });
  both.near->on_closed([&](Connection&, std::error_code error) { near_error = error; });
  const Feeder feeder(*both.near, total, 100'000);
  run_until(loop, [&] { return has_ended && both.near->state() == ConnectionState::done; });
  passes(loop);
  CHECK(received.bytes() == total);
  CHECK(received == feeder.sum());
  CHECK_FALSE(near_error);
  CHECK(feeder.most_buffered() < 64 * 1024 + 100'000);
  CHECK(both.near->bytes_sent() == total);
  CHECK(both.far->bytes_received() == total);
}

TEST_CASE("A transfer survives a signal each millisecond") {
  constexpr std::size_t total = 32 * 1024 * 1024;
  const Interrupter interrupter;
  const long strikes = Interrupter::count();
  EventLoop loop;
  Both both(loop, TcpPair(BufferSizes{16384, 0}));
  Checksum received;
  bool has_ended = false;
  both.far->on_data([&](Connection&, std::string_view block) { received.add(block); });
  both.far->on_eof([&](Connection&) { has_ended = true; });
  const Feeder feeder(*both.near, total, 100'000);
  run_until(loop, [&] { return has_ended; });
  CHECK(received == feeder.sum());
  CHECK(Interrupter::count() > strikes);
}

TEST_CASE("A kernel that takes and gives a few bytes at once, and none at times, loses nothing") {
  for (const std::size_t most : {1U, 7U, 1000U, 100'000U}) {
    CAPTURE(most);
    Miser system(most);
    EventLoop loop(options_on(system));
    Both both(loop, TcpPair());
    std::string there = noise(std::min<std::size_t>(most * 5000, 500'000));
    std::string at_far;
    std::string back;
    both.far->on_data([&](Connection& self, std::string_view bytes) {
      at_far += bytes;
      self.write(bytes);
    });
    both.near->on_data([&](Connection&, std::string_view bytes) { back += bytes; });
    for (std::size_t begin = 0; begin < there.size(); begin += 30'000) {
      both.near->write(std::string_view(there).substr(begin, 30'000));
    }
    run_until(loop, [&] { return back.size() == there.size(); });
    CHECK(difference(at_far, there) == "");
    CHECK(difference(back, there) == "");
  }
}

TEST_CASE("A storm of EAGAIN, or of no memory, passes") {
  for (const int error : {EAGAIN, ENOBUFS, ENOMEM}) {
    CAPTURE(error);
    FaultySystem system;
    EventLoop loop(options_on(system));
    Link link(loop);
    // Of memory it is asked only now and then.
    const int times = error == EAGAIN ? 500 : 5;
    system.fail(Call::send, error, times);
    system.fail(Call::recv, EAGAIN, 500);
    link.connection->write("through");
    link.peer.send("the storm");
    run_until(loop,
              [&] { return link.peer.received() == "through" && link.record.data == "the storm"; });
    CHECK(system.count(Call::send) == times + 1);
    CHECK(link.connection->state() == ConnectionState::receiving);
  }
}

TEST_CASE("Data arrives while there is something to send") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.peer.stop_reading();
  const std::string big = noise(1'000'000);
  link.connection->write(big);
  passes(loop);
  REQUIRE(link.connection->state() == ConnectionState::sending);
  link.peer.send("hello");
  run_until(loop, [&] { return link.record.data == "hello"; });
  CHECK(link.connection->state() == ConnectionState::sending);
  link.peer.start_reading();
  run_until(loop, [&] { return link.peer.received() == big; });
  CHECK(link.connection->state() == ConnectionState::receiving);
}

TEST_CASE("A connection with much to read doesn't keep the others waiting") {
  EventLoop loop;
  Link busy(loop, {}, BufferSizes{4 * 1024 * 1024, 4 * 1024 * 1024});
  Link quiet(loop);
  const std::size_t queued = fill(busy.peer.fd());
  REQUIRE(queued > 1024 * 1024);
  quiet.peer.send("me too");
  run_until(loop, [&] { return quiet.record.data == "me too"; });
  CHECK(busy.record.data.size() <= 512 * 1024);
  run_until(loop, [&] { return busy.record.data.size() == queued; });
}

TEST_CASE("A connection with much to send doesn't keep the others waiting") {
  FaultySystem system;
  system.set_chunk_limit(1000);
  EventLoop loop(options_on(system));
  Link busy(loop);
  Link quiet(loop);
  busy.connection->write(noise(1'000'000));
  quiet.peer.send("me too");
  run_until(loop, [&] { return quiet.record.data == "me too"; });
  CHECK(busy.connection->buffered() > 0);
  run_until(loop, [&] { return busy.peer.received_bytes() == 1'000'000; });
}

TEST_CASE("A connection works over a Unix socket too") {
  EventLoop loop;
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  const std::string big = noise(2'000'000);
  connection->write(big);
  peer.send("hello");
  run_until(loop, [&] { return peer.received() == big && record.data == "hello"; });
  peer.end();
  run_until(loop, [&] { return record.closed > 0; });
  CHECK_FALSE(record.error);
  CHECK(record.order == "data eof closed");
}
