// SPDX-License-Identifier: MIT
// pawl as its users write it, against the shared library.

#include <sys/eventfd.h>

#include <memory>
#include <string>
#include <system_error>

#include "contender.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/run_in_executor.hpp"
#include "pawl/async/task.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/core/version.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/idle_timer.hpp"
#include "pawl/selector/selector.hpp"

namespace bench {
namespace {

using pawl::Interest;

void check(std::error_code error, const char* call) {
  if (error) throw std::system_error(error, call);
}

/// As many threads as libuv has for work.
pawl::LoopOptions with_selector(std::string_view selector, bool threads) {
  pawl::LoopOptions options;
  if (threads) options.executor_threads = 4;
  options.selector = selector;
  return options;
}

/// A task that yields until its steps are over.
class Stepper final : public pawl::Task<> {
 public:
  Stepper(pawl::EventLoop& loop, std::size_t steps, std::uint64_t& ran)
      : Task(loop, "stepper"), left_(steps), ran_(ran) {}

 private:
  pawl::Next step() override {
    ++ran_;
    return --left_ == 0 ? pawl::Next::done() : pawl::Next::yield();
  }

  std::size_t left_;
  std::uint64_t& ran_;
};

class PawlLoop final : public Loop {
 public:
  PawlLoop(std::string_view selector, bool threads)
      : loop_(with_selector(selector, threads)), selector_(pawl::make_selector(selector)) {}

  void in_callback(const std::function<void()>& work) override {
    loop_.call_soon([&work] { work(); });
    run_pass();
  }

  bool prepare_timers(std::size_t count) override {
    timers_.resize(count);
    return true;
  }

  void add_timers(const Delays& delays) override {
    const pawl::TimePoint now = loop_.pass_time();
    for (std::size_t i = 0; i < delays.size(); ++i) {
      timers_[i] = loop_.call_at(now + delays[i], payload());
    }
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      timers_[i] = loop_.call_later(delays[i], payload());
    }
    return true;
  }

  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) timers_[i].cancel();
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) run_pass();
  }

  bool prepare_idle(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      idle_.push_back(std::make_unique<pawl::IdleTimer>(loop_, std::chrono::minutes(1), payload()));
      idle_.back()->start();
    }
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) idle_[i]->touch();
  }

  bool prepare_soon(std::size_t batch) override {
    batch_ = batch;
    return true;
  }

  void post_soon() override {
    for (std::size_t i = 0; i < batch_; ++i) loop_.call_soon(payload());
  }

  void run_soon() override { run_pass(); }

  /// A loop without anything to wait for doesn't wait; real ones have a listener.
  bool prepare_posts() override {
    never_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    check(loop_.add_reader(never_.get(), [] {}), "add_reader");
    return true;
  }

  void post_from_thread(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) loop_.call_soon_threadsafe(payload());
  }

  void run_posts(std::size_t count) override {
    while (ran_ < count) loop_.run_once();
  }

  bool watch(Chain& chain) override {
    chain_ = &chain;
    for (std::size_t i = 0; i < chain.size(); ++i) read(i);
    return true;
  }

  void run_chain() override { loop_.run(); }

  bool switch_off_and_on() override {
    fill_selector();
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      selector_->modify(chain_->reader(i), Interest::none);
      selector_->modify(chain_->reader(i), Interest::read);
    }
    check(selector_->select(pawl::Duration::zero(), ready_), "select");
    return true;
  }

  bool remove_and_add() override {
    fill_selector();
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      selector_->remove(chain_->reader(i));
      selector_->add(chain_->reader(i), Interest::read);
    }
    check(selector_->select(pawl::Duration::zero(), ready_), "select");
    return true;
  }

  bool replace_readers() override {
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      loop_.remove_reader(chain_->reader(i));
      read(i);
    }
    run_pass();
    return true;
  }

  bool run_then_chains(std::size_t count, std::size_t links) override {
    std::vector<pawl::Promise<void>> promises;
    promises.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      pawl::Future<void> last = promises.emplace_back(loop_).future();
      for (std::size_t link = 0; link < links; ++link) last = last.then(payload());
    }
    for (auto& promise : promises) promise.set_result();
    loop_.run();
    return true;
  }

  bool gather_ready(std::size_t count) override {
    std::vector<pawl::Future<std::size_t>> futures;
    futures.reserve(count);
    for (std::size_t i = 0; i < count; ++i) futures.push_back(pawl::make_ready_future(loop_, i));
    ran_ += pawl::gather(loop_, std::move(futures)).result().size();
    return true;
  }

  bool run_task_steps(std::size_t count, std::size_t steps) override {
    std::vector<std::unique_ptr<Stepper>> tasks;
    for (std::size_t i = 0; i < count; ++i) {
      tasks.push_back(std::make_unique<Stepper>(loop_, steps, ran_));
    }
    loop_.run();
    return true;
  }

  bool run_jobs(std::size_t count, std::size_t at_once) override {
    jobs_left_ = count;
    for (std::size_t i = 0; i < at_once; ++i) start_job();
    loop_.run();
    return true;
  }

 private:
  void start_job() {
    if (jobs_left_ == 0) return;
    --jobs_left_;
    pawl::run_in_executor(loop_, [] {}).add_done_callback([this] {
      ++ran_;
      start_job();
    });
  }

  void run_pass() { loop_.run_once(pawl::Duration::zero()); }

  void read(std::size_t pair) {
    const auto on_readable = [this, pair] {
      if (!chain_->on_readable(pair)) loop_.stop();
    };
    check(loop_.add_reader(chain_->reader(pair), on_readable), "add_reader");
  }

  void fill_selector() {
    if (selector_->size() != 0) return;
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      check(selector_->add(chain_->reader(i), Interest::read), "add");
    }
  }

  pawl::UniqueFd never_;
  pawl::EventLoop loop_;
  std::unique_ptr<pawl::Selector> selector_;
  std::vector<pawl::Ready> ready_;
  std::vector<pawl::TimerHandle> timers_;
  std::vector<std::unique_ptr<pawl::IdleTimer>> idle_;
  std::size_t batch_ = 0;
  std::size_t jobs_left_ = 0;
  Chain* chain_ = nullptr;
};

std::unique_ptr<Loop> make(std::string_view selector, bool threads) {
  return std::make_unique<PawlLoop>(selector, threads);
}

const Registration registration({"pawl", PAWL_VERSION_STRING, make});

}  // namespace
}  // namespace bench
