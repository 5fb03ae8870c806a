// SPDX-License-Identifier: MIT
// What listeners, servers and sock_accept make of each errno of accept(2).
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/accept_error.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "pawl/net/sock.hpp"
#include "support/faulty_system.hpp"
#include "support/sockets.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::AcceptError;
using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::ListenerState;
using pawl::Server;
using pawl::UniqueFd;

namespace {

constexpr int network_errors[] = {ECONNABORTED, ECONNRESET,  ETIMEDOUT,  EPROTO,
                                  ENETDOWN,     ENOPROTOOPT, EHOSTDOWN,  ENONET,
                                  EHOSTUNREACH, EOPNOTSUPP,  ENETUNREACH};
constexpr int pausing_errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSR,
                                  EPERM,  EACCES, ENOSYS,  EPIPE,  EIO};
constexpr int lasting_errors[] = {EBADF, EFAULT, EINVAL, ENOTSOCK};

/// A listener at a socket of which the test keeps a second holder, and whose time it moves.
struct SharedListener {
  SharedListener()
      : other(bound_socket(SOCK_STREAM)),
        number(::dup(other.get())),
        loop(options_on(system)),
        listener(loop, UniqueFd(number), [this](UniqueFd, const Endpoint&) { ++accepted; }) {
    listener.on_exhausted([this](std::error_code error) { exhausted.push_back(error); });
    listener.on_failed([this](std::error_code error) { failed.push_back(error); });
  }
  void knock() { clients.push_back(raw_connect(listener.local_endpoint())); }

  FaultyClock system;
  UniqueFd other;
  int number;
  EventLoop loop;
  Listener listener;
  int accepted = 0;
  std::vector<UniqueFd> clients;
  std::vector<std::error_code> exhausted;
  std::vector<std::error_code> failed;
};

}  // namespace

TEST_CASE("Each errno of accept(2) is of one kind, and one that nobody knows makes a pause") {
  CHECK(pawl::classify_accept_error(EAGAIN) == AcceptError::nobody);
  for (const int error : network_errors) {
    CHECK(pawl::classify_accept_error(error) == AcceptError::connection);
  }
  for (const int error : pausing_errors) {
    CHECK(pawl::classify_accept_error(error) == AcceptError::pause);
  }
  for (const int error : lasting_errors) {
    CHECK(pawl::classify_accept_error(error) == AcceptError::lasting);
  }
}

TEST_CASE("A listener whose accept fails for good says so once and ends, without a second try") {
  for (const int error : lasting_errors) {
    CAPTURE(error);
    SharedListener shared;
    shared.system.fail(Call::accept, error, FaultySystem::forever);
    shared.knock();
    const auto file = pawl::System::real().inode(shared.number).value;
    spin_until(shared.loop, [&] { return !shared.failed.empty(); });
    CHECK_FALSE(shared.loop.run_once());  // nothing is left to wait for
    passes(shared.loop);
    CHECK(shared.failed == std::vector<std::error_code>{pawl::system_error_code(error)});
    CHECK(shared.exhausted.empty());
    CHECK(shared.listener.state() == ListenerState::done);
    CHECK(shared.listener.error() == pawl::system_error_code(error));
    CHECK_THAT(shared.listener.describe(),
               Catch::EndsWith("DONE: accept: " + pawl::system_error_code(error).message()));
    CHECK(shared.system.count(Call::accept) == 1);
    // A number that stands for something else isn't the listener's to close.
    const bool is_kept = error == EBADF || error == ENOTSOCK;
    const pawl::SystemResult now = pawl::System::real().inode(shared.number);
    CHECK((now.ok() && now.value == file) == is_kept);
    if (is_kept) ::close(shared.number);
    shared.listener.close();
    shared.listener.resume();
    passes(shared.loop);
    CHECK(shared.failed.size() == 1);
  }
}

TEST_CASE("A listener whose socket another holder shuts down ends with EINVAL") {
  SharedListener shared;
  shared.knock();
  spin_until(shared.loop, [&] { return shared.accepted == 1; });
  ::shutdown(shared.other.get(), SHUT_RDWR);
  spin_until(shared.loop, [&] { return !shared.failed.empty(); });
  CHECK(shared.failed.front() == pawl::system_error_code(EINVAL));
  CHECK(shared.system.count(Call::accept) <= 3);
  CHECK(shared.listener.state() == ListenerState::done);
  CHECK_FALSE(shared.loop.run_once());
}

TEST_CASE("A paused listener whose socket another holder shuts down ends when it is resumed") {
  SharedListener shared;
  shared.listener.pause();
  ::shutdown(shared.other.get(), SHUT_RDWR);
  passes(shared.loop);
  shared.listener.resume();
  spin_until(shared.loop, [&] { return !shared.failed.empty(); });
  CHECK(shared.failed.size() == 1);
}

