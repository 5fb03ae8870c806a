// SPDX-License-Identifier: MIT
#include "support/sockets.hpp"

#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "pawl/system/system.hpp"

namespace {

pawl::SystemResult checked(pawl::SystemResult result, const char* what) {
  if (!result.ok()) throw std::system_error(result.code(), what);
  return result;
}

pawl::System& kernel() { return pawl::System::real(); }

}  // namespace

SocketPair::SocketPair(int type) {
  int fds[2];
  checked(kernel().socketpair(AF_UNIX, type, 0, fds), "socketpair");
  ours.reset(fds[0]);
  theirs.reset(fds[1]);
}

Pipe::Pipe() {
  int fds[2];
  checked(kernel().pipe(fds), "pipe");
  reader.reset(fds[0]);
  writer.reset(fds[1]);
}

sockaddr_in loopback_address(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

pawl::UniqueFd bound_socket(int type) {
  pawl::UniqueFd fd(checked(kernel().socket(AF_INET, type, 0), "socket").fd());
  const sockaddr_in address = loopback_address();
  checked(kernel().bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "bind");
  if (type == SOCK_STREAM) checked(kernel().listen(fd.get(), 16), "listen");
  return fd;
}

sockaddr_in address_of(int fd) {
  sockaddr_in address{};
  unsigned bytes = sizeof address;
  checked(kernel().getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes), "getsockname");
  return address;
}

pawl::UniqueFd refused_udp_socket() {
  pawl::UniqueFd peer = bound_socket(SOCK_DGRAM);
  const sockaddr_in address = address_of(peer.get());
  pawl::UniqueFd fd(checked(kernel().socket(AF_INET, SOCK_DGRAM, 0), "socket").fd());
  checked(kernel().connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "connect");
  peer.reset();
  write_byte(fd.get());
  return fd;
}

void make_blocking(int fd, bool blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  ::fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

void write_byte(int fd) { checked(kernel().write(fd, "x", 1), "write"); }

std::size_t fill(int fd) {
  std::array<char, 16384> block{};
  std::size_t total = 0;
  for (;;) {
    const pawl::SystemResult result = kernel().write(fd, block.data(), block.size());
    if (result.would_block()) return total;
    total += checked(result, "write").bytes();
  }
}

std::size_t drain(int fd) {
  std::array<char, 16384> block{};
  std::size_t total = 0;
  for (;;) {
    const pawl::SystemResult result = kernel().read(fd, block.data(), block.size());
    if (result.would_block()) return total;
    if (checked(result, "read").bytes() == 0) return total;
    total += result.bytes();
  }
}

pawl::UniqueFd renumbered(pawl::UniqueFd fd, int number) {
  if (fd.get() == number) return fd;
  pawl::UniqueFd moved(::dup3(fd.get(), number, O_CLOEXEC));
  if (!moved) throw std::system_error(errno, std::system_category(), "dup3");
  return moved;
}

pawl::UniqueFd timer_fd(long nanoseconds) {
  pawl::UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!fd) throw std::system_error(errno, std::system_category(), "timerfd_create");
  const itimerspec time{{0, 0}, {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000}};
  ::timerfd_settime(fd.get(), 0, &time, nullptr);
  return fd;
}
