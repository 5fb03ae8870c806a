// SPDX-License-Identifier: MIT
// The sock_ operations: asyncio's meaning, on descriptors of the user's own.
#include "pawl/net/sock.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "support/sockets.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::AcceptedSocket;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::ReceivedFrom;
using pawl::SockHandle;
using pawl::UniqueFd;

namespace {

/// What a completion said, and how often.
template <typename Value>
struct Completion {
  int count = 0;
  std::error_code error;
  Value value{};

  auto callback() {
    return [this](std::error_code its_error, Value its_value) {
      ++count;
      error = its_error;
      value = std::move(its_value);
    };
  }
};

struct Connected {
  int count = 0;
  std::error_code error;

  auto callback() {
    return [this](std::error_code its_error) {
      ++count;
      error = its_error;
    };
  }
};

UniqueFd tcp_socket() {
  return UniqueFd(pawl::System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
}

std::string abstract(const char* name) {
  return "unix:@pawl-sock-" + std::to_string(::getpid()) + name;
}

}  // namespace

// ---- what each does

TEST_CASE("sock_recv gives what is there, and no more than was asked for") {
  EventLoop loop;
  const SocketPair pair;
  ::send(pair.theirs.get(), "hello", 5, 0);
  Completion<std::string> received;
  pawl::sock_recv(loop, pair.ours.get(), 3, received.callback());
  CHECK(received.count == 0);
  loop.run();
  CHECK(received.value == "hel");
  pawl::sock_recv(loop, pair.ours.get(), 300'000, received.callback());
  loop.run();
  CHECK(received.value == "lo");
  CHECK(received.count == 2);
  CHECK_FALSE(received.error);
}

TEST_CASE("sock_recv waits for bytes, and gives nothing at the end") {
  EventLoop loop;
  SocketPair pair;
  Completion<std::string> received;
  pawl::sock_recv(loop, pair.ours.get(), 100, received.callback());
  passes(loop, 5);
  CHECK(received.count == 0);
  CHECK(loop.why_alive().find("sock_recv, fd " + std::to_string(pair.ours.get())) !=
        std::string::npos);
  ::send(pair.theirs.get(), "late", 4, 0);
  loop.run();
  CHECK(received.value == "late");
  pawl::sock_recv(loop, pair.ours.get(), 100, received.callback());
  passes(loop, 3);
  pair.theirs.reset();
  loop.run();
  CHECK(received.count == 2);
  CHECK(received.value.empty());
  CHECK_FALSE(received.error);
}

TEST_CASE("sock_sendall sends all of what no buffer holds") {
  EventLoop loop;
  TcpPair pair(tight);
  const std::string text = noise(500'000);
  RawPeer peer(loop, std::move(pair.theirs));
  Completion<std::size_t> sent;
  pawl::sock_sendall(loop, pair.ours.get(), text, sent.callback());
  CHECK(sent.count == 0);
  run_until(loop, [&] { return sent.count == 1; });
  CHECK(sent.value == text.size());
  CHECK_FALSE(sent.error);
  run_until(loop, [&] { return peer.received_bytes() == text.size(); });
  CHECK(difference(peer.received(), text).empty());
}

TEST_CASE("sock_sendall of nothing succeeds, and several in a row keep their order") {
  EventLoop loop;
  const SocketPair pair;
  std::string order;
  const auto note = [&order](const char* word) {
    return [&order, word](std::error_code error, std::size_t) {
      CHECK_FALSE(error);
      order += word;
    };
  };
  pawl::sock_sendall(loop, pair.ours.get(), "", note("a"));
  pawl::sock_sendall(loop, pair.ours.get(), "one", note("b"));
  pawl::sock_sendall(loop, pair.ours.get(), "two", note("c"));
  CHECK(order.empty());
  loop.run();
  CHECK(order == "abc");
  char buffer[10];
  CHECK(::recv(pair.theirs.get(), buffer, sizeof buffer, 0) == 6);
  CHECK(std::string(buffer, 6) == "onetwo");
}

TEST_CASE("sock_sendall says how much went before the peer did") {
  EventLoop loop;
  TcpPair pair(tight);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.stop_reading();
  Completion<std::size_t> sent;
  pawl::sock_sendall(loop, pair.ours.get(), std::string(1'000'000, 'x'), sent.callback());
  passes(loop, 5);
  peer.reset();
  run_until(loop, [&] { return sent.count == 1; });
  CHECK(sent.error == std::errc::connection_reset);
  CHECK(sent.value > 0);
  CHECK(sent.value < 1'000'000);
}

TEST_CASE("sock_connect connects a socket, which can send then") {
  EventLoop loop;
  const RawListener listener;
  const UniqueFd fd = tcp_socket();
  Connected connected;
  pawl::sock_connect(loop, fd.get(), listener.endpoint(), connected.callback());
  CHECK(connected.count == 0);
  loop.run();
  CHECK(connected.count == 1);
  CHECK_FALSE(connected.error);
  Completion<std::size_t> sent;
  pawl::sock_sendall(loop, fd.get(), "x", sent.callback());
  loop.run();
  CHECK(sent.value == 1);
}

TEST_CASE("sock_connect to where nobody listens is refused") {
  EventLoop loop;
  const UniqueFd fd = tcp_socket();
  Connected connected;
  pawl::sock_connect(loop, fd.get(), refusing_endpoint(), connected.callback());
  loop.run();
  CHECK(connected.error == std::errc::connection_refused);
  const UniqueFd name(pawl::System::real().socket(AF_UNIX, SOCK_STREAM, 0).fd());
  pawl::sock_connect(loop, name.get(), Endpoint::parse(abstract("nobody")), connected.callback());
  loop.run();
  CHECK(connected.error == std::errc::connection_refused);
  CHECK(connected.count == 2);
}

TEST_CASE("sock_connect fails when the outcome can't be asked for") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const RawListener listener;
  const UniqueFd fd = tcp_socket();
  Connected connected;
  pawl::sock_connect(loop, fd.get(), listener.endpoint(), connected.callback());
  system.fail(Call::getsockopt, ENOBUFS, FaultySystem::forever);
  run_until(loop, [&] { return connected.count == 1; });
  CHECK(connected.error == std::errc::no_buffer_space);
}

TEST_CASE("In debug mode a sock_ operation from a wrong thread is refused", "[threads]") {
  pawl::LoopOptions options;
  options.debug = true;
  EventLoop loop(options);
  loop.set_report_sink([](std::string_view) {});
  SocketPair pair;
  write_byte(pair.theirs.get());
  std::string refusal;
  loop.call_soon([&] {
    std::thread([&] {
      try {
        pawl::sock_recv(loop, pair.ours.get(), 10, [](std::error_code, std::string) {});
      } catch (const std::logic_error& error) {
        refusal = error.what();
      }
    }).join();
  });
  pass(loop);
  CHECK_THAT(refusal, Catch::Contains("sock_recv"));
}

TEST_CASE("sock_connect isn't misled by a wake-up that comes too early") {
  // A wake-up for nothing: the socket isn't connected yet, and has no error either.
  class Early final : public pawl::System {
   public:
    pawl::SystemResult connect(int, const sockaddr*, unsigned) override {
      return {-1, EINPROGRESS};
    }
    pawl::SystemResult getpeername(int fd, sockaddr* address, unsigned* bytes) override {
      ++asked;
      return asked < 5 ? pawl::SystemResult{-1, ENOTCONN} : System::getpeername(fd, address, bytes);
    }
    pawl::SystemResult getsockopt(int fd, int level, int name, void* value,
                                  unsigned* bytes) override {
      const pawl::SystemResult result = System::getsockopt(fd, level, name, value, bytes);
      if (level == IPPROTO_TCP && name == TCP_INFO) {
        static_cast<tcp_info*>(value)->tcpi_state = TCP_SYN_SENT;
      }
      return result;
    }
    int asked = 0;
  } system;
  EventLoop loop(options_on(system));
  TcpPair pair;
  Connected connected;
  pawl::sock_connect(loop, pair.ours.get(), Endpoint::loopback(1), connected.callback());
  run_until(loop, [&] { return connected.count == 1; });
  CHECK(system.asked == 5);
  CHECK_FALSE(connected.error);
}

TEST_CASE("A connect whose peer is gone without an error is an error, and no spurious wake-up") {
  class Gone final : public pawl::System {
   public:
    pawl::SystemResult getpeername(int, sockaddr*, unsigned*) override { return {-1, ENOTCONN}; }
  } system;
  EventLoop loop(options_on(system));
  const RawListener listener;
  const pawl::UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  Connected connected;
  pawl::sock_connect(loop, socket.get(), listener.endpoint(), connected.callback());
  run_until(loop, [&] { return connected.count == 1; });
  CHECK(connected.error == std::errc::not_connected);

  std::error_code error;
  const auto connection = pawl::Connection::connect(loop, listener.endpoint());
  connection->on_closed([&](pawl::Connection&, std::error_code with) { error = with; });
  loop.run();
  CHECK(error == std::errc::not_connected);
}

TEST_CASE("sock_accept gives a socket that doesn't block, and its peer") {
  EventLoop loop;
  const RawListener listener;
  Completion<AcceptedSocket> accepted;
  pawl::sock_accept(loop, listener.fd(), accepted.callback());
  passes(loop, 3);
  CHECK(accepted.count == 0);
  const UniqueFd client = raw_connect(listener.endpoint());
  loop.run();
  REQUIRE(accepted.value.socket);
  CHECK(pawl::System::real().is_non_blocking(accepted.value.socket.get()).value == 1);
  CHECK(accepted.value.peer.port() == ntohs(address_of(client.get()).sin_port));
}

TEST_CASE("sock_accept tells what keeps it from accepting") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const RawListener listener;
  const UniqueFd client = raw_connect(listener.endpoint());
  system.fail(Call::accept, EMFILE);
  Completion<AcceptedSocket> accepted;
  pawl::sock_accept(loop, listener.fd(), accepted.callback());
  loop.run();
  CHECK(accepted.error == std::errc::too_many_files_open);
  CHECK_FALSE(accepted.value.socket);
}

TEST_CASE("sock_sendto and sock_recvfrom carry datagrams, empty ones too, with their sender") {
  EventLoop loop;
  const RawDatagrams ours;
  RawDatagrams theirs;
  Completion<std::size_t> sent;
  pawl::sock_sendto(loop, ours.fd(), "hello", theirs.endpoint(), sent.callback());
  loop.run();
  CHECK(sent.value == 5);
  CHECK(theirs.receive() == "hello");
  Completion<ReceivedFrom> received;
  pawl::sock_recvfrom(loop, ours.fd(), 3, received.callback());
  passes(loop, 3);
  theirs.send("welcome", ours.endpoint());
  loop.run();
  CHECK(received.value.bytes == "wel");
  CHECK(received.value.from == theirs.endpoint());
  theirs.send("", ours.endpoint());
  pawl::sock_recvfrom(loop, ours.fd(), 100'000, received.callback());
  loop.run();
  CHECK(received.count == 2);
  CHECK(received.value.bytes.empty());
}

TEST_CASE("sock_sendto tells what keeps the datagram from being sent") {
  EventLoop loop;
  const RawDatagrams ours;
  Completion<std::size_t> sent;
  pawl::sock_sendto(loop, ours.fd(), std::string(70'000, 'x'), Endpoint::loopback(1),
                    sent.callback());
  loop.run();
  CHECK(sent.error == std::errc::message_size);
  CHECK(sent.value == 0);
}

TEST_CASE("sock_sendto to a Unix receiver that stays full fails instead of spinning") {
  EventLoop loop;
  const RawDatagrams ours(Endpoint::parse(abstract("ours")));
  const RawDatagrams full(Endpoint::parse(abstract("full")));
  Completion<std::size_t> sent;
  while (!sent.error) {
    const int before = sent.count;
    pawl::sock_sendto(loop, ours.fd(), "x", full.endpoint(), sent.callback());
    run_until(loop, [&] { return sent.count > before; });
  }
  CHECK(sent.error == std::errc::resource_unavailable_try_again);
}

TEST_CASE("sock_sendto waits for room at this side, as often as it takes but for a Unix receiver") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const bool is_unix = GENERATE(true, false);
  const Endpoint any = is_unix ? Endpoint::parse(abstract("waits")) : Endpoint::loopback(0);
  RawDatagrams peer(any);
  const UniqueFd fd(system.socket(is_unix ? AF_UNIX : AF_INET, SOCK_DGRAM, 0).fd());
  system.fail(Call::sendmsg, EAGAIN, is_unix ? 1 : 3);
  Completion<std::size_t> sent;
  pawl::sock_sendto(loop, fd.get(), "hello", peer.endpoint(), sent.callback());
  run_until(loop, [&] { return sent.count == 1; });
  CHECK_FALSE(sent.error);
  CHECK(sent.value == 5);
  CHECK(peer.receive() == "hello");
}

// ---- what is wrong from the start

TEST_CASE("A descriptor that blocks, that isn't open or that is no socket fails from the loop") {
  EventLoop loop;
  const SocketPair pair;
  Completion<std::string> received;
  Completion<std::size_t> sent;
  SECTION("blocking") {
    make_blocking(pair.ours.get());
    pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
    pawl::sock_sendall(loop, pair.ours.get(), "x", sent.callback());
    CHECK(received.count + sent.count == 0);
    loop.run();
    CHECK(received.error == std::errc::invalid_argument);
    CHECK(sent.error == std::errc::invalid_argument);
    CHECK(drain(pair.theirs.get()) == 0);
  }
  SECTION("not open") {
    pawl::sock_recv(loop, -1, 1, received.callback());
    pawl::sock_sendall(loop, 100'000, "x", sent.callback());
    loop.run();
    CHECK(received.error == std::errc::bad_file_descriptor);
    CHECK(sent.error == std::errc::bad_file_descriptor);
  }
  SECTION("no socket") {
    const Pipe pipe;
    pawl::sock_recv(loop, pipe.reader.get(), 1, received.callback());
    pawl::sock_sendall(loop, pipe.writer.get(), "x", sent.callback());
    loop.run();
    CHECK(received.error == std::errc::not_a_socket);
    CHECK(sent.error == std::errc::not_a_socket);
  }
  CHECK(received.count == 1);
  CHECK(sent.count == 1);
}

TEST_CASE("A sock_ operation with an empty callback is a logic error") {
  EventLoop loop;
  const SocketPair pair;
  CHECK_THROWS_AS(pawl::sock_recv(loop, pair.ours.get(), 1, {}), std::logic_error);
}

// ---- one of each side

TEST_CASE("One operation may read while another writes; a second of a side is refused by name") {
  EventLoop loop;
  TcpPair pair(tight);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.stop_reading();
  Completion<std::string> first;
  Completion<std::string> second;
  Completion<std::size_t> writing;
  Completion<std::size_t> second_writing;
  const std::string text = noise(300'000);
  pawl::sock_recv(loop, pair.ours.get(), 100, first.callback());
  pawl::sock_recv(loop, pair.ours.get(), 100, second.callback());
  pawl::sock_sendall(loop, pair.ours.get(), text, writing.callback());
  pawl::sock_sendall(loop, pair.ours.get(), "late", second_writing.callback());
  passes(loop, 5);
  CHECK(second.error == Errc::already_registered);
  CHECK(second_writing.error == Errc::already_registered);
  CHECK(first.count + writing.count == 0);
  CHECK(loop.why_alive().find("sock_recv and sock_sendall") != std::string::npos);
  peer.send("x");
  run_until(loop, [&] { return first.count == 1; });
  CHECK(writing.count == 0);
  peer.start_reading();
  run_until(loop, [&] { return writing.count == 1; });
  run_until(loop, [&] { return peer.received_bytes() == text.size(); });
  CHECK(difference(peer.received(), text).empty());
  CHECK(first.value == "x");
}

TEST_CASE(
    "A descriptor that the loop watches for somebody else is refused, and its watcher lives") {
  EventLoop loop;
  const SocketPair pair;
  int readable = 0;
  Completion<std::string> received;
  Completion<std::size_t> sent;
  REQUIRE_FALSE(loop.add_reader(pair.ours.get(), [&] { readable += drain(pair.ours.get()) > 0; }));
  pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
  pawl::sock_sendall(loop, pair.ours.get(), "x", sent.callback());
  passes(loop, 3);
  CHECK(received.error == Errc::already_registered);
  CHECK(sent.error == Errc::already_registered);
  write_byte(pair.theirs.get());
  run_until(loop, [&] { return readable == 1; });
  loop.remove_reader(pair.ours.get());
}

TEST_CASE("While an operation waits, add_reader and add_writer refuse the descriptor") {
  EventLoop loop;
  const SocketPair pair;
  Completion<std::string> received;
  pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
  pass(loop);
  CHECK(loop.add_reader(pair.ours.get(), [] {}) == Errc::already_registered);
  CHECK(loop.add_writer(pair.ours.get(), [] {}) == Errc::already_registered);
  write_byte(pair.theirs.get());
  loop.run();
  CHECK(received.value == "x");
  CHECK_FALSE(loop.add_reader(pair.ours.get(), [] {}));
  CHECK(loop.remove_reader(pair.ours.get()));
}

TEST_CASE("A reader that is added before the first try is left alone, and the operation told so") {
  EventLoop loop;
  const SocketPair pair;
  Completion<std::string> received;
  pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
  REQUIRE_FALSE(loop.add_reader(pair.ours.get(), [] {}));
  passes(loop, 3);
  CHECK(received.error == Errc::already_registered);
  CHECK(loop.remove_reader(pair.ours.get()));
}

// ---- cancelling and closing

TEST_CASE("A cancelled operation frees its captures at once and takes nothing from the socket") {
  EventLoop loop;
  const SocketPair pair;
  const int fd = pair.ours.get();
  const int passes_before = GENERATE(0, 1, 3);
  const bool has_input = GENERATE(false, true);
  auto token = std::make_shared<int>();
  int called = 0;
  SockHandle handle = pawl::sock_recv(
      loop, fd, 100, [token, &called](std::error_code, const std::string&) { ++called; });
  if (!has_input) passes(loop, passes_before);
  if (has_input) write_byte(pair.theirs.get());
  CHECK(token.use_count() == 2);
  const SockHandle copy = handle;
  CHECK_FALSE(copy.cancelled());
  handle.cancel();
  handle.cancel();
  CHECK(copy.cancelled());
  CHECK(token.use_count() == 1);
  Completion<std::string> next;
  pawl::sock_recv(loop, fd, 100, next.callback());
  if (!has_input) write_byte(pair.theirs.get());
  loop.run();
  CHECK(called == 0);
  CHECK(next.value == "x");
}

TEST_CASE("Cancelling one side leaves the other") {
  EventLoop loop;
  const SocketPair pair;
  fill(pair.ours.get());
  Completion<std::string> received;
  Completion<std::size_t> sent;
  SockHandle reading = pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
  SockHandle writing = pawl::sock_sendall(loop, pair.ours.get(), "x", sent.callback());
  passes(loop, 3);
  SECTION("the reader") {
    reading.cancel();
    drain(pair.theirs.get());
    loop.run();
    CHECK(sent.value == 1);
    CHECK(received.count == 0);
  }
  SECTION("the writer") {
    writing.cancel();
    write_byte(pair.theirs.get());
    loop.run();
    CHECK(received.value == "x");
    CHECK(sent.count == 0);
  }
}

TEST_CASE("One that is over and not yet told can still be cancelled; one that was told can't") {
  EventLoop loop;
  const SocketPair pair;
  Completion<std::size_t> sent;
  SockHandle first = pawl::sock_sendall(loop, pair.ours.get(), "x", sent.callback());
  first.cancel();
  CHECK(first.cancelled());
  loop.run();
  CHECK(sent.count == 0);
  SockHandle second;
  second = pawl::sock_sendall(loop, pair.ours.get(), "x", [&](std::error_code, std::size_t) {
    second.cancel();
    ++sent.count;
  });
  loop.run();
  CHECK(sent.count == 1);
  CHECK_FALSE(second.cancelled());
  SockHandle().cancel();
}

TEST_CASE("A callback may cancel the other side, start the next operation, or throw") {
  EventLoop loop;
  const SocketPair pair;
  const int fd = pair.ours.get();
  fill(fd);
  Completion<std::size_t> sent;
  Completion<std::string> next;
  SockHandle writing = pawl::sock_sendall(loop, fd, "y", sent.callback());
  const int act = GENERATE(0, 1, 2);
  pawl::sock_recv(loop, fd, 1, [&](std::error_code, const std::string&) {
    if (act == 0) writing.cancel();
    pawl::sock_recv(loop, fd, 1, next.callback());
    if (act == 2) throw Thrown();
  });
  passes(loop, 3);
  drain(pair.theirs.get());  // both sides are ready in the same pass
  ::send(pair.theirs.get(), "ab", 2, 0);
  if (act == 2) {
    CHECK_THROWS_AS(loop.run(), Thrown);
  }
  loop.run();
  CHECK(next.value == "b");
  CHECK(sent.count == (act == 0 ? 0 : 1));
}

TEST_CASE("A descriptor that is closed under its operations fails them within a second") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  SocketPair pair;
  const bool is_reused = GENERATE(false, true);
  const int fd = pair.ours.get();
  fill(fd);
  Completion<std::string> received;
  Completion<std::size_t> sent;
  pawl::sock_recv(loop, fd, 1, received.callback());
  pawl::sock_sendall(loop, fd, "x", sent.callback());
  passes(loop, 3);
  pair.ours.reset();
  UniqueFd other;
  if (is_reused) other = renumbered(bound_socket(SOCK_DGRAM), fd);
  system.advance(1s);
  spin_until(loop, [&] { return received.count == 1 && sent.count == 1; });
  CHECK(received.error == std::errc::bad_file_descriptor);
  CHECK(sent.error == std::errc::bad_file_descriptor);
  CHECK_FALSE(loop.run_once(pawl::Duration::zero()));
}

TEST_CASE("A new operation on a reused number ends those that waited for the old descriptor") {
  EventLoop loop;
  SocketPair pair;
  const int fd = pair.ours.get();
  Completion<std::string> old_one;
  pawl::sock_recv(loop, fd, 1, old_one.callback());
  passes(loop, 3);
  pair.ours.reset();
  SocketPair other;
  const UniqueFd reused = renumbered(std::move(other.ours), fd);
  Completion<std::string> new_one;
  pawl::sock_recv(loop, fd, 1, new_one.callback());
  write_byte(other.theirs.get());
  loop.run();
  CHECK(old_one.error == std::errc::bad_file_descriptor);
  CHECK(new_one.value == "x");
}

TEST_CASE("An operation that waits keeps run() from returning; one that is over doesn't") {
  EventLoop loop;
  const SocketPair pair;
  Completion<std::string> received;
  SockHandle handle = pawl::sock_recv(loop, pair.ours.get(), 1, received.callback());
  CHECK(loop.run_once(0s));
  CHECK(loop.run_once(0s));
  handle.cancel();
  CHECK_FALSE(loop.run_once(0s));
}

TEST_CASE(
    "A loop that is destroyed destroys the callbacks, uncalled, and their tickets stay valid") {
  const SocketPair pair;
  const auto token = std::make_shared<int>();
  std::vector<SockHandle> handles;
  int called = 0;
  {
    EventLoop loop;
    const auto callback = [token, &called](std::error_code, const auto&) { ++called; };
    fill(pair.ours.get());
    handles.push_back(pawl::sock_recv(loop, pair.ours.get(), 1, callback));
    handles.push_back(pawl::sock_sendall(loop, pair.ours.get(), "x", callback));
    pass(loop);
    handles.push_back(pawl::sock_recv(loop, pair.theirs.get(), 1, callback));
    handles.push_back(pawl::sock_sendall(loop, pair.theirs.get(), "x", callback));
    handles.push_back(pawl::sock_recv(loop, -1, 1, callback));
    CHECK(token.use_count() == 7);  // five, the callback's own and ours
  }
  CHECK(token.use_count() == 1);
  CHECK(called == 0);
  for (SockHandle& handle : handles) {
    handle.cancel();
    CHECK_FALSE(handle.cancelled());
  }
}

TEST_CASE("An echo by sock_ operations alone runs to its end") {
  EventLoop loop;
  const RawListener listener;
  const UniqueFd client = tcp_socket();
  AcceptedSocket server;
  std::string echoed;
  const std::string text = noise(200'000);
  pawl::Function<void()> serve = [&] {
    pawl::sock_recv(loop, server.socket.get(), 10'000, [&](std::error_code, std::string bytes) {
      if (bytes.empty()) return server.socket.reset();
      pawl::sock_sendall(loop, server.socket.get(), std::move(bytes),
                         [&](std::error_code, std::size_t) { serve(); });
    });
  };
  pawl::Function<void()> read = [&] {
    pawl::sock_recv(loop, client.get(), 7'000, [&](std::error_code, const std::string& bytes) {
      echoed += bytes;
      if (!bytes.empty()) read();
    });
  };
  pawl::sock_accept(loop, listener.fd(), [&](std::error_code, AcceptedSocket accepted) {
    server = std::move(accepted);
    serve();
  });
  pawl::sock_connect(loop, client.get(), listener.endpoint(), [&](std::error_code) {
    read();
    pawl::sock_sendall(loop, client.get(), text,
                       [&](std::error_code, std::size_t) { ::shutdown(client.get(), SHUT_WR); });
  });
  loop.run();
  CHECK(difference(echoed, text).empty());
}
