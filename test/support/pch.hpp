// SPDX-License-Identifier: MIT
// What nearly every test includes anyway and what costs most to parse. None of pawl's own headers:
// one of them in here would rebuild every test on each change, and hide a missing include.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>
