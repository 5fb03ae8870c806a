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

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <deque>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "pawl/system/system.hpp"
#include "selector/backends.hpp"
#include "selector/inner_set.hpp"
#include "selector/libev_guard.hpp"

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

int to_libev_events(Interest interest) {
  return (has(interest, Interest::read) ? EV_READ : 0) |
         (has(interest, Interest::write) ? EV_WRITE : 0);
}

/// A loop of libev's, and whatever is called on it.
class Loop {
 public:
  explicit Loop(const Kind& kind) {
    LibevGuard::install();
    if (!guard.reserve(0)) throw std::bad_alloc();
    guard.run([&] { loop_ = ev_loop_new(EVFLAG_NOENV | EVFLAG_NOINOTIFY | kind.flags); });
  }
  ~Loop() {
    if (loop_ != nullptr) guard.run([this] { ev_loop_destroy(loop_); });
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  struct ev_loop* get() const {
    return loop_;
  }

  LibevGuard guard;

 private:
  struct ev_loop* loop_ = nullptr;
};

class LibevSelector final : public Selector {
 public:
  LibevSelector(const Kind& kind, std::unique_ptr<Loop> loop)
      : Selector(kind.name, ClosedFdCheck::by_base),
        its_loop_(std::move(loop)),
        loop_(its_loop_->get()) {
    ev_set_userdata(loop_, this);
    ev_set_loop_release_cb(loop_, on_release, nullptr);
    ev_ref(loop_);  // waits without a watcher too
    ev_init(&timer_, on_timer);
    ev_init(&inner_watcher_, on_inner_ready);
    ev_fork_init(&remake_, on_remake);
    guard().run([this] { ev_fork_start(loop_, &remake_); });
  }

  Selector* inner() const override { return inner_.selector(); }

 private:
  LibevGuard& guard() { return its_loop_->guard; }
  static LibevSelector& self_of(struct ev_loop* loop) {
    return *static_cast<LibevSelector*>(ev_userdata(loop));
  }

  bool has_reserve() {
    const auto inner_size = static_cast<std::size_t>(inner_.fileno() + 1);
    return guard().reserve(std::max(watchers_.size(), inner_size));
  }

  int change(int fd, Interest, Interest to) override {
    grow(fd);
    ev_io& watcher = watchers_[static_cast<std::size_t>(fd)];
    const bool is_there = is_watched(fd);
    if (!has_reserve() && is_there) return ENOMEM;
    if (is_there && !shows_hang_up(to) && inner_.is_there()) return watch_inside(watcher, fd, to);
    if (is_there && to != Interest::none) {
      suspects_.push_back(fd);
      start(watcher, fd, to_libev_events(to));
    } else {
      stop(watcher);
    }
    inner_.forget(fd);
    return 0;
  }

  void grow(int fd) {
    const auto size = static_cast<std::size_t>(fd) + 1;
    if (size <= watchers_.size()) return;
    checking_.reserve(size);
    suspects_.reserve(size);
    while (watchers_.size() < size) {
      ev_io& fresh = watchers_.emplace_back();  // by name: ev_init is a macro that repeats it
      ev_init(&fresh, on_ready);
    }
  }

  /// Of the backends only select(2) has one that waits for something and doesn't.
  bool shows_hang_up(Interest interest) const {
    if (has(interest, Interest::read)) return true;
    return interest != Interest::none && ev_backend(loop_) != EVBACKEND_SELECT;
  }

  int watch_inside(ev_io& watcher, int fd, Interest interest) {
    const int error = inner_.watch(fd, interest);
    if (error != 0) return error;
    stop(watcher);
    if (!ev_is_active(&inner_watcher_)) start(inner_watcher_, inner_.fileno(), EV_READ);
    return 0;
  }

  void start(ev_io& watcher, int fd, int events) {
    guard().run([&] {
      ev_io_stop(loop_, &watcher);
      ev_io_set(&watcher, fd, events);
      ev_io_start(loop_, &watcher);
    });
  }
  void stop(ev_io& watcher) {
    if (!ev_is_active(&watcher) && !ev_is_pending(&watcher)) return;
    guard().run([&] { ev_io_stop(loop_, &watcher); });
  }

