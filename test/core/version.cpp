// SPDX-License-Identifier: MIT
#include "pawl/core/version.hpp"

#include <catch2/catch.hpp>
#include <string>

TEST_CASE("The version in the header is the version in meson.build") {
  CHECK(std::string(PAWL_VERSION_STRING) == PAWL_MESON_VERSION);
}

TEST_CASE("The version's numbers are those of its string") {
  CHECK(std::to_string(PAWL_VERSION_MAJOR) + "." + std::to_string(PAWL_VERSION_MINOR) + "." +
            std::to_string(PAWL_VERSION_PATCH) ==
        PAWL_VERSION_STRING);
}
