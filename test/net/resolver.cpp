// SPDX-License-Identifier: MIT
// What a resolver promises whatever its backend is.
#include "pawl/net/resolver.hpp"

#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "net/resolving.hpp"
#include "net/socket_address.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/resolver_query_state.hpp"
#include "support/no_threads.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using pawl::AddressFamily;
using pawl::Duration;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Lookup;
using pawl::Resolver;
using pawl::ResolverOptions;
using Kind = KnownHost::Kind;

namespace {

const KnownHosts few{
    {"one.test", {Kind::found, {"127.0.0.1"}}},
    {"two.test", {Kind::found, {"127.0.0.2", "127.0.0.3"}}},
    {"six.test", {Kind::found, {"::1"}}},
    {"both.test", {Kind::found, {"::1", "127.0.0.1"}}},
    {"twice.test", {Kind::found, {"127.0.0.2", "127.0.0.1", "127.0.0.2"}}},
    {"empty.test", {Kind::no_address, {}}},
    {"failing.test", {Kind::unanswered, {}}},
    {"nonsense.test", {Kind::nonsense, {}}},
    {"silent.test", {Kind::silent, {}}},
};

std::string any_backend() {
  const std::vector<std::string_view> all = pawl::available_resolver_backends();
  const auto index = GENERATE_COPY(range(std::size_t{0}, all.size()));
  return std::string(all[index]);
}

/// The answer to one lookup.
std::string look_up(Resolving& there, const std::string& name, std::uint16_t port = 80,
                    AddressFamily family = AddressFamily::any) {
  Found found;
  there.resolver->resolve(name, port, family, found.callback());
  CHECK(found.calls == 0);
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK(found.endpoints.empty() == static_cast<bool>(found.error));
  return found.text();
}

const auto ignore = [](std::error_code, const std::vector<Endpoint>&) {};

std::string message(Errc error) { return make_error_code(error).message(); }

/// True exactly when this machine has an ::1.
bool has_ipv6() {
  const pawl::UniqueFd fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const pawl::SocketAddress address(Endpoint::loopback_ipv6(9));
  return fd && ::connect(fd.get(), address.get(), address.bytes()) == 0;
}

/// Something that a callback captures, to see when that is freed.
struct Captured {
  std::shared_ptr<int> value = std::make_shared<int>(0);
  bool is_free() const { return value.use_count() == 1; }
};

/// "ASKING -answered-> FRESH", for each step of a query.
class QuerySteps final : public pawl::Observer {
 public:
  void on_transition(const pawl::Transition& step) override {
    if (step.machine != "resolver query") return;
    const std::string arrow = std::string(step.from) + " -" + std::string(step.event) + "->";
    lines.push_back(std::string(step.label) + ": " + arrow + " " + std::string(step.to));
    if (step.from != "DONE") seen.insert(arrow);
  }
  std::vector<std::string> lines;
  std::set<std::string> seen;
};

}  // namespace

TEST_CASE("A name leads to its addresses, with the port that was asked for") {
  Resolving there(any_backend(), few);
  CHECK(look_up(there, "one.test.") == "127.0.0.1:80");
  CHECK(look_up(there, "two.test.", 443) == "127.0.0.2:443 127.0.0.3:443");
  CHECK(there.resolver->counters().lookups == 2);
  CHECK(there.resolver->counters().queries == 2);
  CHECK(there.resolver->pending() == 0);
}

TEST_CASE("Addresses of one family can be asked for") {
  Resolving there(any_backend(), few);
  CHECK(look_up(there, "both.test.", 1, AddressFamily::ipv4) == "127.0.0.1:1");
  CHECK(look_up(there, "both.test.", 1, AddressFamily::ipv6) == "[::1]:1");
  CHECK(look_up(there, "one.test.", 1, AddressFamily::ipv6) == message(Errc::no_address));
  CHECK(look_up(there, "six.test.", 1, AddressFamily::ipv4) == message(Errc::no_address));
  CHECK(look_up(there, "six.test.", 1) == "[::1]:1");
}

TEST_CASE("An address that comes twice is given once, and the order stays") {
  Resolving there(any_backend(), few);
  CHECK(look_up(there, "twice.test.") == "127.0.0.2:80 127.0.0.1:80");
}

