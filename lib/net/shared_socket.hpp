// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace pawl {

class System;

/// How a stream's socket is given up.
enum class SocketEnd : std::uint8_t {
  in_order,  ///< what the kernel has is still delivered, and then the end (FIN)
  reset,     ///< nothing of it (RST): the peer must not take a part for the whole
};

/// Ends the connection of `fd` for all who hold a copy of it. Only needed where a process has
/// forked: while a child holds one, close(2) tells the peer nothing, with a linger of 0 neither.
/// The peer of a Unix socket, which knows no reset, sees an end of the stream either way.
void end_for_all_holders(System& system, int fd, SocketEnd how);

}  // namespace pawl
