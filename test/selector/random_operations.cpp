// SPDX-License-Identifier: MIT
// Thousands of random operations on a few descriptors, and after each what poll(2) says about those
// that are registered. The seed is fixed; each selector gets the same sequence.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <random>
#include <utility>

#include "pawl/core/error.hpp"
#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/sockets.hpp"

using pawl::Errc;
using pawl::Interest;
using pawl::UniqueFd;

namespace {

enum class Kind { stream, datagram, pipe_reader, pipe_writer, event, file };

/// One number, and what the test knows about it.
struct Slot {
  int number = -1;
  UniqueFd fd;
  UniqueFd peer;
  Kind kind = Kind::stream;
  bool is_registered = false;
  bool is_lost = false;  // true exactly when it was closed while registered
  bool is_told = false;  // true exactly when a hang-up was, to an interest in nothing
  Interest interest = Interest::none;
};

class Operations {
 public:
  Operations(pawl::Selector& selector, unsigned seed) : selector_(selector), random_(seed) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].number = 300 + static_cast<int>(i);
    has_select_ = selector.name() == "select" || selector.name() == "libev:select";
  }

  /// One random operation. False when the selector didn't answer as it should.
  bool step() {
    Slot& slot = slots_[below(slots_.size())];
    switch (below(14)) {
      case 0: return open(slot);
      case 1: return close(slot);
      case 2: return lose(slot);
      case 3:
      case 4:
      case 5: return add(slot);
      case 6:
      case 7: return modify(slot);
      case 8: return remove(slot);
      case 9: return duplicate(slot);
      case 10: return write(slot.peer);
      case 11: return write(slot.fd);
      case 12: return read(below(2) == 0 ? slot.fd : slot.peer);
      default: return hang_up(slot);
    }
  }

  /// What poll(2) says about everything that is registered and open. A hang-up is to be told once
  /// to who waits for nothing, which this takes to have happened.
  Events expected() {
    Events events;
    for (Slot& slot : slots_) {
      if (!slot.is_registered || slot.is_lost) continue;
      pollfd entry{slot.number, 0, 0};
      if (has(slot.interest, Interest::read)) entry.events |= POLLIN;
      if (has(slot.interest, Interest::write)) entry.events |= POLLOUT;
      ::poll(&entry, 1, 0);
      if (slot.interest == Interest::none) {
        const bool is_hung_up = (entry.revents & (POLLHUP | POLLERR)) != 0;
        if (is_hung_up && !std::exchange(slot.is_told, true)) events[slot.number] = Interest::none;
        continue;
      }
      Interest found = Interest::none;
      if ((entry.revents & (POLLIN | POLLHUP | POLLERR)) != 0) found |= Interest::read;
      if ((entry.revents & (POLLOUT | POLLHUP | POLLERR)) != 0) found |= Interest::write;
      // select(2) wakes nobody but the reader by that.
      const bool is_hang_up_alone = (entry.revents & (POLLOUT | POLLERR | POLLHUP)) == POLLHUP;
      if (is_hang_up_alone && slot.interest == Interest::read_write && has_select_) {
        found &= Interest::read;
      }
      if ((found & slot.interest) != Interest::none) events[slot.number] = found & slot.interest;
    }
    return events;
  }

  /// Takes out those that were closed while registered: backends may tell of them or not.
  Events without_lost(Events events) const {
    for (const Slot& slot : slots_) {
      if (slot.is_lost) events.erase(slot.number);
    }
    return events;
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }

  Interest random_interest() { return static_cast<Interest>(below(4)); }

  bool open(Slot& slot) {
    if (slot.fd || slot.is_lost) return true;
    slot.kind = static_cast<Kind>(below(6));
    switch (slot.kind) {
      case Kind::stream:
      case Kind::datagram: {
        SocketPair pair(slot.kind == Kind::stream ? SOCK_STREAM : SOCK_DGRAM);
        slot.fd = renumbered(std::move(pair.ours), slot.number);
        slot.peer = std::move(pair.theirs);
        break;
      }
      case Kind::pipe_reader:
      case Kind::pipe_writer: {
        Pipe pipe;
        const bool reads = slot.kind == Kind::pipe_reader;
        slot.fd = renumbered(std::move(reads ? pipe.reader : pipe.writer), slot.number);
        slot.peer = std::move(reads ? pipe.writer : pipe.reader);
        break;
      }
      case Kind::event:
        slot.fd = renumbered(UniqueFd(pawl::System::real().eventfd().fd()), slot.number);
        break;
      case Kind::file:
        slot.fd = renumbered(UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)), slot.number);
        break;
    }
    return true;
  }

  bool close(Slot& slot) {
    if (!slot.fd) return true;
    if (slot.is_registered && !remove(slot)) return false;
    slot.fd.reset();
    slot.peer.reset();
    return true;
  }

  bool lose(Slot& slot) {
    if (!slot.fd || !slot.is_registered || below(4) != 0) return true;
    slot.fd.reset();
    slot.peer.reset();
    slot.is_lost = true;
    return true;
  }

  bool add(Slot& slot) {
    const Interest interest = random_interest();
    const std::error_code error = selector_.add(slot.number, interest, &slot);
    if (slot.is_registered) return error == Errc::already_registered;
    if (!slot.fd) return error == std::errc::bad_file_descriptor;
    slot.is_registered = true;
    slot.is_told = false;
    slot.interest = interest;
    return !error;
  }

  bool modify(Slot& slot) {
    const Interest interest = random_interest();
    const std::error_code error = selector_.modify(slot.number, interest, &slot);
    if (!slot.is_registered) return error == Errc::not_registered;
    slot.is_told = false;
    slot.interest = interest;
    return !error;
  }

  bool remove(Slot& slot) {
    const std::error_code error = selector_.remove(slot.number);
    if (!slot.is_registered) return error == Errc::not_registered;
    slot.is_registered = false;
    slot.is_lost = false;
    return !error;
  }

  bool duplicate(Slot& slot) {
    UniqueFd& ghost = ghosts_[below(ghosts_.size())];
    ghost.reset();
    if (slot.fd) ghost.reset(::fcntl(slot.number, F_DUPFD_CLOEXEC, 0));
    return true;
  }

  bool write(const UniqueFd& fd) {
    if (!fd) return true;
    const std::array<char, 4096> block{};
    const std::size_t most = below(2) == 0 ? 1 : 100;
    for (std::size_t i = 0; i < most; ++i) {
      // Without SIGPIPE where it is a socket; a pipe's reader is never closed before its writer.
      pawl::SystemResult result = pawl::System::real().send(fd.get(), block.data(), block.size());
      if (result.error == ENOTSOCK) {
        const std::uint64_t one = 1;
        result = pawl::System::real().write(fd.get(), &one, sizeof one);
      }
      if (!result.ok()) break;
    }
    return true;
  }

  bool read(const UniqueFd& fd) {
    std::array<char, 65536> block{};
    if (fd) pawl::System::real().read(fd.get(), block.data(), block.size());
    return true;
  }

  bool hang_up(Slot& slot) {
    if (slot.kind != Kind::pipe_writer && below(2) == 0) slot.peer.reset();
    return true;
  }

  pawl::Selector& selector_;
  bool has_select_ = false;
  std::minstd_rand random_;
  std::array<Slot, 12> slots_;
  std::array<UniqueFd, 6> ghosts_;
};

}  // namespace

TEST_CASE_METHOD(SelectorContract,
                 "Whatever was done before, the selector says what poll(2) says") {
  constexpr int steps = 12'000;
  Operations operations(*selector, 20'261'121);
  for (int i = 0; i < steps; ++i) {
    if (!operations.step()) FAIL("a wrong answer at step " << i);
    if (i % 2 != 0) continue;
    Events events = select(pawl::Duration::zero());
    // The report of a closed one may come alone, before the others.
    if (operations.without_lost(events) != events) events.merge(select(pawl::Duration::zero()));
    const Events expected = operations.expected();
    if (operations.without_lost(events) == expected) continue;
    CAPTURE(i);
    REQUIRE(operations.without_lost(events) == expected);
  }
}