TEST_CASE("Each kind of failure is the same error with each backend") {
  ResolverOptions options;
  options.tries = 1;
  Resolving there(any_backend(), few, options);
  CHECK(look_up(there, "missing.test.") == message(Errc::host_not_found));
  CHECK(look_up(there, "empty.test.") == message(Errc::no_address));
  CHECK(look_up(there, "failing.test.") == message(Errc::resolve_failed));
  CHECK(look_up(there, "nonsense.test.") == message(Errc::bad_answer));
  Found silent;
  there.resolver->resolve("silent.test.", 80, silent.callback());
  pass(there.loop);
  there.system.advance(options.timeout);
  run_until(there.loop, [&] { return silent.calls > 0; });
  CHECK(silent.text() == message(Errc::timed_out));
}

TEST_CASE("A numeric address is its own answer, without a question, and not inside the call") {
  Resolving there(any_backend(), few);
  CHECK(look_up(there, "127.0.0.1") == "127.0.0.1:80");
  CHECK(look_up(there, "::1") == "[::1]:80");
  CHECK(look_up(there, "::ffff:1.2.3.4") == "[::ffff:1.2.3.4]:80");
  CHECK(look_up(there, "fe80::1%lo") == "[fe80::1%lo]:80");
  // As inet_aton(3), and so getaddrinfo(3), has it.
  CHECK(look_up(there, "127.1") == "127.0.0.1:80");
  CHECK(look_up(there, "0x7f.0.0.2") == "127.0.0.2:80");
  CHECK(look_up(there, "127.0.0.1", 80, AddressFamily::ipv6) == message(Errc::no_address));
  CHECK(look_up(there, "::1", 80, AddressFamily::ipv4) == message(Errc::no_address));
  CHECK(there.resolver->counters().queries == 0);
  CHECK(there.questions() == 0);
}

TEST_CASE("What can't be a host's name fails before anyone is asked") {
  Resolving there(any_backend(), few);
  const std::string label(63, 'a');
  const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'a');
  REQUIRE(longest.size() == 253);
  const std::vector<std::string> names{
      "",        ".",           "..",          "a..b",
      ".a",      "a b",         "a\tb",        "a\nb",
      "a\0b"s,   "\0"s,         "one.test\0"s, "a\x7f",
      "a\\.b",   longest + "a", "1.2.3",       label + "a.test",
      "[::1]",   "::1%nowhere", "1.2.3.4.5",   "1.2.3.256",
      "host:80", "0x1g.0x",     "1..2",        std::string(100'000, 'a'),
  };
  for (const std::string& name : names) {
    if (name == "1.2.3") continue;  // inet_aton(3) takes it
    CAPTURE(name);
    CHECK(look_up(there, name) == message(Errc::bad_name));
  }
  CHECK(there.questions() == 0);
  CHECK(make_error_code(Errc::bad_name) == std::errc::invalid_argument);
  // The longest that there may be, with and without the last dot, is asked for.
  CHECK(look_up(there, longest + ".") == message(Errc::host_not_found));
  CHECK(there.questions() == 1);
}

TEST_CASE("Names may have underscores and digits, and hyphens where they like") {
  KnownHosts hosts;
  for (const char* name : {"_x._tcp.test", "9gag.test", "4.x", "x-1.test", "xn--nxasmq6b.test",
                           "a--b-.test", "-a.test", "0x7f.g", "1e3.0xg"}) {
    hosts[name] = {Kind::found, {"127.0.0.1"}};
  }
  Resolving there(any_backend(), hosts);
  for (const auto& host : hosts) CHECK(look_up(there, host.first + ".") == "127.0.0.1:80");
}

TEST_CASE("A name beyond ASCII is refused with a word that asks for its A-label") {
  Resolving there(any_backend(), few);
  for (const std::string name :
       {"b\xc3\xbc"
        "cher.test",
        "b\xfc"
        "cher.test",
        "one\xe3\x80\x82test", "\xef\xbc\x91.test", "one.test\xc2\xa0", "one.test.\x80"}) {
    CAPTURE(name);
    CHECK_THAT(look_up(there, name), Catch::Contains("A-label"));
    Found found;
    there.resolver->resolve(name, 80, found.callback());
    run_until(there.loop, [&] { return found.calls > 0; });
    CHECK(found.error == Errc::bad_name);
  }
  CHECK(there.questions() == 0);
}

