// SPDX-License-Identifier: MIT
// When the name servers tell of one family and keep silent about the other; and deadlines that pass
// while this process stands still.
#include <sys/eventfd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/resolving.hpp"
#include "net/socket_address.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/resolver.hpp"

using namespace std::chrono_literals;
using pawl::AddressFamily;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Duration;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Lookup;
using pawl::Resolver;
using pawl::ResolverOptions;
using Kind = KnownHost::Kind;

namespace {

std::string any_backend() {
  const std::vector<std::string_view> all = pawl::available_resolver_backends();
  const auto index = GENERATE_COPY(range(std::size_t{0}, all.size()));
  return std::string(all[index]);
}

std::string message(Errc error) { return make_error_code(error).message(); }

const KnownHosts halves{
    {"dead6.test", {Kind::found, {"127.0.0.1", "127.0.0.2"}, 10, {}, Kind::silent}},
    {"dead4.test", {Kind::found, {"::1"}, 10, Kind::silent, {}}},
    {"late6.test", {Kind::found, {"127.0.0.1", "::1"}, 10, {}, Kind::late}},
    {"late4.test", {Kind::found, {"127.0.0.1", "::1"}, 10, Kind::late, {}}},
    {"late.test", {Kind::late, {"127.0.0.1"}}},
    {"none4.test", {Kind::silent, {}, 10, Kind::missing, {}}},
    {"lost6.test", {Kind::found, {"127.0.0.1"}, 10, {}, Kind::unanswered}},
    {"silent.test", {Kind::silent, {}}},
    {"good.test", {Kind::found, {"127.0.0.1"}}},
};

ResolverOptions soon() {
  ResolverOptions options;
  options.other_family_delay = 10ms;
  return options;
}

std::string look_up(Resolving& there, const std::string& name) {
  Found found;
  there.resolver->resolve(name, 80, found.callback());
  run_until(there.loop, [&] { return found.calls > 0; });
  return found.text();
}

/// Does something between the wait of a pass and its timers: what a slow callback does.
class InTheMiddle {
 public:
  InTheMiddle(EventLoop& loop, std::function<void()> work)
      : loop_(loop), fd_(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)) {
    loop_.add_reader(fd_.get(), [this, work] {
      loop_.remove_reader(fd_.get());
      work();
    });
  }
  ~InTheMiddle() { loop_.remove_reader(fd_.get()); }

 private:
  EventLoop& loop_;
  pawl::UniqueFd fd_;
};

}  // namespace

TEST_CASE("What has come of one family is given when the other one's servers keep silent") {
  Resolving there(any_backend(), halves, soon());
  CHECK(look_up(there, "dead6.test.") == "127.0.0.1:80 127.0.0.2:80");
  CHECK(look_up(there, "dead4.test.") == "[::1]:80");
  CHECK(there.resolver->pending() == 0);
}

TEST_CASE("One family's addresses are kept as long as a failure, and then asked for anew") {
  ResolverOptions options = soon();
  const bool is_kept = GENERATE(true, false);
  options.failure_cache_time = is_kept ? Duration(1h) : Duration(0);
  Resolving there(any_backend(), halves, options);
  CHECK(look_up(there, "dead6.test.") == "127.0.0.1:80 127.0.0.2:80");
  CHECK(there.resolver->cached() == (is_kept ? 1 : 0));
  CHECK(look_up(there, "dead6.test.") == "127.0.0.1:80 127.0.0.2:80");
  CHECK(there.resolver->counters().queries == (is_kept ? 1 : 2));
}

TEST_CASE("The other family is waited for as long as the options say") {
  ResolverOptions options;
  options.other_family_delay = GENERATE(Duration(1h), Duration(0));
  options.timeout = 3h;
  Resolving there(any_backend(), halves, options);
  Found found[2];
  there.resolver->resolve("late6.test.", 80, found[0].callback());
  there.resolver->resolve("late4.test.", 80, found[1].callback());
  // When this one is told, so would those be.
  CHECK(look_up(there, "good.test.") == "127.0.0.1:80");
  run_until(there.loop, [&] { return there.questions() >= 2; });
  passes(there.loop);
  CHECK(found[0].calls + found[1].calls == 0);
  there.end_silence();
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  for (const Found& each : found) {
    CHECK(each.endpoints.size() == 2);
    CHECK(each.calls == 1);
  }
}

TEST_CASE("A deadline gives what has come of one family, and is no error") {
  ResolverOptions options;
  options.other_family_delay = 0s;
  options.timeout = 600ms;  // "system" asks by family after 200
  Resolving there(any_backend(), halves, options);
  Found found[3];
  there.resolver->resolve("dead6.test.", 80, found[0].callback());
  there.resolver->resolve("silent.test.", 80, found[1].callback());
  there.resolver->resolve("none4.test.", 80, found[2].callback());
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  const std::string outcome = found[0].text();
  // A machine that is too busy for threads may have been too late.
  if (outcome != message(Errc::timed_out)) CHECK(outcome == "127.0.0.1:80 127.0.0.2:80");
  CHECK(found[1].text() == message(Errc::timed_out));
  CHECK(found[2].text() == message(Errc::timed_out));
}

TEST_CASE("A family whose servers fail costs the other one nothing") {
  ResolverOptions options;
  options.tries = 1;
  options.failure_cache_time = 1s;
  Resolving there(any_backend(), halves, options);
  there.system.stop_clock();
  CHECK(look_up(there, "lost6.test.") == "127.0.0.1:80");
}

