// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a listener stands; only `listening` waits for its descriptor. Otherwise the kernel's
/// backlog holds whoever comes.
enum class ListenerState : std::uint8_t {
  listening,
  paused,     ///< by its owner
  exhausted,  ///< no descriptor or memory left: tries again in a while
  done,
};

enum class ListenerEvent : std::uint8_t {
  pause,
  resume,
  no_room,  ///< accept failed with EMFILE, ENFILE, ENOBUFS or ENOMEM
  retry,    ///< a while has passed
  close,
};

// clang-format off
inline constexpr StateTable<ListenerState, ListenerEvent, 4, 5> listener_table{
    "listener",
    {"LISTENING", "PAUSED", "EXHAUSTED", "DONE"},
    {"pause", "resume", "no room", "retry", "close"},
    {{
      // pause                  resume                    no room                   retry                     close
      {{ListenerState::paused, ListenerState::listening, ListenerState::exhausted, {},                       ListenerState::done}},
      {{ListenerState::paused, ListenerState::listening, {},                       {},                       ListenerState::done}},
      {{ListenerState::paused, ListenerState::exhausted, {},                       ListenerState::listening, ListenerState::done}},
      {{ListenerState::done,   ListenerState::done,      ListenerState::done,      ListenerState::done,      ListenerState::done}},
    }}};
// clang-format on

static_assert(listener_table.every_state_reaches(ListenerState::done));
static_assert(listener_table.every_state_is_reached_from(ListenerState::listening));
static_assert(listener_table.absorbs_all(ListenerState::done));

/// "LISTENING", "PAUSED", "EXHAUSTED", "DONE"
PAWL_API std::string_view to_string(ListenerState state);

}  // namespace pawl
