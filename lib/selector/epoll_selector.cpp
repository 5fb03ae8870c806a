// SPDX-License-Identifier: MIT
// epoll(7).
//
// Traps: the set holds open files, not descriptors. Closing a descriptor takes it out by itself, so
// removing costs no call here; what is removed and stays open is taken out when it first reports.
// But while a dup of a closed one lives, it keeps reporting and can't be named any more; the only
// cure is a new set. The token in each event tells such ghosts from the number's new owner.
// Regular files are refused with EPERM. epoll_wait counts milliseconds; epoll_pwait2 (Linux 5.11)
// nanoseconds.
// ERR and HUP come whether they are asked for or not, again and again. So what waits for nothing is
// in the set edge-triggered, without an event. Pausing costs no call for that: the kernel is told
// when it brings what nobody wants.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "selector/backends.hpp"
#include "selector/timespec.hpp"
#include "system/fork_count.hpp"

namespace pawl {
namespace {

constexpr Duration pause = std::chrono::milliseconds(1);

constexpr std::uint32_t nothing = 0;  // not even a hang-up
constexpr std::uint32_t hang_ups = EPOLLET;

/// Never `nothing`.
std::uint32_t to_epoll_events(Interest interest) {
  if (interest == Interest::none) return hang_ups;
  return (has(interest, Interest::read) ? std::uint32_t{EPOLLIN} : 0U) |
         (has(interest, Interest::write) ? std::uint32_t{EPOLLOUT} : 0U) |
         (has(interest, Interest::priority) ? std::uint32_t{EPOLLPRI} : 0U);
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
  EpollSelector()
      : Selector("epoll", ClosedFdCheck::by_backend, ~Interest::none), epoll_(make_epoll()) {}

  int fileno() const override {
    if (!outer_) {
      UniqueFd outer(::epoll_create1(EPOLL_CLOEXEC));
      if (outer && watch_from(outer.get())) outer_ = std::move(outer);
    }
    return outer_.get();
  }

 private:
  /// What the kernel's set holds under a descriptor's number.
  struct InKernel {
    std::uint32_t events = nothing;  // that we know of
    bool is_alone = true;            // false when another file may be in the set under this number
    std::uint32_t token = 0;         // what its events bring
    std::uint32_t generation = 0;    // of the registration that it stands for
  };

  static Interest to_interest(std::uint32_t events) {
    if (__builtin_expect(events == EPOLLIN, true)) return Interest::read;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) return hang_up;
    return ((events & EPOLLIN) != 0 ? Interest::read : Interest::none) |
           ((events & EPOLLOUT) != 0 ? Interest::write : Interest::none) |
           ((events & EPOLLPRI) != 0 ? Interest::priority : Interest::none);
  }

  int change(int fd, Interest from, Interest to) override {
    if (!is_watched(fd)) {
      if (fork_count() != forks_before_) take_out_shared(fd);
      return 0;
    }
    if (static_cast<std::size_t>(fd) >= in_kernel_.size()) {
      in_kernel_.resize(static_cast<std::size_t>(fd_limit()));
    }
    InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    const bool is_same_registration = known.generation == generation(fd);
    const std::uint32_t wanted = to_epoll_events(to);
    if (known.events != nothing && is_same_registration) {
      const bool is_as_wanted = known.events == wanted || to == Interest::none;
      const bool is_once_more = from == to;
      return is_as_wanted && !is_once_more ? 0 : enter(EPOLL_CTL_MOD, fd, to);
    }
    // Added, or removed and added again. If the same file is in the set still, the kernel refuses
    // to add it, which costs less than a modification; if not, the number was closed meanwhile.
    const bool is_as_wanted = known.events == wanted && known.is_alone;
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
    const bool is_alone = known.is_alone && (known.events == nothing || is_same_entry);
    known = InKernel{error == 0 ? event.events : nothing, is_alone, token, token};
    return error;
  }

  int wait(std::optional<Duration> timeout) override {
    if (__builtin_expect(std::exchange(has_ghosts_, false), false)) {
      if (const int error = rebuild(timeout)) return error;
    }
    const int count = wait_for_events(timeout);
    if (count < 0) return errno;
    try {
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events_[static_cast<std::size_t>(i)];
        // Mostly it is the registration that the token was made for.
        const bool is_usual = report(fd_of(event), to_interest(event.events), token_of(event));
        if (__builtin_expect(!is_usual, false)) report_unusual(event);
      }
    } catch (const std::bad_alloc&) {
      ask_again(count);
      throw;
    }
    // Removed ones may have filled a whole batch, with what is wanted behind them: look again.
    return count == static_cast<int>(events_.size()) && !has_ghosts_ ? EINTR : 0;
  }

