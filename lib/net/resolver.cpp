// SPDX-License-Identifier: MIT
#include "pawl/net/resolver.hpp"

#include <algorithm>
#include <cerrno>
#include <list>
#include <new>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/address_order.hpp"
#include "net/host_name.hpp"
#include "net/resolver_backend.hpp"
#include "net/resolver_cache.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"

namespace pawl {
namespace {

using Endpoints = std::shared_ptr<const std::vector<Endpoint>>;

/// An address that comes twice is tried once.
Endpoints without_doubles(std::vector<Endpoint> endpoints) {
  std::unordered_set<std::string> seen;
  const auto is_double = [&](const Endpoint& each) { return !seen.insert(each.host()).second; };
  endpoints.erase(std::remove_if(endpoints.begin(), endpoints.end(), is_double), endpoints.end());
  return std::make_shared<const std::vector<Endpoint>>(std::move(endpoints));
}

std::vector<Endpoint> with_port(const std::vector<Endpoint>& endpoints, std::uint16_t port) {
  std::vector<Endpoint> with_it = endpoints;
  for (Endpoint& endpoint : with_it) endpoint = endpoint.with_port(port);
  return with_it;
}

bool is_wanted(const Endpoint& endpoint, AddressFamily family) {
  if (family == AddressFamily::any) return true;
  return (family == AddressFamily::ipv4) == (endpoint.family() == Endpoint::Family::ipv4);
}

/// True exactly for what the name servers have said, or kept silent about. What went wrong in this
/// process may go right the next time.
bool is_from_name_servers(std::error_code error) { return error.category() == error_category(); }

/// What the names of localhost stand for, whoever is asked (RFC 6761 §6.3).
Endpoints loopback_addresses(System& system, AddressFamily family) {
  std::vector<Endpoint> addresses;
  for (const Endpoint& each : {Endpoint::loopback_ipv6(0), Endpoint::loopback(0)}) {
    if (is_wanted(each, family)) addresses.push_back(each);
  }
  sort_addresses(system, addresses);  // a machine may be without IPv6
  return std::make_shared<const std::vector<Endpoint>>(std::move(addresses));
}

void check_backend(const std::string& backend) {
  const std::vector<std::string_view> known = available_resolver_backends();
  if (std::find(known.begin(), known.end(), backend) != known.end()) return;
  std::string message = "Resolver: unknown backend \"" + backend + "\"; known:";
  for (const std::string_view name : known) message += " " + std::string(name);
  throw std::invalid_argument(message);
}

void check_servers(const ResolverOptions& options) {
  if (!options.servers.empty() && options.backend == "system") {
    throw std::invalid_argument(
        "Resolver: the backend \"system\" asks the system's name servers; \"cares\" can ask "
        "others");
  }
  for (const Endpoint& server : options.servers) {
    if (server.family() == Endpoint::Family::ipv4 || server.family() == Endpoint::Family::ipv6) {
      continue;
    }
    throw std::invalid_argument("Resolver: " + server.to_string() +
                                " can't be a name server: an IPv4 or IPv6 address");
  }
}

}  // namespace

/// One lookup, from `resolve` to its callback. The resolver and the tickets share it.
struct LookupState {
  Resolver::Parts* owner = nullptr;  // null when it is over or the resolver is gone
  std::list<std::shared_ptr<LookupState>>::iterator self;  // in the owner's list
  ResolverQuery* query = nullptr;                          // whose answer it waits for
  ResolverQuery::Waiting::iterator position;               // among those who wait
  bool is_cancelled = false;
  bool is_at_deadline = false;  // true exactly while `on_deadline` looks for an answer
  bool is_in_parts = false;     // true exactly while `in_parts` runs and may be called again
  TimePoint deadline = TimePoint::max();
  std::uint16_t port = 0;
  Resolver::Done done;         // either this …
  Resolver::InParts in_parts;  // … or this
  Duration patience{};         // with which the other family is waited for
  std::error_code error;
  Endpoints endpoints;
  Place place;
  ScopedHandle next;       // its deadline, then its callback
  ScopedHandle part_turn;  // when it gets what has come of one family
};

struct Resolver::Parts {
  Parts(EventLoop& loop_, ResolverOptions&& options_)
      : loop(loop_),
        options(std::move(options_)),
        cache(options.cache_entries, loop.observer()),
        backend(make_backend()) {}
  ~Parts();