  int wait(std::optional<Duration> timeout) override {
    is_inner_ready_ = inner_.flush();
    lost_error_ = 0;
    const int error = run(timeout);
    guard().rethrow();
    if (error != 0 || lost_error_ != 0) return error != 0 ? error : lost_error_;
    return is_inner_ready_ ? report_inner() : 0;
  }

  int report_inner() {
    return inner_.look([this](int fd, Interest events) {
      report(fd, events == Interest::none ? hang_up : events, generation(fd));
    });
  }

  int run(std::optional<Duration> timeout) {
    const bool found_closed = report_closed_ones();
    if (!has_reserve()) return ENOMEM;
    const bool only_looks =
        found_closed || is_inner_ready_ || (timeout && *timeout == Duration::zero());
    const int error = guard().run([&] {
      if (timeout && !only_looks) {
        ev_now_update(loop_);
        ev_timer_set(&timer_, std::chrono::duration<double>(*timeout).count(), 0.0);
        ev_timer_start(loop_, &timer_);
      }
      errno = 0;
      ev_run(loop_, only_looks ? EVRUN_NOWAIT : EVRUN_ONCE);
    });
    const int left_error = guard().run([this] {
      ev_break(loop_, EVBREAK_CANCEL);  // what it isn't after it was left in the middle
      ev_invoke_pending(loop_);
      ev_timer_stop(loop_, &timer_);
    });
    return error != 0 ? error : left_error;
  }

  bool report_closed_ones() {
    if (ev_backend(loop_) == EVBACKEND_POLL) suspect_invalid_ones();
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
    LibevSelector& self = self_of(loop);
    self.guard().protect([&] { self.take(watcher->fd, events); });
  }

  void take(int fd, int events) {
    if ((events & EV_ERROR) != 0) return take_lost(fd);
    suspects_.push_back(fd);
    report(fd,
           ((events & EV_READ) != 0 ? Interest::read : Interest::none) |
               ((events & EV_WRITE) != 0 ? Interest::write : Interest::none),
           generation(fd));
  }

  /// libev gave it up: it was closed, or the kernel had no room.
  void take_lost(int fd) {
    if (!System::real().is_open(fd)) return report_closed(fd);
    lost_error_ = change_error_ != 0 ? change_error_ : ENOMEM;
    apply_again(fd);
  }

  /// The backend is about to wait. What libev has just given up would be told after the wait.
  static void on_release(struct ev_loop* loop) noexcept {
    if (ev_pending_count(loop) == 0) return;
    LibevSelector& self = self_of(loop);
    self.change_error_ = errno;
    self.guard().leave();
  }

  static void on_inner_ready(struct ev_loop* loop, ev_io*, int) {
    self_of(loop).is_inner_ready_ = true;
  }

  static void on_remake(struct ev_loop* loop, ev_fork*, int) {
    LibevSelector& self = self_of(loop);
    self.guard().protect([&] { self.report_all_closed_ones(); });
  }

  void report_all_closed_ones() {
    for (const ev_io& watcher : watchers_) {
      if (ev_is_active(&watcher) && !System::real().is_open(watcher.fd)) report_closed(watcher.fd);
    }
  }

  static void on_timer(struct ev_loop*, ev_timer*, int) {}

  std::unique_ptr<Loop> its_loop_;
  struct ev_loop* loop_;
  InnerSet inner_;
  bool is_inner_ready_ = false;  // true exactly when something inside has to be told
  int lost_error_ = 0;           // an errno: why libev gave one up in this wait
  int change_error_ = 0;         // an errno, as it was when libev had changed its set
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
    if (Loop(kind).get() != nullptr) names.push_back(kind.name);
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
    auto loop = std::make_unique<Loop>(kind);
    if (loop->get() != nullptr) return std::make_unique<LibevSelector>(kind, std::move(loop));
    throw std::system_error(errno, std::system_category(),
                            "selector " + std::string(name) + ": ev_loop_new");
  }
  return nullptr;
}

}  // namespace pawl
