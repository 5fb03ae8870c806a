// SPDX-License-Identifier: MIT
#include "pawl/core/place.hpp"

#include <catch2/catch.hpp>
#include <string>

using pawl::Place;

namespace {

Place callee(int = 0, Place place = Place::here()) { return place; }

struct Registrar {
  explicit Registrar(Place where = Place::here()) : place(where) {}
  Place place;
};

}  // namespace

TEST_CASE("Place::here() as a default argument names its caller's line") {
  const Place first = callee();
  const int first_line = __LINE__ - 1;
  const Place second = callee(1);
  CHECK(first.line == first_line);
  CHECK(second.line == first_line + 2);
  CHECK(std::string(first.file) == __FILE__);
}

TEST_CASE("Place::here() as a constructor's default argument names the line of the construction") {
  const Registrar registrar;
  CHECK(registrar.place.line == __LINE__ - 1);
}

TEST_CASE("A Place that is handed on names the first caller") {
  const auto outer = [](Place place) { return callee(0, place); };
  const Place place = outer(Place::here());
  CHECK(place.line == __LINE__ - 1);
}

TEST_CASE("A Place prints as file and line, without folders") {
  CHECK(to_string(Place{"/home/me/project/main.cpp", 12}) == "main.cpp:12");
  CHECK(to_string(Place{"main.cpp", 1}) == "main.cpp:1");
  CHECK(to_string(Place{"../x/", 3}) == ":3");
  CHECK(to_string(Place{}) == ":0");
}

static_assert(Place::here().line == __LINE__, "it is a constant");