  std::unique_ptr<ResolverBackend> make_backend();
  std::shared_ptr<LookupState> start(std::uint16_t port, Duration patience, Place place);
  void look_up(const std::shared_ptr<LookupState>& lookup, std::string_view host,
               AddressFamily family);
  void ask(const std::shared_ptr<LookupState>& lookup, std::string_view name, AddressFamily family);
  void join(LookupState& lookup, ResolverQuery& query);
  void leave(LookupState& lookup) noexcept;
  void on_answer(std::uint64_t id, ResolverAnswer&& answer) noexcept;
  void on_part(ResolverQuery& query, ResolverAnswer&& answer);
  void keep(ResolverQuery& query, Duration lifetime) noexcept;
  void await_other_family(LookupState& lookup, const ResolverQuery& query) noexcept;
  void on_patience_over(LookupState& lookup);
  void on_deadline(LookupState& lookup);
  void finish(LookupState& lookup, std::error_code error, Endpoints endpoints);
  void finish_waiting(LookupState& lookup, const ResolverQuery& query) noexcept;
  void call(LookupState& lookup);
  void forget(LookupState& lookup) noexcept;
  void cancel(LookupState& lookup);
  bool look(const LookupState& lookup) noexcept;

  EventLoop& loop;
  const ResolverOptions options;
  ResolverCounters counters;
  std::list<std::shared_ptr<LookupState>> lookups;
  ResolverCache cache;
  std::unique_ptr<ResolverBackend> backend;
};

std::unique_ptr<ResolverBackend> Resolver::Parts::make_backend() {
  check_backend(options.backend);
  check_servers(options);
  const auto make = options.backend == "cares" ? &make_cares_backend : &make_getaddrinfo_backend;
  return make(loop, options, [this](std::uint64_t id, ResolverAnswer answer) {
    on_answer(id, std::move(answer));
  });
}

Resolver::Parts::~Parts() {
  backend.reset();
  for (const auto& lookup : lookups) {
    lookup->owner = nullptr;
    lookup->next.cancel();
    lookup->part_turn.cancel();
  }
  // Last, when nothing here is in use any more: what the callbacks captured may do as it likes.
  std::list<std::shared_ptr<LookupState>> dying = std::move(lookups);
  for (const auto& lookup : dying) {
    const Done freed = std::move(lookup->done);
    if (!lookup->is_in_parts) const InParts freed_too = std::move(lookup->in_parts);
  }
}

std::shared_ptr<LookupState> Resolver::Parts::start(std::uint16_t port, Duration patience,
                                                    Place place) {
  auto lookup = std::make_shared<LookupState>();
  lookup->owner = this;
  lookup->port = port;
  lookup->patience = patience;
  lookup->place = place;
  lookup->self = lookups.insert(lookups.end(), lookup);
  ++counters.lookups;
  return lookup;
}

void Resolver::Parts::look_up(const std::shared_ptr<LookupState>& lookup, std::string_view host,
                              AddressFamily family) {
  if (loop.parts().is_forked_child()) return finish(*lookup, Errc::used_after_fork, nullptr);
  const HostName name = HostName::parse(host);
  if (name.kind == HostName::Kind::name) {
    if (is_onion(host)) return finish(*lookup, Errc::host_not_found, nullptr);
    if (!is_localhost(host)) return ask(lookup, host, family);
    return finish(*lookup, {}, loopback_addresses(loop.system(), family));
  }
  if (name.kind == HostName::Kind::bad) return finish(*lookup, Errc::bad_name, nullptr);
  if (!is_wanted(name.address, family)) return finish(*lookup, Errc::no_address, nullptr);
  finish(*lookup, {}, std::make_shared<const std::vector<Endpoint>>(1, name.address));
}

void Resolver::Parts::ask(const std::shared_ptr<LookupState>& lookup, std::string_view name,
                          AddressFamily family) {
  ResolverQuery* query = cache.find(name, family, loop.time());
  if (query == nullptr) {
    ResolverQuery& added = cache.add(name, family);
    try {
      join(*lookup, added);
    } catch (...) {
      cache.abandon(added);  // nobody has asked yet, nor ever would
      throw;
    }
    ++counters.queries;
    return backend->ask(added.id, std::string(name), family);  // which may answer at once
  }
  if (query->machine.state() == ResolverQueryState::fresh) {
    ++counters.cache_hits;
    cache.step(*query, ResolverQueryEvent::hit);
    return finish(*lookup, query->error, query->endpoints);
  }
  ++counters.shared;
  cache.step(*query, ResolverQueryEvent::joined);
  join(*lookup, *query);
}

void Resolver::Parts::join(LookupState& lookup, ResolverQuery& query) {
  const auto on_timeout = [this, &lookup] { on_deadline(lookup); };
  // Also without a limit: a pending timer is what keeps run() going, and has the place that the
  // callback will need, so that there is room for it when the answer comes.
  if (options.timeout > Duration::zero()) {
    lookup.deadline = add_saturated(loop.time(), options.timeout);
  }
  lookup.next = loop.call_at(lookup.deadline, on_timeout, lookup.place);
  lookup.position = query.waiting.insert(query.waiting.end(), &lookup);
  lookup.query = &query;
  if (query.has_part()) await_other_family(lookup, query);
}

/// What has come of one family is kept, as long as a failure: the other one's silence is one.
void Resolver::Parts::leave(LookupState& lookup) noexcept {
  lookup.part_turn.cancel();
  ResolverQuery* query = std::exchange(lookup.query, nullptr);
  if (query == nullptr) return;
  query->waiting.erase(lookup.position);
  if (!query->waiting.empty()) return;
  const std::uint64_t id = query->id;
  if (query->has_part()) {
    keep(*query, std::min(query->lifetime, options.failure_cache_time));
  } else {
    cache.abandon(*query);
  }
  backend->abandon(id);
}

void Resolver::Parts::on_answer(std::uint64_t id, ResolverAnswer&& answer) noexcept {
  ResolverQuery* query = cache.find_asking(id);
  if (query == nullptr) return;  // too late
  const bool has_part = query->has_part();
  try {
    if (answer.part == ResolverAnswer::Part::first) return on_part(*query, std::move(answer));
    if (!answer.error) {
      const Endpoints endpoints = without_doubles(std::move(answer.endpoints));
      if (endpoints->empty()) {
        answer.error = Errc::no_address;
      } else {
        query->endpoints = endpoints;
      }
    }
  } catch (const std::bad_alloc&) {
    answer.error = system_error_code(ENOMEM);
  }
  if (answer.part == ResolverAnswer::Part::first) return;  // the whole one will have it
  Duration lifetime = answer.lifetime.value_or(options.cache_time);
  if (answer.error && has_part) {
    answer.error.clear();  // better the one family than none
    lifetime = std::min(query->lifetime, options.failure_cache_time);
  } else if (answer.error) {
    const bool is_kept = is_from_name_servers(answer.error);
    lifetime = is_kept ? options.failure_cache_time : Duration::zero();
  } else if (answer.part == ResolverAnswer::Part::crippled) {
    lifetime = std::min(lifetime, options.failure_cache_time);
  }
  query->error = answer.error;
  while (!query->waiting.empty()) {
    LookupState& lookup = *query->waiting.front();
    query->waiting.pop_front();
    finish_waiting(lookup, *query);
  }
  keep(*query, lifetime);
}

void Resolver::Parts::keep(ResolverQuery& query, Duration lifetime) noexcept {
  const TimePoint now = loop.time();
  cache.keep(query, add_saturated(now, lifetime), now);
}

void Resolver::Parts::on_part(ResolverQuery& query, ResolverAnswer&& answer) {
  query.endpoints = without_doubles(std::move(answer.endpoints));
  query.lifetime = answer.lifetime.value_or(options.cache_time);
  query.part_came = loop.time();
  for (LookupState* lookup : query.waiting) await_other_family(*lookup, query);
}

/// RFC 8305 §3: who dials waits for an A's AAAA, but not the other way round.
void Resolver::Parts::await_other_family(LookupState& lookup, const ResolverQuery& query) noexcept {
  Duration patience = options.other_family_delay;
  if (lookup.in_parts) {
    const bool is_ipv4 = query.endpoints->front().family() == Endpoint::Family::ipv4;
    patience = is_ipv4 ? lookup.patience : Duration::zero();
  } else if (patience <= Duration::zero()) {
    return;  // as long as it takes
  }
  try {
    lookup.part_turn = loop.call_at(
        add_saturated(*query.part_came, patience), [this, &lookup] { on_patience_over(lookup); },
        lookup.place);
  } catch (const std::exception&) {
    // No memory: it waits for the rest, or for its deadline.
  }
}

void Resolver::Parts::on_patience_over(LookupState& lookup) {
  lookup.part_turn = ScopedHandle();
  backend->look();
  if (lookup.query == nullptr) return;  // all has come meanwhile
  if (!lookup.in_parts) {
    lookup.endpoints = lookup.query->endpoints;
    leave(lookup);
    lookup.next.cancel();
    return call(lookup);
  }
  std::vector<Endpoint> endpoints;
  try {
    endpoints = with_port(*lookup.query->endpoints, lookup.port);
  } catch (const std::bad_alloc&) {
    return;  // the rest will have it
  }
  // It stays, for the rest; unless it is cancelled from in there.
  const std::shared_ptr<LookupState> kept = *lookup.self;
  kept->is_in_parts = true;
  kept->in_parts({}, endpoints, false);
  kept->is_in_parts = false;
  if (kept->owner == nullptr) kept->in_parts = nullptr;
}

/// A deadline measures the name servers: before it ends a lookup, what has come while this process
/// stood still is looked at, and what there is of one family is given.
void Resolver::Parts::on_deadline(LookupState& lookup) {
  lookup.is_at_deadline = true;
  look(lookup);
  lookup.is_at_deadline = false;
  if (lookup.query != nullptr) {
    if (lookup.query->has_part()) {
      lookup.endpoints = lookup.query->endpoints;
    } else {
      lookup.error = Errc::timed_out;
    }
    leave(lookup);
  }
  call(lookup);
}

/// True exactly when the lookup's answer, or a part of it, is there.
bool Resolver::Parts::look(const LookupState& lookup) noexcept {
  backend->look();
  return lookup.query == nullptr || lookup.query->has_part();
}

/// From the loop and in a callback of its own each, whoever is calling now.
void Resolver::Parts::finish(LookupState& lookup, std::error_code error, Endpoints endpoints) {
  lookup.error = error;
  lookup.endpoints = std::move(endpoints);
  lookup.next = loop.call_soon([this, &lookup] { call(lookup); }, lookup.place);
}

/// The same for one that has waited. It takes no memory, because the place of the deadline's timer
/// is free, which is where the callback goes.
void Resolver::Parts::finish_waiting(LookupState& lookup, const ResolverQuery& query) noexcept {
  lookup.query = nullptr;
  lookup.error = query.error;
  lookup.endpoints = query.endpoints;
  lookup.part_turn = ScopedHandle();
  // Its deadline is due in this pass or the next, and will call it; no place is free before.
  if (lookup.is_at_deadline || lookup.deadline <= loop.time()) return;
  lookup.next = ScopedHandle();
  lookup.next = loop.call_at(
      loop.pass_time(), [this, &lookup] { call(lookup); }, lookup.place);
}

void Resolver::Parts::call(LookupState& lookup) {
  const std::shared_ptr<LookupState> kept = *lookup.self;
  std::error_code error = lookup.error;
  std::vector<Endpoint> endpoints;
  try {
    if (!error) endpoints = with_port(*lookup.endpoints, lookup.port);
  } catch (const std::bad_alloc&) {
    error = system_error_code(ENOMEM);
  }
  Done done = std::move(lookup.done);
  InParts in_parts = std::move(lookup.in_parts);
  forget(lookup);
  if (in_parts) return in_parts(error, endpoints, true);
  done(error, endpoints);
}

/// The lookup is over, and gone unless a ticket has it.
void Resolver::Parts::forget(LookupState& lookup) noexcept {
  lookup.owner = nullptr;
  lookup.next.release();  // it runs, or was cancelled
  lookup.part_turn.cancel();
  lookups.erase(lookup.self);
}

void Resolver::Parts::cancel(LookupState& lookup) {
  lookup.is_cancelled = true;
  lookup.next.cancel();
  leave(lookup);
  // At the end: what they captured may do as it likes.
  const Done freed = std::move(lookup.done);
  const InParts freed_too = lookup.is_in_parts ? InParts() : std::move(lookup.in_parts);
  forget(lookup);
}

void Lookup::cancel() {
  const std::shared_ptr<LookupState> state = state_;  // freeing the captures may drop this ticket
  if (state != nullptr && state->owner != nullptr) state->owner->cancel(*state);
}

bool Lookup::look() const {
  return state_ != nullptr && state_->owner != nullptr && state_->owner->look(*state_);
}

bool Lookup::cancelled() const { return state_ != nullptr && state_->is_cancelled; }

Resolver::Resolver(EventLoop& loop, ResolverOptions options)
    : parts_(std::make_unique<Parts>(loop, std::move(options))) {}

Resolver::~Resolver() = default;

Resolver& Resolver::of(EventLoop& loop) { return loop.parts().services.of<Resolver>(loop); }

Lookup Resolver::resolve(std::string_view host, std::uint16_t port, Done done, Place place) {
  return resolve(host, port, AddressFamily::any, std::move(done), place);
}

Lookup Resolver::resolve(std::string_view host, std::uint16_t port, AddressFamily family, Done done,
                         Place place) {
  if (!done) {
    throw std::logic_error("Resolver::resolve: an empty callback; at " + to_string(place));
  }
  const std::shared_ptr<LookupState> lookup = parts_->start(port, {}, place);
  lookup->done = std::move(done);
  return begin(lookup, host, family);
}

Lookup Resolver::resolve_in_parts(std::string_view host, std::uint16_t port, AddressFamily family,
                                  Duration patience, InParts done, Place place) {
  const std::shared_ptr<LookupState> lookup = parts_->start(port, patience, place);
  lookup->in_parts = std::move(done);
  return begin(lookup, host, family);
}

Lookup Resolver::begin(const std::shared_ptr<LookupState>& lookup, std::string_view host,
                       AddressFamily family) {
  try {
    parts_->look_up(lookup, host, family);
  } catch (...) {  // no memory, or debug mode saw a wrong thread
    parts_->cancel(*lookup);
    throw;
  }
  return Lookup(lookup);
}

void Resolver::clear_cache() { parts_->cache.clear(); }

std::string_view Resolver::backend() const { return parts_->options.backend; }

const ResolverCounters& Resolver::counters() const { return parts_->counters; }

std::size_t Resolver::pending() const { return parts_->lookups.size(); }

std::size_t Resolver::cached() const { return parts_->cache.answers(); }

std::vector<std::string_view> available_resolver_backends() {
  if (has_cares_backend()) return {"system", "cares"};
  return {"system"};
}

}  // namespace pawl