TEST_CASE("What is left of a URL or an address is no name") {
  Resolving there(any_backend(), few);
  for (const char* name : {"http://one.test/",
                           "//one.test",
                           "user@one.test",
                           "[one.test]",
                           "one.test?",
                           "one.test#x",
                           "one%20test",
                           "1.2.3.4%lo",
                           "one.test%lo",
                           "[127.0.0.1]",
                           "[::1%lo]",
                           "[fe80::1%25lo]",
                           "::1]",
                           "127.0.0.1/8",
                           "a|b",
                           "{a}",
                           "a^b",
                           "<a>",
                           "\"one.test\"",
                           "`a`"}) {
    CAPTURE(name);
    CHECK(look_up(there, name) == message(Errc::bad_name));
  }
  CHECK(there.questions() == 0);
}

TEST_CASE("Lookups of the same name that are on their way share one question") {
  Resolving there(any_backend(), few);
  Found found[5];
  std::string order;
  for (Found& each : found) {
    const char* name = &each == &found[1] ? "ONE.Test." : "one.test.";
    there.resolver->resolve(name, 80, [&](std::error_code error, const auto& endpoints) {
      order += std::to_string(&each - found);
      each.callback()(error, endpoints);
    });
  }
  CHECK(there.resolver->pending() == 5);
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  for (const Found& each : found) CHECK(each.text() == "127.0.0.1:80");
  CHECK(order == "01234");
  CHECK(there.questions() == 1);
  CHECK(there.resolver->counters().shared == 4);
  CHECK(there.resolver->counters().queries == 1);
}

TEST_CASE("Lookups of other families don't share a question") {
  Resolving there(any_backend(), few);
  Found any, ipv4;
  there.resolver->resolve("both.test.", 80, AddressFamily::ipv6, any.callback());
  there.resolver->resolve("both.test.", 80, AddressFamily::ipv4, ipv4.callback());
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  CHECK(any.text() == "[::1]:80");
  CHECK(ipv4.text() == "127.0.0.1:80");
  CHECK(there.resolver->counters().shared == 0);
}

TEST_CASE("An answer is kept for ten seconds and then asked for anew") {
  // 10 s is what the name server says, and what holds for getaddrinfo, which says nothing.
  Resolving there(any_backend(), few);
  there.system.stop_clock();
  CHECK(look_up(there, "one.test.") == "127.0.0.1:80");
  there.system.advance(10s - 1ns);
  CHECK(look_up(there, "One.TEST.", 443) == "127.0.0.1:443");
  CHECK(there.questions() == 1);
  CHECK(there.resolver->counters().cache_hits == 1);
  there.system.advance(1ns);
  CHECK(look_up(there, "one.test.") == "127.0.0.1:80");
  CHECK(there.questions() == 2);
}

TEST_CASE("A failure is kept for one second, one of this process isn't kept") {
  ResolverOptions options;
  options.tries = 1;
  Resolving there(any_backend(), few, options);
  there.system.stop_clock();
  for (const char* name : {"missing.test.", "empty.test.", "failing.test.", "nonsense.test."}) {
    CAPTURE(name);
    const int before = there.questions();
    const std::string failure = look_up(there, name);
    CHECK(look_up(there, name) == failure);
    CHECK(there.questions() == before + 1);
    there.system.advance(1s);
    CHECK(look_up(there, name) == failure);
    CHECK(there.questions() == before + 2);
  }
}

TEST_CASE("A cache that is cleared, or may keep nothing, keeps nothing") {
  ResolverOptions options;
  const bool is_cleared = GENERATE(true, false);
  if (!is_cleared) options.cache_entries = 0;
  Resolving there(any_backend(), few, options);
  there.system.stop_clock();
  look_up(there, "one.test.");
  CHECK(there.resolver->cached() == (is_cleared ? 1 : 0));
  if (is_cleared) there.resolver->clear_cache();
  CHECK(there.resolver->cached() == 0);
  look_up(there, "one.test.");
  CHECK(there.questions() == 2);
}

TEST_CASE("A full cache forgets what was least recently used") {
  ResolverOptions options;
  options.cache_entries = 2;
  Resolving there(any_backend(), few, options);
  there.system.stop_clock();
  look_up(there, "one.test.");
  look_up(there, "two.test.");
  look_up(there, "one.test.");
  look_up(there, "six.test.");
  CHECK(there.resolver->cached() == 2);
  CHECK(there.questions() == 3);
  look_up(there, "one.test.");
  CHECK(there.questions() == 3);
  look_up(there, "two.test.");
  CHECK(there.questions() == 4);
}

