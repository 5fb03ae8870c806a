// SPDX-License-Identifier: MIT
#include "pawl/net/resolver.hpp"

#include <algorithm>
#include <list>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "loop/loop_parts.hpp"
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

bool is_wanted(const Endpoint& endpoint, AddressFamily family) {
  if (family == AddressFamily::any) return true;
  return (family == AddressFamily::ipv4) == (endpoint.family() == Endpoint::Family::ipv4);
}

/// True exactly for what the name servers have said, or kept silent about. What went wrong in this
/// process may go right the next time.
bool is_from_name_servers(std::error_code error) { return error.category() == error_category(); }

/// What the names of localhost stand for where neither the hosts file nor a name server knows
/// better (RFC 6761 §6.3).
std::vector<Endpoint> loopback_addresses(AddressFamily family) {
  std::vector<Endpoint> addresses;
  for (const Endpoint& each : {Endpoint::loopback_ipv6(0), Endpoint::loopback(0)}) {
    if (is_wanted(each, family)) addresses.push_back(each);
  }
  return addresses;
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
    const bool is_address =
        server.family() == Endpoint::Family::ipv4 || server.family() == Endpoint::Family::ipv6;
    const bool has_scope = server.host().find('%') != std::string::npos;
    if (is_address && !has_scope) continue;
    throw std::invalid_argument("Resolver: " + server.to_string() +
                                " can't be a name server: IPv4, or IPv6 without a scope");
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
  std::uint16_t port = 0;
  Resolver::Done done;
  std::error_code error;
  Endpoints endpoints;
  Place place;
  ScopedHandle next;  // what brings it on: its deadline, then its callback
};

struct Resolver::Parts {
  Parts(EventLoop& loop_, ResolverOptions&& options_)
      : loop(loop_),
        options(std::move(options_)),
        cache(options.cache_entries, loop.observer()),
        backend(make_backend()) {}
  ~Parts();

  std::unique_ptr<ResolverBackend> make_backend();
  std::shared_ptr<LookupState> start(Done&& done, std::uint16_t port, Place place);
  void look_up(const std::shared_ptr<LookupState>& lookup, std::string_view host,
               AddressFamily family);
  void ask(const std::shared_ptr<LookupState>& lookup, std::string_view name, AddressFamily family);
  void join(LookupState& lookup, ResolverQuery& query);
  void leave(LookupState& lookup);
  void on_answer(std::uint64_t id, ResolverAnswer&& answer);
  void finish(LookupState& lookup, std::error_code error, Endpoints endpoints);
  void call(LookupState& lookup);
  Done forget(LookupState& lookup);
  void cancel(LookupState& lookup);

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
  }
  // Last, when nothing here is in use any more: what the callbacks captured may do as it likes.
  std::list<std::shared_ptr<LookupState>> dying = std::move(lookups);
  for (const auto& lookup : dying) const Done freed = std::move(lookup->done);
}

std::shared_ptr<LookupState> Resolver::Parts::start(Done&& done, std::uint16_t port, Place place) {
  if (!done) {
    throw std::logic_error("Resolver::resolve: an empty callback; at " + to_string(place));
  }
  auto lookup = std::make_shared<LookupState>();
  lookup->owner = this;
  lookup->port = port;
  lookup->place = place;
  lookup->self = lookups.insert(lookups.end(), lookup);
  lookup->done = std::move(done);
  ++counters.lookups;
  return lookup;
}

void Resolver::Parts::look_up(const std::shared_ptr<LookupState>& lookup, std::string_view host,
                              AddressFamily family) {
  const HostName name = HostName::parse(host);
  if (name.kind == HostName::Kind::name) return ask(lookup, host, family);
  if (name.kind == HostName::Kind::bad) return finish(*lookup, Errc::bad_name, nullptr);
  if (!is_wanted(name.address, family)) return finish(*lookup, Errc::no_address, nullptr);
  finish(*lookup, {}, std::make_shared<const std::vector<Endpoint>>(1, name.address));
}

