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
  std::error_code error;
  std::vector<Endpoint> endpoints;   ///< in the order in which they are to be tried; port 0
  std::optional<Duration> lifetime;  ///< none: the source doesn't know
};

/// Asks for the addresses of names.
///
/// Threads:  the loop's.
/// Calls:    the sink, from the loop or from inside `ask`, once for each question that wasn't
///           abandoned; it must not call back. None after the destructor has begun.
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
  virtual void abandon(std::uint64_t id) = 0;
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
