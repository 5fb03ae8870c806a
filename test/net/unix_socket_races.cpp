// SPDX-License-Identifier: MIT
// Several processes that want the same Unix path at once.
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/socket_address.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/faulty_system.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::Server;
using pawl::UniqueFd;

namespace {

/// A socket file that nobody listens at: what a program that was killed leaves.
void leave_socket_file(const Endpoint& at, int type) {
  pawl::System& system = pawl::System::real();
  const UniqueFd fd(system.socket(AF_UNIX, type, 0).fd());
  const pawl::SocketAddress address(at);
  REQUIRE(system.bind(fd.get(), address.get(), address.bytes()).ok());
}

/// True exactly when somebody takes what comes there.
bool is_answered(const Endpoint& at, int type) {
  pawl::System& system = pawl::System::real();
  const UniqueFd fd(system.socket(AF_UNIX, type, 0).fd());
  const pawl::SocketAddress address(at);
  return system.connect(fd.get(), address.get(), address.bytes()).ok();
}

/// A pipe whose ends wait.
struct Gate {
  Gate() {
    make_blocking(pipe.reader.get());
    make_blocking(pipe.writer.get());
  }
  void wait() {
    pipe.writer.reset();
    char byte;
    while (::read(pipe.reader.get(), &byte, 1) < 0 && errno == EINTR) {
    }
  }
  void open() { pipe.writer.reset(); }
  Pipe pipe;
};

/// The kernel, but others have their turns between two of its calls.
class Yielding final : public pawl::System {
 public:
  pawl::SystemResult connect(int fd, const sockaddr* address, unsigned bytes) override {
    const pawl::SystemResult result = System::connect(fd, address, bytes);
    yield();
    return result;
  }
  pawl::SystemResult listen(int fd, int backlog) override {
    yield();
    return System::listen(fd, backlog);
  }

 private:
  static void yield() {
    for (int i = 0; i < 5; ++i) ::sched_yield();
  }
};

/// Starts something at `at`, says on `results` what came of it, and keeps it until `end`.
int start_one(const Endpoint& at, int type, Gate& start, Gate& end, int results) {
  start.wait();
  char result = 'x';
  Yielding system;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Server> server;
  std::unique_ptr<DatagramSocket> socket;
  try {
    loop = std::make_unique<EventLoop>(options_on(system));
    if (type == SOCK_STREAM) server = std::make_unique<Server>(*loop, at, [](Connection&) {});
    if (type == SOCK_DGRAM) socket = std::make_unique<DatagramSocket>(*loop, at);
    result = 'l';
  } catch (const std::system_error& error) {
    result = error.code() == std::errc::address_in_use ? 'u' : 'e';
  }
  if (::write(results, &result, 1) != 1) return 1;
  end.wait();
  return 0;
}

}  // namespace

TEST_CASE("Of many processes that start over one stale socket file exactly one gets the path") {
  constexpr int processes = 8;
  const int type = GENERATE(SOCK_STREAM, SOCK_DGRAM);
  const TemporaryDirectory directory;
  const Endpoint at = Endpoint::parse("unix:" + directory.file("socket"));
  for (int round = 0; round < 10; ++round) {
    CAPTURE(type, round);
    if (round % 2 == 0) leave_socket_file(at, type);  // else there is none at all
    Gate start;
    Gate end;
    Pipe results;
    make_blocking(results.reader.get());
    std::vector<pid_t> children;
    for (int i = 0; i < processes; ++i) {
      children.push_back(
          start_fork([&] { return start_one(at, type, start, end, results.writer.get()); }));
    }
    start.open();
    std::string told;
    while (told.size() < processes) {
      char byte;
      if (::read(results.reader.get(), &byte, 1) != 1) break;
      told += byte;
    }
    CHECK(std::count(told.begin(), told.end(), 'l') == 1);
    CHECK(std::count(told.begin(), told.end(), 'u') == processes - 1);
    CHECK(is_answered(at, type));
    end.open();
    for (const pid_t child : children) CHECK(exit_code_of(child) == 0);
    CHECK(directory.is_empty());
  }
}

TEST_CASE("Whoever may not lock a directory, or waits for it in vain, binds all the same") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const TemporaryDirectory directory;
  const Endpoint at = Endpoint::parse("unix:" + directory.file("socket"));
  SECTION("EACCES") { system.fail(Call::lock_directory, EACCES); }
  SECTION("ETIMEDOUT") { system.fail(Call::lock_directory, ETIMEDOUT); }
  SECTION("somebody has it") {
    const UniqueFd other(::open(directory.file("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(::flock(other.get(), LOCK_EX) == 0);
    const Server server(loop, at, [](Connection&) {});
    CHECK(is_answered(at, SOCK_STREAM));
    return;
  }
  leave_socket_file(at, SOCK_STREAM);
  const Server server(loop, at, [](Connection&) {});
  CHECK(is_answered(at, SOCK_STREAM));
}

TEST_CASE("Nothing stays locked behind a listener, one that couldn't be made included") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const TemporaryDirectory directory;
  const Endpoint at = Endpoint::parse("unix:" + directory.file("socket"));
  const auto is_free = [&] {
    const pawl::SystemResult locked = pawl::System::real().lock_directory_of(at.host().c_str());
    const UniqueFd lock(locked.ok() ? locked.fd() : -1);
    return locked.ok();
  };
  const auto make = [&] { Listener(loop, at, [](UniqueFd, const Endpoint&) {}); };
  system.fail(Call::listen, ENOMEM);
  CHECK_THROWS_AS(make(), std::system_error);
  CHECK(is_free());
  system.fail(Call::bind, EACCES);
  CHECK_THROWS_AS(make(), std::system_error);
  CHECK(is_free());
  const Listener listener(loop, at, [](UniqueFd, const Endpoint&) {});
  CHECK(is_free());
  CHECK_THROWS_AS(make(), std::system_error);  // address_in_use
  CHECK(is_free());
  const DatagramSocket socket(loop, Endpoint::parse("unix:" + directory.file("other")));
  CHECK(is_free());
}

TEST_CASE("A lock that another holds is waited for until it is given back") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  Gate held;
  Gate release;
  const pid_t child = start_fork([&] {
    const pawl::SystemResult locked = pawl::System::real().lock_directory_of(path.c_str());
    if (!locked.ok()) return 1;
    held.pipe.reader.reset();
    held.open();
    release.pipe.writer.reset();
    release.wait();
    return 0;  // which gives it back
  });
  held.wait();
  release.open();
  const pawl::SystemResult locked = pawl::System::real().lock_directory_of(path.c_str());
  CHECK(locked.ok());
  ::close(locked.fd());
  CHECK(exit_code_of(child) == 0);
}
