// SPDX-License-Identifier: MIT
// An error or a hang-up reaches whoever is registered, whatever it waits for.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/descriptor_limit.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::System;
using pawl::UniqueFd;
using namespace std::chrono_literals;

namespace {

/// Something that is watched, and whose other end can go.
struct Line {
  enum class Kind { unix_closed, tcp_reset, tcp_ended, pipe_reader, pipe_writer };

  explicit Line(Kind its_kind) : kind(its_kind) {
    switch (kind) {
      case Kind::unix_closed: take(SocketPair()); break;
      case Kind::tcp_reset:
      case Kind::tcp_ended: connect(); break;
      case Kind::pipe_reader: take(Pipe(), true); break;
      case Kind::pipe_writer: take(Pipe(), false); break;
    }
  }

  /// Bytes that wait to be read, where there may be some.
  void write() const {
    if (kind != Kind::pipe_writer) write_byte(theirs.get());
  }

  void hang_up() {
    const linger at_once{1, 0};
    if (kind == Kind::tcp_reset) {
      ::setsockopt(theirs.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    if (kind == Kind::tcp_ended) ::shutdown(ours.get(), SHUT_WR);
    theirs.reset();
  }

  Kind kind;
  UniqueFd ours;
  UniqueFd theirs;

 private:
  void take(SocketPair pair) {
    ours = std::move(pair.ours);
    theirs = std::move(pair.theirs);
  }
  void take(Pipe pipe, bool reads) {
    ours = std::move(reads ? pipe.reader : pipe.writer);
    theirs = std::move(reads ? pipe.writer : pipe.reader);
  }
  void connect() {
    const UniqueFd listener = bound_socket(SOCK_STREAM);
    const sockaddr_in address = address_of(listener.get());
    ours.reset(System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
    ::connect(ours.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    pollfd entry{listener.get(), POLLIN, 0};
    ::poll(&entry, 1, -1);
    theirs.reset(System::real().accept(listener.get(), nullptr, nullptr).fd());
  }
};

auto any_kind() {
  return GENERATE(Line::Kind::unix_closed, Line::Kind::tcp_reset, Line::Kind::tcp_ended,
                  Line::Kind::pipe_reader, Line::Kind::pipe_writer);
}

/// True exactly where select(2) wakes a reader alone and not the writer beside it.
bool hides_from_writer(std::string_view name, Line::Kind kind) {
  return kind == Line::Kind::pipe_reader && (name == "select" || name == "libev:select");
}

UniqueFd duplicate(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

}  // namespace

TEST_CASE_METHOD(SelectorContract, "Who waits for nothing is told of a hang-up, once") {
  Line line(any_kind());
  const int fd = line.ours.get();
  const auto before =
      GENERATE(Interest::none, Interest::read, Interest::write, Interest::read_write);
  const bool with_a_wait_between = GENERATE(false, true);
  const bool has_unread = GENERATE(false, true);
  CAPTURE(line.kind, before, with_a_wait_between, has_unread);
  int data = 0;
  REQUIRE_FALSE(selector->add(fd, before));
  if (with_a_wait_between) look();
  REQUIRE_FALSE(selector->modify(fd, Interest::none, &data));
  if (with_a_wait_between) CHECK(look() == Events{});
  if (has_unread) line.write();
  CHECK(waits_quietly());

  line.hang_up();
  CHECK(select(std::nullopt) == Events{{fd, Interest::none}});
  CHECK(waits_quietly());
  CHECK(selector->get_key(fd)->data == &data);
}

TEST_CASE_METHOD(SelectorContract,
                 "A hang-up that came before is told to who is added or changed") {
  Line line(any_kind());
  const int fd = line.ours.get();
  line.hang_up();
  CAPTURE(line.kind);
  REQUIRE_FALSE(selector->add(fd, Interest::none));
  CHECK(select(std::nullopt) == Events{{fd, Interest::none}});
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->modify(fd, Interest::none));
  CHECK(select(std::nullopt) == Events{{fd, Interest::none}});
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->modify(fd, Interest::read));
  REQUIRE_FALSE(selector->modify(fd, Interest::none));
  CHECK(select(std::nullopt) == Events{{fd, Interest::none}});
  CHECK(waits_quietly());

  for (const Interest interest : {Interest::read, Interest::write, Interest::read_write}) {
    REQUIRE_FALSE(selector->modify(fd, interest));
    for (int i = 0; i < 3; ++i) {
      const Interest found = select(std::nullopt).at(fd);
      CHECK(found ==
            (hides_from_writer(selector->name(), line.kind) ? interest & found : interest));
    }
    REQUIRE_FALSE(selector->modify(fd, Interest::none));
    CHECK(look() == Events{{fd, Interest::none}});
    CHECK(look() == Events{});
  }
  REQUIRE_FALSE(selector->remove(fd));
  CHECK(waits_quietly());
  REQUIRE_FALSE(selector->add(fd, Interest::none));
  CHECK(look() == Events{{fd, Interest::none}});
}

TEST_CASE_METHOD(SelectorContract,
                 "An error of a datagram socket is told to who waits for nothing") {
  const UniqueFd refused = refused_udp_socket();
  REQUIRE_FALSE(selector->add(refused.get(), Interest::none));
  CHECK(select(std::nullopt) == Events{{refused.get(), Interest::none}});
  CHECK(waits_quietly());
  char byte = 0;
  CHECK(System::real().recv(refused.get(), &byte, 1).error == ECONNREFUSED);
  REQUIRE_FALSE(selector->modify(refused.get(), Interest::none));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "Who waits only to write hears of a hang-up again and again") {
  Line line(any_kind());
  const int fd = line.ours.get();
  if (line.kind != Line::Kind::pipe_reader) fill(fd);
  CAPTURE(line.kind);
  REQUIRE_FALSE(selector->add(fd, Interest::write));
  CHECK(look() == Events{});
  line.write();
  CHECK(waits_quietly());
  line.hang_up();
  for (int i = 0; i < 3; ++i) CHECK(select(std::nullopt) == Events{{fd, Interest::write}});
  REQUIRE_FALSE(selector->remove(fd));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "Many that wait for nothing are told, and others meanwhile") {
  std::vector<Line> lines;
  for (int i = 0; i < 600; ++i) lines.emplace_back(Line::Kind::unix_closed);
  const SocketPair live;
  Events all;
  for (const Line& line : lines) {
    REQUIRE_FALSE(selector->add(line.ours.get(), Interest::none));
    all[line.ours.get()] = Interest::none;
  }
  REQUIRE_FALSE(selector->add(live.ours.get(), Interest::read));
  for (Line& line : lines) line.hang_up();
  write_byte(live.theirs.get());
  Events found;
  std::size_t live_count = 0;
  for (int i = 0; i < 10 && found.size() < all.size(); ++i) {
    Events some = look();
    live_count += some.erase(live.ours.get());
    found.merge(some);
    CHECK(some.empty());  // none came twice
  }
  CHECK(found == all);
  CHECK(live_count > 0);
  drain(live.ours.get());
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract, "A hang-up of what was removed isn't told, duplicated or not") {
  Line line(any_kind());
  const Line other(Line::Kind::unix_closed);
  const int fd = line.ours.get();
  const bool is_told_before = GENERATE(false, true);
  enum class Becomes { still_open, duplicated, reused };
  const Becomes becomes = GENERATE(Becomes::still_open, Becomes::duplicated, Becomes::reused);
  CAPTURE(line.kind, is_told_before, static_cast<int>(becomes));
  REQUIRE_FALSE(selector->add(fd, Interest::none));
  CHECK(look() == Events{});
  if (is_told_before) line.hang_up();
  CHECK(look().size() == (is_told_before ? 1 : 0));
  REQUIRE_FALSE(selector->remove(fd));
  UniqueFd ghost;
  UniqueFd reused;
  SocketPair fresh;
  if (becomes != Becomes::still_open) {
    ghost = duplicate(line.ours);
    line.ours.reset();
  }
  if (becomes == Becomes::reused) {
    reused = renumbered(std::move(fresh.ours), fd);
    REQUIRE_FALSE(selector->add(fd, Interest::none));
  }
  if (!is_told_before) line.hang_up();
  CHECK(waits_quietly());
  fresh.theirs.reset();
  const bool is_new_one_hung_up = becomes == Becomes::reused;
  CHECK(look() == (is_new_one_hung_up ? Events{{fd, Interest::none}} : Events{}));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A number that was used again without a removal can be put right") {
  Line old(Line::Kind::unix_closed);
  SocketPair fresh;
  const int fd = old.ours.get();
  REQUIRE_FALSE(selector->add(fd, Interest::none));
  look();
  const bool with_duplicate = GENERATE(false, true);
  UniqueFd ghost;
  if (with_duplicate) ghost = duplicate(old.ours);
  old.ours.reset();
  const UniqueFd reused = renumbered(std::move(fresh.ours), fd);
  old.hang_up();
  look();
  REQUIRE_FALSE(selector->remove(fd));
  REQUIRE_FALSE(selector->add(fd, Interest::none));
  CHECK(waits_quietly());
  fresh.theirs.reset();
  CHECK(look() == Events{{fd, Interest::none}});
}

TEST_CASE_METHOD(SelectorContract, "A file is no hang-up for who waits for nothing") {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {file.get(), null.get()}) {
    REQUIRE_FALSE(selector->add(fd, Interest::none));
    CHECK(waits_quietly());
    REQUIRE_FALSE(selector->modify(fd, Interest::read));
    CHECK(look() == Events{{fd, Interest::read}});
    REQUIRE_FALSE(selector->modify(fd, Interest::none));
    CHECK(waits_quietly());
  }
}

TEST_CASE_METHOD(SelectorContract, "A hang-up is told where no descriptor is left to be had") {
  Line line(Line::Kind::unix_closed);
  const int fd = line.ours.get();
  {
    const NoDescriptorLeft none_left;
    REQUIRE_FALSE(selector->add(fd, Interest::none));
    CHECK(look() == Events{});
    line.hang_up();
    CHECK(look() == Events{{fd, Interest::none}});
  }
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A selector's descriptor is readable for a hang-up until it is told") {
  if (selector->fileno() < 0) return;
  Line line(any_kind());
  const auto before = GENERATE(Interest::none, Interest::read);
  CAPTURE(line.kind, before);
  REQUIRE_FALSE(selector->add(line.ours.get(), before));
  REQUIRE_FALSE(selector->modify(line.ours.get(), Interest::none));
  CHECK_FALSE(selector->flush());
  pollfd entry{selector->fileno(), POLLIN, 0};
  CHECK(::poll(&entry, 1, 0) == 0);
  line.hang_up();
  CHECK(::poll(&entry, 1, 5000) == 1);
  CHECK(look() == Events{{line.ours.get(), Interest::none}});
  CHECK(::poll(&entry, 1, 0) == 0);
}
