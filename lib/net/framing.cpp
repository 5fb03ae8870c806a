// SPDX-License-Identifier: MIT
#include "pawl/net/framing.hpp"

#include <stdexcept>

#include "pawl/net/connection.hpp"

namespace pawl {
namespace {

void check(LengthPrefix prefix) {
  const unsigned bytes = prefix.bytes;
  if (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8) return;
  throw std::invalid_argument("LengthPrefix: " + std::to_string(bytes) +
                              " bytes; it has 1, 2, 4 or 8");
}

}  // namespace

std::string LengthPrefix::of(std::size_t length) const {
  check(*this);
  std::uint64_t rest = length;
  std::string text(bytes, '\0');
  for (unsigned i = 0; i < bytes; ++i) {
    const unsigned place = order == ByteOrder::big ? bytes - 1 - i : i;
    text[place] = static_cast<char>(rest & 0xFFU);
    rest >>= 8;
  }
  if (rest == 0) return text;
  throw std::length_error("LengthPrefix: a message of " + std::to_string(length) +
                          " bytes doesn't fit a prefix of " + std::to_string(bytes));
}

void write_message(Connection& connection, LengthPrefix prefix, std::string_view message) {
  connection.write(prefix.of(message.size()));
  connection.write(message);
}

Framing Framing::until(std::string_view delimiter, std::size_t limit) {
  if (delimiter.empty()) throw std::invalid_argument("Framing: an empty delimiter");
  Framing framing(Kind::until, limit);
  framing.delimiter_ = delimiter;
  return framing;
}

Framing Framing::lines(std::size_t limit) {
  Framing framing(Kind::lines, limit);
  framing.delimiter_ = "\n";
  return framing;
}

Framing Framing::exactly(std::size_t bytes, std::size_t limit) {
  Framing framing(Kind::exactly, limit);
  framing.bytes_ = bytes;
  return framing;
}

Framing Framing::prefixed(LengthPrefix prefix, std::size_t limit) {
  check(prefix);
  Framing framing(Kind::prefixed, limit);
  framing.prefix_ = prefix;
  return framing;
}

Framing Framing::until_end(std::size_t limit) { return Framing(Kind::until_end, limit); }

}  // namespace pawl
