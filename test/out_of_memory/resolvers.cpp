// SPDX-License-Identifier: MIT
// Resolvers, each allocation failing in turn.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "net/resolving.hpp"
#include "pawl/net/resolver.hpp"
#include "support/allocation_sweep.hpp"

using namespace std::chrono_literals;
using pawl::Endpoint;
using pawl::Resolver;

namespace {

constexpr auto ignore = [](std::error_code, const std::vector<Endpoint>&) {};

/// Three lookups, two of one name, and a fourth that is cancelled; then one more, and one that the
/// resolver's end cuts short. `before_end` is done when all have been answered.
void look_up(Trial& trial, const pawl::ResolverOptions& options, const char* name,
             const std::function<void()>& before_end) {
  trial.set_patience(50ms);
  std::unique_ptr<Resolver> resolver;
  trial.insist([&] { resolver = std::make_unique<Resolver>(trial.loop(), options); });
  int accepted = 0;
  int called = 0;
  int found = 0;
  const auto done = [&](std::error_code error, const std::vector<Endpoint>& endpoints) {
    ++called;
    if (!error && !endpoints.empty()) ++found;
  };
  pawl::Lookup lookup;
  for (const char* host : {name, name, "127.0.0.1", "no such name", "localhost"}) {
    if (trial.attempt([&] { lookup = resolver->resolve(host, 80, done); })) ++accepted;
  }
  pawl::Lookup cancelled;
  trial.attempt([&] { cancelled = resolver->resolve(name, 443, done); });
  trial.must([&] { cancelled.cancel(); });
  trial.run([&] { return called == accepted; });
  if (trial.attempt([&] { lookup = resolver->resolve(name, 81, done); })) ++accepted;
  trial.run([&] { return called == accepted; });
  CHECK(resolver->pending() == 0);
  if (!trial.has_failed()) CHECK(found == 5);
  trial.attempt([&] { lookup = resolver->resolve(name, 82, pawl::AddressFamily::ipv6, ignore); });
  trial.must([&] { resolver.reset(); });
  before_end();
  trial.run_dry();
  CHECK(called == accepted);
  wait_for_resolver_threads();
}

bool has_cares() {
  if (pawl::available_resolver_backends().size() > 1) return true;
  WARN("skipped: built without c-ares");
  return false;
}

/// A c-ares lookup of host.test, whose name server knows these hosts.
void look_up_by_cares(Trial& trial, const KnownHosts& hosts, const char* name) {
  auto server = std::make_unique<NameServer>(
      trial.loop(), [&](const DnsQuestion& question) { return reply_to(hosts, question); });
  pawl::ResolverOptions options;
  options.backend = "cares";
  options.servers = {server->endpoint()};
  options.try_timeout = 200ms;
  options.tries = 2;
  look_up(trial, options, name, [&] { server.reset(); });
}

}  // namespace

TEST_CASE("A lookup by the system is answered once, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) { look_up(trial, {}, "host.test", [] {}); });
}

TEST_CASE("A lookup whose other family keeps silent is answered once, whichever allocation fails",
          "[threads]") {
  each_allocation_fails([](Trial& trial) {
    pawl::ResolverOptions options;
    options.timeout = 10s;
    look_up(trial, options, "slow.test", [&] { trial.system().end_waits(); });
  });
}

TEST_CASE("A lookup by c-ares is answered once, whichever allocation fails") {
  if (!has_cares()) return;
  each_allocation_fails([](Trial& trial) {
    look_up_by_cares(trial, {{"host.test", {KnownHost::Kind::found, {"127.0.0.7", "::1"}}}},
                     "host.test");
  });
}

TEST_CASE("A c-ares lookup with a silent family is answered once, whichever allocation fails") {
  if (!has_cares()) return;
  each_allocation_fails([](Trial& trial) {
    look_up_by_cares(
        trial,
        {{"host.test", {KnownHost::Kind::found, {"127.0.0.7"}, 10, {}, KnownHost::Kind::silent}}},
        "host.test");
  });
}

TEST_CASE("The loop's own resolver goes with it, whichever allocation fails", "[threads]") {
  each_allocation_fails([](Trial& trial) {
    int called = 0;
    trial.attempt([&] {
      Resolver::of(trial.loop())
          .resolve("host.test", 80,
                   [&](std::error_code, const std::vector<Endpoint>&) { ++called; });
    });
    trial.must([&] { trial.end_loop(); });
    CHECK(called == 0);
    wait_for_resolver_threads();
  });
}
