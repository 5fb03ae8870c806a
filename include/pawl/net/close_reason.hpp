// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"

namespace pawl {

/// What ended a connection. Bytes that were left unsent: `Connection::buffered()`.
enum class CloseReason : std::uint8_t {
  open,             ///< nothing yet
  clean,            ///< this side ended it, with `close()` or `shutdown()`, and all went well
  peer_ended,       ///< the peer ended its stream first, and all went well
  peer_reset,       ///< the peer reset it, or was gone when we sent
  failed,           ///< another error of the kernel, or of the lookup; `error()` tells
  connect_timeout,  ///< the whole dial took too long
  idle_timeout,     ///< in RECEIVING: no byte either way
  write_timeout,    ///< in SENDING: the kernel took no byte
  close_timeout,    ///< after `close()`: the peer took too long to end
  limit,            ///< too many unsent bytes
  aborted,          ///< by `abort()`
  server_closed,    ///< by `Server::close`
  released,         ///< by `release()`: the socket lives on elsewhere
};

/// "clean", "peer reset", "idle timeout" …
PAWL_API std::string_view to_string(CloseReason reason);

}  // namespace pawl