TEST_CASE("A lookup that is cancelled is never told, and its captures are freed at once",
          "[threads]") {
  Resolving there(any_backend(), few);
  const Captured captured;
  const std::string name =
      GENERATE(as<std::string>(), "silent.test.", "one.test.", "127.0.0.1", "bad name");
  CAPTURE(name);
  int calls = 0;
  Lookup lookup = there.resolver->resolve(
      name, 80, [&calls, kept = captured.value](auto, const auto&) { ++calls; });
  CHECK_FALSE(captured.is_free());
  Lookup copy = lookup;
  SECTION("at once") {}
  SECTION("after a pass") { pass(there.loop); }
  if (calls == 0) {
    copy.cancel();
    CHECK(lookup.cancelled());
    CHECK(captured.is_free());
    CHECK(there.resolver->pending() == 0);
    lookup.cancel();
  }
  there.system.end_silence();
  const int calls_before = calls;
  passes(there.loop);
  CHECK(calls == calls_before);
}

TEST_CASE("A lookup that is cancelled after its answer came, but before it was told, is not told") {
  Resolving there(any_backend(), few);
  Found first, second;
  Lookup victim;
  there.resolver->resolve("one.test.", 80, [&](std::error_code error, const auto& endpoints) {
    first.callback()(error, endpoints);
    victim.cancel();
  });
  victim = there.resolver->resolve("one.test.", 80, second.callback());
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  passes(there.loop);
  CHECK(first.text() == "127.0.0.1:80");
  CHECK(second.calls == 0);
  CHECK(victim.cancelled());
}

TEST_CASE("Cancelling one of several lookups leaves the others their answer") {
  Resolving there(any_backend(), few);
  Found found[3];
  Lookup lookups[3];
  for (int i = 0; i < 3; ++i) {
    lookups[i] = there.resolver->resolve("one.test.", 80, found[i].callback());
  }
  const int cancelled = GENERATE(0, 1, 2);
  lookups[cancelled].cancel();
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  for (int i = 0; i < 3; ++i) CHECK(found[i].calls == (i == cancelled ? 0 : 1));
  CHECK(there.questions() == 1);
  lookups[0].cancel();
  CHECK(lookups[0].cancelled() == (cancelled == 0));
}

TEST_CASE("A late answer to a lookup that was cancelled isn't kept, and a new lookup asks anew") {
  Resolving there(any_backend(), few);
  there.resolver->resolve("one.test.", 80, ignore).cancel();
  passes(there.loop);
  CHECK(there.resolver->cached() == 0);
  CHECK(look_up(there, "one.test.") == "127.0.0.1:80");
  CHECK(there.resolver->counters().queries == 2);
}

TEST_CASE("A lookup may be cancelled in its own callback, which changes nothing") {
  Resolving there(any_backend(), few);
  Found found;
  Lookup lookup;
  lookup = there.resolver->resolve("one.test.", 80, [&](auto error, const auto& endpoints) {
    lookup.cancel();
    found.callback()(error, endpoints);
  });
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK_FALSE(lookup.cancelled());
  CHECK(found.text() == "127.0.0.1:80");
}

TEST_CASE("A ticket that is among the captures of its own lookup may free itself") {
  Resolving there(any_backend(), few);
  auto lookup = std::make_shared<Lookup>();
  *lookup = there.resolver->resolve("silent.test.", 80, [lookup](auto, const auto&) {});
  Lookup* bare = lookup.get();
  lookup.reset();  // the callback alone holds it now
  bare->cancel();
  CHECK(there.resolver->pending() == 0);
}

TEST_CASE("The destructor drops what is pending, uncalled, and never waits", "[threads]") {
  Resolving there(any_backend(), few);
  const Captured captured;
  int calls = 0;
  std::vector<Lookup> lookups;
  for (const char* name : {"silent.test.", "one.test.", "127.0.0.1", "bad name", "one.test."}) {
    lookups.push_back(there.resolver->resolve(
        name, 80, [&calls, kept = captured.value](auto, const auto&) { ++calls; }));
  }
  SECTION("at once") {}
  SECTION("while it hangs") {
    run_until(there.loop, [&] { return there.questions() > 0; });
    calls = 0;
  }
  const int before = calls;
  there.resolver.reset();  // would hang here: the silent one is answered below
  CHECK(captured.is_free());
  there.system.end_silence();
  passes(there.loop);
  CHECK(calls == before);
  for (Lookup& lookup : lookups) {
    lookup.cancel();
    CHECK_FALSE(lookup.cancelled());
  }
}

