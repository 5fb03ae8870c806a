// SPDX-License-Identifier: MIT
#include "pawl/core/time.hpp"

#include <catch2/catch.hpp>
#include <type_traits>

using pawl::add_saturated;
using pawl::Duration;
using pawl::TimePoint;
using namespace std::chrono_literals;

static_assert(std::is_same_v<Duration, std::chrono::nanoseconds>);
static_assert(add_saturated(TimePoint(5ns), 6ns) == TimePoint(11ns));

TEST_CASE("A time and a span add up to the nanosecond") {
  CHECK(add_saturated(TimePoint(1s), 1ns) == TimePoint(1'000'000'001ns));
  CHECK(add_saturated(TimePoint(-5s), 3s) == TimePoint(-2s));
}

TEST_CASE("A negative span counts as zero") {
  CHECK(add_saturated(TimePoint(1s), -1ns) == TimePoint(1s));
  CHECK(add_saturated(TimePoint(1s), Duration::min()) == TimePoint(1s));
  CHECK(add_saturated(TimePoint::min(), Duration::min()) == TimePoint::min());
}

TEST_CASE("A sum beyond the end of the clock is the end of the clock") {
  CHECK(add_saturated(TimePoint(1ns), Duration::max()) == TimePoint::max());
  CHECK(add_saturated(TimePoint::max(), 1ns) == TimePoint::max());
  CHECK(add_saturated(TimePoint::max() - 1ns, 1ns) == TimePoint::max());
  CHECK(add_saturated(TimePoint::max() - 2ns, 1ns) == TimePoint::max() - 1ns);
  CHECK(add_saturated(TimePoint(0ns), Duration::max()) == TimePoint::max());
  CHECK(add_saturated(TimePoint(-1ns), Duration::max()) == TimePoint::max() - 1ns);
}
