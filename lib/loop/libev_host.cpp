// SPDX-License-Identifier: MIT
// Traps: libev's macros name their argument twice; a watcher on a closed descriptor aborts the
// process; libev calls back through C, which an exception must not cross.
#include "pawl/loop/libev_host.hpp"

#include <ev.h>

#include <chrono>
#include <deque>
#include <utility>

#include "loop/loop_parts.hpp"

namespace pawl {

struct LibevHost::Watchers {
  Watchers(struct ev_loop* host_loop, EventLoop& pawl_loop) : host(host_loop), loop(pawl_loop) {
    ev_prepare_init(&prepare, on_prepare);
    ev_check_init(&check, on_check);
    ev_set_priority(&check, EV_MINPRI);  // after all of the program's callbacks
    ev_init(&timer, on_timer);
    ev_init(&nested, on_ready);
    prepare.data = check.data = timer.data = nested.data = this;
    ev_prepare_start(host, &prepare);
    ev_unref(host);
    ev_check_start(host, &check);
    ev_unref(host);
    if (const int fd = loop.selector().fileno(); fd >= 0) {
      ev_io_set(&nested, fd, EV_READ);
      ev_io_start(host, &nested);
      ev_unref(host);
    }
  }

  ~Watchers() {
    hold_host(false);
    stop_mirrors();
    ev_timer_stop(host, &timer);
    stop_nested();
    ev_ref(host);
    ev_check_stop(host, &check);
    ev_ref(host);
    ev_prepare_stop(host, &prepare);
  }

  Watchers(const Watchers&) = delete;
  Watchers& operator=(const Watchers&) = delete;

  static void on_prepare(struct ev_loop*, ev_prepare* watcher, int) {
    auto& self = *static_cast<Watchers*>(watcher->data);
    self.protect([&] { self.get_ready(); });
  }
  /// A callback of the program may have given the loop something to wait for.
  static void on_check(struct ev_loop*, ev_check* watcher, int) {
    auto& self = *static_cast<Watchers*>(watcher->data);
    const LoopParts& parts = self.loop.parts();
    self.hold_host(!parts.is_forked_child() && parts.is_alive());
  }
  static void on_timer(struct ev_loop*, ev_timer* watcher, int) {
    static_cast<Watchers*>(watcher->data)->run();
  }
  static void on_ready(struct ev_loop*, ev_io* watcher, int) {
    static_cast<Watchers*>(watcher->data)->run();
  }

  /// libev is about to wait.
  void get_ready() {
    if (loop.parts().is_forked_child()) return leave_host();
    ev_timer_stop(host, &timer);
    const std::optional<TimePoint> deadline = loop.next_deadline();
    if (!ev_is_active(&nested)) mirror_descriptors();
    hold_host(loop.parts().is_alive());
    if (!deadline) return;
    ev_now_update(host);
    const std::chrono::duration<double> delay = *deadline - loop.time();
    ev_timer_set(&timer, delay.count() > 0 ? delay.count() : 0.0, 0.0);
    ev_timer_start(host, &timer);  // holds the host: there is a deadline, so there is work
  }

  void run() {
    if (loop.parts().is_forked_child()) return leave_host();
    ev_timer_stop(host, &timer);
    stop_mirrors();
    protect([this] {
      loop.run_once(Duration::zero());
      if (loop.parts().was_stopped) ev_break(host, EVBREAK_ALL);
    });
  }

  /// Keeps an exception from libev, which ends its run; the program asks for it afterwards.
  template <typename Work>
  void protect(Work work) {
    try {
      work();
    } catch (...) {
      exception = std::current_exception();
      ev_break(host, EVBREAK_ALL);
    }
  }

  /// In a forked child, whose host goes on without this loop.
  void leave_host() {
    ev_timer_stop(host, &timer);
    stop_mirrors();
    stop_nested();
    hold_host(false);
  }

  void stop_nested() {
    if (!ev_is_active(&nested)) return;
    ev_ref(host);
    ev_io_stop(host, &nested);
  }

  /// A selector without a descriptor of its own: its descriptors are watched one by one, anew
  /// before each wait. It looks at each of them anyway.
  void mirror_descriptors() {
    stop_mirrors();
    loop.parts().watches.for_each([this](int fd, Interest interest) {
      const bool can_be = (interest & Interest::read_write) != Interest::none;
      if (can_be && loop.system().is_open(fd)) mirror_descriptor(fd, interest);
    });
    Selector* inner = loop.selector().inner();
    if (inner == nullptr || inner->size() == 0) return;
    inner->flush();
    mirror_descriptor(inner->fileno(), Interest::read);
  }

  void mirror_descriptor(int fd, Interest interest) {
    ev_io& mirror = mirrors.emplace_back();
    ev_init(&mirror, on_ready);
    mirror.data = this;
    ev_io_set(&mirror, fd,
              (has(interest, Interest::read) ? EV_READ : 0) |
                  (has(interest, Interest::write) ? EV_WRITE : 0));
    ev_io_start(host, &mirror);
    ev_unref(host);
  }

  void stop_mirrors() {
    for (ev_io& mirror : mirrors) {
      ev_ref(host);
      ev_io_stop(host, &mirror);
    }
    mirrors.clear();
  }

  void hold_host(bool holds) {
    if (holds == holds_host) return;
    holds_host = holds;
    holds ? ev_ref(host) : ev_unref(host);
  }

  struct ev_loop* host;
  EventLoop& loop;
  ev_prepare prepare;
  ev_check check;
  ev_timer timer;
  ev_io nested;
  std::deque<ev_io> mirrors;
  bool holds_host = false;  // true exactly while ev_run must not return for our sake
  std::exception_ptr exception;
};

LibevHost::LibevHost(struct ev_loop* host, EventLoop& loop)
    : watchers_(std::make_unique<Watchers>(host, loop)) {
  watchers_->hold_host(loop.parts().is_alive());
}

LibevHost::~LibevHost() = default;

void LibevHost::rethrow_exception() {
  if (std::exception_ptr exception = std::exchange(watchers_->exception, nullptr)) {
    std::rethrow_exception(exception);
  }
}

}  // namespace pawl
