// SPDX-License-Identifier: MIT
// How long select waits.
#include <chrono>
#include <climits>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/sockets.hpp"

using pawl::Duration;
using pawl::Interest;
using pawl::TimePoint;
using namespace std::chrono_literals;

namespace {

TimePoint now() { return pawl::System::real().now(); }

}  // namespace

TEST_CASE_METHOD(SelectorContract, "A wait without an event is never shorter than its timeout") {
  const bool with_descriptor = GENERATE(false, true);
  const SocketPair pair;
  if (with_descriptor) REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  for (const Duration timeout : {1ns, 999ns, 1'000ns, 1'001ns, 50'000ns, 999'999ns, 1'000'000ns,
                                 1'000'001ns, 2'499'999ns, 3'000'000ns}) {
    CAPTURE(timeout.count());
    const TimePoint start = now();
    const Events events = select(timeout);
    const Duration waited = now() - start;
    CHECK(events == Events{});
    CHECK(waited.count() >= timeout.count());
  }
}

TEST_CASE_METHOD(SelectorContract, "A timeout of zero or less only looks") {
  const SocketPair pair;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  for (const Duration timeout : {Duration::zero(), Duration(-1), Duration(-1h), Duration::min()}) {
    CAPTURE(timeout.count());
    CHECK(select(timeout) == Events{});
  }
  write_byte(pair.theirs.get());
  for (const Duration timeout : {Duration::zero(), Duration(-1), Duration(-1h), Duration::min()}) {
    CAPTURE(timeout.count());
    CHECK(select(timeout) == Events{{pair.ours.get(), Interest::read}});
  }
}

TEST_CASE_METHOD(SelectorContract, "A wait without a timeout ends with the event, not before") {
  const pawl::UniqueFd timer = timer_fd(5'000'000);
  const SocketPair idle;
  REQUIRE_FALSE(selector->add(idle.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(timer.get(), Interest::read));
  CHECK(select(std::nullopt) == Events{{timer.get(), Interest::read}});
  CHECK(select(std::nullopt) == Events{{timer.get(), Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A timeout of any size works") {
  const Duration timeout =
      GENERATE(Duration::max(), Duration::max() - 1ns, Duration(std::chrono::milliseconds(INT_MAX)),
               Duration(std::chrono::milliseconds(INT_MAX) + 1ns),
               Duration(std::chrono::seconds(INT_MAX) + 1s), Duration(100'000h), Duration(61s));
  CAPTURE(timeout.count());
  const pawl::UniqueFd timer = timer_fd(1'000'000);
  REQUIRE_FALSE(selector->add(timer.get(), Interest::read));
  CHECK(select(timeout) == Events{{timer.get(), Interest::read}});  // waits for it
  CHECK(select(timeout) == Events{{timer.get(), Interest::read}});  // is ready at once
}

TEST_CASE_METHOD(SelectorContract, "An event ends a wait before its timeout") {
  const pawl::UniqueFd timer = timer_fd(1'000'000);
  REQUIRE_FALSE(selector->add(timer.get(), Interest::read));
  const TimePoint start = now();
  CHECK(select(1h) == Events{{timer.get(), Interest::read}});
  CHECK(now() - start < 1min);
}

TEST_CASE_METHOD(SelectorContract, "A wait with nothing registered lasts as long as its timeout") {
  CHECK(waits_quietly());
  CHECK(look() == Events{});
}

TEST_CASE("A signal doesn't make a wait begin anew") {
  for (const std::string_view name : pawl::available_selectors()) {
    CAPTURE(name);
    const auto selector = pawl::make_selector(name);
    std::vector<pawl::Ready> ready;
    Duration waited = 1h;
    for (int attempt = 0; attempt < 5 && waited > 30ms; ++attempt) {  // a busy machine may be late
      const Interrupter once(15ms, 0ms);
      const TimePoint start = now();
      REQUIRE_FALSE(selector->select(20ms, ready));
      waited = now() - start;
      CHECK(waited.count() >= Duration(20ms).count());
    }
    CHECK(waited.count() <= Duration(30ms).count());
  }
}
