// SPDX-License-Identifier: MIT
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "pawl/core/unique_fd.hpp"

/// Two sockets that are connected to each other.
struct SocketPair {
  explicit SocketPair(int type = SOCK_STREAM);
  pawl::UniqueFd ours;
  pawl::UniqueFd theirs;
};

struct Pipe {
  Pipe();
  pawl::UniqueFd reader;
  pawl::UniqueFd writer;
};

/// 127.0.0.1 with a port; 0 lets the kernel choose.
sockaddr_in loopback_address(std::uint16_t port = 0);
/// A socket that is bound to a free port of 127.0.0.1; a stream listens too.
pawl::UniqueFd bound_socket(int type);
/// Where `bound_socket` is.
sockaddr_in address_of(int fd);
/// A UDP socket whose peer has gone: an ICMP "port unreachable" is waiting as ECONNREFUSED.
pawl::UniqueFd refused_udp_socket();

/// Sets or clears O_NONBLOCK, for what must wait: a call to interrupt, a child's standard input.
void make_blocking(int fd, bool blocking = true);
/// One byte, so that the other end can be read.
void write_byte(int fd);
/// Writes until the kernel takes no more. Returns how many bytes it took.
std::size_t fill(int fd);
/// Reads until there is nothing left. Returns how many bytes there were.
std::size_t drain(int fd);
/// Moves the descriptor to another number.
pawl::UniqueFd renumbered(pawl::UniqueFd fd, int number);
/// A timer that can be read once `nanoseconds` have passed.
pawl::UniqueFd timer_fd(long nanoseconds);
