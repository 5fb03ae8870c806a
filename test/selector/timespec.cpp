// SPDX-License-Identifier: MIT
#include "selector/timespec.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <climits>
#include <cstdint>

using pawl::Duration;
using pawl::to_milliseconds;
using namespace std::chrono_literals;

TEST_CASE("Milliseconds are rounded up, so that a wait is never early") {
  CHECK(to_milliseconds(1ns) == 1);
  CHECK(to_milliseconds(999'999ns) == 1);
  CHECK(to_milliseconds(1ms) == 1);
  CHECK(to_milliseconds(1ms + 1ns) == 2);
}

TEST_CASE("Milliseconds that no int can hold are as many as it can") {
  CHECK(to_milliseconds(std::chrono::milliseconds(INT_MAX)) == INT_MAX);
  CHECK(to_milliseconds(std::chrono::milliseconds(INT_MAX) + 1ns) == INT_MAX);
  CHECK(to_milliseconds(Duration::max()) == INT_MAX);
}

TEST_CASE("A timespec has the seconds and the rest in nanoseconds") {
  const timespec time = pawl::to_timespec(3s + 5ns);
  CHECK(time.tv_sec == 3);
  CHECK(time.tv_nsec == 5);
}

TEST_CASE("Seconds that a clock of the kernel's can't hold are as many as it can") {
  struct Narrow {
    std::int32_t tv_sec;
    std::int32_t tv_nsec;
  };
  CHECK(pawl::to_time<pawl::WideTimespec>(Duration::max()).tv_sec == 9'223'372'036);
  CHECK(pawl::to_time<Narrow>(Duration::max()).tv_sec == INT32_MAX);
  CHECK(pawl::to_time<Narrow>(std::chrono::seconds(INT32_MAX) + 5ns).tv_nsec == 5);
  CHECK(pawl::to_time<Narrow>(1ns).tv_nsec == 1);
}
