// SPDX-License-Identifier: MIT
// Interest::priority, by a byte of urgent data on a TCP connection.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::System;
using pawl::UniqueFd;

namespace {

constexpr Interest read_and_priority = Interest::read | Interest::priority;
constexpr Interest everything = Interest::read_write | Interest::priority;

struct TcpPair {
  TcpPair() {
    const UniqueFd listener = bound_socket(SOCK_STREAM);
    const sockaddr_in address = address_of(listener.get());
    ours.reset(System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
    ::connect(ours.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    pollfd entry{listener.get(), POLLIN, 0};
    ::poll(&entry, 1, -1);
    theirs.reset(System::real().accept(listener.get(), nullptr, nullptr).fd());
  }

  void send_urgent() const { REQUIRE(::send(theirs.get(), "u", 1, MSG_OOB) == 1); }
  void take_urgent() const {
    char byte = 0;
    REQUIRE(::recv(ours.get(), &byte, 1, MSG_OOB) == 1);
    CHECK(byte == 'u');
  }
  void reset() {
    const linger at_once{1, 0};
    ::setsockopt(theirs.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    theirs.reset();
  }

  UniqueFd ours;
  UniqueFd theirs;
};

}  // namespace

TEST_CASE_METHOD(SelectorContract, "Urgent data wakes who waits for priority, until it is taken") {
  const auto interest = GENERATE(Interest::priority, read_and_priority,
                                 Interest::write | Interest::priority, everything);
  const bool from_the_start = GENERATE(true, false);
  CAPTURE(interest, from_the_start);
  TcpPair pair;
  const int fd = pair.ours.get();
  if (selector->add(fd, from_the_start ? interest : Interest::none)) return;  // libev's can't
  if (!from_the_start && selector->modify(fd, interest)) return;
  const Interest before = interest & Interest::write;
  CHECK(look() == (before == Interest::none ? Events{} : Events{{fd, before}}));
  pair.send_urgent();
  for (int i = 0; i < 3; ++i) CHECK(has(select(std::nullopt).at(fd), Interest::priority));
  pair.take_urgent();
  const Events after = look();
  CHECK((after.count(fd) == 0 || !has(after.at(fd), Interest::priority)));
  REQUIRE_FALSE(selector->modify(fd, Interest::none));
  pair.send_urgent();
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "Ordinary data doesn't wake who waits for priority alone, an end does") {
  TcpPair pair;
  const int fd = pair.ours.get();
  if (selector->add(fd, Interest::priority)) return;
  write_byte(pair.theirs.get());
  CHECK(waits_quietly());
  pair.reset();
  for (int i = 0; i < 3; ++i) CHECK(select(std::nullopt) == Events{{fd, Interest::priority}});
  REQUIRE_FALSE(selector->modify(fd, read_and_priority));
  CHECK(has(look().at(fd), Interest::read));
}

TEST_CASE_METHOD(SelectorContract,
                 "A selector that can't wait for priority says so and changes nothing") {
  const bool can = is_named("epoll") || is_named("poll") || is_named("select");
  const SocketPair pair;
  const int fd = pair.ours.get();
  const std::error_code expected =
      can ? std::error_code() : std::make_error_code(std::errc::operation_not_supported);
  for (const Interest interest : {Interest::priority, read_and_priority, everything}) {
    CHECK(selector->add(fd, interest) == expected);
    CHECK(selector->size() == (can ? 1 : 0));
    selector->remove(fd);
  }
  REQUIRE_FALSE(selector->add(fd, Interest::read));
  CHECK(selector->modify(fd, read_and_priority) == expected);
  CHECK(selector->get_key(fd)->interest == (can ? read_and_priority : Interest::read));
  write_byte(pair.theirs.get());
  CHECK(look() == Events{{fd, Interest::read}});
  CHECK(selector->add(pair.theirs.get(), static_cast<Interest>(0x80)) ==
        std::errc::operation_not_supported);
}

TEST_CASE_METHOD(SelectorContract, "A file that never has urgent news wakes nobody by priority") {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (selector->add(file.get(), Interest::priority)) return;
  CHECK(waits_quietly());
}
