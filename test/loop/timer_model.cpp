// SPDX-License-Identifier: MIT
// Random timers against a std::multimap, which is the specification: in the order of the deadlines,
// equal ones in the order of adding.
#include <catch2/catch.hpp>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/virtual_clock.hpp"

using pawl::Duration;
using pawl::EventLoop;
using pawl::TimePoint;
using pawl::TimerHandle;

namespace {

class TimerModel {
 public:
  explicit TimerModel(unsigned seed) : random_(seed), loop_(options_on(clock_)) {}

  void step() {
    const auto dice = random_() % 100;
    if (dice < 50) {
      add(some_moment());
    } else if (dice < 80) {
      cancel_one();
    } else {
      advance();
    }
  }

  void finish() {
    while (!expected_.empty()) {
      clock_.set(expected_.rbegin()->first);
      run_due();
    }
  }

  int mistakes() const { return mistakes_; }
  int fired() const { return fired_; }

 private:
  using Expected = std::multimap<TimePoint, std::size_t>;
  struct Timer {
    TimerHandle handle;
    Expected::iterator expected;
    bool is_pending;
  };

  void expect(bool is_true) { mistakes_ += is_true ? 0 : 1; }

  /// Up to 2^bits ns, each length equally likely.
  Duration some_span(unsigned bits) {
    const auto mask = (std::uint64_t{1} << (random_() % (bits + 1))) - 1;
    return Duration(static_cast<std::int64_t>(random_() & mask));
  }

  TimePoint some_moment() {
    switch (random_() % 8) {
      case 0: return clock_.now() - some_span(45);  // may lie before the epoch
      case 1: return clock_.now();
      case 2: return expected_.empty() ? clock_.now() : expected_.begin()->first;
      case 3: return expected_.empty() ? clock_.now() : expected_.rbegin()->first;
      default: return some_later_moment();
    }
  }

  TimePoint some_later_moment() { return clock_.now() + Duration(1) + some_span(58); }

  void add(TimePoint when) {
    const std::size_t number = timers_.size();
    const TimerHandle handle = loop_.call_at(when, [this, number] { on_fire(number); });
    expect(handle.when() == when);
    timers_.push_back(Timer{handle, expected_.emplace(when, number), true});
  }

  void cancel_one() {
    if (timers_.empty()) return;
    Timer& timer = timers_[static_cast<std::size_t>(random_() % timers_.size())];
    timer.handle.cancel();
    if (timer.is_pending) expected_.erase(timer.expected);
    timer.is_pending = false;
    if (random_() % 2 == 0) timer.handle = TimerHandle();  // so that its slot is used again
  }

  void advance() {
    if (!expected_.empty() && random_() % 2 == 0) {
      const TimePoint next = expected_.begin()->first - Duration(random_() % 3 == 0 ? 1 : 0);
      if (next > clock_.now()) clock_.set(next);
    } else {
      clock_.advance(some_span(52));
    }
    run_due();
  }

  void run_due() {
    // With more due ones than the budget allows it takes several passes.
    for (bool again = true; again;) {
      check_next_deadline();
      const bool is_alive = loop_.run_once(Duration::zero());
      expect(is_alive == !expected_.empty());
      again = !expected_.empty() && expected_.begin()->first <= clock_.now();
    }
    check_next_deadline();
  }

  void check_next_deadline() {
    const std::optional<TimePoint> next = loop_.next_deadline();
    expect(next.has_value() == !expected_.empty());
    if (next && !expected_.empty()) {
      expect(*next <= std::max(expected_.begin()->first, clock_.now()));
    }
  }

  void on_fire(std::size_t number) {
    ++fired_;
    Timer& timer = timers_[number];
    expect(timer.is_pending && timer.expected == expected_.begin());
    expect(timer.expected->first <= clock_.now());
    expected_.erase(timer.expected);
    timer.is_pending = false;
    timer.handle.cancel();  // too late
    expect(!timer.handle.cancelled());
    if (random_() % 4 == 0) add(some_later_moment());
    if (random_() % 4 == 0) cancel_one();
  }

  std::mt19937_64 random_;
  VirtualClock clock_;
  EventLoop loop_;
  Expected expected_;
  std::vector<Timer> timers_;
  int mistakes_ = 0;
  int fired_ = 0;
};

}  // namespace

TEST_CASE("Random timers fire as a sorted list of them would") {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    TimerModel model(seed);
    for (int i = 0; i < 40'000; ++i) model.step();
    model.finish();
    INFO("seed " << seed);
    CHECK(model.mistakes() == 0);
    CHECK(model.fired() > 1000);
  }
}
