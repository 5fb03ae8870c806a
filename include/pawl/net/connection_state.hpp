// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a connection stands. What it waits for follows from that:
///
/// | state      | means                                   | waits for         | deadline        |
/// |------------|-----------------------------------------|-------------------|-----------------|
/// | connecting | resolving, connecting                   | write             | connect timeout |
/// | sending    | some bytes are not yet in the kernel    | read and write    | write timeout   |
/// | receiving  | everything is sent; the peer's turn     | read              | idle timeout    |
/// | done       | closed, with its reason                 | nothing           | none            |
///
/// Paused reading, the peer's end and an `on_data` that isn't set yet take the read away. Data
/// arrives in `sending` too.
enum class ConnectionState : std::uint8_t { connecting, sending, receiving, done };

enum class ConnectionEvent : std::uint8_t {
  connected,          ///< and nothing was written yet
  connected_to_send,  ///< and bytes were written meanwhile
  written,            ///< by the user
  flushed,            ///< the kernel has taken everything
  peer_ended,         ///< the peer will send no more
  closed,             ///< in good order
  failed,             ///< or not
};

namespace detail {
constexpr auto connecting = ConnectionState::connecting;
constexpr auto sending = ConnectionState::sending;
constexpr auto receiving = ConnectionState::receiving;
constexpr auto done = ConnectionState::done;
constexpr Cell<ConnectionState> never{};
}  // namespace detail

// clang-format off
inline constexpr StateTable<ConnectionState, ConnectionEvent, 4, 7> connection_table{
    "connection",
    {"CONNECTING", "SENDING", "RECEIVING", "DONE"},
    {"connected", "connected to send", "written", "flushed", "peer ended", "closed", "failed"},
    {{
      // connected         connected to send  written             flushed            peer ended         closed        failed
      {{detail::receiving, detail::sending,   detail::connecting, detail::never,     detail::never,     detail::done, detail::done}},
      {{detail::never,     detail::never,     detail::sending,    detail::receiving, detail::sending,   detail::done, detail::done}},
      {{detail::never,     detail::never,     detail::sending,    detail::never,     detail::receiving, detail::done, detail::done}},
      {{detail::done,      detail::done,      detail::done,       detail::done,      detail::done,      detail::done, detail::done}},
    }}};
// clang-format on

static_assert(connection_table.every_state_reaches(ConnectionState::done));
static_assert(connection_table.every_state_is_reached_from(ConnectionState::connecting));
static_assert(connection_table.absorbs_all(ConnectionState::done));

/// "CONNECTING", "SENDING", "RECEIVING", "DONE"
PAWL_API std::string_view to_string(ConnectionState state);

}  // namespace pawl
