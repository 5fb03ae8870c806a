// SPDX-License-Identifier: MIT
#include "pawl/core/unique_fd.hpp"

#include <fcntl.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <type_traits>

using pawl::UniqueFd;

namespace {

int new_fd() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

}  // namespace

static_assert(!std::is_copy_constructible_v<UniqueFd> && !std::is_copy_assignable_v<UniqueFd>);
static_assert(!std::is_convertible_v<int, UniqueFd>, "taking over is said aloud");
static_assert(sizeof(UniqueFd) == sizeof(int));

TEST_CASE("A UniqueFd closes its descriptor at the end of its scope") {
  const int number = new_fd();
  {
    const UniqueFd fd(number);
    CHECK(fd);
    CHECK(fd.get() == number);
    CHECK(is_open(number));
  }
  CHECK_FALSE(is_open(number));
}

TEST_CASE("A UniqueFd of a negative number has nothing") {
  CHECK(UniqueFd().get() == -1);
  CHECK(UniqueFd(-5).get() == -1);
  CHECK_FALSE(UniqueFd(-5));
  UniqueFd fd(new_fd());
  fd.reset(-7);
  CHECK(fd.get() == -1);
}

TEST_CASE("A moved UniqueFd takes the descriptor along and closes what the target had") {
  UniqueFd first(new_fd());
  UniqueFd second(new_fd());
  const int first_number = first.get();
  const int second_number = second.get();
  second = std::move(first);
  CHECK_FALSE(first);
  CHECK(second.get() == first_number);
  CHECK(is_open(first_number));
  CHECK_FALSE(is_open(second_number));
  const UniqueFd third(std::move(second));
  CHECK_FALSE(second);
  CHECK(third.get() == first_number);
}

TEST_CASE("A UniqueFd that is moved or reset to itself stays open") {
  UniqueFd fd(new_fd());
  UniqueFd& same = fd;
  fd = std::move(same);
  CHECK(is_open(fd.get()));
  fd.reset(fd.get());
  CHECK(is_open(fd.get()));
}

TEST_CASE("A released descriptor stays open") {
  UniqueFd fd(new_fd());
  const int number = fd.release();
  CHECK_FALSE(fd);
  CHECK(is_open(number));
  const UniqueFd closer(number);
}

TEST_CASE("Closing leaves errno alone") {
  UniqueFd open(new_fd());
  errno = ENOTTY;
  open.reset();
  CHECK(errno == ENOTTY);
  UniqueFd fails_to_close(1'000'000'000);  // EBADF
  errno = ENOTTY;
  fails_to_close.reset();
  CHECK(errno == ENOTTY);
}
