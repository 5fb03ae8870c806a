// SPDX-License-Identifier: MIT
#include "net/dns_search.hpp"

#include <algorithm>
#include <utility>

#include "pawl/core/error.hpp"

namespace pawl {

DnsSearch::DnsSearch(ResolverConfig::Candidates candidates, AddressFamily family, bool asks_ipv6)
    : candidates_(std::move(candidates)) {
  is_wanted_[ipv4] = family != AddressFamily::ipv6;
  is_wanted_[ipv6] = family != AddressFamily::ipv4 && asks_ipv6;
  if (candidates_.names.empty()) last_error_ = Errc::host_not_found;
  if (!is_wanted_[ipv4] && !is_wanted_[ipv6]) last_error_ = Errc::no_address;
}

DnsSearch::Step DnsSearch::step() {
  if (!has_begun_) {
    if (last_error_) return Step::over;
    has_begun_ = true;
    is_open_ = is_wanted_;
    return Step::next;
  }
  if (is_open_[ipv4] || is_open_[ipv6]) {
    if (has_told_part_ || !has_addresses()) return Step::wait;
    has_told_part_ = true;
    return Step::part;
  }
  if (has_addresses()) return Step::over;
  note(outcome());
  if (!advance()) return Step::over;
  answers_ = {};
  is_open_ = is_wanted_;
  return Step::next;
}

void DnsSearch::take(std::size_t family, DnsAnswer&& answer) {
  answers_[family] = std::move(answer);
  is_open_[family] = false;
}

bool DnsSearch::has_addresses() const {
  return !answers_[ipv4].endpoints.empty() || !answers_[ipv6].endpoints.empty();
}

/// The graver of both, when none has addresses.
DnsOutcome DnsSearch::outcome() const {
  return std::max(answers_[ipv4].outcome, answers_[ipv6].outcome);
}

std::error_code DnsSearch::error_of(DnsOutcome outcome) const {
  for (const DnsAnswer& answer : answers_) {
    if (answer.outcome == outcome) return answer.error;
  }
  return {};
}

/// What glibc's res_search remembers of a name that led nowhere.
void DnsSearch::note(DnsOutcome outcome) {
  last_error_ = error_of(outcome);
  if (candidates_.begins_as_is && position_ == 0) {
    as_is_error_ = last_error_;
    return;
  }
  if (outcome == DnsOutcome::no_address) had_no_address_ = true;
  if (outcome == DnsOutcome::server_failure) had_server_failure_ = true;
}

/// One suffix's SERVFAIL is no reason to leave the others out; silence is.
bool DnsSearch::advance() {
  const DnsOutcome last = outcome();
  const std::size_t count = candidates_.names.size();
  const bool was_suffix = !(candidates_.begins_as_is && position_ == 0);
  if (last == DnsOutcome::no_server || position_ + 1 >= count) return false;
  ++position_;
  if (last != DnsOutcome::failed || !was_suffix) return true;
  if (!candidates_.ends_as_is) return false;
  position_ = count - 1;
  return true;
}

ResolverAnswer DnsSearch::answer() {
  ResolverAnswer whole;
  if (!has_addresses()) {
    whole.error = last_error_;
    const bool is_final = has_begun_ && outcome() == DnsOutcome::no_server;
    if (is_final) return whole;
    if (as_is_error_) {
      whole.error = as_is_error_;
    } else if (had_no_address_) {
      whole.error = Errc::no_address;
    } else if (had_server_failure_) {
      whole.error = Errc::resolve_failed;
    }
    return whole;
  }
  whole.lifetime = Duration::max();
  for (std::size_t family = 0; family < families; ++family) {
    const DnsAnswer& answer = answers_[family];
    if (!is_wanted_[family]) continue;
    if (is_open_[family]) {
      whole.part = ResolverAnswer::Part::first;
    } else if (!answer.endpoints.empty()) {
      whole.endpoints.insert(whole.endpoints.end(), answer.endpoints.begin(),
                             answer.endpoints.end());
      whole.lifetime = std::min(*whole.lifetime, answer.lifetime);
    } else if (answer.outcome > DnsOutcome::no_address) {
      whole.part = ResolverAnswer::Part::crippled;
    }
  }
  return whole;
}

}  // namespace pawl
