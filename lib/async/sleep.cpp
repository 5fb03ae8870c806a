// SPDX-License-Identifier: MIT
#include "pawl/async/sleep.hpp"

#include "pawl/loop/event_loop.hpp"

namespace pawl {
namespace {

class SleepState : public FutureState<void> {
 public:
  using FutureState<void>::FutureState;

  void start(Duration duration) {
    timer_ = loop().call_later(
        duration, [this] { set_value(); }, place());
    tell_of_closing();
  }

 protected:
  void on_cancel() noexcept override { timer_.cancel(); }
  void on_loop_closed() noexcept override {
    timer_.cancel();
    fail(Errc::loop_closed);
  }

 private:
  TimerHandle timer_;
};

}  // namespace

Future<void> sleep(EventLoop& loop, Duration duration, Place place) {
  auto* state = make_state<SleepState>(FutureCore::hub_of(loop), place);
  return start_future<void>(state, [&] { state->start(duration); });
}

}  // namespace pawl