void Resolver::Parts::ask(const std::shared_ptr<LookupState>& lookup, std::string_view name,
                          AddressFamily family) {
  ResolverQuery* query = cache.find(name, family, loop.time());
  if (query == nullptr) {
    ResolverQuery& added = cache.add(name, family);
    ++counters.queries;
    join(*lookup, added);
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
  lookup.query = &query;
  lookup.position = query.waiting.insert(query.waiting.end(), &lookup);
  const auto on_timeout = [this, &lookup] {
    leave(lookup);
    lookup.error = Errc::timed_out;
    call(lookup);
  };
  // Also without a limit: a pending timer is what keeps run() going.
  lookup.next = options.timeout > Duration::zero()
                    ? loop.call_later(options.timeout, on_timeout, lookup.place)
                    : loop.call_at(TimePoint::max(), on_timeout, lookup.place);
}

void Resolver::Parts::leave(LookupState& lookup) {
  ResolverQuery* query = std::exchange(lookup.query, nullptr);
  if (query == nullptr) return;
  query->waiting.erase(lookup.position);
  if (!query->waiting.empty()) return;
  const std::uint64_t id = query->id;
  cache.abandon(*query);
  backend->abandon(id);
}

void Resolver::Parts::on_answer(std::uint64_t id, ResolverAnswer&& answer) {
  ResolverQuery* query = cache.find_asking(id);
  if (query == nullptr) return;  // too late
  if (is_from_name_servers(answer.error) && is_localhost(query->name)) {
    answer = {{}, loopback_addresses(query->family), options.failure_cache_time};
  }
  query->error = answer.error;
  query->endpoints = without_doubles(std::move(answer.endpoints));
  if (!query->error && query->endpoints->empty()) query->error = Errc::no_address;
  for (LookupState* lookup : std::exchange(query->waiting, {})) {
    lookup->query = nullptr;
    finish(*lookup, query->error, query->endpoints);
  }
  Duration lifetime = answer.lifetime.value_or(options.cache_time);
  if (query->error) {
    lifetime = is_from_name_servers(query->error) ? options.failure_cache_time : Duration::zero();
  }
  const TimePoint now = loop.time();
  cache.keep(*query, add_saturated(now, lifetime), now);
}

/// From the loop and in a callback of its own each, whoever is calling now.
void Resolver::Parts::finish(LookupState& lookup, std::error_code error, Endpoints endpoints) {
  lookup.error = error;
  lookup.endpoints = std::move(endpoints);
  lookup.next = loop.call_soon([this, &lookup] { call(lookup); }, lookup.place);
}

void Resolver::Parts::call(LookupState& lookup) {
  std::vector<Endpoint> endpoints;
  if (!lookup.error) endpoints = *lookup.endpoints;
  for (Endpoint& endpoint : endpoints) endpoint = endpoint.with_port(lookup.port);
  const std::error_code error = lookup.error;
  Done done = forget(lookup);
  done(error, endpoints);
}

/// The lookup is over, and gone unless a ticket has it. Its callback is the caller's.
Resolver::Done Resolver::Parts::forget(LookupState& lookup) {
  lookup.owner = nullptr;
  Done done = std::move(lookup.done);
  lookup.next.release();  // it runs, or was cancelled
  lookups.erase(lookup.self);
  return done;
}

void Resolver::Parts::cancel(LookupState& lookup) {
  lookup.is_cancelled = true;
  lookup.next.cancel();
  leave(lookup);
  const Done freed = forget(lookup);  // at the end: what it captured may do as it likes
}

void Lookup::cancel() {
  const std::shared_ptr<LookupState> state = state_;  // freeing the captures may drop this ticket
  if (state != nullptr && state->owner != nullptr) state->owner->cancel(*state);
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
  const std::shared_ptr<LookupState> lookup = parts_->start(std::move(done), port, place);
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
