// SPDX-License-Identifier: MIT
// epoll(7).
//
// Traps: the set holds open files, not descriptors. Closing a descriptor takes it out by itself, so
// removing costs no call here; what is removed and stays open is taken out when it first reports.
// But while a dup of a closed one lives, it keeps reporting and can't be named any more; the only
// cure is a new set. The token in each event tells such ghosts from the number's new owner.
// Regular files are refused with EPERM. epoll_wait counts milliseconds; epoll_pwait2 (Linux 5.11)
// nanoseconds.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "selector/backends.hpp"
#include "selector/timespec.hpp"

namespace pawl {
namespace {

std::uint32_t to_epoll_events(Interest interest) {
  return (has(interest, Interest::read) ? std::uint32_t{EPOLLIN} : 0U) |
         (has(interest, Interest::write) ? std::uint32_t{EPOLLOUT} : 0U);
}

Interest to_interest(std::uint32_t events) {
  if (__builtin_expect(events == EPOLLIN, true)) return Interest::read;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) return Interest::read_write;
  return ((events & EPOLLIN) != 0 ? Interest::read : Interest::none) |
         ((events & EPOLLOUT) != 0 ? Interest::write : Interest::none);
}

/// What an event brings back.
std::uint64_t to_data(int fd, std::uint32_t token) {
  return std::uint64_t{token} << 32 | static_cast<std::uint32_t>(fd);
}
int fd_of(const epoll_event& event) { return static_cast<int>(event.data.u64 & 0xffffffffU); }
std::uint32_t token_of(const epoll_event& event) {
  return static_cast<std::uint32_t>(event.data.u64 >> 32);
}

UniqueFd make_epoll() {
  UniqueFd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) throw std::system_error(errno, std::system_category(), "selector epoll: epoll_create1");
  return fd;
}

class EpollSelector final : public Selector {
 public:
  EpollSelector() : Selector("epoll", ClosedFdCheck::by_backend), epoll_(make_epoll()) {}

  int fileno() const override {
    if (!outer_) {
      UniqueFd outer(::epoll_create1(EPOLL_CLOEXEC));
      if (outer && watch_from(outer.get())) outer_ = std::move(outer);
    }
    return outer_.get();
  }

 private:
  /// What the kernel's set holds under a descriptor's number; none: nothing that we know of.
  struct InKernel {
    Interest interest = Interest::none;
    bool is_alone = true;          // false when another file may be in the set under this number
    std::uint32_t token = 0;       // what its events bring
    std::uint32_t generation = 0;  // of the registration that it stands for
  };

  int change(int fd, Interest, Interest to) override {
    if (to == Interest::none) return 0;
    if (static_cast<std::size_t>(fd) >= in_kernel_.size()) {
      in_kernel_.resize(static_cast<std::size_t>(fd_limit()));
    }
    InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    const bool is_same_registration = known.generation == generation(fd);
    if (known.interest == to && is_same_registration) return 0;
    if (known.interest != Interest::none && is_same_registration) {
      return enter(EPOLL_CTL_MOD, fd, to);
    }
    // Added, or removed and added again. If the same file is in the set still, the kernel refuses
    // to add it, which costs less than a modification; if not, the number was closed meanwhile.
    const bool is_as_wanted = known.interest == to && known.is_alone;
    const int error = enter(EPOLL_CTL_ADD, fd, to);
    if (error != EEXIST) return error;
    if (!is_as_wanted) return enter(EPOLL_CTL_MOD, fd, to);
    known.generation = generation(fd);
    return 0;
  }

  int enter(int operation, int fd, Interest to) {
    InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    const std::uint32_t token = generation(fd);
    epoll_event event{};
    event.events = to_epoll_events(to);
    event.data.u64 = to_data(fd, token);
    const int error = ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0 ? 0 : errno;
    if (error == EEXIST) return error;
    // Unless it was that very entry which changed, it may stay in the set while its file is open.
    const bool is_same_entry = operation == EPOLL_CTL_MOD && error == 0;
    const bool is_alone = known.is_alone && (known.interest == Interest::none || is_same_entry);
    known = InKernel{error == 0 ? to : Interest::none, is_alone, token, token};
    return error;
  }

