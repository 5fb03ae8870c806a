// SPDX-License-Identifier: MIT
// How a process that has forked gives a socket up: while a child holds a copy, close(2) tells
// nobody anything, with a linger of 0 neither. Without a fork nothing of this is needed.
#pragma once

#include <cstdint>

namespace pawl {

class System;
struct SystemResult;

/// How a stream's socket is given up.
enum class SocketEnd : std::uint8_t {
  in_order,  ///< what the kernel has is still delivered, and then the end (FIN)
  reset,     ///< nothing of it (RST): the peer must not take a part for the whole
};

/// Ends an association (connect(2) to AF_UNSPEC): a TCP connection is reset by that, for all who
/// hold it, and a datagram socket has no peer any more; a port that the kernel chose is free.
SystemResult dissolve(System& system, int fd);

/// Ends the connection of `fd` for all who hold a copy of it, as close(2) would without them: one
/// in order that has unread input is a reset too. The peer of a Unix socket, which knows no reset,
/// sees an end of the stream either way; and so does TCP's in the one case that a reset can't be
/// had, when another holder waits in a call on the socket and doesn't wake up (Linux 6.5 and 6.6).
void end_for_all_holders(System& system, int fd, SocketEnd how);

/// Nobody listens at `fd` any more. Who waits in the backlog sees a reset, that of a Unix socket an
/// end.
void stop_listening_for_all_holders(System& system, int fd);

/// Nobody gets what is sent to `fd`, and the senders are told: ECONNREFUSED for UDP, EPIPE for a
/// Unix socket. A port that the kernel chose is free; one that was asked for, and an abstract name,
/// are taken until the last holder ends.
void end_datagrams_for_all_holders(System& system, int fd, bool is_unix);

}  // namespace pawl
