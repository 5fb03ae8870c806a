// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"

namespace pawl {

class EventLoop;
struct LookupState;

/// Which addresses are wanted.
enum class AddressFamily : std::uint8_t { any, ipv4, ipv6 };

/// What a resolver is made with.
struct ResolverOptions {
  /// "system": getaddrinfo(3) on threads of the resolver's own, so names are looked up as
  /// nsswitch.conf(5) says. "cares": DNS by c-ares on the loop's thread, after the hosts file; of
  /// resolv.conf(5) and its environment the servers, suffixes and options hold as with glibc. They
  /// answer alike, but "system" alone asks what else nsswitch.conf(5) names, takes HOSTALIASES and
  /// gai.conf(5) into account, and puts IPv4 addresses of this machine's own networks first; and
  /// "cares" doubles the time that it waits for silent servers.
  std::string backend = "system";
  /// For "cares": the name servers, tried in turn; port 0 is 53. None: as resolv.conf(5) says,
  /// which is read anew whenever the resolver was idle.
  std::vector<Endpoint> servers;
  Duration timeout = std::chrono::seconds(30);  ///< of a lookup; 0: as long as the backend takes
  /// How long a lookup of both families waits for the other's addresses when one's have come. Then
  /// it gives what there is. (A dial waits as `ConnectionOptions::resolution_delay` says.) 0: as
  /// long as it takes.
  Duration other_family_delay = std::chrono::seconds(1);
  /// For "cares": how long a server may be silent before the next one is tried, doubled when all
  /// were; 0: as resolv.conf(5) says, else 5 s. The kernel's clock counts it.
  Duration try_timeout{};
  int tries =
      0;  ///< for "cares": how often each server is asked; 0: as resolv.conf(5) says, else 2
  /// How long addresses are kept that came without a time to live: those of "system" and of the
  /// hosts file.
  Duration cache_time = std::chrono::seconds(10);
  /// How long is kept what the name servers failed at; and, at most, one family's addresses when
  /// they failed at, or kept silent about, the other's.
  Duration failure_cache_time = std::chrono::seconds(1);
  std::size_t cache_entries = 256;  ///< the least recently used go first; 0: nothing is kept
  /// Of "system", at most, for each of: both families, IPv4 alone, IPv6 alone. They start when they
  /// are needed.
  std::size_t threads = 4;
};

/// Totals of a resolver.
struct ResolverCounters {
  std::uint64_t lookups = 0;     ///< calls of `resolve`
  std::uint64_t queries = 0;     ///< questions to the backend
  std::uint64_t cache_hits = 0;  ///< lookups that were answered from the cache
  std::uint64_t shared = 0;      ///< lookups that joined a question which was on its way
};

/// A ticket for a lookup; dropping it cancels nothing.
///
/// Threads:  the loop's.
/// Promises: it may outlive the lookup, the resolver and the loop; `cancel()` then does nothing.
class PAWL_API Lookup {
 public:
  Lookup() noexcept = default;
  explicit Lookup(std::shared_ptr<LookupState> state) noexcept : state_(std::move(state)) {}

  /// The callback won't be called, and what it captured is freed at once. An answer that still
  /// comes is dropped when no other lookup waits for it.
  void cancel();
  /// True exactly when a `cancel()` came before the callback was called.
  bool cancelled() const;

 private:
  friend class Dialer;
  /// Looks at what has come. True exactly when it has an answer, or a part of it, to be told.
  bool look() const;

