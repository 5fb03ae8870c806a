// SPDX-License-Identifier: MIT
// poll(2).
//
// Traps: a closed descriptor is reported as POLLNVAL at every call until it is taken out; HUP and
// ERR come without IN or OUT.
#include <poll.h>

#include <cerrno>

#include "selector/backends.hpp"
#include "selector/timespec.hpp"

namespace pawl {
namespace {

constexpr int not_there = -1;

short to_poll_events(Interest interest) {
  return static_cast<short>((has(interest, Interest::read) ? POLLIN : 0) |
                            (has(interest, Interest::write) ? POLLOUT : 0));
}

Interest to_interest(short events) {
  if ((events & (POLLERR | POLLHUP)) != 0) return Interest::read_write;
  return ((events & POLLIN) != 0 ? Interest::read : Interest::none) |
         ((events & POLLOUT) != 0 ? Interest::write : Interest::none);
}

class PollSelector final : public Selector {
 public:
  PollSelector() : Selector("poll", ClosedFdCheck::by_base) {}

 private:
  int change(int fd, Interest, Interest to) override {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= position_.size()) position_.resize(index + 1, not_there);
    if (to == Interest::none) {
      take_out(fd);
    } else if (position_[index] == not_there) {
      position_[index] = static_cast<int>(polled_.size());
      polled_.push_back(pollfd{fd, to_poll_events(to), 0});
    } else {
      polled_[static_cast<std::size_t>(position_[index])].events = to_poll_events(to);
    }
    return 0;
  }

  void take_out(int fd) {
    int& position = position_[static_cast<std::size_t>(fd)];
    if (position == not_there) return;
    polled_[static_cast<std::size_t>(position)] = polled_.back();
    position_[static_cast<std::size_t>(polled_.back().fd)] = position;
    polled_.pop_back();
    position = not_there;
  }

  int wait(std::optional<Duration> timeout) override {
    const timespec time = timeout ? to_timespec(*timeout) : timespec{};
    int left = ::ppoll(polled_.data(), polled_.size(), timeout ? &time : nullptr, nullptr);
    if (left < 0) return errno;
    // From the back, because a closed one is replaced by the last.
    for (std::size_t i = polled_.size(); i-- > 0 && left > 0;) {
      const pollfd& entry = polled_[i];
      if (entry.revents == 0) continue;
      --left;
      if ((entry.revents & POLLNVAL) != 0) {
        report_closed(entry.fd);
      } else {
        report(entry.fd, to_interest(entry.revents), generation(entry.fd));
      }
    }
    return 0;
  }

  std::vector<pollfd> polled_;
  std::vector<int> position_;  // by fd: where it is in polled_
};

}  // namespace

std::unique_ptr<Selector> make_poll_selector() { return std::make_unique<PollSelector>(); }

}  // namespace pawl