  int wait(std::optional<Duration> timeout) override {
    if (std::exchange(has_ghosts_, false) && rebuild()) timeout = Duration::zero();
    const int count = wait_for_events(timeout);
    if (count < 0) return errno;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events_[static_cast<std::size_t>(i)];
      // Mostly it is the registration that the token was made for.
      const bool is_usual = report(fd_of(event), to_interest(event.events), token_of(event));
      if (__builtin_expect(!is_usual, false)) report_unusual(event);
    }
    // Removed ones may have filled a whole batch, with what is wanted behind them: look again.
    return count == static_cast<int>(events_.size()) && !has_ghosts_ ? EINTR : 0;
  }

  /// Of a registration that took over what an earlier one had in the set; or of none that wants it.
  __attribute__((noinline)) void report_unusual(const epoll_event& event) {
    const int fd = fd_of(event);
    const std::uint32_t token = token_of(event);
    const InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    const bool is_known = known.interest != Interest::none && known.token == token;
    if (is_known && report(fd, to_interest(event.events), known.generation)) return;
    if (!is_known || !take_out(fd)) has_ghosts_ = true;
  }

  int wait_for_events(std::optional<Duration> timeout) {
    const int size = static_cast<int>(events_.size());
    if (!timeout) return ::epoll_wait(epoll_.get(), events_.data(), size, -1);
    if (*timeout == Duration::zero()) return ::epoll_wait(epoll_.get(), events_.data(), size, 0);
#ifdef SYS_epoll_pwait2
    if (has_pwait2_) {
      const timespec time = to_timespec(*timeout);
      const long count = ::syscall(SYS_epoll_pwait2, epoll_.get(), events_.data(), size, &time,
                                   nullptr, std::size_t{0});
      if (count >= 0 || errno != ENOSYS) return static_cast<int>(count);
      has_pwait2_ = false;
    }
#endif
    return ::epoll_wait(epoll_.get(), events_.data(), size, to_milliseconds(*timeout));
  }

  /// False when `fd` doesn't name the file that is in the set any more.
  bool take_out(int fd) {
    InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    known.interest = Interest::none;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr) == 0) return true;
    known.is_alone = false;
    return false;
  }

  /// Makes a new set of what is wanted, under the old set's number. Without a descriptor to spare
  /// it stays as it is, and the ghost's next event brings us here again. True exactly when it
  /// found a closed one and reported it.
  bool rebuild() {
    const UniqueFd fresh(::epoll_create1(EPOLL_CLOEXEC));
    if (!fresh || ::dup3(fresh.get(), epoll_.get(), O_CLOEXEC) < 0) return false;
    if (outer_) watch_from(outer_.get());
    bool found_closed = false;
    for (int fd = 0; fd < static_cast<int>(in_kernel_.size()); ++fd) {
      InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
      if (known.interest == Interest::none) continue;
      known = InKernel{};
      const Interest wanted = applied_interest(fd);
      if (wanted == Interest::none) continue;
      if (enter(EPOLL_CTL_ADD, fd, wanted) != 0) {
        report_closed(fd);
        found_closed = true;
      }
    }
    return found_closed;
  }

  bool watch_from(int outer) const {
    epoll_event event{};
    event.events = EPOLLIN;
    return ::epoll_ctl(outer, EPOLL_CTL_ADD, epoll_.get(), &event) == 0;
  }

  UniqueFd epoll_;
  mutable UniqueFd outer_;  // a set of nothing but epoll_: what others watch outlives a rebuild
  std::vector<InKernel> in_kernel_;  // by fd
  std::array<epoll_event, 512> events_{};
  bool has_ghosts_ = false;  // true exactly when an event came from a file that has no number here
  bool has_pwait2_ = true;
};

}  // namespace

std::unique_ptr<Selector> make_epoll_selector() { return std::make_unique<EpollSelector>(); }

}  // namespace pawl
