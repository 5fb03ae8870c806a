// SPDX-License-Identifier: MIT
#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/selector/selector.hpp"
#include "pawl/system/system.hpp"
#include "support/descriptor_limit.hpp"
#include "support/environment.hpp"

using Catch::Matchers::Contains;

namespace {

bool is_available(std::string_view name) {
  const auto names = pawl::available_selectors();
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// What making `name` throws while no descriptor is to be had: an errno, or 0.
int error_without_descriptors(std::string_view name) {
  try {
    const NoDescriptorLeft none_left;
    pawl::make_selector(name);
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

}  // namespace

TEST_CASE("A selector has the name that was asked for") {
  for (const std::string_view name : pawl::available_selectors()) {
    CHECK(pawl::make_selector(name)->name() == name);
    CHECK(pawl::System::real().make_selector(name)->name() == name);
  }
}

TEST_CASE("epoll, poll and select are always there, best first") {
  const auto names = pawl::available_selectors();
  REQUIRE(names.size() >= 3);
  CHECK(names[0] == "epoll");
  CHECK(names[1] == "poll");
  CHECK(names[2] == "select");
}

#ifdef PAWL_HAS_LIBEV
TEST_CASE("libev is there, and by name its select, poll and epoll") {
  for (const char* name : {"libev", "libev:select", "libev:poll", "libev:epoll"}) {
    CAPTURE(name);
    CHECK(is_available(name));
  }
}
#endif

#ifdef PAWL_HAS_LIBEV
TEST_CASE("libev's io_uring is refused with a sentence that says why") {
  CHECK_FALSE(is_available("libev:iouring"));
  CHECK_THROWS_AS(pawl::make_selector("libev:iouring"), std::invalid_argument);
  CHECK_THROWS_WITH(pawl::make_selector("libev:iouring"),
                    Contains("aborts the process") && Contains("libev:epoll"));
}
#endif

TEST_CASE("Without a name the best selector is made") {
  const ScopedVariable variable("PAWL_SELECTOR", nullptr);
  CHECK(pawl::make_selector()->name() == "epoll");
  CHECK(pawl::make_selector("")->name() == "epoll");
}

TEST_CASE("PAWL_SELECTOR chooses when the program doesn't") {
  for (const std::string_view name : pawl::available_selectors()) {
    const ScopedVariable variable("PAWL_SELECTOR", std::string(name).c_str());
    CHECK(pawl::make_selector()->name() == name);
  }
}

TEST_CASE("What the program says wins over PAWL_SELECTOR") {
  const ScopedVariable variable("PAWL_SELECTOR", "select");
  CHECK(pawl::make_selector("poll")->name() == "poll");
  const ScopedVariable wrong("PAWL_SELECTOR", "no such thing");
  CHECK(pawl::make_selector("poll")->name() == "poll");
}

TEST_CASE("An empty PAWL_SELECTOR counts as none") {
  const ScopedVariable variable("PAWL_SELECTOR", "");
  CHECK(pawl::make_selector()->name() == "epoll");
}

TEST_CASE("An unknown name is an error that lists all known ones, wherever it came from") {
  std::string listed = "known:";
  for (const std::string_view name : pawl::available_selectors()) listed += " " + std::string(name);
  for (const char* name :
       {"kqueue", "Epoll", "epoll ", "libev:", "libev:kqueue", "libev:nothing"}) {
    CAPTURE(name);
    CHECK_THROWS_AS(pawl::make_selector(name), std::invalid_argument);
    CHECK_THROWS_WITH(
        pawl::make_selector(name),
        Contains("unknown selector \"" + std::string(name) + "\"") && Contains(listed));
  }
  const ScopedVariable variable("PAWL_SELECTOR", "devpoll");
  CHECK_THROWS_AS(pawl::make_selector(), std::invalid_argument);
  CHECK_THROWS_WITH(pawl::make_selector(), Contains("\"devpoll\"") && Contains(listed));
}

TEST_CASE("A selector that needs a descriptor says so when there is none") {
  CHECK(error_without_descriptors("epoll") == EMFILE);
  CHECK(error_without_descriptors("poll") == 0);
  CHECK(error_without_descriptors("select") == 0);
  if (is_available("libev")) {
    CHECK(error_without_descriptors("libev:epoll") == EMFILE);
    CHECK(error_without_descriptors("libev:poll") == 0);
    CHECK(error_without_descriptors("libev:select") == 0);
    CHECK(error_without_descriptors("libev") == 0);
  }
}

TEST_CASE("Without a name and without a descriptor to spare, the next best selector is made") {
  const ScopedVariable variable("PAWL_SELECTOR", nullptr);
  std::unique_ptr<pawl::Selector> selector;
  {
    const NoDescriptorLeft none_left;
    selector = pawl::make_selector();
  }
  CHECK(selector->name() == "poll");
}
