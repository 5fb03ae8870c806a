// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>
#include <type_traits>

#include "pawl/core/api.hpp"

namespace pawl {

/// What can go wrong here and has no `errno` of its own. Converts to `std::error_code`.
///
/// What the kernel says keeps its `errno` (`std::system_category`), so compare with `std::errc`.
enum class Errc {
  already_registered = 1,  ///< the descriptor is being watched already
  not_registered,          ///< the descriptor isn't being watched
  used_after_fork,         ///< the object belongs to the parent process
  wrong_thread,            ///< the call came from another thread than the loop's
  loop_closed,             ///< the event loop is gone
  timed_out,               ///< a deadline passed first
  write_limit,             ///< more unsent bytes than the limit allows
  aborted,                 ///< we gave the connection up ourselves
  unsent_data,             ///< closed by us with bytes still unsent
  host_not_found,          ///< there is no host of this name
  resolve_failed,          ///< no name server gave an answer
  self_connect,            ///< the socket was connected to itself
  server_closed,           ///< the server that owned the connection was closed
  file_ended,              ///< a file that was to be sent is shorter than was said
  bad_name,                ///< no host can have this name; nobody was asked
  no_address,              ///< the host has no address of the family that was asked for
  bad_answer,              ///< a name server refused, or its answer made no sense
  message_too_long,        ///< a message is longer than its limit
  unexpected_end,          ///< the peer ended in the middle of a message
  broken_promise,          ///< whoever was to give a future its result is gone
  other_exception,         ///< an exception that carries no `std::error_code`
  queue_shut_down,         ///< the queue takes no more, or has no more to give
};

PAWL_API const std::error_category& error_category() noexcept;
PAWL_API std::error_code make_error_code(Errc value) noexcept;

/// An `errno` as an `std::error_code`; 0 is success.
inline std::error_code system_error_code(int error_number) noexcept {
  return {error_number, std::system_category()};
}

}  // namespace pawl

template <>
struct std::is_error_code_enum<pawl::Errc> : std::true_type {};
