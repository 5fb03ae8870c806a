// SPDX-License-Identifier: MIT
// libev as its users write it: watchers that live in their own objects, one private loop.

#include <ev.h>

#include <system_error>

#include "contender.hpp"

namespace bench {
namespace {

double seconds(Nanoseconds time) { return std::chrono::duration<double>(time).count(); }

class LibevLoop final : public Loop {
 public:
  explicit LibevLoop(unsigned backend) : loop_(ev_loop_new(backend | EVFLAG_NOENV)) {
    if (loop_ == nullptr) throw std::system_error(errno, std::system_category(), "ev_loop_new");
    ev_set_userdata(loop_, this);
    ev_init(&once_, &on_once);
    ev_async_init(&async_, &on_async);
  }

  ~LibevLoop() override {
    for (ev_io& watcher : readers_) ev_io_stop(loop_, &watcher);
    ev_loop_destroy(loop_);
  }

  void in_callback(const std::function<void()>& work) override {
    work_ = &work;
    ev_feed_event(loop_, &once_, EV_CUSTOM);
    ev_run(loop_, EVRUN_NOWAIT);
  }

  bool prepare_timers(std::size_t count) override {
    timers_.resize(count);
    for (ev_timer& timer : timers_) ev_init(&timer, &on_timer);
    return true;
  }

  void add_timers(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      ev_timer_set(&timers_[i], seconds(delays[i]), 0.);
      ev_timer_start(loop_, &timers_[i]);
    }
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      ev_now_update(loop_);
      ev_timer_set(&timers_[i], seconds(delays[i]), 0.);
      ev_timer_start(loop_, &timers_[i]);
    }
    return true;
  }

  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) ev_timer_stop(loop_, &timers_[i]);
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) ev_run(loop_, EVRUN_NOWAIT);
  }

  bool prepare_idle(std::size_t count) override {
    timers_.resize(count);
    for (ev_timer& timer : timers_) {
      ev_init(&timer, &on_timer);
      timer.repeat = 60.;
      ev_timer_again(loop_, &timer);
    }
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) ev_timer_again(loop_, &timers_[i]);
  }

  bool prepare_soon(std::size_t batch) override {
    soon_.resize(batch);
    for (ev_prepare& watcher : soon_) ev_init(&watcher, &on_soon);
    return true;
  }

  void post_soon() override {
    for (ev_prepare& watcher : soon_) ev_feed_event(loop_, &watcher, EV_CUSTOM);
  }

  void run_soon() override { ev_run(loop_, EVRUN_NOWAIT); }

  bool prepare_posts() override {
    ev_async_start(loop_, &async_);
    return true;
  }

  void post_from_thread(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      if (posts_.push(Call(payload()))) ev_async_send(loop_, &async_);
    }
  }

  void run_posts(std::size_t count) override {
    while (ran_ < count) ev_run(loop_, EVRUN_ONCE);
  }

  bool watch(Chain& chain) override {
    chain_ = &chain;
    readers_.resize(chain.size());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      ev_io_init(&readers_[i], &on_readable, chain.reader(i), EV_READ);
      ev_io_start(loop_, &readers_[i]);
    }
    return true;
  }

  void run_chain() override { ev_run(loop_, 0); }

  bool switch_off_and_on() override {
    for (ev_io& watcher : readers_) {
      ev_io_stop(loop_, &watcher);
      ev_io_start(loop_, &watcher);
    }
    ev_run(loop_, EVRUN_NOWAIT);
    return true;
  }

  /// ev_io_set tells libev that the number may be another file by now, so it asks the kernel.
  bool remove_and_add() override {
    for (ev_io& watcher : readers_) {
      const int fd = watcher.fd;
      ev_io_stop(loop_, &watcher);
      ev_io_set(&watcher, fd, EV_READ);
      ev_io_start(loop_, &watcher);
    }
    ev_run(loop_, EVRUN_NOWAIT);
    return true;
  }

 private:
  static LibevLoop& self(struct ev_loop* loop) {
    return *static_cast<LibevLoop*>(ev_userdata(loop));
  }
  static void on_once(struct ev_loop* loop, ev_prepare*, int) { (*self(loop).work_)(); }
  static void on_timer(struct ev_loop* loop, ev_timer*, int) { ++self(loop).ran_; }
  static void on_soon(struct ev_loop* loop, ev_prepare*, int) { ++self(loop).ran_; }
  static void on_async(struct ev_loop* loop, ev_async*, int) { self(loop).posts_.run_all(); }

  static void on_readable(struct ev_loop* loop, ev_io* watcher, int) {
    LibevLoop& me = self(loop);
    const auto pair = static_cast<std::size_t>(watcher - me.readers_.data());
    if (!me.chain_->on_readable(pair)) ev_break(loop, EVBREAK_ONE);
  }

  struct ev_loop* loop_;
  ev_prepare once_{};
  const std::function<void()>* work_ = nullptr;
  std::vector<ev_timer> timers_;
  std::vector<ev_prepare> soon_;
  ev_async async_{};
  PostQueue posts_;
  Chain* chain_ = nullptr;
  std::vector<ev_io> readers_;
};

std::unique_ptr<Loop> make(std::string_view selector, bool /*threads*/) {
  const unsigned backend = selector == "epoll"  ? EVBACKEND_EPOLL
                           : selector == "poll" ? EVBACKEND_POLL
                                                : EVBACKEND_SELECT;
  return std::make_unique<LibevLoop>(backend);
}

const Registration registration(
    {"libev", std::to_string(ev_version_major()) + '.' + std::to_string(ev_version_minor()), make});

}  // namespace
}  // namespace bench