  std::shared_ptr<LookupState> state_;
};

/// Finds the addresses of hosts by their names.
///
/// Owns:     its cache, its sockets and its threads. Destroying it, from a callback of its own too,
///           drops what is pending, uncalled, and waits for no lookup: a thread that hangs in
///           getaddrinfo(3) goes on by itself, with its own memory. (It then still calls the loop's
///           `System`, which has to live until then; the kernel's always does.)
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    each lookup's callback exactly once, from the loop, never from inside `resolve`.
/// Promises: addresses come in the order of RFC 6724, none twice. What has come of one family is
///           given when the other's name servers keep silent: after `other_family_delay`, or at the
///           lookup's end. ("system" asks for the families apart when both together take 200 ms.)
///           "localhost" and the names below it are the loopback addresses, whatever the hosts file
///           says: neither it nor anyone else is asked (RFC 6761 §6.3); names below "onion" don't
///           exist (RFC 7686). Lookups of the same name (case doesn't matter) and family that are
///           on their way share one question; answers are kept as long as the name servers say (a
///           week at most, RFC 8767 §4). Before a lookup times out, what came while the loop stood
///           still is looked at. A pending lookup keeps `run()` going; an idle resolver doesn't,
///           and has no descriptor open.
/// Fails:    the same with each backend:
///           `Errc::bad_name`       no host can have it; see `resolve`
///           `Errc::host_not_found` there is no such name
///           `Errc::no_address`     there is, but without an address of this family
///           `Errc::resolve_failed` no name server gave an answer; later one may
///           `Errc::bad_answer`     a name server refused for good, or what it said made no sense
///           `Errc::timed_out`      `timeout` was over first
///           and an errno of this process's own, such as EMFILE, ENOMEM or EAGAIN (no thread to be
///           had). `resolve` throws `std::bad_alloc`, and nothing is asked then.
class PAWL_API Resolver {
 public:
  /// The endpoints have the lookup's port; there is at least one, or an error.
  using Done = Function<void(std::error_code error, const std::vector<Endpoint>& endpoints)>;

  /// Throws `std::invalid_argument` for an unknown backend, naming those that are known, and for
  /// name servers that the backend can't ask.
  explicit Resolver(EventLoop& loop, ResolverOptions options = {});
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  ~Resolver();

  /// The loop's own, with the default options; made when it is first asked for, gone with the loop.
  static Resolver& of(EventLoop& loop);

  /// Looks `host` up. A numeric address ("127.0.0.1", "fe80::1%eth0", and what inet_aton(3) takes)
  /// is its own answer. Names fail before anyone is asked that are empty or over 253 bytes, have an
  /// empty label or one over 63 bytes (RFC 1035 §2.3.4), a byte beyond ASCII (give the A-label,
  /// "xn--…": RFC 5891), a control byte, a space or one of "#%/<>?@[\]^`{|}, or look like an
  /// address and are none. An empty callback is a `std::logic_error`.
  Lookup resolve(std::string_view host, std::uint16_t port, Done done, Place place = Place::here());
  Lookup resolve(std::string_view host, std::uint16_t port, AddressFamily family, Done done,
                 Place place = Place::here());

  /// Forgets all answers. What is being asked goes on.
  void clear_cache();

  /// As in the options.
  std::string_view backend() const;
  const ResolverCounters& counters() const;
  /// How many lookups wait for their callback.
  std::size_t pending() const;
  /// How many answers are kept, those included that are too old by now.
  std::size_t cached() const;

 private:
  friend class Dialer;
  friend class Lookup;
  friend struct LookupState;
  struct Parts;
  /// As `Done`, and whether that is all.
  using InParts =
      Function<void(std::error_code error, const std::vector<Endpoint>& endpoints, bool is_all)>;

  /// As `resolve`. `done` may be called twice: with the addresses of one family, when the other's
  /// haven't come `patience` after an A's, and with all.
  Lookup resolve_in_parts(std::string_view host, std::uint16_t port, AddressFamily family,
                          Duration patience, InParts done, Place place);
  Lookup begin(const std::shared_ptr<LookupState>& lookup, std::string_view host,
               AddressFamily family);

  std::unique_ptr<Parts> parts_;
};

/// What `ResolverOptions::backend` may be here: "system", and "cares" in a build with c-ares.
PAWL_API std::vector<std::string_view> available_resolver_backends();

}  // namespace pawl
