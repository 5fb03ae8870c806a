// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a resolver's question stands. Identical lookups share one.
enum class ResolverQueryState : std::uint8_t {
  asking,  ///< the backend looks for an answer
  fresh,   ///< the answer, or the failure, is known and is given to whoever asks the same
  done,    ///< forgotten
};

enum class ResolverQueryEvent : std::uint8_t {
  joined,     ///< another lookup asks the same
  answered,   ///< with addresses
  failed,     ///< with an error
  abandoned,  ///< no lookup waits for it any more: all were cancelled or timed out
  hit,        ///< another lookup got the answer that is known
  expired,    ///< the answer is as old as it may get, which may be at once
  dropped,    ///< by `clear_cache`, for want of room, or with the resolver
};

// clang-format off
inline constexpr StateTable<ResolverQueryState, ResolverQueryEvent, 3, 7> resolver_query_table{
    "resolver query",
    {"ASKING", "FRESH", "DONE"},
    {"joined", "answered", "failed", "abandoned", "hit", "expired", "dropped"},
    {{
      // joined                     answered                   failed                     abandoned                 hit                        expired                   dropped
      {{ResolverQueryState::asking, ResolverQueryState::fresh, ResolverQueryState::fresh, ResolverQueryState::done, {},                        {},                       ResolverQueryState::done}},
      {{{},                         {},                        {},                        {},                       ResolverQueryState::fresh, ResolverQueryState::done, ResolverQueryState::done}},
      {{ResolverQueryState::done,   ResolverQueryState::done,  ResolverQueryState::done,  ResolverQueryState::done, ResolverQueryState::done,  ResolverQueryState::done, ResolverQueryState::done}},
    }}};
// clang-format on

static_assert(resolver_query_table.every_state_reaches(ResolverQueryState::done));
static_assert(resolver_query_table.every_state_is_reached_from(ResolverQueryState::asking));
static_assert(resolver_query_table.absorbs_all(ResolverQueryState::done));

/// "ASKING", "FRESH", "DONE"
PAWL_API std::string_view to_string(ResolverQueryState state);

}  // namespace pawl