TEST_CASE("A resolver may be destroyed in the callback of its own lookup", "[threads]") {
  Resolving there(any_backend(), few);
  int calls = 0;
  const auto destroy = [&](auto, const auto&) {
    ++calls;
    there.resolver.reset();
  };
  const std::string name = GENERATE(as<std::string>(), "one.test.", "127.0.0.1", "silent.test.");
  for (int i = 0; i < 3; ++i) there.resolver->resolve(name, 80, destroy);
  there.resolver->resolve("two.test.", 80, [&](auto, const auto&) {
    if (name == "silent.test.") destroy(std::error_code(), 0);
  });
  run_until(there.loop, [&] { return calls > 0; });
  passes(there.loop);
  CHECK(calls == 1);
}

TEST_CASE("A name in capitals is the same name, from the first letter to the last") {
  Resolving there(any_backend(), few);
  Found small, capital;
  there.resolver->resolve("az.test.", 80, small.callback());
  there.resolver->resolve("AZ.TEST.", 80, capital.callback());
  CHECK(there.resolver->counters().shared == 1);
  run_until(there.loop, [&] { return small.calls > 0 && capital.calls > 0; });
  CHECK(small.text() == capital.text());
}

TEST_CASE("A resolver may be destroyed when a lookup times out") {
  ResolverOptions options;
  options.timeout = 20ms;
  Resolving there(any_backend(), few, options);
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    there.resolver->resolve("silent.test.", 80, [&](std::error_code error, const auto&) {
      ++calls;
      CHECK(error == Errc::timed_out);
      there.resolver.reset();
    });
  }
  run_until(there.loop, [&] { return calls > 0; });
  passes(there.loop);
  CHECK(calls == 1);
}

TEST_CASE("A callback may ask for more, for the same and for others") {
  Resolving there(any_backend(), few);
  Found again, other;
  there.resolver->resolve("one.test.", 80, [&](auto, const auto&) {
    there.resolver->resolve("one.test.", 81, again.callback());
    there.resolver->resolve("two.test.", 82, other.callback());
  });
  run_until(there.loop, [&] { return other.calls > 0; });
  CHECK(again.text() == "127.0.0.1:81");
  CHECK(other.text() == "127.0.0.2:82 127.0.0.3:82");
}

TEST_CASE("An exception that leaves a callback leaves run(), and the other lookups are told") {
  Resolving there(any_backend(), few);
  Found found;
  there.resolver->resolve("one.test.", 80,
                          [](auto, const auto&) { throw std::runtime_error("mine"); });
  there.resolver->resolve("one.test.", 80, found.callback());
  CHECK_THROWS_WITH(run_until(there.loop, [] { return false; }), "mine");
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK(found.text() == "127.0.0.1:80");
}

TEST_CASE("A silent name server costs the lookup its timeout, each lookup its own") {
  ResolverOptions options;
  options.timeout = 10s;
  Resolving there(any_backend(), few, options);
  there.system.stop_clock();
  Found first, second;
  there.resolver->resolve("silent.test.", 80, first.callback());
  there.system.advance(6s);
  passes(there.loop);
  there.resolver->resolve("silent.test.", 80, second.callback());
  CHECK(there.resolver->counters().shared == 1);
  there.system.advance(5s);
  run_until(there.loop, [&] { return first.calls > 0; });
  CHECK(first.text() == message(Errc::timed_out));
  CHECK(second.calls == 0);
  there.system.advance(5s);
  run_until(there.loop, [&] { return second.calls > 0; });
  CHECK(second.text() == message(Errc::timed_out));
  CHECK(there.resolver->cached() == 0);
}

