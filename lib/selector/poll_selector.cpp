// SPDX-License-Identifier: MIT
// poll(2).
//
// Traps: a closed descriptor is reported as POLLNVAL at every call until it is taken out; HUP and
// ERR come without IN or OUT, and again and again where nothing is waited for, so who waits for
// nothing is in a set of its own. EINVAL: more descriptors than RLIMIT_NOFILE allows, which may be
// lowered while they are open; those go there too.
#include <poll.h>
#include <sys/resource.h>

#include <cerrno>

#include "selector/backends.hpp"
#include "selector/inner_set.hpp"
#include "selector/timespec.hpp"

namespace pawl {
namespace {

constexpr int not_there = -1;

short to_poll_events(Interest interest) {
  return static_cast<short>((has(interest, Interest::read) ? POLLIN : 0) |
                            (has(interest, Interest::write) ? POLLOUT : 0) |
                            (has(interest, Interest::priority) ? POLLPRI : 0));
}

class PollSelector final : public Selector {
 public:
  PollSelector() : Selector("poll", ClosedFdCheck::by_base, ~Interest::none) {}

  Selector* inner() const override { return inner_.selector(); }

 private:
  static Interest to_interest(short events) {
    if ((events & (POLLERR | POLLHUP)) != 0) return hang_up;
    return ((events & POLLIN) != 0 ? Interest::read : Interest::none) |
           ((events & POLLOUT) != 0 ? Interest::write : Interest::none) |
           ((events & POLLPRI) != 0 ? Interest::priority : Interest::none);
  }

  int change(int fd, Interest, Interest to) override {
    const bool is_there = is_watched(fd);
    if (is_there && to == Interest::none && inner_.is_there()) return watch_inside(fd, to);
    is_there ? put_in(fd, to) : take_out(fd);
    inner_.forget(fd);
    return 0;
  }

  int watch_inside(int fd, Interest interest) {
    put_in(inner_.fileno(), Interest::read);
    const int error = inner_.watch(fd, interest);
    if (error == 0) take_out(fd);
    return error;
  }

  void put_in(int fd, Interest interest) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= position_.size()) position_.resize(index + 1, not_there);
    if (position_[index] == not_there) {
      polled_.push_back(pollfd{fd, 0, 0});
      position_[index] = static_cast<int>(polled_.size()) - 1;
    }
    polled_[static_cast<std::size_t>(position_[index])].events = to_poll_events(interest);
  }

  void take_out(int fd) {
    if (static_cast<std::size_t>(fd) >= position_.size()) return;
    int& position = position_[static_cast<std::size_t>(fd)];
    if (position == not_there) return;
    polled_[static_cast<std::size_t>(position)] = polled_.back();
    position_[static_cast<std::size_t>(polled_.back().fd)] = position;
    polled_.pop_back();
    position = not_there;
  }

  int wait(std::optional<Duration> timeout) override {
    bool is_inner_ready = inner_.flush();
    if (is_inner_ready) timeout = Duration::zero();
    const timespec time = timeout ? to_timespec(*timeout) : timespec{};
    int left = ::ppoll(polled_.data(), polled_.size(), timeout ? &time : nullptr, nullptr);
    if (left < 0) return errno == EINVAL && has_moved_some() ? EINTR : errno;
    // From the back, because a closed one is replaced by the last.
    for (std::size_t i = polled_.size(); i-- > 0 && left > 0;) {
      const pollfd entry = polled_[i];
      if (entry.revents == 0) continue;
      --left;
      if (entry.fd != inner_.fileno()) {
        report_one(entry);
      } else if ((entry.revents & POLLNVAL) == 0) {
        is_inner_ready = true;
      } else {
        return EBADF;  // somebody closed what isn't his
      }
    }
    return is_inner_ready ? report_inner() : 0;
  }

  void report_one(const pollfd& entry) {
    if ((entry.revents & POLLNVAL) != 0) return report_closed(entry.fd);
    const bool is_wanted = report(entry.fd, to_interest(entry.revents), generation(entry.fd));
    if (!is_wanted) take_out(entry.fd);  // a hang-up, where there is no inner set
  }

  int report_inner() {
    return inner_.look([this](int fd, Interest events) {
      report(fd, events == Interest::none ? hang_up : events, generation(fd));
    });
  }

  /// What poll(2) takes no more is waited for inside.
  bool has_moved_some() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    bool has_moved = false;
    for (std::size_t i = polled_.size(); i-- > 0 && polled_.size() > limit.rlim_cur;) {
      const int fd = polled_[i].fd;
      if (fd == inner_.fileno()) continue;
      if (!inner_.is_there()) return false;
      if (watch_inside(fd, applied_interest(fd)) != 0) return false;
      has_moved = true;
    }
    return has_moved;
  }

  InnerSet inner_;
  std::vector<pollfd> polled_;
  std::vector<int> position_;  // by fd: where it is in polled_
};

}  // namespace

std::unique_ptr<Selector> make_poll_selector() { return std::make_unique<PollSelector>(); }

}  // namespace pawl
