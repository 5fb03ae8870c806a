// SPDX-License-Identifier: MIT
// An echo server, written with each contender as its users write it, and a client in a process of
// its own that measures it. echo.sh runs it under tools that count.
#include <arpa/inet.h>
#include <ev.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "contender.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/server.hpp"

extern char** environ;

namespace {

constexpr std::size_t message_bytes = 64;
constexpr int backlog = 4096;

int check(int result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::system_category(), call);
  return result;
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// A listening socket at a free port, as a program by hand makes it.
int open_listener(std::uint16_t& port) {
  const int fd = check(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address = loopback(0);
  socklen_t bytes = sizeof address;
  check(::bind(fd, reinterpret_cast<sockaddr*>(&address), bytes), "bind");
  check(::listen(fd, backlog), "listen");
  check(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes), "getsockname");
  port = ntohs(address.sin_port);
  return fd;
}

/// What was asked for: the client opens `connections` at once, exchanges `messages` on each, closes
/// them, and does all that `rounds` times.
struct Load {
  std::size_t connections;
  std::size_t messages;
  std::size_t rounds;
  std::size_t all_connections() const { return connections * rounds; }
};

// The client

void exchange(const std::vector<int>& sockets) {
  const std::array<char, message_bytes> message{};
  std::array<char, message_bytes> answer{};
  for (const int fd : sockets)
    check(static_cast<int>(::send(fd, message.data(), message.size(), 0)), "send");
  for (const int fd : sockets) {
    const auto got = ::recv(fd, answer.data(), answer.size(), MSG_WAITALL);
    if (got != static_cast<ssize_t>(message_bytes)) throw std::runtime_error("an echo was lost");
  }
}

void run_client(std::uint16_t port, const Load& load) {
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t round = 0; round < load.rounds; ++round) {
    std::vector<int> sockets;
    for (std::size_t i = 0; i < load.connections; ++i) {
      const int fd = check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
      const sockaddr_in address = loopback(port);
      check(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      sockets.push_back(fd);
    }
    for (std::size_t i = 0; i < load.messages; ++i) exchange(sockets);
    for (const int fd : sockets) ::close(fd);
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  std::printf("nanoseconds %.0f\n",
              took.count() / static_cast<double>(load.all_connections() * load.messages));
}

/// The same program again, so that a tool around the server doesn't see it.
int start_client(const char* program, std::uint16_t port, const Load& load) {
  std::array<std::string, 6> words{program,
                                   "client",
                                   std::to_string(port),
                                   std::to_string(load.connections),
                                   std::to_string(load.messages),
                                   std::to_string(load.rounds)};
  std::array<char*, 7> arguments{};
  for (std::size_t i = 0; i < words.size(); ++i) arguments[i] = words[i].data();
  int process = 0;
  errno = ::posix_spawn(&process, program, nullptr, nullptr, arguments.data(), environ);
  check(errno == 0 ? 0 : -1, "posix_spawn");
  return process;
}

// The servers: each returns when all connections have come and gone

using Start = std::function<void(std::uint16_t port)>;

void serve_with_pawl(const Load& load, const Start& start) {
  pawl::EventLoop loop;
  std::size_t left = load.all_connections();
  const auto on_connection = [&](pawl::Connection& connection) {
    connection.on_data([](pawl::Connection& self, std::string_view bytes) { self.write(bytes); });
    connection.on_closed([&](pawl::Connection&, std::error_code) {
      if (--left == 0) loop.stop();
    });
  };
  pawl::ServerOptions options;
  options.backlog = backlog;
  pawl::Server server(loop, pawl::Endpoint::loopback(0), on_connection, options);
  start(server.local_endpoint().port());
  loop.run();
}

/// Echoes what is there. False when the peer has gone.
bool echo(int fd) {
  static std::array<char, 64 * 1024> buffer;
  const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
  if (got < 0) return errno == EAGAIN;
  return got > 0 && ::send(fd, buffer.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) == got;
}

void serve_by_hand(const Load& load, const Start& start) {
  std::uint16_t port = 0;
  const int listener = open_listener(port);
  const int epoll = check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  epoll_event event{EPOLLIN, {}};
  event.data.fd = listener;
  check(::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event), "epoll_ctl");
  start(port);
  std::array<epoll_event, 512> events;
  for (std::size_t left = load.all_connections(); left > 0;) {
    const int count = ::epoll_wait(epoll, events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener) {
        event.data.fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (event.data.fd >= 0) ::epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
      } else if (!echo(fd)) {
        ::close(fd);
        --left;
      }
    }
  }
  ::close(epoll);
  ::close(listener);
}

struct LibevServer {
  struct ev_loop* loop;
  std::size_t left;
};

void on_libev_readable(struct ev_loop* loop, ev_io* watcher, int) {
  if (echo(watcher->fd)) return;
  ev_io_stop(loop, watcher);
  ::close(watcher->fd);
  delete watcher;
  if (--static_cast<LibevServer*>(ev_userdata(loop))->left == 0) ev_break(loop, EVBREAK_ALL);
}

void on_libev_accept(struct ev_loop* loop, ev_io* listener, int) {
  const int fd = ::accept4(listener->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  auto* watcher = new ev_io;
  ev_io_init(watcher, on_libev_readable, fd, EV_READ);
  ev_io_start(loop, watcher);
}

void serve_with_libev(const Load& load, const Start& start) {
  std::uint16_t port = 0;
  LibevServer server{ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV), load.all_connections()};
  ev_set_userdata(server.loop, &server);
  ev_io listener;
  ev_io_init(&listener, on_libev_accept, open_listener(port), EV_READ);
  ev_io_start(server.loop, &listener);
  start(port);
  ev_run(server.loop, 0);
  ev_io_stop(server.loop, &listener);
  ::close(listener.fd);
  ev_loop_destroy(server.loop);
}

int serve(const std::string& contender, const char* program, const Load& load) {
  int client = 0;
  const Start start = [&](std::uint16_t port) {
    client = start_client(program, port, load);
    bench::count_allocations(true);
  };
  if (contender == "pawl") {
    serve_with_pawl(load, start);
  } else if (contender == "libev") {
    serve_with_libev(load, start);
  } else {
    serve_by_hand(load, start);
  }
  bench::count_allocations(false);
  std::printf("allocations %llu\n", static_cast<unsigned long long>(bench::allocations()));
  int status = 0;
  ::waitpid(client, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [argv](int index) {
    return static_cast<std::size_t>(std::atoll(argv[index]));
  };
  try {
    if (argc == 6 && argv[1] == std::string_view("client")) {
      run_client(static_cast<std::uint16_t>(number(2)), Load{number(3), number(4), number(5)});
      return 0;
    }
    if (argc == 5) return serve(argv[1], argv[0], Load{number(2), number(3), number(4)});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench-echo: %s\n", error.what());
    return 1;
  }
  std::fputs("usage: bench-echo pawl|by-hand|libev CONNECTIONS MESSAGES ROUNDS\n", stderr);
  return 2;
}
