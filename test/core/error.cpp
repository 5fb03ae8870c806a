// SPDX-License-Identifier: MIT
#include "pawl/core/error.hpp"

#include <catch2/catch.hpp>
#include <cerrno>
#include <set>
#include <string>

using pawl::Errc;

namespace {

constexpr int first = static_cast<int>(Errc::already_registered);
const std::string unknown = "unknown pawl error";

std::error_code code(int value) { return {value, pawl::error_category()}; }

/// The compiler sees to it that each has a phrase, so the last is the one before the first without.
const int last = [] {
  int value = first;
  while (code(value + 1).message() != unknown) ++value;
  return value;
}();

}  // namespace

TEST_CASE("Each Errc has its own phrase") {
  std::set<std::string> phrases;
  for (int value = first; value <= last; ++value) {
    const std::string phrase = code(value).message();
    CAPTURE(value, phrase);
    CHECK_FALSE(phrase.empty());
    CHECK(phrase != unknown);
    CHECK(phrases.insert(phrase).second);
  }
  CHECK(phrases.size() >= 17);
  CHECK(code(0).message() == unknown);
  CHECK(code(-1).message() == unknown);
}

TEST_CASE("An Errc is an std::error_code of the category pawl, and none of them is success") {
  const std::error_code error = Errc::timed_out;
  CHECK(error.category() == pawl::error_category());
  CHECK(std::string(error.category().name()) == "pawl");
  CHECK(error == Errc::timed_out);
  CHECK(error != Errc::aborted);
  for (int value = first; value <= last; ++value) CHECK(static_cast<bool>(code(value)));
}

TEST_CASE("An Errc equals the std::errc that means the same") {
  CHECK(make_error_code(Errc::already_registered) == std::errc::file_exists);
  CHECK(make_error_code(Errc::not_registered) == std::errc::no_such_file_or_directory);
  CHECK(make_error_code(Errc::timed_out) == std::errc::timed_out);
  CHECK(make_error_code(Errc::write_limit) == std::errc::no_buffer_space);
  CHECK(make_error_code(Errc::aborted) == std::errc::connection_aborted);
  CHECK(make_error_code(Errc::bad_name) == std::errc::invalid_argument);
  CHECK(make_error_code(Errc::resolve_failed) == std::errc::resource_unavailable_try_again);
  CHECK(make_error_code(Errc::message_too_long) == std::errc::message_size);
  CHECK(make_error_code(Errc::wrong_thread) == std::errc::operation_not_permitted);
}

TEST_CASE("An Errc without a std::errc of its own equals none") {
  for (const Errc value :
       {Errc::used_after_fork, Errc::loop_closed, Errc::unsent_data, Errc::host_not_found,
        Errc::self_connect, Errc::server_closed, Errc::file_ended, Errc::no_address,
        Errc::bad_answer, Errc::unexpected_end}) {
    const std::error_condition condition = make_error_code(value).default_error_condition();
    CHECK(condition.category() == pawl::error_category());
    CHECK(condition.value() == static_cast<int>(value));
  }
}

TEST_CASE("An errno becomes an std::error_code that equals its std::errc, and 0 is success") {
  CHECK(pawl::system_error_code(EBADF) == std::errc::bad_file_descriptor);
  CHECK(pawl::system_error_code(ECONNREFUSED) == std::errc::connection_refused);
  CHECK_FALSE(pawl::system_error_code(0));
}
