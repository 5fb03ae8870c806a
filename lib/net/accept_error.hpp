// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace pawl {

/// What an error of accept(2) says about the next try.
enum class AcceptError : std::uint8_t {
  nobody,      ///< nobody is waiting
  connection,  ///< one that waited had died; the next may be fine
  pause,       ///< no descriptor, no memory, forbidden, or unknown: the same again at once
  lasting,     ///< the socket is of no use any more
};

/// How many errors of connections are skipped in a row, before it is doubted that they are that.
constexpr unsigned most_skipped = 64;

AcceptError classify_accept_error(int error);

/// True exactly when `error` says that the number doesn't stand for our socket any more, so that it
/// isn't ours to close.
bool is_number_gone(int error);

}  // namespace pawl
