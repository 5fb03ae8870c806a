// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "pawl/core/api.hpp"

namespace pawl {

class Connection;

enum class ByteOrder : std::uint8_t { big, little };  ///< big: the network's, RFC 1700

/// The length of a message in front of it: an unsigned number of 1, 2, 4 or 8 bytes, which doesn't
/// count itself.
struct LengthPrefix {
  unsigned bytes = 4;
  ByteOrder order = ByteOrder::big;

  /// The prefix of a message of `length` bytes. Throws `std::length_error` when it doesn't fit, and
  /// `std::invalid_argument` for another number of bytes than those.
  PAWL_API std::string of(std::size_t length) const;
};

/// Writes `message` behind its prefix; both leave together. Throws as `LengthPrefix::of`.
PAWL_API void write_message(Connection& connection, LengthPrefix prefix, std::string_view message);

/// How the end of a message is told in a stream of bytes. A value.
///
/// Each has a limit to the bytes of a message; what is longer is `Errc::message_too_long`.
class PAWL_API Framing {
 public:
  static constexpr std::size_t usual_limit = 1024 * 1024;

  /// Up to the next `delimiter`, which isn't part of the message. Throws `std::invalid_argument`
  /// when it is empty.
  static Framing until(std::string_view delimiter, std::size_t limit = usual_limit);
  /// Up to the next "\n" or "\r\n", which aren't part of the message. A single "\r" is.
  static Framing lines(std::size_t limit = usual_limit);
  /// So many bytes; none at all is a message as well.
  static Framing exactly(std::size_t bytes, std::size_t limit = usual_limit);
  /// A number, and then as many bytes as it says. Throws `std::invalid_argument` when the prefix
  /// has another length than 1, 2, 4 or 8.
  static Framing prefixed(LengthPrefix prefix, std::size_t limit = usual_limit);
  /// All that comes before the end of the stream: one message, which may be empty.
  static Framing until_end(std::size_t limit = usual_limit);

 private:
  friend class MessageParser;

  enum class Kind : std::uint8_t { until, lines, exactly, prefixed, until_end };

  Framing(Kind kind, std::size_t limit) : kind_(kind), limit_(limit) {}

  Kind kind_;
  std::size_t limit_;
  std::size_t bytes_ = 0;  // of `exactly`
  LengthPrefix prefix_;
  std::string delimiter_;
};

}  // namespace pawl