  /// Nobody gets these events, and what is edge-triggered has no second one.
  void ask_again(int count) {
    for (int i = 0; i < count; ++i) {
      const int fd = fd_of(events_[static_cast<std::size_t>(i)]);
      if (awaits_hang_up(fd)) apply_again(fd);
    }
  }

  /// Of a registration that took over what an earlier one had in the set; or of none that wants it.
  __attribute__((noinline)) void report_unusual(const epoll_event& event) {
    const int fd = fd_of(event);
    const std::uint32_t token = token_of(event);
    const InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    const bool is_known = known.events != nothing && known.token == token;
    if (is_known && report(fd, to_interest(event.events), known.generation)) return;
    const bool is_right = is_known && (waits_for_hang_up(fd) || take_out(fd));
    if (!is_right) has_ghosts_ = true;
  }

  /// False when `fd` isn't to be told of a hang-up, or the set holds another file under its number.
  bool waits_for_hang_up(int fd) {
    const InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    if (!awaits_hang_up(fd) || known.generation != generation(fd)) return false;
    return known.events == hang_ups || enter(EPOLL_CTL_MOD, fd, Interest::none) == 0;
  }

  int wait_for_events(std::optional<Duration> timeout) {
    const int size = static_cast<int>(events_.size());
    if (!timeout) return ::epoll_wait(epoll_.get(), events_.data(), size, -1);
    if (*timeout == Duration::zero()) return ::epoll_wait(epoll_.get(), events_.data(), size, 0);
#ifdef SYS_epoll_pwait2
    if (has_pwait2_) {
      const auto time = to_time<WideTimespec>(*timeout);
      const long count = ::syscall(SYS_epoll_pwait2, epoll_.get(), events_.data(), size, &time,
                                   nullptr, std::size_t{0});
      // EPERM is what the seccomp filters of older container runtimes say to what they don't know.
      if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(count);
      has_pwait2_ = false;
    }
#endif
    return ::epoll_wait(epoll_.get(), events_.data(), size, to_milliseconds(*timeout));
  }

  /// What is removed goes from the set by being closed, but for what a forked child has a copy of.
  void take_out_shared(int fd) {
    const bool is_known = static_cast<std::size_t>(fd) < in_kernel_.size() &&
                          in_kernel_[static_cast<std::size_t>(fd)].events != nothing;
    if (is_known) take_out(fd);
  }

  /// False when `fd` doesn't name the file that is in the set any more.
  bool take_out(int fd) {
    InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
    known.events = nothing;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr) == 0) return true;
    known.is_alone = false;
    return false;
  }

  /// Makes a new set of what is wanted, under the old set's number. Returns an errno: there was no
  /// room for one of them. What is found closed is reported, and nothing waited for then. Without a
  /// descriptor to spare the set stays as it is, and the ghost's next event brings us here again,
  /// which at once it would: so there is a pause.
  int rebuild(std::optional<Duration>& timeout) {
    UniqueFd fresh(::epoll_create1(EPOLL_CLOEXEC));
    if (!fresh || ::dup3(fresh.get(), epoll_.get(), O_CLOEXEC) < 0) {
      const timespec time = to_timespec(std::min(timeout.value_or(pause), pause));
      ::ppoll(nullptr, 0, &time, nullptr);
      return 0;
    }
    fresh.reset();  // its number may be that of a closed one
    if (outer_) watch_from(outer_.get());
    int shortage = 0;
    for (int fd = 0; fd < static_cast<int>(in_kernel_.size()); ++fd) {
      InKernel& known = in_kernel_[static_cast<std::size_t>(fd)];
      if (known.events == nothing) continue;
      known = InKernel{};
      const Interest wanted = applied_interest(fd);
      if (wanted == Interest::none && !awaits_hang_up(fd)) continue;
      const int error = enter(EPOLL_CTL_ADD, fd, wanted);
      if (says_closed(error)) {
        report_closed(fd);
        timeout = Duration::zero();
      } else if (error != 0) {
        apply_again(fd);
        shortage = error;
      }
    }
    return shortage;
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
  const std::size_t forks_before_ = fork_count();
};

}  // namespace

std::unique_ptr<Selector> make_epoll_selector() { return std::make_unique<EpollSelector>(); }

}  // namespace pawl
