// SPDX-License-Identifier: MIT
// What wakes whom.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <vector>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/descriptor_limit.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::System;
using pawl::UniqueFd;

namespace {

UniqueFd opened(const char* path) { return UniqueFd(::open(path, O_RDONLY | O_CLOEXEC)); }

}  // namespace

TEST_CASE_METHOD(SelectorContract, "Reading and writing are reported apart") {
  const SocketPair pair;
  const int fd = pair.ours.get();
  REQUIRE_FALSE(selector->add(fd, Interest::read_write));
  CHECK(look() == Events{{fd, Interest::write}});
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{fd, Interest::read_write}});
  fill(fd);
  CHECK(look() == Events{{fd, Interest::read}});
  drain(fd);
  CHECK(look() == Events{});
  drain(pair.theirs.get());
  CHECK(look() == Events{{fd, Interest::write}});
}

TEST_CASE_METHOD(SelectorContract, "Only what was asked for is reported") {
  const SocketPair pair;
  const int fd = pair.ours.get();
  write_byte(pair.theirs.get());
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  CHECK(look() == Events{{fd, Interest::read}});
  REQUIRE_FALSE(selector->modify(fd, Interest::write));
  CHECK(look() == Events{{fd, Interest::write}});
  REQUIRE_FALSE(selector->modify(fd, Interest::read_write));
  CHECK(look() == Events{{fd, Interest::read_write}});
}

TEST_CASE_METHOD(SelectorContract, "What is ready is reported again until it is dealt with") {
  const SocketPair pair;
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  write_byte(pair.theirs.get());
  write_byte(pair.theirs.get());
  for (int i = 0; i < 5; ++i) CHECK(look() == Events{{pair.ours.get(), Interest::read}});
  char byte = 0;
  System::real().read(pair.ours.get(), &byte, 1);
  CHECK(look() == Events{{pair.ours.get(), Interest::read}});
  System::real().read(pair.ours.get(), &byte, 1);
  CHECK(look() == Events{});
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "The last of several changes between two waits counts") {
  const SocketPair pair;
  const int fd = pair.ours.get();
  int data = 0;
  write_byte(pair.theirs.get());
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  for (int i = 0; i < 100; ++i) {
    REQUIRE_FALSE(selector->modify(fd, Interest::write));
    REQUIRE_FALSE(selector->modify(fd, Interest::none));
    REQUIRE_FALSE(selector->modify(fd, Interest::read, &data));
  }
  CHECK(look() == Events{{fd, Interest::read}});
  for (int i = 0; i < 100; ++i) {
    REQUIRE_FALSE(selector->remove(fd));
    REQUIRE_FALSE(selector->add(fd, Interest::write));
    REQUIRE_FALSE(selector->modify(fd, Interest::read_write));
  }
  CHECK(look() == Events{{fd, Interest::read_write}});
  REQUIRE_FALSE(selector->modify(fd, Interest::read));
  REQUIRE_FALSE(selector->remove(fd));
  CHECK(look() == Events{});
}

TEST_CASE_METHOD(SelectorContract, "A descriptor that is removed and added again goes on") {
  const SocketPair pair;
  const int fd = pair.ours.get();
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{fd, Interest::read}});
  REQUIRE_FALSE(selector->remove(fd));
  const bool with_a_wait_between = GENERATE(false, true);
  if (with_a_wait_between) CHECK(waits_quietly());
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  CHECK(look() == Events{{fd, Interest::read}});
}

