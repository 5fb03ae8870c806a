// SPDX-License-Identifier: MIT
// A selector on both sides of a fork.
#include "support/forked.hpp"

#include <poll.h>

#include "pawl/core/error.hpp"
#include "selector/contract.hpp"
#include "support/sockets.hpp"

using pawl::Errc;
using pawl::Interest;
using pawl::Selector;
using namespace std::chrono_literals;

namespace {

/// How many of the child's calls didn't say that the selector is its parent's.
int count_unrefused(Selector& selector, int fd, int other) {
  const std::error_code expected = Errc::used_after_fork;
  std::vector<pawl::Ready> ready(1);
  int wrong = 0;
  if (selector.add(other, Interest::read) != expected) ++wrong;
  if (selector.add(-1, Interest::read) != expected) ++wrong;
  if (selector.modify(fd, Interest::none) != expected) ++wrong;
  if (selector.modify(other, Interest::none) != expected) ++wrong;
  if (selector.remove(fd) != expected) ++wrong;
  if (selector.remove(other) != expected) ++wrong;
  if (selector.select(1h, ready) != expected || !ready.empty()) ++wrong;
  if (selector.select(std::nullopt, ready) != expected) ++wrong;
  return wrong;
}

}  // namespace

TEST_CASE_METHOD(SelectorContract, "A forked child is refused, and its parent's set is untouched") {
  const SocketPair pair;
  const SocketPair other;
  const int fd = pair.ours.get();
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  CHECK(look() == Events{});
  REQUIRE_FALSE(selector->modify(fd, Interest::read_write));  // not told to the kernel yet
  REQUIRE_FALSE(selector->modify(fd, Interest::read));
  const int wrong = exit_code_of_fork([&] {
    const int count = count_unrefused(*selector, fd, other.ours.get());
    selector.reset();
    return count;
  });
  CHECK(wrong == 0);
  CHECK(selector->size() == 1);
  CHECK(waits_quietly());
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{fd, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A forked child can make a selector of its own") {
  const SocketPair pair;
  write_byte(pair.theirs.get());
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  const int code = exit_code_of_fork([&] {
    const auto own = pawl::make_selector(selector->name());
    std::vector<pawl::Ready> ready;
    if (own->add(pair.ours.get(), Interest::read)) return 1;
    if (own->select(std::nullopt, ready) || ready.size() != 1) return 2;
    return own->remove(pair.ours.get()) ? 3 : 0;
  });
  CHECK(code == 0);
  CHECK(look() == Events{{pair.ours.get(), Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A grandchild is refused too") {
  const int code = exit_code_of_fork([&] {
    return exit_code_of_fork([&] { return selector->remove(0) == Errc::used_after_fork ? 0 : 1; });
  });
  CHECK(code == 0);
}
