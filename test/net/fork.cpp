// SPDX-License-Identifier: MIT
// Forks of a process that has connections: the parent's peers notice nothing of a child, and a
// child that destroys, closes or goes on with what it has a copy of does nothing to them.
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/resolver.hpp"
#include "pawl/net/server.hpp"
#include "support/copy_holder.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// What a forked child is to do with its copy of a connection.
using Act = std::function<void(std::unique_ptr<Connection>&)>;

const Act destroys = [](auto& connection) { connection.reset(); };
const Act closes = [](auto& connection) { connection->close(); };
const Act aborts = [](auto& connection) { connection->abort(); };
const Act writes = [](auto& connection) {
  connection->write(std::string(100'000, 'x'));
  connection->release();
};

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

}  // namespace

TEST_CASE("A peer hears of the end at once, though a child holds copies of its sockets") {
  EventLoop loop;
  ConnectionOptions options;
  int error = 0;
  Act end;
  SECTION("reset") {
    end = aborts;
    error = ECONNRESET;
  }
  SECTION("destroyed") {
    end = destroys;
    error = ECONNRESET;
  }
  SECTION("closed") { end = closes; }
  SECTION("idle") { options.idle_timeout = 5ms; }
  Link link(loop, options);
  const CopyHolder holder;
  if (end) end(link.connection);
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == error);
}

TEST_CASE("A peer that has ended first hears the answer and the end, though a child holds copies") {
  EventLoop loop;
  Link link(loop);
  link.connection->on_eof([](Connection& self) { self.write("bye"); });
  const CopyHolder holder;
  link.peer.end();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "bye");
  CHECK(link.peer.error() == 0);
}

TEST_CASE("A number that was closed while a child holds a copy isn't heard of any more") {
  EventLoop loop;
  Link link(loop);
  const CopyHolder holder;
  link.connection->abort();
  run_until(loop, [&] { return link.is_closed() && link.peer.is_over(); });
  link.peer.close();
  passes(loop);
  std::vector<pawl::Ready> ready;
  CHECK_FALSE(loop.selector().select(20ms, ready));
  CHECK(ready.empty());
}

TEST_CASE("Who comes to a closed listener is refused, though a child holds a copy") {
  EventLoop loop;
  std::optional<pawl::Listener> listener;
  listener.emplace(loop, Endpoint::loopback(0), [](pawl::UniqueFd, const Endpoint&) {});
  const Endpoint endpoint = listener->local_endpoint();
  const CopyHolder holder;
  SECTION("closed") { listener->close(); }
  SECTION("destroyed") { listener.reset(); }
  Recorder record;
  auto client = Connection::connect(loop, endpoint);
  record.attach(*client);
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(record.error == std::errc::connection_refused);
}

TEST_CASE("What a child does with its copy of a connection is nothing to the parent's") {
  EventLoop loop;
  Link link(loop);
  const Act act = GENERATE(destroys, closes, aborts, writes);
  CHECK(exit_code_of_fork([&] {
          act(link.connection);
          link.connection.reset();
          return 0;
        }) == 0);
  link.connection->write("still here");
  link.connection->close();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "still here");
  CHECK(link.peer.error() == 0);
  link.peer.close();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK_FALSE(link.record.error);
}

TEST_CASE("A child that destroys a relay's connections leaves the parent's going") {
  EventLoop loop;
  Link left(loop);
  Link right(loop);
  pawl::relay(*left.connection, *right.connection);
  CHECK(exit_code_of_fork([&] {
          left.connection.reset();
          right.connection.reset();
          return 0;
        }) == 0);
  left.peer.send("through");
  run_until(loop, [&] { return right.peer.received() == "through"; });
}

