// SPDX-License-Identifier: MIT
// libuv as its users write it: handles that live in their own objects. It has epoll only.

#include <uv.h>

#include <system_error>

#include "contender.hpp"

namespace bench {
namespace {

/// libuv counts milliseconds.
std::uint64_t milliseconds(Nanoseconds time) {
  return static_cast<std::uint64_t>(time.count()) / 1'000'000;
}

void check(int result, const char* call) {
  if (result != 0) throw std::system_error(-result, std::system_category(), call);
}

class LibuvLoop final : public Loop {
 public:
  LibuvLoop() {
    check(uv_loop_init(&loop_), "uv_loop_init");
    loop_.data = this;
    uv_check_init(&loop_, &once_);
  }

  /// Every handle has to be closed, and its closing has to be run, before its memory goes.
  ~LibuvLoop() override {
    uv_walk(
        &loop_, [](uv_handle_t* handle, void*) { uv_close(handle, nullptr); }, nullptr);
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }

  void in_callback(const std::function<void()>& work) override {
    work_ = &work;
    uv_check_start(&once_, [](uv_check_t* handle) { (*self(handle).work_)(); });
    uv_run(&loop_, UV_RUN_NOWAIT);
    uv_check_stop(&once_);
  }

  bool prepare_timers(std::size_t count) override {
    timers_.resize(count);
    for (uv_timer_t& timer : timers_) uv_timer_init(&loop_, &timer);
    uv_update_time(&loop_);
    return true;
  }

  void add_timers(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      uv_timer_start(&timers_[i], &on_timer, milliseconds(delays[i]), 0);
    }
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      uv_update_time(&loop_);
      uv_timer_start(&timers_[i], &on_timer, milliseconds(delays[i]), 0);
    }
    return true;
  }

  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) uv_timer_stop(&timers_[i]);
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) uv_run(&loop_, UV_RUN_NOWAIT);
  }

  bool prepare_idle(std::size_t count) override {
    prepare_timers(count);
    for (uv_timer_t& timer : timers_) uv_timer_start(&timer, &on_timer, 60'000, 60'000);
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) uv_timer_again(&timers_[i]);
  }

  /// The nearest thing it has: idle handles that stop themselves.
  bool prepare_soon(std::size_t batch) override {
    soon_.resize(batch);
    for (uv_idle_t& handle : soon_) uv_idle_init(&loop_, &handle);
    return true;
  }

  void post_soon() override {
    for (uv_idle_t& handle : soon_) uv_idle_start(&handle, &on_soon);
  }

  void run_soon() override { uv_run(&loop_, UV_RUN_NOWAIT); }

  bool prepare_posts() override {
    check(uv_async_init(&loop_, &async_, [](uv_async_t* handle) { self(handle).posts_.run_all(); }),
          "uv_async_init");
    return true;
  }

  void post_from_thread(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      if (posts_.push(Call(payload()))) uv_async_send(&async_);
    }
  }

  void run_posts(std::size_t count) override {
    while (ran_ < count) uv_run(&loop_, UV_RUN_ONCE);
  }

  bool watch(Chain& chain) override {
    chain_ = &chain;
    readers_.resize(chain.size());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      check(uv_poll_init(&loop_, &readers_[i], chain.reader(i)), "uv_poll_init");
      uv_poll_start(&readers_[i], UV_READABLE, &on_readable);
    }
    return true;
  }

  void run_chain() override { uv_run(&loop_, UV_RUN_DEFAULT); }

  bool switch_off_and_on() override {
    for (uv_poll_t& handle : readers_) {
      uv_poll_stop(&handle);
      uv_poll_start(&handle, UV_READABLE, &on_readable);
    }
    uv_run(&loop_, UV_RUN_NOWAIT);
    return true;
  }

  /// uv_poll_stop tells the kernel at once, so it is the same.
  bool remove_and_add() override { return switch_off_and_on(); }

  bool run_jobs(std::size_t count, std::size_t at_once) override {
    jobs_left_ = count;
    jobs_.resize(at_once);
    for (uv_work_t& job : jobs_) start_job(job);
    uv_run(&loop_, UV_RUN_DEFAULT);
    return true;
  }

 private:
  void start_job(uv_work_t& job) {
    if (jobs_left_ == 0) return;
    --jobs_left_;
    job.data = this;
    const auto done = [](uv_work_t* over, int) {
      auto& loop = *static_cast<LibuvLoop*>(over->data);
      ++loop.ran_;
      loop.start_job(*over);
    };
    check(uv_queue_work(
              &loop_, &job, [](uv_work_t*) {}, done),
          "uv_queue_work");
  }

  template <typename Handle>
  static LibuvLoop& self(Handle* handle) {
    return *static_cast<LibuvLoop*>(handle->loop->data);
  }

  static void on_timer(uv_timer_t* timer) { ++self(timer).ran_; }

  static void on_soon(uv_idle_t* handle) {
    ++self(handle).ran_;
    uv_idle_stop(handle);
  }

  static void on_readable(uv_poll_t* handle, int, int) {
    LibuvLoop& me = self(handle);
    const auto pair = static_cast<std::size_t>(handle - me.readers_.data());
    if (!me.chain_->on_readable(pair)) uv_stop(&me.loop_);
  }

  uv_loop_t loop_{};
  uv_check_t once_{};
  const std::function<void()>* work_ = nullptr;
  std::vector<uv_work_t> jobs_;
  std::size_t jobs_left_ = 0;
  std::vector<uv_timer_t> timers_;
  std::vector<uv_idle_t> soon_;
  uv_async_t async_{};
  PostQueue posts_;
  Chain* chain_ = nullptr;
  std::vector<uv_poll_t> readers_;
};

std::unique_ptr<Loop> make(std::string_view selector, bool /*threads*/) {
  if (selector != "epoll") return nullptr;
  return std::make_unique<LibuvLoop>();
}

const Registration registration({"libuv", uv_version_string(), make});

}  // namespace
}  // namespace bench