TEST_CASE("A listener that may not accept waits between two tries, and says so once an episode") {
  for (const int error : pausing_errors) {
    CAPTURE(error);
    SharedListener shared;
    shared.system.fail(Call::accept, error, FaultySystem::forever);
    shared.knock();
    spin_until(shared.loop, [&] { return !shared.exhausted.empty(); });
    passes(shared.loop, 1000);
    CHECK(shared.system.count(Call::accept) == 1);
    shared.system.advance(50ms);
    passes(shared.loop);
    CHECK(shared.system.count(Call::accept) == 2);
    CHECK(shared.exhausted == std::vector<std::error_code>{pawl::system_error_code(error)});
    shared.system.heal(Call::accept);
    shared.system.advance(50ms);
    spin_until(shared.loop, [&] { return shared.accepted == 1; });
    CHECK(shared.failed.empty());
  }
}

TEST_CASE("An error of the network that comes again and again makes a pause too") {
  for (const int error : network_errors) {
    CAPTURE(error);
    SharedListener shared;
    shared.system.fail(Call::accept, error, FaultySystem::forever);
    shared.knock();
    spin_until(shared.loop, [&] { return !shared.exhausted.empty(); });
    const int tries = shared.system.count(Call::accept);
    CHECK(tries == pawl::most_skipped + 1);
    passes(shared.loop, 1000);
    CHECK(shared.system.count(Call::accept) == tries);
    shared.system.heal(Call::accept);
    shared.system.advance(50ms);
    spin_until(shared.loop, [&] { return shared.accepted == 1; });
    // So many in a row are skipped without one.
    shared.system.fail(Call::accept, error, pawl::most_skipped);
    shared.knock();
    spin_until(shared.loop, [&] { return shared.accepted == 2; });
    CHECK(shared.exhausted.size() == 1);
  }
}

TEST_CASE("A listener may be destroyed by its on_failed, which may also throw") {
  const bool throws_too = GENERATE(false, true);
  FaultySystem system;
  EventLoop loop(options_on(system));
  int calls = 0;
  auto listener =
      std::make_unique<Listener>(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  listener->on_failed([&, own = std::make_shared<int>(7)](std::error_code) {
    ++calls;
    listener.reset();
    CHECK(*own == 7);
    if (throws_too) throw Thrown();
  });
  system.fail(Call::accept, EINVAL);
  const UniqueFd client = raw_connect(listener->local_endpoint());
  try {
    run_until(loop, [&] { return calls > 0; });
  } catch (const Thrown&) {
  }
  CHECK_FALSE(loop.run_once());
  CHECK(calls == 1);
}

TEST_CASE("Without on_failed, debug mode says why a listener has ended") {
  FaultySystem system;
  pawl::LoopOptions options = options_on(system);
  options.debug = true;
  EventLoop loop(options);
  std::string said;
  loop.set_report_sink([&](std::string_view text) { said += text; });
  Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  system.fail(Call::accept, EINVAL);
  const UniqueFd client = raw_connect(listener.local_endpoint());
  run_until(loop, [&] { return listener.state() == ListenerState::done; });
  CHECK_THAT(said, Catch::Contains("DONE: accept: Invalid argument"));
}

TEST_CASE("A server whose socket is of no use any more says so, and its connections go on") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  std::vector<std::error_code> failed;
  Server server(loop, Endpoint::loopback(0), [](Connection& connection) {
    connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  });
  server.on_failed([&](std::error_code error) { failed.push_back(error); });
  RawPeer client(loop, raw_connect(server.local_endpoint()));
  run_until(loop, [&] { return server.connections() == 1; });
  system.fail(Call::accept, EINVAL, FaultySystem::forever);
  const UniqueFd late = raw_connect(server.local_endpoint());
  run_until(loop, [&] { return !failed.empty(); });
  CHECK_THAT(server.describe(), Catch::Contains(" DONE, 1 connection"));
  client.send("hello");
  run_until(loop, [&] { return client.received() == "hello"; });
  client.close();
  loop.run();
  CHECK(server.connections() == 0);
  CHECK(failed == std::vector<std::error_code>{pawl::system_error_code(EINVAL)});
}

TEST_CASE("sock_accept skips connections that died in the backlog, and tells anything else") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const RawListener listener;
  const UniqueFd client = raw_connect(listener.endpoint());
  const auto outcome = [&] {
    std::error_code told = pawl::system_error_code(EAGAIN);
    pawl::sock_accept(loop, listener.fd(),
                      [&](std::error_code error, pawl::AcceptedSocket) { told = error; });
    loop.run();
    return told;
  };
  for (const int error : network_errors) {
    CAPTURE(error);
    const UniqueFd another = raw_connect(listener.endpoint());
    system.fail(Call::accept, error, 3);
    CHECK_FALSE(outcome());
    system.fail(Call::accept, error, FaultySystem::forever);
    CHECK(outcome() == pawl::system_error_code(error));  // it isn't a connection's, then
    system.heal(Call::accept);
  }
  for (const int error : pausing_errors) {
    system.fail(Call::accept, error);
    CHECK(outcome() == pawl::system_error_code(error));
  }
  for (const int error : lasting_errors) {
    system.fail(Call::accept, error);
    CHECK(outcome() == pawl::system_error_code(error));
  }
  ::shutdown(listener.fd(), SHUT_RDWR);
  CHECK(outcome() == std::errc::invalid_argument);
}
