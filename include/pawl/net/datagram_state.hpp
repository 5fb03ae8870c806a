// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a datagram socket stands. What it waits for follows from that:
///
/// | state   | means                                      | waits for      | deadline      |
/// |---------|--------------------------------------------|----------------|---------------|
/// | open    | everything is with the kernel              | read           | none          |
/// | sending | some datagrams are not yet with the kernel | read and write | none          |
/// | closing | as above, and it takes in nothing more     | write          | close timeout |
/// | done    | closed                                     | nothing        | none          |
///
/// Paused reading takes the read away.
enum class DatagramState : std::uint8_t { open, sending, closing, done };

enum class DatagramEvent : std::uint8_t {
  queued,   ///< a datagram, by the user
  flushed,  ///< the kernel has taken or refused each
  close,    ///< by the user, who wants the queued ones sent
  failed,   ///< given up by the user, out of time, or the descriptor is of no use
};

// clang-format off
inline constexpr StateTable<DatagramState, DatagramEvent, 4, 4> datagram_table{
    "datagram socket",
    {"OPEN", "SENDING", "CLOSING", "DONE"},
    {"queued", "flushed", "close", "failed"},
    {{
      // queued                  flushed              close                   failed
      {{DatagramState::sending, {},                  DatagramState::done,    DatagramState::done}},
      {{DatagramState::sending, DatagramState::open, DatagramState::closing, DatagramState::done}},
      {{{},                     DatagramState::done, DatagramState::closing, DatagramState::done}},
      {{DatagramState::done,    DatagramState::done, DatagramState::done,    DatagramState::done}},
    }}};
// clang-format on

static_assert(datagram_table.every_state_reaches(DatagramState::done));
static_assert(datagram_table.every_state_is_reached_from(DatagramState::open));
static_assert(datagram_table.absorbs_all(DatagramState::done));

/// "OPEN", "SENDING", "CLOSING", "DONE"
PAWL_API std::string_view to_string(DatagramState state);

}  // namespace pawl
