// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "pawl/core/state_table.hpp"
#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"
#include "pawl/net/resolver_query_state.hpp"

namespace pawl {

/// One question, from its first lookup until its answer is forgotten.
struct ResolverQuery {
  using Waiting = std::list<LookupState*>;

  std::uint64_t id = 0;
  std::string name;
  AddressFamily family = AddressFamily::any;
  std::string key;  // what tells questions apart
  StateMachine<resolver_query_table> machine{ResolverQueryState::asking};
  Waiting waiting;  // while ASKING; first come, first served
  std::error_code error;
  std::shared_ptr<const std::vector<Endpoint>> endpoints;  // of a part, or while FRESH; no ports
  std::optional<TimePoint> part_came;  // while ASKING: when one family's addresses did
  Duration lifetime{};                 // of that part
  TimePoint expires{};

  bool has_part() const { return part_came.has_value(); }
  void step(ResolverQueryEvent event, Observer* observer) {
    machine.step(event, observer, this, name);
  }
};

/// The questions that are on their way and those whose answer is still good. It knows no clock, no
/// backend and no callbacks.
///
/// Threads: the loop's.
class ResolverCache {
 public:
  /// Keeps at most `limit` answers.
  ResolverCache(std::size_t limit, Observer* observer) : limit_(limit), observer_(observer) {}
  ResolverCache(const ResolverCache&) = delete;
  ResolverCache& operator=(const ResolverCache&) = delete;
  /// Drops all.
  ~ResolverCache();

  /// The question that asks the same, or null. An answer that is too old by `now` is forgotten.
  ResolverQuery* find(std::string_view name, AddressFamily family, TimePoint now);
  /// A new question, which nobody asks yet.
  ResolverQuery& add(std::string_view name, AddressFamily family);
  /// The question that is on its way with this number, or null.
  ResolverQuery* find_asking(std::uint64_t id);

  /// The question's answer is in it, and good until `expires`; it may be forgotten at once.
  void keep(ResolverQuery& query, TimePoint expires, TimePoint now);
  /// Nobody waits for it any more.
  void abandon(ResolverQuery& query);
  /// Forgets the answers.
  void clear();
  std::size_t answers() const { return fresh_.size(); }
  void step(ResolverQuery& query, ResolverQueryEvent event) { query.step(event, observer_); }

 private:
  using Queries = std::list<ResolverQuery>;

  static std::string key_of(std::string_view name, AddressFamily family);
  void forget(Queries& list, Queries::iterator query, ResolverQueryEvent why);

  const std::size_t limit_;
  Observer* observer_;
  std::uint64_t last_id_ = 0;
  Queries asking_;
  Queries fresh_;  // the most recently used first
  std::unordered_map<std::string, Queries::iterator> by_key_;
  std::unordered_map<std::uint64_t, Queries::iterator> by_id_;  // of asking_
};

}  // namespace pawl
