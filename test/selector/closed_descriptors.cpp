// SPDX-License-Identifier: MIT
// Numbers that are closed, used again, or outlived by a duplicate.
#include <fcntl.h>
#include <unistd.h>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/descriptor_limit.hpp"
#include "support/forked.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::UniqueFd;
using namespace std::chrono_literals;

namespace {

UniqueFd duplicate(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

}  // namespace

TEST_CASE_METHOD(SelectorContract, "A number that is used again gets only the new file's events") {
  const Interest interest = GENERATE(Interest::read, Interest::read_write);
  const bool with_duplicate = GENERATE(false, true);
  const bool with_a_report_before = GENERATE(false, true);
  CAPTURE(interest, with_duplicate, with_a_report_before);
  SocketPair old;
  SocketPair fresh;
  const int number = old.ours.get();
  write_byte(old.theirs.get());
  fill(fresh.ours.get());
  REQUIRE_FALSE(selector->add(number, interest));
  if (with_a_report_before) CHECK(look().count(number) == 1);
  UniqueFd ghost;
  if (with_duplicate) ghost = duplicate(old.ours);
  REQUIRE_FALSE(selector->remove(number));
  old.ours.reset();
  const UniqueFd reused = renumbered(std::move(fresh.ours), number);
  REQUIRE_FALSE(selector->add(number, interest));
  CHECK(look() == Events{});
  CHECK(waits_quietly());
  write_byte(fresh.theirs.get());
  CHECK(look() == Events{{number, Interest::read}});
  drain(number);
  if (with_duplicate) write_byte(old.theirs.get());
  CHECK(waits_quietly());
  ghost.reset();
  write_byte(fresh.theirs.get());
  CHECK(look() == Events{{number, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract,
                 "A number that names its first file again gets that one's events") {
  const Interest before = GENERATE(Interest::read, Interest::write);
  const Interest interest = GENERATE(Interest::read, Interest::read_write);
  CAPTURE(before, interest);
  Pipe first;  // its reading end is never writable, so that nothing shows who else is watched
  const SocketPair between;
  const UniqueFd kept = duplicate(first.reader);
  const int number = first.reader.get();
  REQUIRE_FALSE(selector->add(number, before));
  REQUIRE_FALSE(selector->remove(number));
  REQUIRE(::dup3(between.ours.get(), number, O_CLOEXEC) == number);
  REQUIRE_FALSE(selector->add(number, interest));
  REQUIRE_FALSE(selector->remove(number));
  REQUIRE(::dup3(kept.get(), number, O_CLOEXEC) == number);
  REQUIRE_FALSE(selector->add(number, interest));
  CHECK(look() == Events{});
  write_byte(first.writer.get());
  CHECK(look() == Events{{number, Interest::read}});
  write_byte(between.theirs.get());
  CHECK(look() == Events{{number, Interest::read}});
  drain(number);
  CHECK(look() == Events{});
}

TEST_CASE_METHOD(SelectorContract, "What was removed is silent, whatever becomes of its number") {
  enum class Becomes { still_open, closed, duplicated, duplicated_and_reused };
  const Becomes becomes = GENERATE(Becomes::still_open, Becomes::closed, Becomes::duplicated,
                                   Becomes::duplicated_and_reused);
  CAPTURE(static_cast<int>(becomes));
  SocketPair old;
  const SocketPair other;
  const int number = old.ours.get();
  write_byte(old.theirs.get());
  REQUIRE_FALSE(selector->add(number, Interest::read_write));
  REQUIRE_FALSE(selector->add(other.ours.get(), Interest::read));
  CHECK(look() == Events{{number, Interest::read_write}});
  REQUIRE_FALSE(selector->remove(number));
  UniqueFd ghost;
  UniqueFd reused;
  if (becomes != Becomes::still_open) {
    if (becomes != Becomes::closed) ghost = duplicate(old.ours);
    old.ours.reset();
    SocketPair fresh;
    if (becomes == Becomes::duplicated_and_reused)
      reused = renumbered(std::move(fresh.ours), number);
  }
  CHECK(waits_quietly());
  write_byte(other.theirs.get());
  CHECK(look() == Events{{other.ours.get(), Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A duplicate that reports doesn't disturb the others") {
  SocketPair old;
  const SocketPair paused;
  const SocketPair idle;
  const SocketPair written;
  const int number = old.ours.get();
  REQUIRE_FALSE(selector->add(number, Interest::read));
  REQUIRE_FALSE(selector->add(paused.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(idle.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(written.ours.get(), Interest::read_write));
  fill(written.ours.get());
  CHECK(look() == Events{});
  REQUIRE_FALSE(selector->modify(paused.ours.get(), Interest::none));
  write_byte(paused.theirs.get());
  const UniqueFd ghost = duplicate(old.ours);
  REQUIRE_FALSE(selector->remove(number));
  old.ours.reset();
  write_byte(old.theirs.get());
  CHECK(waits_quietly());

  write_byte(idle.theirs.get());
  drain(written.theirs.get());
  REQUIRE_FALSE(selector->modify(paused.ours.get(), Interest::read));
  CHECK(look() == Events{{paused.ours.get(), Interest::read},
                         {idle.ours.get(), Interest::read},
                         {written.ours.get(), Interest::write}});
}

TEST_CASE_METHOD(SelectorContract,
                 "A duplicate that reports while no descriptor can be had waits") {
  SocketPair old;
  const SocketPair other;
  const UniqueFd ghost = duplicate(old.ours);
  REQUIRE_FALSE(selector->add(old.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(other.ours.get(), Interest::read));
  write_byte(old.theirs.get());
  look();
  REQUIRE_FALSE(selector->remove(old.ours.get()));
  old.ours.reset();
  {
    const NoDescriptorLeft none_left;
    CHECK(select(1ms) == Events{});
    write_byte(other.theirs.get());
    CHECK(look() == Events{{other.ours.get(), Interest::read}});
    drain(other.ours.get());
  }
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A number gets its own events though a duplicate's couldn't be taken out") {
  if (!is_named("epoll") && !is_named("poll") && !is_named("select")) return;  // libev's own affair
  const Pipe first;
  const SocketPair between;
  const UniqueFd kept = duplicate(first.reader);
  const int number = first.reader.get();
  write_byte(first.writer.get());
  REQUIRE_FALSE(selector->add(number, Interest::read));
  CHECK(look() == Events{{number, Interest::read}});
  REQUIRE_FALSE(selector->remove(number));
  REQUIRE(::dup3(between.ours.get(), number, O_CLOEXEC) == number);
  const NoDescriptorLeft none_left;
  CHECK(look() == Events{});
  REQUIRE_FALSE(selector->add(number, Interest::read));
  REQUIRE_FALSE(selector->remove(number));
  REQUIRE(::dup3(kept.get(), number, O_CLOEXEC) == number);
  REQUIRE_FALSE(selector->add(number, Interest::read));
  CHECK(look() == Events{{number, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract,
                 "A descriptor closed while registered is reported once at most") {
  const Interest interest = GENERATE(Interest::none, Interest::read, Interest::read_write);
  const bool after_a_wait = GENERATE(false, true);
  CAPTURE(interest, after_a_wait);
  SocketPair pair;
  const SocketPair other;
  const int number = pair.ours.get();
  fill(number);
  REQUIRE_FALSE(selector->add(number, interest));
  REQUIRE_FALSE(selector->add(other.ours.get(), Interest::read));
  if (after_a_wait) CHECK(look() == Events{});
  pair.ours.reset();

  std::size_t reports = 0;
  for (int i = 0; i < 3; ++i) reports += look().count(number);
  CHECK(reports <= (interest == Interest::none ? 0 : 1));
  const bool kernel_tells =
      is_named("poll") || is_named("select") || is_named("libev:poll") || is_named("libev:select");
  if (kernel_tells && interest != Interest::none) CHECK(reports == 1);
  CHECK(waits_quietly());

  write_byte(other.theirs.get());
  CHECK(look() == Events{{other.ours.get(), Interest::read}});
  drain(other.ours.get());
  REQUIRE_FALSE(selector->modify(number, Interest::write));
  for (int i = 0; i < 3; ++i) reports += look().count(number);
  CHECK(reports <= 1);
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->remove(number));
  CHECK(selector->size() == 1);
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "A file closed while registered is reported once at most") {
  UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const int number = file.get();
  REQUIRE_FALSE(selector->add(number, Interest::read));
  const bool after_a_wait = GENERATE(false, true);
  CAPTURE(after_a_wait);
  if (after_a_wait) CHECK(look() == Events{{number, Interest::read}});
  file.reset();
  std::size_t reports = 0;
  for (int i = 0; i < 3; ++i) reports += look().count(number);
  CHECK(reports <= 1);
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->remove(number));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "A closed descriptor with a living duplicate can be removed") {
  SocketPair pair;
  const int number = pair.ours.get();
  REQUIRE_FALSE(selector->add(number, Interest::read));
  look();
  const UniqueFd ghost = duplicate(pair.ours);
  write_byte(pair.theirs.get());
  pair.ours.reset();
  for (int i = 0; i < 3; ++i) look();
  REQUIRE_FALSE(selector->remove(number));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "A number used again without a removal can be put right") {
  enum class Between { nothing, event, change };
  const Between between = GENERATE(Between::nothing, Between::event, Between::change);
  CAPTURE(static_cast<int>(between));
  SocketPair old;
  SocketPair fresh;
  const int number = old.ours.get();
  REQUIRE_FALSE(selector->add(number, Interest::read));
  look();
  const bool with_duplicate = GENERATE(false, true);
  UniqueFd ghost;
  if (with_duplicate) ghost = duplicate(old.ours);
  old.ours.reset();
  const UniqueFd reused = renumbered(std::move(fresh.ours), number);
  switch (between) {
    case Between::nothing: CHECK(waits_quietly()); break;
    case Between::event:
      write_byte(fresh.theirs.get());
      look();
      drain(number);
      break;
    case Between::change:
      REQUIRE_FALSE(selector->modify(number, Interest::read_write));
      for (int i = 0; i < 3; ++i) look();
      break;
  }
  CHECK(selector->add(number, Interest::read) == pawl::Errc::already_registered);
  REQUIRE_FALSE(selector->remove(number));
  REQUIRE_FALSE(selector->add(number, Interest::read));
  CHECK(waits_quietly());
  write_byte(fresh.theirs.get());
  CHECK(look() == Events{{number, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "All descriptors of a selector may be closed at once") {
  {
    const std::vector<SocketPair> pairs(20);
    for (const SocketPair& pair : pairs) {
      REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
      REQUIRE_FALSE(selector->add(pair.theirs.get(), Interest::read_write));
    }
    look();
  }
  for (int i = 0; i < 3; ++i) look();
  CHECK(waits_quietly());
  CHECK(selector->size() == 40);
}