TEST_CASE_METHOD(SelectorContract, "A peer that has gone wakes readers and writers") {
  SocketPair reading;
  SocketPair writing;
  SocketPair both;
  REQUIRE_FALSE(selector->add(reading.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(writing.ours.get(), Interest::write));
  REQUIRE_FALSE(selector->add(both.ours.get(), Interest::read_write));
  fill(writing.ours.get());
  fill(both.ours.get());
  CHECK(look() == Events{});
  for (SocketPair* pair : {&reading, &writing, &both}) pair->theirs.reset();
  CHECK(look() == Events{{reading.ours.get(), Interest::read},
                         {writing.ours.get(), Interest::write},
                         {both.ours.get(), Interest::read_write}});
}

TEST_CASE_METHOD(SelectorContract, "A pipe's reader is woken when its writer goes, by that alone") {
  Pipe pipe;
  REQUIRE_FALSE(selector->add(pipe.reader.get(), Interest::read));
  CHECK(look() == Events{});
  pipe.writer.reset();
  CHECK(select(std::nullopt) == Events{{pipe.reader.get(), Interest::read}});
  pollfd entry{pipe.reader.get(), POLLIN, 0};
  ::poll(&entry, 1, 0);
  CHECK(entry.revents == POLLHUP);
}

TEST_CASE_METHOD(SelectorContract, "A pipe's full writer is woken when its reader goes") {
  Pipe pipe;
  fill(pipe.writer.get());
  REQUIRE_FALSE(selector->add(pipe.writer.get(), Interest::write));
  CHECK(look() == Events{});
  pipe.reader.reset();
  CHECK(select(std::nullopt) == Events{{pipe.writer.get(), Interest::write}});
}

TEST_CASE_METHOD(SelectorContract, "An error without data wakes readers and writers") {
  const Interest interest = GENERATE(Interest::read, Interest::write, Interest::read_write);
  const UniqueFd socket = refused_udp_socket();
  pollfd entry{socket.get(), POLLIN, 0};
  REQUIRE(::poll(&entry, 1, 1000) == 1);
  REQUIRE(entry.revents == POLLERR);
  REQUIRE_FALSE(selector->add(socket.get(), interest));
  CHECK(select(std::nullopt) == Events{{socket.get(), interest}});
  char byte = 0;
  CHECK(System::real().recv(socket.get(), &byte, 1).error == ECONNREFUSED);
  CHECK(look().count(socket.get()) == (interest == Interest::read ? 0 : 1));
}

TEST_CASE_METHOD(SelectorContract, "A refused connection wakes its writer") {
  UniqueFd listener = bound_socket(SOCK_STREAM);
  const sockaddr_in address = address_of(listener.get());
  listener.reset();
  const UniqueFd client(System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
  System::real().connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  REQUIRE_FALSE(selector->add(client.get(), Interest::write));
  CHECK(select(std::nullopt) == Events{{client.get(), Interest::write}});
  int error = 0;
  unsigned bytes = sizeof error;
  System::real().getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  CHECK(error == ECONNREFUSED);
}

TEST_CASE_METHOD(SelectorContract, "A listener is ready for reading when somebody connects") {
  const UniqueFd listener = bound_socket(SOCK_STREAM);
  REQUIRE_FALSE(selector->add(listener.get(), Interest::read));
  CHECK(look() == Events{});
  const sockaddr_in address = address_of(listener.get());
  const UniqueFd client(System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
  System::real().connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  CHECK(select(std::nullopt) == Events{{listener.get(), Interest::read}});
}

TEST_CASE_METHOD(SelectorContract,
                 "Files, folders and /dev/null are always ready, sockets aren't") {
  const SocketPair idle;
  const UniqueFd file = opened("/proc/self/exe");
  const UniqueFd directory = opened("/");
  const UniqueFd null = opened("/dev/null");
  const std::vector<int> fds{file.get(), directory.get(), null.get()};
  const Interest interest = GENERATE(Interest::read, Interest::write, Interest::read_write);
  const bool paused_first = GENERATE(false, true);
  Events all;
  REQUIRE_FALSE(selector->add(idle.ours.get(), Interest::read));
  for (const int fd : fds) {
    REQUIRE(fd >= 0);
    REQUIRE_FALSE(selector->add(fd, paused_first ? Interest::none : interest));
    if (paused_first) CHECK(look() == Events{});
    if (paused_first) continue;
    all[fd] = interest;
  }
  if (paused_first) {
    for (const int fd : fds) {
      REQUIRE_FALSE(selector->modify(fd, interest));
      all[fd] = interest;
    }
  }
  CHECK(look() == all);
  CHECK(select(std::nullopt) == all);
  write_byte(idle.theirs.get());
  Events with_socket = all;
  with_socket[idle.ours.get()] = Interest::read;
  CHECK(look() == with_socket);
  drain(idle.ours.get());

  REQUIRE_FALSE(selector->modify(fds[0], Interest::none));
  all.erase(fds[0]);
  CHECK(look() == all);
  REQUIRE_FALSE(selector->remove(fds[1]));
  all.erase(fds[1]);
  CHECK(look() == all);
  REQUIRE_FALSE(selector->modify(fds[2], Interest::none));
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->modify(fds[0], Interest::write));
  CHECK(look() == Events{{fds[0], Interest::write}});
}

TEST_CASE_METHOD(SelectorContract, "Descriptors beyond 1023 work like any other") {
  const DescriptorLimit limit;
  const int number = GENERATE(1023, 1024, 1500, 15'000);
  if (!limit.allows(number)) {
    WARN("the descriptor limit here is below " << number);
    return;
  }
  SocketPair pair;
  const SocketPair low;
  const UniqueFd high = renumbered(std::move(pair.ours), number);
  REQUIRE_FALSE(selector->add(high.get(), Interest::read));
  REQUIRE_FALSE(selector->add(low.ours.get(), Interest::read_write));
  CHECK(look() == Events{{low.ours.get(), Interest::write}});
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{low.ours.get(), Interest::write}, {number, Interest::read}});
  REQUIRE_FALSE(selector->remove(low.ours.get()));
  REQUIRE_FALSE(selector->modify(number, Interest::read_write));
  CHECK(look() == Events{{number, Interest::read_write}});
  REQUIRE_FALSE(selector->remove(number));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "Two numbers of one file are two registrations") {
  const SocketPair pair;
  const UniqueFd twin(::fcntl(pair.ours.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  REQUIRE_FALSE(selector->add(twin.get(), Interest::write));
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{pair.ours.get(), Interest::read}, {twin.get(), Interest::write}});
  REQUIRE_FALSE(selector->remove(pair.ours.get()));
  CHECK(look() == Events{{twin.get(), Interest::write}});
}

namespace {

/// 1,000 pairs, if the limit here allows.
std::vector<SocketPair> many_pairs(const DescriptorLimit& limit) {
  if (limit.allows(2'200)) return std::vector<SocketPair>(1000);
  WARN("the descriptor limit here is below 2,200");
  return {};
}

}  // namespace

TEST_CASE_METHOD(SelectorContract, "Of 2,000 descriptors exactly the half that stays is reported") {
  const DescriptorLimit limit;
  const std::vector<SocketPair> pairs = many_pairs(limit);
  Events expected;
  int failures = 0;
  for (const SocketPair& pair : pairs) {
    if (selector->add(pair.ours.get(), Interest::read_write)) ++failures;
    if (selector->add(pair.theirs.get(), Interest::read_write)) ++failures;
    expected[pair.ours.get()] = Interest::write;
  }
  const bool after_a_look = GENERATE(false, true);
  std::vector<pawl::Ready> ready;
  if (after_a_look) selector->select(pawl::Duration::zero(), ready);
  for (const SocketPair& pair : pairs) {
    if (selector->remove(pair.theirs.get())) ++failures;
  }
  CHECK(failures == 0);
  CHECK(selector->size() == pairs.size());
  // One look may bring a part; nobody may be left out for long, and nobody removed may come.
  Events seen;
  for (int i = 0; i < 4; ++i) {
    REQUIRE_FALSE(selector->select(pawl::Duration::zero(), ready));
    for (const pawl::Ready& one : ready) seen[one.key.fd] |= one.events;
  }
  CHECK((seen == expected));
}

TEST_CASE_METHOD(SelectorContract, "One look finds the one that is left among many removed") {
  const DescriptorLimit limit;
  const std::vector<SocketPair> pairs = many_pairs(limit);
  if (pairs.empty()) return;
  for (const SocketPair& pair : pairs) {
    selector->add(pair.ours.get(), Interest::write);
    selector->add(pair.theirs.get(), Interest::write);
  }
  std::vector<pawl::Ready> ready;
  selector->select(pawl::Duration::zero(), ready);
  const int last = pairs.back().theirs.get();
  for (const SocketPair& pair : pairs) {
    selector->remove(pair.ours.get());
    if (pair.theirs.get() != last) selector->remove(pair.theirs.get());
  }
  Events events = look();
  // libev fetches 64 to begin with, and doubles that each time it wasn't enough.
  if (selector->name().substr(0, 5) == "libev") {
    for (int i = 0; i < 5 && events.empty(); ++i) events = look();
  }
  CHECK(events == Events{{last, Interest::write}});
}
