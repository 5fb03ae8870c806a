// SPDX-License-Identifier: MIT
#include "net/dns_reply_head.hpp"

#include <cstddef>

namespace pawl {
namespace {

constexpr std::size_t header_bytes = 12;
constexpr std::size_t longest_label = 63;  // above are pointers, which a first name can't have

unsigned byte_at(std::string_view message, std::size_t position) {
  return static_cast<unsigned char>(message[position]);
}

unsigned number_at(std::string_view message, std::size_t position) {
  return byte_at(message, position) << 8 | byte_at(message, position + 1);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

DnsReplyHead DnsReplyHead::parse(std::string_view message) {
  if (message.size() < header_bytes) return {};
  const bool is_reply = (byte_at(message, 2) & 0x80) != 0;
  if (!is_reply || number_at(message, 4) != 1) return {};
  std::size_t position = header_bytes;
  while (position < message.size() && byte_at(message, position) != 0) {
    if (byte_at(message, position) > longest_label) return {};
    position += 1 + byte_at(message, position);
  }
  if (position + 5 > message.size()) return {};
  DnsReplyHead head;
  head.code = static_cast<int>(byte_at(message, 3) & 0x0f);
  head.type = static_cast<int>(number_at(message, position + 1));
  head.labels = message.substr(header_bytes, position - header_bytes);
  return head;
}

bool DnsReplyHead::is_about(std::string_view name) const {
  if (name.size() != labels.size()) return false;  // a length for each dot
  std::size_t dot = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (i == dot) {
      dot += 1 + byte_at(labels, i);
      if (dot > labels.size() || name[dot - 1] != '.') return false;
    } else if (lower(labels[i]) != lower(name[i - 1])) {
      return false;
    }
  }
  return true;
}

}  // namespace pawl
