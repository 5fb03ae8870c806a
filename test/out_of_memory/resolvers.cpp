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

/// Three lookups, two of one name, and a fourth that is cancelled.
void look_up(Trial& trial, const pawl::ResolverOptions& options, const char* name) {
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
  for (const char* host : {name, name, "127.0.0.1", "no such name"}) {
    if (trial.attempt([&] { lookup = resolver->resolve(host, 80, done); })) ++accepted;
  }
  pawl::Lookup cancelled;
  trial.attempt([&] { cancelled = resolver->resolve(name, 443, done); });
  trial.must([&] { cancelled.cancel(); });
  trial.run([&] { return called == accepted; });
  if (trial.attempt([&] { lookup = resolver->resolve(name, 81, done); })) ++accepted;
  trial.run([&] { return called == accepted; });
  trial.run_dry();
  CHECK(called == accepted);
  if (!trial.has_failed()) CHECK(found == 4);
  trial.attempt([&] { lookup = resolver->resolve(name, 82, pawl::AddressFamily::ipv6, done); });
  trial.must([&] { resolver.reset(); });
  CHECK(called == accepted);
  wait_for_resolver_threads();
}

}  // namespace

TEST_CASE("A lookup by the system is answered once, whichever allocation fails",
          "[threads][.red]") {
  each_allocation_fails([](Trial& trial) { look_up(trial, {}, "localhost"); });
}

TEST_CASE("A lookup by c-ares is answered once, whichever allocation fails", "[.red]") {
  const std::vector<std::string_view> backends = pawl::available_resolver_backends();
  if (std::find(backends.begin(), backends.end(), "cares") == backends.end()) {
    WARN("skipped: built without c-ares");
    return;
  }
  each_allocation_fails([](Trial& trial) {
    const KnownHosts hosts{{"host.test", KnownHost{KnownHost::Kind::found, {"127.0.0.7"}}}};
    std::unique_ptr<NameServer> server = std::make_unique<NameServer>(
        trial.loop(), [&](const DnsQuestion& question) { return reply_to(hosts, question); });
    pawl::ResolverOptions options;
    options.backend = "cares";
    options.servers = {server->endpoint()};
    options.try_timeout = 200ms;
    look_up(trial, options, "host.test");
  });
}

TEST_CASE("The loop's own resolver goes with it, whichever allocation fails", "[threads][.red]") {
  each_allocation_fails([](Trial& trial) {
    int called = 0;
    trial.attempt([&] {
      Resolver::of(trial.loop())
          .resolve("localhost", 80,
                   [&](std::error_code, const std::vector<Endpoint>&) { ++called; });
    });
    trial.must([&] { trial.end_loop(); });
    CHECK(called == 0);
    wait_for_resolver_threads();
  });
}