TEST_CASE("A child that destroys what stands at a path leaves the file to the parent") {
  const TemporaryDirectory folder;
  const std::string path = folder.file("socket");
  const Endpoint endpoint = Endpoint::parse("unix:" + path);
  auto loop = std::make_unique<EventLoop>();
  std::function<void()> destroy;
  std::optional<pawl::Server> server;
  std::optional<pawl::Listener> listener;
  std::optional<pawl::DatagramSocket> socket;
  SECTION("a server") {
    server.emplace(*loop, endpoint, [](Connection&) {});
    destroy = [&] { server.reset(); };
  }
  SECTION("a server that is closed first") {
    server.emplace(*loop, endpoint, [](Connection&) {});
    destroy = [&] {
      server->close();
      server.reset();
    };
  }
  SECTION("a listener") {
    listener.emplace(*loop, endpoint, [](pawl::UniqueFd, const Endpoint&) {});
    destroy = [&] { listener.reset(); };
  }
  SECTION("a datagram socket") {
    socket.emplace(*loop, endpoint);
    destroy = [&] { socket.reset(); };
  }
  CHECK(exit_code_of_fork([&] {
          destroy();
          loop.reset();
          return 0;
        }) == 0);
  CHECK(exists(path));
  destroy();
  CHECK_FALSE(exists(path));
}

TEST_CASE("An on_data that forks is the last that runs in the child, which sends nothing") {
  EventLoop loop;
  Link first(loop);
  Link second(loop);
  ForkInCallback fork;
  int calls = 0;
  const bool stops = GENERATE(false, true);
  const bool writes_first = GENERATE(false, true);
  const auto answer = [&](Connection& self, std::string_view bytes) {
    ++calls;
    if (writes_first) self.write(bytes);
    if (fork.fork() && stops) loop.stop();
    if (!writes_first) self.write(bytes);
  };
  first.connection->on_data(answer);
  second.connection->on_data(answer);
  first.peer.send("one");
  second.peer.send("two");
  const auto are_answered = [&] {
    return first.peer.received() == "one" && second.peer.received() == "two";
  };
  const auto run = [&] {
    loop.call_later(10s, [&] { loop.stop(); });
    while (!fork.is_child() && !are_answered()) loop.run_once();
    if (fork.is_child()) loop.run();
  };
  const int code = fork.child_code(run, [&] { return calls == 1 ? 0 : 1; });
  CHECK(code == ForkInCallback::threw_logic_error);
  CHECK(are_answered());
  passes(loop);
  CHECK(calls == 2);
  CHECK(are_answered());
}

