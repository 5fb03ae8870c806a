// SPDX-License-Identifier: MIT
// libevent as its users write it: events that live in their own objects (event_assign), no locks
// where there are no threads. Times are read from the loop's cache, as inside any callback.
//
// The trap: libev's library exports a half of libevent's functions, under the same names. libevent
// has to come before it in the order of linking.

#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>

#include <stdexcept>

#include "contender.hpp"

namespace bench {
namespace {

timeval to_timeval(Nanoseconds time) {
  return {static_cast<time_t>(time.count() / 1'000'000'000),
          static_cast<suseconds_t>(time.count() % 1'000'000'000 / 1000)};
}

event_base* make_base(std::string_view selector, bool threads) {
  if (std::string_view(event_get_version()) != LIBEVENT_VERSION) {
    throw std::logic_error("libev's imitation of libevent was linked in its place");
  }
  evthread_use_pthreads();
  event_config* config = event_config_new();
  for (const std::string method : {"epoll", "poll", "select"}) {
    if (method != selector) event_config_avoid_method(config, method.c_str());
  }
  if (!threads) event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_base* base = event_base_new_with_config(config);
  event_config_free(config);
  if (base == nullptr) throw std::runtime_error("event_base_new_with_config failed");
  return base;
}

class LibeventLoop final : public Loop {
 public:
  LibeventLoop(std::string_view selector, bool threads)
      : is_select_(selector == "select"), base_(make_base(selector, threads)) {
    event_assign(&once_, base_, -1, 0, &on_once, this);
  }

  ~LibeventLoop() override {
    for (Reader& reader : readers_) event_del(&reader.readable);
    for (event& timer : timers_) event_del(&timer);
    event_base_free(base_);
  }

  void in_callback(const std::function<void()>& work) override {
    work_ = &work;
    event_active(&once_, EV_TIMEOUT, 0);
    event_base_loop(base_, EVLOOP_NONBLOCK);
  }

  bool prepare_timers(std::size_t count) override {
    timers_.resize(count);
    for (event& timer : timers_) event_assign(&timer, base_, -1, 0, &on_timer, this);
    return true;
  }

  void add_timers(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      const timeval delay = to_timeval(delays[i]);
      event_add(&timers_[i], &delay);
    }
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      event_base_update_cache_time(base_);
      const timeval delay = to_timeval(delays[i]);
      event_add(&timers_[i], &delay);
    }
    return true;
  }

  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) event_del(&timers_[i]);
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) event_base_loop(base_, EVLOOP_NONBLOCK);
  }

  /// A common timeout keeps its events in a list instead of the heap.
  bool prepare_idle(std::size_t count) override {
    const timeval minute{60, 0};
    idle_ = event_base_init_common_timeout(base_, &minute);
    prepare_timers(count);
    for (event& timer : timers_) event_add(&timer, idle_);
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) event_add(&timers_[i], idle_);
  }

  bool prepare_soon(std::size_t batch) override {
    soon_.resize(batch);
    for (event& soon : soon_) event_assign(&soon, base_, -1, 0, &on_timer, this);
    return true;
  }

  void post_soon() override {
    for (event& soon : soon_) event_active(&soon, EV_TIMEOUT, 0);
  }

  void run_soon() override { event_base_loop(base_, EVLOOP_NONBLOCK); }

  bool prepare_posts() override {
    event_assign(&wake_up_, base_, -1, EV_PERSIST, &on_wake_up, this);
    return true;
  }

  void post_from_thread(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      if (posts_.push(Call(payload()))) event_active(&wake_up_, EV_TIMEOUT, 0);
    }
  }

  void run_posts(std::size_t count) override {
    while (ran_ < count) event_base_loop(base_, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY);
  }

  bool watch(Chain& chain) override {
    if (is_select_ && !chain.fits_fd_set()) return false;
    chain_ = &chain;
    readers_.resize(chain.size());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      Reader& reader = readers_[i];
      reader.loop = this;
      event_assign(&reader.readable, base_, chain.reader(i), EV_READ | EV_PERSIST, &on_readable,
                   &reader);
      event_add(&reader.readable, nullptr);
    }
    return true;
  }

  void run_chain() override { event_base_loop(base_, 0); }

  bool switch_off_and_on() override {
    for (Reader& reader : readers_) {
      event_del(&reader.readable);
      event_add(&reader.readable, nullptr);
    }
    event_base_loop(base_, EVLOOP_NONBLOCK);
    return true;
  }

  /// event_del tells the kernel at once (without the change list), so it is the same.
  bool remove_and_add() override { return switch_off_and_on(); }

 private:
  struct Reader {
    event readable;
    LibeventLoop* loop;
  };

  static LibeventLoop& self(void* data) { return *static_cast<LibeventLoop*>(data); }
  static void on_once(evutil_socket_t, short, void* data) { (*self(data).work_)(); }
  static void on_timer(evutil_socket_t, short, void* data) { ++self(data).ran_; }
  static void on_wake_up(evutil_socket_t, short, void* data) { self(data).posts_.run_all(); }

  static void on_readable(evutil_socket_t, short, void* data) {
    const auto* reader = static_cast<Reader*>(data);
    LibeventLoop& me = *reader->loop;
    const auto pair = static_cast<std::size_t>(reader - me.readers_.data());
    if (!me.chain_->on_readable(pair)) event_base_loopbreak(me.base_);
  }

  bool is_select_;
  event_base* base_;
  event once_{};
  const std::function<void()>* work_ = nullptr;
  std::vector<event> timers_;
  const timeval* idle_ = nullptr;
  std::vector<event> soon_;
  event wake_up_{};
  PostQueue posts_;
  Chain* chain_ = nullptr;
  std::vector<Reader> readers_;
};

std::unique_ptr<Loop> make(std::string_view selector, bool threads) {
  return std::make_unique<LibeventLoop>(selector, threads);
}

const Registration registration({"libevent", event_get_version(), make});

}  // namespace
}  // namespace bench
