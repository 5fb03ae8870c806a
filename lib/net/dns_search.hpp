// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

#include "net/resolver_backend.hpp"
#include "net/resolver_config.hpp"
#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"

namespace pawl {

/// What name servers said about one name and one family; the later, the graver.
enum class DnsOutcome : std::uint8_t {
  addresses,
  no_name,
  no_address,
  server_failure,  // SERVFAIL from all of them
  failed,          // silence, or what made no sense
  no_server,       // there was none to be asked, or no room to ask: all other names fail as well
};

struct DnsAnswer {
  DnsOutcome outcome = DnsOutcome::addresses;
  std::error_code error;
  std::vector<Endpoint> endpoints;
  Duration lifetime{};
};

/// One lookup's way through the names that it may mean (resolv.conf(5), "search") and through both
/// families, as glibc's res_search goes it. It asks nobody; it knows who is to be asked next.
class DnsSearch {
 public:
  static constexpr std::size_t ipv4 = 0;
  static constexpr std::size_t ipv6 = 1;
  static constexpr std::size_t families = 2;

  enum class Step : std::uint8_t {
    wait,  // for an answer
    part,  // hand on what has come of one family; told once
    next,  // ask for `name()`, each family that `wants` names
    over,  // hand on the answer
  };

  DnsSearch(ResolverConfig::Candidates candidates, AddressFamily family, bool asks_ipv6);

  /// What is to be done now.
  Step step();
  const std::string& name() const { return candidates_.names[position_]; }
  bool wants(std::size_t family) const { return is_wanted_[family]; }
  /// The answer to a question that was asked since the last `Step::next`.
  void take(std::size_t family, DnsAnswer&& answer);
  /// What there is, unsorted.
  ResolverAnswer answer();

 private:
  DnsOutcome outcome() const;
  std::error_code error_of(DnsOutcome outcome) const;
  bool has_addresses() const;
  bool advance();
  void note(DnsOutcome outcome);

  ResolverConfig::Candidates candidates_;
  std::array<bool, families> is_wanted_{};
  std::array<bool, families> is_open_{};  // true exactly while its answer is missing
  std::array<DnsAnswer, families> answers_;
  std::size_t position_ = 0;
  bool has_begun_ = false;
  bool has_told_part_ = false;
  bool had_no_address_ = false;
  bool had_server_failure_ = false;
  std::error_code as_is_error_;  // of the name as it is, when that came first
  std::error_code last_error_;
};

}  // namespace pawl
