// SPDX-License-Identifier: MIT
// What add, modify, remove, get_key and size say.
#include <cerrno>
#include <climits>

#include "pawl/core/error.hpp"
#include "selector/contract.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"

using pawl::Errc;
using pawl::Interest;

static_assert((Interest::read | Interest::write) == Interest::read_write);
static_assert((Interest::read_write & Interest::write) == Interest::write);
static_assert(~Interest::read == (Interest::write | Interest::priority));
static_assert(~Interest::none == (Interest::read_write | Interest::priority));
static_assert(~~Interest::priority == Interest::priority);
static_assert((Interest::read_write | Interest::priority) != Interest::read_write);
static_assert(has(Interest::read_write, Interest::read));
static_assert(!has(Interest::read, Interest::read_write));
static_assert(has(Interest::read, Interest::none));

namespace {

constexpr int not_open = 1'000'000'000;

}  // namespace

TEST_CASE_METHOD(SelectorContract, "A registration is kept as it was given") {
  const SocketPair pair;
  int data = 0;
  CHECK(selector->get_key(pair.ours.get()) == nullptr);
  CHECK(selector->size() == 0);

  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read, &data));
  const pawl::SelectorKey* key = selector->get_key(pair.ours.get());
  REQUIRE(key != nullptr);
  CHECK(key->fd == pair.ours.get());
  CHECK(key->interest == Interest::read);
  CHECK(key->data == &data);
  CHECK(selector->size() == 1);

  REQUIRE_FALSE(selector->modify(pair.ours.get(), Interest::write));
  key = selector->get_key(pair.ours.get());
  REQUIRE(key != nullptr);
  CHECK(key->interest == Interest::write);
  CHECK(key->data == nullptr);
  CHECK(selector->size() == 1);

  REQUIRE_FALSE(selector->remove(pair.ours.get()));
  CHECK(selector->get_key(pair.ours.get()) == nullptr);
  CHECK(selector->size() == 0);
}

TEST_CASE_METHOD(SelectorContract, "A second add is refused and changes nothing") {
  const SocketPair pair;
  int data = 0;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read, &data));
  CHECK(selector->add(pair.ours.get(), Interest::write) == Errc::already_registered);
  CHECK(selector->get_key(pair.ours.get())->interest == Interest::read);
  CHECK(selector->get_key(pair.ours.get())->data == &data);
  CHECK(selector->size() == 1);
}

TEST_CASE_METHOD(SelectorContract, "An unknown descriptor can be neither modified nor removed") {
  const SocketPair pair;
  for (const int fd : {pair.ours.get(), -1, INT_MIN, not_open, INT_MAX}) {
    CHECK(selector->modify(fd, Interest::read) == Errc::not_registered);
    CHECK(selector->remove(fd) == Errc::not_registered);
    CHECK(selector->get_key(fd) == nullptr);
  }
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->remove(pair.ours.get()));
  CHECK(selector->modify(pair.ours.get(), Interest::read) == Errc::not_registered);
  CHECK(selector->remove(pair.ours.get()) == Errc::not_registered);
}

TEST_CASE_METHOD(SelectorContract, "A descriptor that isn't open is refused as such") {
  SocketPair pair;
  const int closed = pair.ours.get();
  pair.ours.reset();
  const Interest interest = GENERATE(Interest::none, Interest::read, Interest::read_write);
  for (const int fd : {-1, INT_MIN, closed, not_open, INT_MAX}) {
    CHECK(selector->add(fd, interest) == std::errc::bad_file_descriptor);
    CHECK(selector->get_key(fd) == nullptr);
  }
  CHECK(selector->size() == 0);
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A number that was refused while closed can be added once open") {
  SocketPair pair;
  const int number = pair.ours.get();
  pair.ours.reset();
  REQUIRE(selector->add(number, Interest::read) == std::errc::bad_file_descriptor);
  SocketPair later;
  const pawl::UniqueFd reopened = renumbered(std::move(later.ours), number);
  REQUIRE_FALSE(selector->add(number, Interest::read));
  write_byte(later.theirs.get());
  CHECK(look() == Events{{number, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A selector may go while descriptors are registered") {
  const SocketPair pair;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read_write));
  look();
  REQUIRE_FALSE(selector->modify(pair.ours.get(), Interest::read));
  selector.reset();
  write_byte(pair.theirs.get());
  CHECK(drain(pair.ours.get()) == 1);
}

TEST_CASE_METHOD(SelectorContract, "Two selectors can watch one descriptor") {
  const SocketPair pair;
  const auto other = pawl::make_selector(selector->name());
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  REQUIRE_FALSE(other->add(pair.ours.get(), Interest::read));
  write_byte(pair.theirs.get());
  REQUIRE_FALSE(other->remove(pair.ours.get()));
  CHECK(look() == Events{{pair.ours.get(), Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "Changing a registration again and again takes no memory") {
  const SocketPair pair;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->modify(pair.ours.get(), Interest::write));
  const AllocationCounter allocations;
  for (int i = 0; i < 1000; ++i) {
    selector->modify(pair.ours.get(), i % 2 == 0 ? Interest::read_write : Interest::none);
  }
  CHECK(allocations.count() == 0);
}
