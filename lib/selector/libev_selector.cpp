// SPDX-License-Identifier: MIT
// libev, and through it each kernel interface that libev knows.
//
// Traps: Debian builds libev with its asserts on, and a closed descriptor under a live watcher
// trips one. Its epoll and AIO backends look at a descriptor when it changed or reported last time,
// its poll backend at every wait, and when a duplicate of a closed one has reported, it makes its
// kernel's set anew (which it tells fork watchers before); so exactly those are looked at by us
// first. A loop without a watcher doesn't wait. A wait ends after a minute at the latest; the base
// waits on. The io_uring backend of libev 4.33 leaves an old request's fields in the next one,
// which Linux refuses since 5.13: then it trips an assert. It also loses events while more than 64
// wait to be fetched. So it is refused.
#include <ev.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <stdexcept>
#include <string>
#include <system_error>

#include "pawl/system/system.hpp"
#include "selector/backends.hpp"
#include "selector/inner_set.hpp"

namespace pawl {
namespace {

struct Kind {
  std::string_view name;
  unsigned flags;
};

constexpr Kind kinds[] = {
    {"libev", 0},
    {"libev:epoll", EVBACKEND_EPOLL},
    {"libev:poll", EVBACKEND_POLL},
    {"libev:select", EVBACKEND_SELECT},
    {"libev:linuxaio", EVBACKEND_LINUXAIO},
    {"libev:kqueue", EVBACKEND_KQUEUE},
    {"libev:port", EVBACKEND_PORT},
};

struct LoopDeleter {
  void operator()(struct ev_loop* loop) const { ev_loop_destroy(loop); }
};
using LoopPointer = std::unique_ptr<struct ev_loop, LoopDeleter>;

LoopPointer make_loop(const Kind& kind) {
  return LoopPointer(ev_loop_new(EVFLAG_NOENV | EVFLAG_NOINOTIFY | kind.flags));
}

int to_libev_events(Interest interest) {
  return (has(interest, Interest::read) ? EV_READ : 0) |
         (has(interest, Interest::write) ? EV_WRITE : 0);
}

class LibevSelector final : public Selector {
 public:
  LibevSelector(const Kind& kind, LoopPointer loop)
      : Selector(kind.name, ClosedFdCheck::by_base), loop_(std::move(loop)) {
    ev_set_userdata(loop_.get(), this);
    ev_ref(loop_.get());  // waits without a watcher too
    ev_init(&timer_, on_timer);
    ev_init(&inner_watcher_, on_inner_ready);
    ev_fork_init(&remake_, on_remake);
    ev_fork_start(loop_.get(), &remake_);
  }

  Selector* inner() const override { return inner_.selector(); }

 private:
  int change(int fd, Interest, Interest to) override {
    while (static_cast<std::size_t>(fd) >= watchers_.size()) {
      ev_io& fresh = watchers_.emplace_back();  // by name: ev_init is a macro that repeats it
      ev_init(&fresh, on_ready);
    }
    ev_io& watcher = watchers_[static_cast<std::size_t>(fd)];
    const bool is_there = is_watched(fd);
    if (is_there && !shows_hang_up(to) && inner_.is_there()) return watch_inside(watcher, fd, to);
    inner_.forget(fd);
    ev_io_stop(loop_.get(), &watcher);
    if (!is_there || to == Interest::none) return 0;
    ev_io_set(&watcher, fd, to_libev_events(to));
    ev_io_start(loop_.get(), &watcher);
    suspects_.push_back(fd);
    return 0;
  }

  /// Of the backends only select(2) has one that waits for something and doesn't.
  bool shows_hang_up(Interest interest) const {
    if (has(interest, Interest::read)) return true;
    return interest != Interest::none && ev_backend(loop_.get()) != EVBACKEND_SELECT;
  }

  int watch_inside(ev_io& watcher, int fd, Interest interest) {
    const int error = inner_.watch(fd, interest);
    if (error != 0) return error;
    ev_io_stop(loop_.get(), &watcher);
    if (ev_is_active(&inner_watcher_)) return 0;
    ev_io_set(&inner_watcher_, inner_.fileno(), EV_READ);
    ev_io_start(loop_.get(), &inner_watcher_);
    return 0;
  }

  int wait(std::optional<Duration> timeout) override {
    is_inner_ready_ = inner_.flush();
    if (const int error = run(timeout)) return error;
    return is_inner_ready_ ? report_inner() : 0;
  }

