// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a listener stands; only `listening` and `draining` wait for its descriptor. Otherwise the
/// kernel's backlog holds whoever comes.
enum class ListenerState : std::uint8_t {
  listening,
  paused,     ///< by its owner
  exhausted,  ///< no descriptor or memory left, or forbidden to accept: tries again in a while
  draining,   ///< closing: accepts those who wait in the backlog
  held,       ///< the same, and paused by its owner, or exhausted
  done,
};

enum class ListenerEvent : std::uint8_t {
  pause,
  resume,
  no_room,  ///< accept failed in a way that would be the same again at once: EMFILE, EPERM …
  retry,    ///< a while has passed
  drain,    ///< to be closed once nobody waits in the backlog
  failed,   ///< the socket is of no use any more: EINVAL, EBADF …
  close,
};

// clang-format off
inline constexpr StateTable<ListenerState, ListenerEvent, 6, 7> listener_table{
    "listener",
    {"LISTENING", "PAUSED", "EXHAUSTED", "DRAINING", "HELD", "DONE"},
    {"pause", "resume", "no room", "retry", "drain", "failed", "close"},
    {{
      // pause                  resume                    no room                   retry                     drain                    failed               close
      {{ListenerState::paused, ListenerState::listening, ListenerState::exhausted, {},                       ListenerState::draining, ListenerState::done, ListenerState::done}},
      {{ListenerState::paused, ListenerState::listening, {},                       {},                       ListenerState::draining, ListenerState::done, ListenerState::done}},
      {{ListenerState::paused, ListenerState::exhausted, {},                       ListenerState::listening, ListenerState::draining, ListenerState::done, ListenerState::done}},
      {{ListenerState::held,   ListenerState::draining,  ListenerState::held,      ListenerState::draining,  {},                      ListenerState::done, ListenerState::done}},
      {{ListenerState::held,   ListenerState::draining,  {},                       ListenerState::draining,  {},                      ListenerState::done, ListenerState::done}},
      {{ListenerState::done,   ListenerState::done,      ListenerState::done,      ListenerState::done,      ListenerState::done,     ListenerState::done, ListenerState::done}},
    }}};
// clang-format on

static_assert(listener_table.every_state_reaches(ListenerState::done));
static_assert(listener_table.every_state_is_reached_from(ListenerState::listening));
static_assert(listener_table.absorbs_all(ListenerState::done));

/// "LISTENING", "PAUSED", "EXHAUSTED", "DRAINING", "HELD", "DONE"
PAWL_API std::string_view to_string(ListenerState state);

}  // namespace pawl
