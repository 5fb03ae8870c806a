// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

namespace pawl {

/// What a name server's reply says of itself, before its records (RFC 1035 §4.1).
struct DnsReplyHead {
  /// All zero for what is no reply to one question.
  static DnsReplyHead parse(std::string_view message);

  /// True exactly when the question was about `name`, which ends with a dot; case doesn't matter.
  bool is_about(std::string_view name) const;

  int code = 0;
  int type = 0;
  std::string_view labels;  // of the name, each behind its length; within the message
};

}  // namespace pawl