TEST_CASE("A pending lookup keeps run() going, an idle resolver doesn't", "[threads]") {
  const std::string backend = any_backend();
  const Duration limit = GENERATE(30s, 0s);
  KnowingSystem system(few);
  EventLoop loop(options_on(system));
  const pawl::UniqueFd silent = bound_socket(SOCK_DGRAM);
  ResolverOptions options;
  options.backend = backend;
  options.timeout = limit;
  if (backend == "cares") {
    options.servers = {Endpoint::loopback(ntohs(address_of(silent.get()).sin_port))};
  }
  Resolver resolver(loop, options);
  loop.run();
  const std::string here = "resolver.cpp:" + std::to_string(__LINE__ + 1);
  Lookup lookup = resolver.resolve("silent.test.", 80, [](auto, const auto&) {});
  CHECK(loop.run_once(0s));
  CHECK(loop.why_alive().find(here) != std::string::npos);
  lookup.cancel();
  CHECK_FALSE(loop.run_once(0s));
  CHECK(loop.why_alive().empty());
  loop.run();
}

TEST_CASE("A resolver's options that make no sense are refused by name") {
  EventLoop loop;
  ResolverOptions options;
  const auto refusal = [&] {
    try {
      Resolver(loop, options);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  options.backend = "magic";
  std::string known;
  for (const std::string_view name : pawl::available_resolver_backends()) {
    known += " " + std::string(name);
  }
  CHECK(refusal() == "Resolver: unknown backend \"magic\"; known:" + known);
  options.backend = "system";
  options.servers = {Endpoint::loopback(53)};
  CHECK(refusal().find("\"cares\" can ask others") != std::string::npos);
  if (pawl::available_resolver_backends().size() < 2) return;
  options.backend = "cares";
  CHECK(refusal().empty());
  options.servers = {Endpoint::parse("unix:/tmp/x")};
  CHECK(refusal().find("Resolver: unix:/tmp/x can't be a name server") == 0);
  options.servers = {Endpoint::parse("[fe80::1%lo]:53")};
  CHECK(refusal().empty());
}

TEST_CASE("A lookup that debug mode refuses, from a wrong thread, leaves nothing behind") {
  KnownHosts hosts = few;
  KnowingSystem system(hosts);
  pawl::LoopOptions on = options_on(system);
  on.debug = true;
  EventLoop loop(on);
  loop.set_report_sink([](std::string_view) {});
  Resolver resolver(loop);
  const Captured captured;
  for (const char* name : {"one.test", "127.0.0.1"}) {
    loop.call_soon([&] {
      std::thread([&] {
        CHECK_THROWS_AS(resolver.resolve(name, 80, [kept = captured.value](auto, const auto&) {}),
                        std::logic_error);
      }).join();
    });
    loop.run();
    CHECK(captured.is_free());
    CHECK(resolver.pending() == 0);
  }
  Found found;
  resolver.resolve("one.test", 80, found.callback());
  loop.run();
  CHECK(found.text() == "127.0.0.1:80");
}

TEST_CASE("An empty callback is a logic error, and nothing is asked") {
  Resolving there(any_backend(), few);
  CHECK_THROWS_AS(there.resolver->resolve("one.test.", 80, nullptr), std::logic_error);
  CHECK(there.resolver->pending() == 0);
  CHECK(there.resolver->counters().queries == 0);
}

TEST_CASE("localhost and the names below it are this machine, and nobody is asked") {
  // They all lie.
  KnownHosts hosts;
  for (const char* name : {"localhost", "a.localhost", "b.localhost"}) {
    hosts[name] = {Kind::found, {"127.6.6.6", "2001:db8::1"}};
  }
  Resolving there(any_backend(), hosts);
  std::string both = "[::1]:80 127.0.0.1:80";
  if (!has_ipv6()) both = "127.0.0.1:80 [::1]:80";
  for (const char* name : {"localhost", "localhost.", "LocalHost", "LOCALHOST.", "a.localhost",
                           "a.localhost.", "x.y.LOCALhost", "_a.localhost"}) {
    CAPTURE(name);
    CHECK(look_up(there, name) == both);
    CHECK(look_up(there, name, 80, AddressFamily::ipv4) == "127.0.0.1:80");
    CHECK(look_up(there, name, 80, AddressFamily::ipv6) == "[::1]:80");
  }
  CHECK(there.questions() == 0);
  CHECK(there.server.questions.empty());
  CHECK(there.resolver->counters().queries == 0);
  for (const char* name : {"notlocalhost.", "localhost.test.", "localhost1.", "ocalhost."}) {
    CHECK(look_up(there, name) == message(Errc::host_not_found));
  }
}

TEST_CASE("A dial of localhost asks nobody") {
  KnownHosts hosts{{"a.localhost", {Kind::found, {"127.6.6.6"}}}};
  KnowingSystem system(hosts);
  EventLoop loop(options_on(system));
  RawListener listener;
  const auto connection =
      pawl::Connection::connect(loop, "a.LOCALHOST.", listener.endpoint().port());
  Recorder record(*connection);
  run_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
  CHECK(system.questions() == 0);
}

TEST_CASE("A thousand lookups at once are all answered", "[threads]") {
  KnownHosts hosts;
  for (int i = 0; i < 1000; ++i) {
    const std::string address = "127.1." + std::to_string(i / 250) + "." + std::to_string(i % 250);
    hosts["host" + std::to_string(i) + ".test"] = {Kind::found, {address}};
  }
  ResolverOptions options;
  options.cache_entries = 10;
  Resolving there(any_backend(), hosts, options);
  int right = 0;
  for (const auto& host : hosts) {
    there.resolver->resolve(host.first + ".", 80, AddressFamily::ipv4,
                            [&, expected = host.second.addresses[0]](auto, const auto& endpoints) {
                              right += endpoints.size() == 1 && endpoints[0].host() == expected;
                            });
  }
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  CHECK(right == 1000);
  CHECK(there.resolver->cached() == 10);
}

TEST_CASE("The loop has a resolver of its own, made once and gone with it") {
  const Captured captured;
  Lookup lookup;
  {
    EventLoop loop;
    EventLoop other;
    Resolver& resolver = Resolver::of(loop);
    CHECK(&Resolver::of(loop) == &resolver);
    CHECK(&Resolver::of(other) != &resolver);
    CHECK(resolver.backend() == "system");
    Found found;
    resolver.resolve("127.0.0.1", 80, found.callback());
    loop.run();
    CHECK(found.text() == "127.0.0.1:80");
    lookup = resolver.resolve("127.0.0.1", 80, [kept = captured.value](auto, const auto&) {});
  }
  CHECK(captured.is_free());
  lookup.cancel();
  CHECK_FALSE(lookup.cancelled());
}

TEST_CASE("A loop may be destroyed while a lookup of its own resolver hangs", "[threads]") {
  KnowingSystem system(few);
  const Captured captured;
  {
    EventLoop loop(options_on(system));
    Resolver::of(loop).resolve("silent.test.", 80, [kept = captured.value](auto, const auto&) {});
    run_until(loop, [&] { return system.questions() > 0; });
  }
  CHECK(captured.is_free());
}

TEST_CASE("No more threads than allowed look names up, and what is cancelled takes none",
          "[threads]") {
  ResolverOptions options;
  options.threads = 2;
  KnownHosts hosts = few;
  for (int i = 0; i < 8; ++i) hosts["silent" + std::to_string(i) + ".test"].kind = Kind::silent;
  Resolving there("system", hosts, options);
  std::vector<Lookup> lookups;
  for (int i = 0; i < 8; ++i) {
    lookups.push_back(there.resolver->resolve("silent" + std::to_string(i) + ".test", 80,
                                              [](auto, const auto&) {}));
  }
  run_until(there.loop, [&] { return there.questions() == 2; });
  Found found;
  there.resolver->resolve("one.test", 80, found.callback());
  for (Lookup& lookup : lookups) lookup.cancel();
  passes(there.loop);
  CHECK(there.questions() == 2);  // both threads hang
  CHECK(found.calls == 0);
  there.system.end_silence();
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK(found.text() == "127.0.0.1:80");
  CHECK(there.questions() == 3);  // the six that had waited were never asked
}

TEST_CASE("An errno of getaddrinfo is the lookup's error, and isn't kept", "[threads]") {
  OneAnswer names(EAI_SYSTEM, EMFILE);
  EventLoop loop(options_on(names));
  Resolver resolver(loop);
  for (int i = 1; i <= 2; ++i) {
    Found found;
    resolver.resolve("one.test", 80, found.callback());
    loop.run();
    CHECK(found.error == std::errc::too_many_files_open);
    CHECK(names.questions == i);
  }
  CHECK(resolver.cached() == 0);
}

TEST_CASE("A lookup for which no thread can be started fails, and the next one may go well") {
  Resolving there("system", few);
  Found found[2];
  {
    const NoThreads none;
    there.resolver->resolve("one.test", 80, found[0].callback());
    CHECK(found[0].calls == 0);
  }
  there.resolver->resolve("one.test", 80, found[1].callback());
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  CHECK(found[0].error == pawl::system_error_code(EAGAIN));
  CHECK(found[1].text() == "127.0.0.1:80");
  CHECK(there.questions() == 1);
}

TEST_CASE("A lookup waits for the one thread there is when no other can be started", "[threads]") {
  Resolving there("system", few);
  Found found[2];
  there.resolver->resolve("silent.test", 80, found[0].callback());
  run_until(there.loop, [&] { return there.questions() == 1; });
  {
    const NoThreads none;
    there.resolver->resolve("one.test", 80, found[1].callback());
  }
  passes(there.loop);
  CHECK(found[1].calls == 0);
  there.system.end_silence();
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  CHECK(found[0].text() == message(Errc::resolve_failed));
  CHECK(found[1].text() == "127.0.0.1:80");
}

TEST_CASE("A resolver that a job owns last goes on the loop's thread, with its lookups",
          "[threads]") {
  Resolving there(any_backend(), few);
  Found found;
  there.resolver->resolve("silent.test", 80, found.callback());
  std::thread::id ended_in;
  std::shared_ptr<Resolver> resolver(there.resolver.release(), [&](Resolver* last) {
    ended_in = std::this_thread::get_id();
    delete last;
  });
  const std::weak_ptr<Resolver> watch = resolver;
  const auto drop = [](pawl::Outcome<std::shared_ptr<Resolver>>) {};
  SECTION("its work") {
    there.loop.run_in_executor([resolver = std::move(resolver)] {}, [](pawl::Outcome<void>) {});
  }
  SECTION("its callback") {
    there.loop.run_in_executor([] {}, [resolver = std::move(resolver)](pawl::Outcome<void>) {});
  }
  SECTION("its result") {
    there.loop.run_in_executor(
        [resolver = std::move(resolver)]() mutable { return std::move(resolver); }, drop);
  }
  SECTION("its result, which nobody wants any more") {
    std::promise<void> begun;
    pawl::Job job = there.loop.run_in_executor(
        [&begun, resolver = std::move(resolver)]() mutable {
          begun.set_value();
          return std::move(resolver);
        },
        drop);
    begun.get_future().wait();
    job.cancel();
  }
  run_until(there.loop, [&] { return watch.expired(); });
  CHECK(ended_in == std::this_thread::get_id());
  there.system.end_silence();
  passes(there.loop);
  CHECK(found.calls == 0);
}

TEST_CASE("A query's steps are told to the observer, with its name") {
  QuerySteps steps;
  Resolving there(any_backend(), few, {}, &steps);
  look_up(there, "One.test.");
  CHECK(steps.lines == std::vector<std::string>{"One.test.: ASKING -answered-> FRESH"});
}

TEST_CASE("Each arrow of the query's table is one that queries take") {
  QuerySteps steps;
  ResolverOptions options;
  options.cache_entries = 2;
  options.tries = 1;
  Resolving there(any_backend(), few, options, &steps);
  there.resolver->resolve("one.test.", 80, ignore);
  there.resolver->resolve("one.test.", 80, ignore).cancel();     // ASKING joined
  there.resolver->resolve("silent.test.", 80, ignore).cancel();  // ASKING abandoned
  look_up(there, "one.test.");                                   // ASKING answered
  look_up(there, "one.test.");                                   // FRESH hit
  there.system.advance(1h);
  look_up(there, "one.test.");      // FRESH expired
  look_up(there, "missing.test.");  // ASKING failed
  there.resolver->clear_cache();    // FRESH dropped
  there.resolver->resolve("silent.test.", 80, ignore);
  there.resolver.reset();  // ASKING dropped
  std::set<std::string> arrows;
  const auto& table = pawl::resolver_query_table;
  for (std::size_t state = 0; state + 1 < table.states.size(); ++state) {
    for (std::size_t event = 0; event < table.events.size(); ++event) {
      if (table.cells[state][event].is_hole) continue;
      arrows.insert(std::string(table.states[state]) + " -" + std::string(table.events[event]) +
                    "->");
    }
  }
  CHECK(steps.seen == arrows);
}
