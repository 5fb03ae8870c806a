// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/time.hpp"

namespace pawl {

/// What to wait for on a descriptor, and what has come. Combine with `| & ~`.
///
/// `priority` is what poll(2) calls POLLPRI: a byte of urgent data on a TCP socket, a change of
/// /proc/self/mounts or of some files in /sys. libev's backends can't wait for it.
enum class Interest : std::uint8_t { none = 0, read = 1, write = 2, read_write = 3, priority = 4 };

constexpr Interest operator|(Interest a, Interest b) {
  return static_cast<Interest>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr Interest operator&(Interest a, Interest b) {
  return static_cast<Interest>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr Interest operator~(Interest a) {
  return static_cast<Interest>(~static_cast<unsigned>(a) & 7U);
}
constexpr Interest& operator|=(Interest& a, Interest b) { return a = a | b; }
constexpr Interest& operator&=(Interest& a, Interest b) { return a = a & b; }
/// True exactly when `set` has all of `part`.
constexpr bool has(Interest set, Interest part) { return (set & part) == part; }

/// One registration: the descriptor, what it waits for, and the user's own pointer.
struct SelectorKey {
  int fd;
  Interest interest;
  void* data;
};

/// One descriptor that can go on, and with what. `events` is part of `key.interest`; it is
/// `Interest::none` when an error or a hang-up came while nothing was waited for.
struct Ready {
  SelectorKey key;
  Interest events;
};

class ForkGuard;

/// Waits until some of a set of descriptors can be read or written.
///
/// Owns:     no descriptor. Remove one before closing it.
/// Threads:  one at a time; there is no lock inside.
/// Calls:    no user code. Adding and removing between two waits is always safe.
/// Promises: level-triggered; readiness may be spurious, never lost. An error or a hang-up wakes
///           every interest that is registered (on select(2) of both the reader alone, where it
///           makes nothing writable), and is told to a registration that waits for
///           nothing too: once after each `add` and each `modify`, so that nobody spins while
///           nobody acts. Regular files and directories are always ready. A descriptor that was
///           closed while registered is reported as ready once where the kernel
///           lets us see it, and is silent from then on until it is removed; a number that was
///           removed, closed and used again never gets the old one's events.
/// Fails:    by `std::error_code`, the same one on each backend; throws `std::bad_alloc` only.
///           In a forked child every call gives `Errc::used_after_fork` and touches nothing.
class PAWL_API Selector {
 public:
  virtual ~Selector();
  Selector(const Selector&) = delete;
  Selector& operator=(const Selector&) = delete;

  /// Registers `fd`. `Interest::none` keeps the registration and waits for nothing, but is told of
  /// an error or a hang-up, once.
  /// Fails with `std::errc::bad_file_descriptor` (negative, or not open),
  /// `Errc::already_registered`, `std::errc::operation_not_supported` (libev has no
  /// `Interest::priority`), and `std::errc::no_space_on_device` or `std::errc::not_enough_memory`
  /// when the kernel has no room.
  std::error_code add(int fd, Interest interest, void* data = nullptr);

  /// Changes interest and data of a registered `fd`. Costs no system call: changes are put
  /// together and told to the kernel when `select` is about to wait. With `Interest::none`, also
  /// when it was that before, an error or a hang-up is told once more.
  /// Fails with `Errc::not_registered` and `std::errc::operation_not_supported`, and then changes
  /// nothing.
  std::error_code modify(int fd, Interest interest, void* data = nullptr);

  /// Forgets `fd`. Works on a closed descriptor too. Fails with `Errc::not_registered`.
  std::error_code remove(int fd);

  /// Waits until something is ready or `timeout` is over; none waits as long as it takes, zero or
  /// less only looks. `ready` is emptied first, and stays empty when time ran out. Never returns
  /// early: a signal handler that ran meanwhile doesn't end the wait. Fails with
  /// `std::errc::no_space_on_device` or `std::errc::not_enough_memory` when the kernel has no room
  /// for what `modify` asked for; nothing is lost, and the next `select` tries again.
  std::error_code select(std::optional<Duration> timeout, std::vector<Ready>& ready);

  /// The registration of `fd`, or null. Valid until the next `add`, `modify` or `remove`.
  const SelectorKey* get_key(int fd) const;

  /// Above each descriptor that ever was registered.
  int fd_limit() const { return static_cast<int>(records_.size()); }

  /// How many descriptors are registered.
  std::size_t size() const { return size_; }

  /// "epoll", "libev:poll" … as `make_selector` takes it.
  std::string_view name() const { return name_; }

  /// A descriptor that is readable while something is ready, to nest this in another loop; or -1.
  /// It stays the same. Regular files, which are always ready, don't make it readable.
  /// Whoever waits on it calls `flush` first.
  virtual int fileno() const;

  /// To nest this in another loop where `fileno` is -1, by watching each registered descriptor: the
  /// selector inside of this one that has those which can't be watched so, for hang-ups alone. Its
  /// `fileno` is to be watched as well, for reading, and its `flush` called first. Or null.
  virtual Selector* inner() const;

  /// Tells the kernel at once what `modify` put together. True exactly when `select` has something
  /// to report that `fileno` can't show, such as a regular file.
  bool flush();

 protected:
  /// Who notices that a descriptor which is to be watched isn't open.
  enum class ClosedFdCheck { by_base, by_backend };

  /// `supported`: what can be waited for; more is refused.
  Selector(std::string_view name, ClosedFdCheck check, Interest supported = Interest::read_write);

  /// For `report`: an error or a hang-up, which wakes every interest.
  static constexpr Interest hang_up{0x87};

  /// For `wait`: `fd` has `events`. False when nobody waits for them (removed, paused or closed),
  /// which asks the backend to see to it that the kernel doesn't bring them again; but for those of
  /// a hang-up when `awaits_hang_up`. It must have been registered, some time.
  bool report(int fd, Interest events, std::uint32_t event_generation) {
    Record& record = records_[static_cast<std::size_t>(fd)];
    if (record.generation != event_generation || record.is_closed) return false;
    const Interest wanted = events & record.key.interest;  // none after remove()
    if (__builtin_expect(wanted == Interest::none, false)) return report_unwanted(record, events);
    ready_->emplace_back(NewReady{record.key, wanted});
    return true;
  }
  /// For `wait`: `fd` isn't open (any more).
  void report_closed(int fd);
  /// True exactly when a change that failed so shows that the number doesn't stand for the file
  /// that was registered; by the last two, that it stands for a set that can't be in this one.
  static bool says_closed(int error);
  /// For `wait`: the kernel took `fd` out, for want of room. It is asked again before the next
  /// wait.
  void apply_again(int fd);
  /// True exactly while `fd` is registered and hasn't been seen closed.
  bool is_watched(int fd) const;
  /// True exactly while `fd` is registered with `Interest::none` and is to be told of a hang-up.
  bool awaits_hang_up(int fd) const;
  /// The number of the registration that `fd` has now; a later one has another.
  std::uint32_t generation(int fd) const {
    return records_[static_cast<std::size_t>(fd)].generation;
  }
  /// What the backend was last told about `fd`; none when it isn't registered.
  Interest applied_interest(int fd) const;

 private:
  struct Record {
    SelectorKey key{-1, Interest::none, nullptr};
    std::uint32_t generation = 0;
    Interest applied = Interest::none;  // what the backend knows
    bool is_registered = false;         // true exactly between add() and remove()
    bool is_change_queued = false;      // true exactly while fd stands in changed_
    bool is_always_ready = false;       // true exactly when the kernel refuses to watch it (EPERM)
    bool is_closed = false;             // true exactly when it was seen closed and reported once
    bool is_hang_up_told = false;       // true exactly when it was, to an interest in nothing
    bool is_unapplied = false;          // true exactly when `applied` isn't what the backend knows
  };

  /// Makes a `Ready` where it is to stay, instead of moving it there.
  struct NewReady {
    const SelectorKey& key;
    Interest events;
    operator Ready() const { return Ready{key, events}; }
  };

  /// Tells the kernel (or remembers for `wait`) that `fd` goes from one interest to another. To
  /// none: it waits for a hang-up alone, or isn't there any more unless `is_watched`. Returns an
  /// errno: EPERM means "always ready". What throws has changed nothing.
  virtual int change(int fd, Interest from, Interest to) = 0;
  /// Waits once, `report`s what came, and returns an errno; EINTR is fine, early is fine.
  virtual int wait(std::optional<Duration> timeout) = 0;

  bool is_forked_child() const { return *fork_mark_ == 0; }
  const Record* find(int fd) const {
    const auto index = static_cast<std::size_t>(fd);  // of a negative one it is beyond all
    return index < records_.size() && records_[index].is_registered ? &records_[index] : nullptr;
  }
  Record* find(int fd) { return const_cast<Record*>(static_cast<const Selector&>(*this).find(fd)); }
  bool is_supported(Interest interest) const { return (interest & supported_) == interest; }
  std::error_code attach(int fd, Record& record);
  void queue_change(int fd, Record& record);
  bool needs_change(const Record& record) const {
    return record.is_registered && (record.is_unapplied || record.applied != record.key.interest);
  }
  void apply(int fd, Record& record);
  void apply_changes();
  bool report_unwanted(Record& record, Interest events);
  void report_always_ready();
  std::error_code select_reported(std::optional<Duration> timeout);
  std::error_code wait_until_ready(std::optional<Duration> timeout);
  void take_back(std::vector<Ready>& ready);

  std::string_view name_;
  ClosedFdCheck closed_fd_check_;
  Interest supported_;
  std::size_t size_ = 0;
  std::vector<Record> records_;  // by fd
  std::vector<int> changed_;
  std::vector<int> applying_;  // what was in changed_, while it is worked through
  std::vector<int> always_ready_;
  std::vector<Ready>* ready_ = nullptr;  // select()'s result while it runs
  int shortage_ = 0;                     // an errno: why a change waits for the next select()
  std::unique_ptr<ForkGuard> fork_guard_;
  const unsigned char* fork_mark_;  // its byte, which every call looks at
};

/// Makes a selector by name, else by the variable PAWL_SELECTOR, else the best that works here.
///
/// Throws `std::invalid_argument` for a name it doesn't know, and lists those that it does, and for
/// libev:iouring, which aborts the process under load; throws `std::system_error` when the kernel
/// refuses.
PAWL_API std::unique_ptr<Selector> make_selector(std::string_view name = {});

/// The names that work here, best first: epoll, poll, select, libev, libev:epoll …
PAWL_API std::vector<std::string_view> available_selectors();

}  // namespace pawl
