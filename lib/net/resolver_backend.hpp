// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "pawl/core/function.hpp"
#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"

namespace pawl {

/// What a backend found out about a name.
struct ResolverAnswer {
  /// How much of what was asked for it is.
  enum class Part : std::uint8_t {
    whole,
    first,    ///< the addresses of one family; a whole answer follows, with these in it
    crippled  ///< all there is: of the other family the name servers said nothing
  };

  std::error_code error;
  std::vector<Endpoint> endpoints;   ///< in the order in which they are to be tried; port 0
  std::optional<Duration> lifetime;  ///< none: the source doesn't know
  Part part = Part::whole;
};

/// Asks for the addresses of names.
///
/// Threads:  the loop's.
/// Calls:    the sink, from the loop or from inside `ask` and `look`, with one whole answer for
/// each
///           question that wasn't abandoned, and perhaps a part before it; it must not call back.
///           None after the destructor has begun.
/// Promises: neither `abandon` nor the destructor waits.
class ResolverBackend {
 public:
  using Sink = Function<void(std::uint64_t id, ResolverAnswer answer)>;

  ResolverBackend() = default;
  ResolverBackend(const ResolverBackend&) = delete;
  ResolverBackend& operator=(const ResolverBackend&) = delete;
  virtual ~ResolverBackend() = default;

  /// `id`s only grow.
  virtual void ask(std::uint64_t id, const std::string& name, AddressFamily family) = 0;
  virtual void abandon(std::uint64_t id) noexcept = 0;
  /// Hands on what has come meanwhile and wasn't looked at yet.
  virtual void look() noexcept = 0;
};

/// "system".
std::unique_ptr<ResolverBackend> make_getaddrinfo_backend(EventLoop& loop,
                                                          const ResolverOptions& options,
                                                          ResolverBackend::Sink sink);
/// "cares"; null in a build without c-ares.
std::unique_ptr<ResolverBackend> make_cares_backend(EventLoop& loop, const ResolverOptions& options,
                                                    ResolverBackend::Sink sink);
bool has_cares_backend();

/// AF_UNSPEC, AF_INET or AF_INET6.
int to_address_family(AddressFamily family);

}  // namespace pawl