TEST_CASE("Who asks after one family's addresses have come waits no longer than the first") {
  ResolverOptions options;
  options.other_family_delay = 500ms;
  Resolving there(any_backend(), halves, options);
  Found found[3];
  there.resolver->resolve("dead6.test.", 80, found[0].callback());
  std::string order;
  for (int i = 1; i < 3; ++i) {
    there.loop.call_later(
        i * 150ms, [&, i] { there.resolver->resolve("dead6.test.", 80, found[i].callback()); });
  }
  run_until(there.loop, [&] { return found[0].calls > 0; });
  run_until(there.loop, [&] { return found[1].calls + found[2].calls == 2; });
  for (const Found& each : found) CHECK(each.text() == "127.0.0.1:80 127.0.0.2:80");
  CHECK(there.resolver->counters().queries == 1);
}

TEST_CASE("A lookup that one caller left by its timeout still answers another one") {
  ResolverOptions options;
  options.timeout = 10s;
  Resolving there(any_backend(), halves, options);
  there.system.stop_clock();
  Found first, second;
  there.resolver->resolve("late.test.", 80, AddressFamily::ipv4, first.callback());
  run_until(there.loop, [&] { return there.questions() == 1; });
  there.system.advance(6s);
  passes(there.loop);
  there.resolver->resolve("late.test.", 80, AddressFamily::ipv4, second.callback());
  there.system.advance(4s);
  run_until(there.loop, [&] { return first.calls > 0; });
  CHECK(first.text() == message(Errc::timed_out));
  CHECK(second.calls == 0);
  there.end_silence();
  run_until(there.loop, [&] { return second.calls > 0; });
  CHECK(second.text() == "127.0.0.1:80");
  CHECK(there.resolver->counters().queries == 1);
  CHECK(there.resolver->cached() == 1);
  passes(there.loop);
  CHECK(first.calls == 1);
}

TEST_CASE("A half-answered lookup can be cancelled, and its resolver destroyed, at each moment") {
  const std::string backend = any_backend();
  const bool is_destroyed = GENERATE(true, false);
  const int count = GENERATE(0, 1, 2, 5, 20, 60);
  CAPTURE(is_destroyed, count);
  Resolving there(backend, halves, soon());
  const auto captured = std::make_shared<int>(0);
  int calls = 0;
  Lookup lookup = there.resolver->resolve("dead6.test.", 80,
                                          [&calls, captured](auto, const auto&) { ++calls; });
  for (int i = 0; i < count && calls == 0; ++i) there.loop.run_once(5ms);
  const int before = calls;
  if (is_destroyed) there.resolver.reset();
  lookup.cancel();
  CHECK(captured.use_count() == 1);
  there.end_silence();
  passes(there.loop);
  CHECK(calls == before);
  if (!is_destroyed) CHECK(look_up(there, "good.test.") == "127.0.0.1:80");
}

TEST_CASE("Names whose other family is silent don't keep other names waiting", "[threads]") {
  KnownHosts hosts = halves;
  for (int i = 0; i < 12; ++i) {
    hosts["half" + std::to_string(i) + ".test"] = {
        Kind::found, {"127.0.0.3"}, 10, {}, Kind::silent};
  }
  Resolving there(any_backend(), hosts, soon());
  int right = 0;
  const auto count = [&](std::error_code, const std::vector<Endpoint>& endpoints) {
    right += endpoints.size() == 1 ? 1 : 0;
  };
  for (int i = 0; i < 12; ++i) {
    there.resolver->resolve("half" + std::to_string(i) + ".test.", 80, count);
  }
  there.resolver->resolve("good.test.", 80, count);
  run_until(there.loop, [&] { return there.resolver->pending() == 0; });
  CHECK(right == 13);
}

// Deadlines while this process stands still

TEST_CASE("A lookup whose answer came while the loop stood still isn't timed out") {
  ResolverOptions options;
  options.timeout = 10s;
  options.tries = 1;
  Resolving there(any_backend(), halves, options);
  there.system.stop_clock();
  Found found;
  there.resolver->resolve("good.test.", 80, AddressFamily::ipv4, found.callback());
  const InTheMiddle stands_still(there.loop, [&] {
    if (there.options.backend == "system") {
      while (there.questions() == 0) {
      }
      there.system.wait_for_idle_threads();
    } else {
      while (there.server.questions.empty()) there.server.serve_now();
    }
    there.system.advance(11s);
  });
  // Nothing else of it is heard in the pass in which the deadline comes.
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK(found.text() == "127.0.0.1:80");
}

TEST_CASE("A name server that answered while the loop stood still wasn't silent") {
  if (pawl::available_resolver_backends().size() < 2) return;
  ResolverOptions options;
  options.try_timeout = 20ms;
  options.tries = 1;
  Resolving there("cares", halves, options);
  Found found;
  there.resolver->resolve("good.test.", 80, AddressFamily::ipv4, found.callback());
  const InTheMiddle stands_still(there.loop, [&] {
    while (there.server.questions.empty()) there.server.serve_now();
    const auto begun = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() < begun + 100ms) {  // a slow callback
    }
  });
  run_until(there.loop, [&] { return found.calls > 0; });
  CHECK(found.text() == "127.0.0.1:80");
  CHECK(there.server.questions.size() == 1);
}