TEST_CASE("A child that is forked in the middle of a long input reads no more of it") {
  EventLoop loop;
  Link link(loop);
  ForkInCallback fork;
  std::size_t calls = 0;
  std::size_t bytes = 0;
  link.connection->on_data([&](Connection&, std::string_view piece) {
    ++calls;
    bytes += piece.size();
    fork.fork();
  });
  const std::size_t sent = fill(link.peer.fd());
  const auto run = [&] {
    while (bytes < sent) loop.run_once(1s);
  };
  CHECK(fork.child_code(run, [&] { return calls == 1 ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(bytes == sent);
}

TEST_CASE("A message that forks is the last that its child gets") {
  EventLoop loop;
  Link link(loop);
  pawl::MessageReader reader(*link.connection, pawl::Framing::lines());
  ForkInCallback fork;
  std::string messages;
  reader.on_message([&](Connection&, std::string_view message) {
    messages += message;
    fork.fork();
  });
  link.peer.send("a\nb\nc\n");
  const auto run = [&] {
    while (messages != "abc") loop.run_once(1s);
  };
  CHECK(fork.child_code(run, [&] { return messages == "a" ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(messages == "abc");
}

TEST_CASE("An on_fds that forks isn't followed by on_data in the child") {
  EventLoop loop;
  SocketPair pair;
  const auto receiver = Connection::adopt(loop, std::move(pair.ours));
  const auto sender = Connection::adopt(loop, std::move(pair.theirs));
  ForkInCallback fork;
  std::string order;
  receiver->on_fds([&](Connection&, const std::vector<pawl::UniqueFd>&) {
    order += "fds ";
    fork.fork();
  });
  receiver->on_data([&](Connection&, std::string_view bytes) { order += bytes; });
  std::vector<pawl::UniqueFd> fds;
  fds.emplace_back(::dup(0));
  sender->write_fds("data", std::move(fds));
  const auto run = [&] {
    while (order != "fds data") loop.run_once(1s);
  };
  CHECK(fork.child_code(run, [&] { return order == "fds " ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(order == "fds data");
}

TEST_CASE("An on_eof that forks isn't followed by on_closed in the child") {
  EventLoop loop;
  Link link(loop);
  ForkInCallback fork;
  std::string order;
  link.connection->on_eof([&](Connection&) {
    order += "eof ";
    fork.fork();
  });
  link.connection->on_closed([&](Connection&, std::error_code) { order += "closed"; });
  link.peer.end();
  const auto run = [&] {
    while (order != "eof closed") loop.run_once(1s);
  };
  CHECK(fork.child_code(run, [&] { return order == "eof " ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == 0);
}

TEST_CASE("An accept that forks is the last that its child makes") {
  EventLoop loop;
  ForkInCallback fork;
  std::size_t accepted = 0;
  pawl::Server server(loop, Endpoint::loopback(0), [&](Connection& peer) {
    peer.write("hello");
    ++accepted;
    fork.fork();
  });
  std::vector<std::unique_ptr<RawPeer>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RawPeer>(loop, raw_connect(server.local_endpoint())));
  }
  const auto are_greeted = [&] {
    bool all = true;
    for (const auto& client : clients) all = all && client->received() == "hello";
    return all;
  };
  const auto run = [&] {
    for (auto& client : clients) client->start_reading();
    while (!are_greeted()) loop.run_once(1s);
  };
  CHECK(fork.child_code(run, [&] { return accepted == 1 ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(accepted == 3);
}

TEST_CASE("A datagram that forks is the last that its child gets, and its answer goes once") {
  EventLoop loop;
  pawl::DatagramSocket socket(loop, Endpoint::loopback(0));
  RawDatagrams peer;
  ForkInCallback fork;
  std::string got;
  socket.on_datagram([&](pawl::DatagramSocket& self, const pawl::Datagram& datagram) {
    got += datagram.bytes;
    self.send_to(datagram.bytes, datagram.from);
    fork.fork();
  });
  for (const char* each : {"a", "b", "c"}) peer.send(each, socket.local_endpoint());
  std::string answers;
  const auto run = [&] {
    while (answers.size() < 3) {
      loop.run_once(1s);
      for (const std::string& each : peer.receive_all()) answers += each;
    }
  };
  CHECK(fork.child_code(run, [&] { return got == "a" ? 0 : 1; }) ==
        ForkInCallback::threw_logic_error);
  CHECK(answers == "abc");
  passes(loop);
  CHECK(peer.receive_all().empty());
}

TEST_CASE("A child destroys a resolver that has questions, and a dial by name") {
  auto loop = std::make_unique<EventLoop>();
  auto resolver = std::make_unique<pawl::Resolver>(*loop);
  ConnectionOptions options;
  options.resolver = resolver.get();
  Recorder record;
  auto dial = Connection::connect(*loop, "localhost", 1, options);
  record.attach(*dial);
  pawl::Lookup lookup = resolver->resolve("localhost", 1, [](auto, auto) {});
  pass(*loop);
  CHECK(exit_code_of_fork([&] {
          dial.reset();
          lookup.cancel();
          resolver.reset();
          loop.reset();
          return 0;
        }) == 0);
  run_until(*loop, [&] { return record.closed > 0; });
  CHECK(record.error == std::errc::connection_refused);
}

TEST_CASE("An address that is given up is reset, though a child holds a copy") {
  EventLoop loop;
  RawListener listener;
  auto dial = Connection::connect(loop, listener.endpoint());
  const CopyHolder holder;
  dial.reset();
  RawPeer peer(loop, listener.accept(loop));
  peer.start_reading();
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.error() == ECONNRESET);
}
