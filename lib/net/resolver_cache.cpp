// SPDX-License-Identifier: MIT
#include "net/resolver_cache.hpp"

#include <algorithm>

namespace pawl {

std::string_view to_string(ResolverQueryState state) { return resolver_query_table.name(state); }

ResolverCache::~ResolverCache() {
  for (ResolverQuery& query : asking_) step(query, ResolverQueryEvent::dropped);
  clear();
}

std::string ResolverCache::key_of(std::string_view name, AddressFamily family) {
  std::string key(1, static_cast<char>('0' + static_cast<int>(family)));
  key += name;
  // Case doesn't matter in ASCII, and in nothing else (RFC 4343).
  std::transform(key.begin(), key.end(), key.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return key;
}

ResolverQuery* ResolverCache::find(std::string_view name, AddressFamily family, TimePoint now) {
  const auto found = by_key_.find(key_of(name, family));
  if (found == by_key_.end()) return nullptr;
  const Queries::iterator query = found->second;
  if (query->machine.state() == ResolverQueryState::asking) return &*query;
  if (query->expires <= now) {
    forget(fresh_, query, ResolverQueryEvent::expired);
    return nullptr;
  }
  fresh_.splice(fresh_.begin(), fresh_, query);
  return &*query;
}

ResolverQuery& ResolverCache::add(std::string_view name, AddressFamily family) {
  Queries added;
  added.emplace_front();
  const Queries::iterator query = added.begin();
  query->id = last_id_ + 1;
  query->name = name;
  query->family = family;
  query->key = key_of(name, family);
  const auto by_id = by_id_.emplace(query->id, query).first;
  try {
    by_key_.emplace(query->key, query);
  } catch (...) {
    by_id_.erase(by_id);
    throw;
  }
  ++last_id_;
  asking_.splice(asking_.begin(), added);
  return *query;
}

ResolverQuery* ResolverCache::find_asking(std::uint64_t id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &*found->second;
}

void ResolverCache::keep(ResolverQuery& query, TimePoint expires, TimePoint now) {
  const Queries::iterator kept = by_id_.at(query.id);
  by_id_.erase(query.id);
  step(query, query.error ? ResolverQueryEvent::failed : ResolverQueryEvent::answered);
  query.expires = expires;
  fresh_.splice(fresh_.begin(), asking_, kept);
  if (expires <= now) return forget(fresh_, kept, ResolverQueryEvent::expired);
  if (fresh_.size() > limit_) forget(fresh_, std::prev(fresh_.end()), ResolverQueryEvent::dropped);
}

void ResolverCache::abandon(ResolverQuery& query) {
  const Queries::iterator abandoned = by_id_.at(query.id);
  by_id_.erase(query.id);
  forget(asking_, abandoned, ResolverQueryEvent::abandoned);
}

void ResolverCache::clear() {
  while (!fresh_.empty()) forget(fresh_, fresh_.begin(), ResolverQueryEvent::dropped);
}

void ResolverCache::forget(Queries& list, Queries::iterator query, ResolverQueryEvent why) {
  step(*query, why);
  by_key_.erase(query->key);
  list.erase(query);
}

}  // namespace pawl