  int report_inner() {
    return inner_.look([this](int fd, Interest events) {
      report(fd, events == Interest::none ? hang_up : events, generation(fd));
    });
  }

  int run(std::optional<Duration> timeout) {
    const bool found_closed = report_closed_ones();
    if (found_closed || is_inner_ready_ || (timeout && *timeout == Duration::zero())) {
      ev_run(loop_.get(), EVRUN_NOWAIT);
      return 0;
    }
    if (timeout) {
      ev_now_update(loop_.get());
      ev_timer_set(&timer_, std::chrono::duration<double>(*timeout).count(), 0.0);
      ev_timer_start(loop_.get(), &timer_);
    }
    ev_run(loop_.get(), EVRUN_ONCE);
    ev_timer_stop(loop_.get(), &timer_);
    return 0;
  }

  bool report_closed_ones() {
    if (ev_backend(loop_.get()) == EVBACKEND_POLL) suspect_invalid_ones();
    bool found = false;
    checking_.swap(suspects_);
    for (const int fd : checking_) {
      if (!is_watched(fd) || System::real().is_open(fd)) continue;
      report_closed(fd);
      found = true;
    }
    checking_.clear();
    return found;
  }

  void suspect_invalid_ones() {
    polled_.clear();
    for (const ev_io& watcher : watchers_) {
      if (ev_is_active(&watcher)) polled_.push_back(pollfd{watcher.fd, 0, 0});
    }
    ::poll(polled_.data(), polled_.size(), 0);
    for (const pollfd& entry : polled_) {
      if ((entry.revents & POLLNVAL) != 0) suspects_.push_back(entry.fd);
    }
  }

  static void on_ready(struct ev_loop* loop, ev_io* watcher, int events) {
    auto& self = *static_cast<LibevSelector*>(ev_userdata(loop));
    const int fd = watcher->fd;
    if ((events & EV_ERROR) != 0) return self.report_closed(fd);
    self.suspects_.push_back(fd);
    self.report(fd,
                ((events & EV_READ) != 0 ? Interest::read : Interest::none) |
                    ((events & EV_WRITE) != 0 ? Interest::write : Interest::none),
                self.generation(fd));
  }

  static void on_inner_ready(struct ev_loop* loop, ev_io*, int) {
    static_cast<LibevSelector*>(ev_userdata(loop))->is_inner_ready_ = true;
  }

  static void on_remake(struct ev_loop* loop, ev_fork*, int) {
    auto& self = *static_cast<LibevSelector*>(ev_userdata(loop));
    for (const ev_io& watcher : self.watchers_) {
      if (ev_is_active(&watcher) && !System::real().is_open(watcher.fd)) {
        self.report_closed(watcher.fd);
      }
    }
  }

  static void on_timer(struct ev_loop*, ev_timer*, int) {}

  LoopPointer loop_;
  InnerSet inner_;
  bool is_inner_ready_ = false;  // true exactly when something inside has to be told
  ev_timer timer_;
  ev_io inner_watcher_;
  ev_fork remake_;
  std::deque<ev_io> watchers_;  // by fd; libev keeps their addresses
  std::vector<int> suspects_;   // to be looked at before the next wait
  std::vector<int> checking_;
  std::vector<pollfd> polled_;
};

}  // namespace

std::vector<std::string_view> libev_selector_names() {
  std::vector<std::string_view> names;
  for (const Kind& kind : kinds) {
    if (kind.flags != 0 && (ev_supported_backends() & kind.flags) == 0) continue;
    if (make_loop(kind)) names.push_back(kind.name);
  }
  return names;
}

std::unique_ptr<Selector> make_libev_selector(std::string_view name) {
  if (name == "libev:iouring") {
    throw std::invalid_argument(
        "make_selector: libev:iouring is refused, because up to libev 4.33 it loses events and "
        "aborts the process under load; libev:epoll does the same work");
  }
  for (const Kind& kind : kinds) {
    if (kind.name != name) continue;
    if (kind.flags != 0 && (ev_supported_backends() & kind.flags) == 0) return nullptr;
    LoopPointer loop = make_loop(kind);
    if (loop) return std::make_unique<LibevSelector>(kind, std::move(loop));
    throw std::system_error(errno, std::system_category(),
                            "selector " + std::string(name) + ": ev_loop_new");
  }
  return nullptr;
}

}  // namespace pawl
