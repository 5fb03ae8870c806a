// SPDX-License-Identifier: MIT
// What it costs to hold many connections, and one that never reads: nine thousand idle ones beside
// one that is used, on each selector, and a peer that is offered a gigabyte and takes none of it.
#include <arpa/inet.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/net/server.hpp"

extern char** environ;

namespace {

constexpr std::size_t idle_connections = 9'000;
constexpr std::size_t pings = 2'000;
constexpr std::uint64_t offered_bytes = 1024 * 1024 * 1024;

int check(int result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::system_category(), call);
  return result;
}

int connect_to(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  check(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

std::size_t heap_bytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

/// In a process of its own: holds the connections, and pings over one after the other of them.
int run_client(std::uint16_t port) {
  std::vector<int> sockets;
  while (sockets.size() < idle_connections) sockets.push_back(connect_to(port));
  std::mt19937 random(1);
  std::vector<double> times;
  std::array<char, 64> message{};
  for (std::size_t i = 0; i < pings; ++i) {
    const int fd = sockets[random() % sockets.size()];
    const auto start = std::chrono::steady_clock::now();
    check(static_cast<int>(::send(fd, message.data(), message.size(), 0)), "send");
    check(static_cast<int>(::recv(fd, message.data(), message.size(), MSG_WAITALL)), "recv");
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  std::sort(times.begin(), times.end());
  std::printf(" %10.0f %10.0f\n", times[pings / 2], times[pings * 99 / 100]);
  return 0;
}

int start_client(const char* program, std::uint16_t port) {
  std::string name = program;
  std::string role = "client";
  std::string where = std::to_string(port);
  std::array<char*, 4> arguments{name.data(), role.data(), where.data(), nullptr};
  int process = 0;
  errno = ::posix_spawn(&process, program, nullptr, nullptr, arguments.data(), environ);
  check(errno == 0 ? 0 : -1, "posix_spawn");
  return process;
}

void hold(const char* program, std::string_view selector) {
  pawl::LoopOptions options;
  options.selector = selector;
  pawl::EventLoop loop(options);
  const std::size_t before = heap_bytes();
  std::size_t gone = 0;
  pawl::ServerOptions server_options;
  server_options.backlog = 4096;
  pawl::Server server(
      loop, pawl::Endpoint::loopback(0),
      [&](pawl::Connection& connection) {
        if (server.connections() == idle_connections) {
          std::printf("%-8s %12zu %12zu", std::string(selector).c_str(), idle_connections,
                      (heap_bytes() - before) / idle_connections);
          std::fflush(stdout);
        }
        connection.on_data(
            [](pawl::Connection& self, std::string_view bytes) { self.write(bytes); });
        connection.on_closed([&](pawl::Connection&, std::error_code) {
          if (++gone == idle_connections) loop.stop();
        });
      },
      server_options);
  const int client = start_client(program, server.local_endpoint().port());
  loop.run();
  int status = 0;
  ::waitpid(client, &status, 0);
  if (status != 0) throw std::runtime_error("the client failed");
}

/// Offers as long as the connection isn't congested, as `Connection` asks its users to.
void feed_one_that_never_reads() {
  pawl::EventLoop loop;
  const std::string piece(64 * 1024, 'x');
  std::uint64_t taken = 0;
  std::size_t most = 0;
  const auto feed = [&](pawl::Connection& self) {
    for (; taken < offered_bytes && !self.is_congested(); taken += piece.size()) {
      self.write(std::string_view(piece));
    }
    most = std::max(most, self.buffered());
  };
  pawl::Server server(loop, pawl::Endpoint::loopback(0), [&](pawl::Connection& connection) {
    connection.on_drained(feed);
    feed(connection);
  });
  const int peer = connect_to(server.local_endpoint().port());
  const std::size_t before = heap_bytes();
  loop.run_for(std::chrono::seconds(2));
  std::printf(
      "\na peer that never reads, offered 1 GiB: %llu bytes written to it before it was "
      "congested, most of them in the kernel;\n%zu bytes buffered at most, %zu bytes of heap\n",
      static_cast<unsigned long long>(taken), most, heap_bytes() - before);
  ::close(peer);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 3) return run_client(static_cast<std::uint16_t>(std::atoi(argv[2])));
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::printf("%-8s %12s %12s %10s %10s\n", "selector", "connections", "heap bytes", "p50 us",
                "p99 us");
    for (const std::string_view selector : {"epoll", "poll", "select", "libev"}) {
      hold(argv[0], selector);
    }
    feed_one_that_never_reads();
    return 0;
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "bench-hold: %s\n", error.what());
    return 1;
  }
}
