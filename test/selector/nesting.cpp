// SPDX-License-Identifier: MIT
// A selector inside another loop, by its descriptor.
#include <fcntl.h>
#include <poll.h>

#include "selector/contract.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::UniqueFd;

namespace {

bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE_METHOD(SelectorContract, "A selector's descriptor is readable while something is ready") {
  if (selector->fileno() < 0) return;
  const SocketPair pair;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  CHECK_FALSE(is_readable(selector->fileno()));
  write_byte(pair.theirs.get());
  CHECK(is_readable(selector->fileno()));
  CHECK(look() == Events{{pair.ours.get(), Interest::read}});
  CHECK(is_readable(selector->fileno()));
  drain(pair.ours.get());
  CHECK_FALSE(is_readable(selector->fileno()));
}

TEST_CASE_METHOD(SelectorContract, "A selector's descriptor can be watched by any other selector") {
  if (selector->fileno() < 0) return;
  for (const std::string_view name : pawl::available_selectors()) {
    CAPTURE(name);
    const SocketPair pair;
    const auto outer = pawl::make_selector(name);
    std::vector<pawl::Ready> ready;
    REQUIRE_FALSE(outer->add(selector->fileno(), Interest::read));
    REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
    REQUIRE_FALSE(outer->select(pawl::Duration::zero(), ready));
    CHECK(ready.empty());
    write_byte(pair.theirs.get());
    REQUIRE_FALSE(outer->select(std::nullopt, ready));
    CHECK(ready.size() == 1);
    CHECK(look() == Events{{pair.ours.get(), Interest::read}});
    REQUIRE_FALSE(outer->remove(selector->fileno()));
    REQUIRE_FALSE(selector->remove(pair.ours.get()));
  }
}

TEST_CASE_METHOD(SelectorContract,
                 "A selector's descriptor stays good after a duplicate reported") {
  if (selector->fileno() < 0) return;
  const auto outer = pawl::make_selector(GENERATE("epoll", "poll"));
  std::vector<pawl::Ready> ready;
  REQUIRE_FALSE(outer->add(selector->fileno(), Interest::read));
  SocketPair old;
  const SocketPair other;
  REQUIRE_FALSE(selector->add(old.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(other.ours.get(), Interest::read));
  const UniqueFd ghost(::fcntl(old.ours.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE_FALSE(selector->remove(old.ours.get()));
  old.ours.reset();
  write_byte(old.theirs.get());
  for (int i = 0; i < 2; ++i) CHECK(look() == Events{});
  REQUIRE_FALSE(outer->select(pawl::Duration::zero(), ready));
  CHECK(ready.empty());
  write_byte(other.theirs.get());
  REQUIRE_FALSE(outer->select(pawl::Duration::zero(), ready));
  CHECK(ready.size() == 1);
}

TEST_CASE_METHOD(SelectorContract,
                 "flush() tells the kernel what changed, and of files the caller") {
  if (selector->fileno() < 0) return;
  const SocketPair pair;
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  write_byte(pair.theirs.get());
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::none));
  REQUIRE_FALSE(selector->modify(pair.ours.get(), Interest::read));
  CHECK_FALSE(is_readable(selector->fileno()));
  CHECK_FALSE(selector->flush());
  CHECK(is_readable(selector->fileno()));
  drain(pair.ours.get());
  REQUIRE_FALSE(selector->add(file.get(), Interest::read));
  CHECK(selector->flush());
  REQUIRE_FALSE(selector->modify(file.get(), Interest::none));
  CHECK_FALSE(selector->flush());
  CHECK_FALSE(is_readable(selector->fileno()));
}

TEST_CASE_METHOD(SelectorContract,
                 "What flush() finds closed is told by the next wait, not before") {
  if (selector->fileno() < 0) return;
  const bool after_a_wait = GENERATE(false, true);
  CAPTURE(after_a_wait);
  SocketPair pair;
  const int number = pair.ours.get();
  REQUIRE_FALSE(selector->add(number, Interest::read));
  std::vector<pawl::Ready> ready;
  if (after_a_wait) REQUIRE_FALSE(selector->select(pawl::Duration::zero(), ready));
  pair.ours.reset();
  REQUIRE_FALSE(selector->modify(number, Interest::write));
  CHECK(selector->flush());
  const AllocationCounter allocations;
  for (int i = 0; i < 1000; ++i) {
    selector->modify(number, i % 2 == 0 ? Interest::read_write : Interest::write);
    selector->flush();
  }
  CHECK(allocations.count() == 0);
  CHECK(ready.empty());
  CHECK(look() == Events{{number, Interest::write}});
  CHECK_FALSE(selector->flush());
  CHECK(look() == Events{});
}
