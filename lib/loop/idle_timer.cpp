// SPDX-License-Identifier: MIT
#include "pawl/loop/idle_timer.hpp"

#include "loop/loop_parts.hpp"

namespace pawl {

IdleTimer::IdleTimer(EventLoop& loop, Duration timeout, Function<void()> callback, Place place)
    : loop_(loop),
      pass_time_(&loop.parts().pass_time),
      timeout_(timeout),
      callback_(std::make_shared<Function<void()>>(std::move(callback))),
      place_(place) {}

IdleTimer::~IdleTimer() { timer_.cancel(); }

void IdleTimer::start() {
  touch();
  if (is_running_) return;
  loop_.parts().refuse_wrong_thread("call_at");
  timer_.cancel();  // of an earlier run, which is on the stack now
  timer_ = loop_.parts().add_moving_timer(
      add_saturated(loop_.time(), timeout_), [this] { on_timer(); }, place_);
  is_running_ = true;
}

void IdleTimer::stop() {
  is_running_ = false;
  timer_.cancel();
}

void IdleTimer::on_timer() {
  const TimePoint deadline = add_saturated(last_touch_, timeout_);
  if (deadline > loop_.pass_time()) return LoopParts::run_again_at(timer_, deadline);
  is_running_ = false;
  const std::shared_ptr<Function<void()>> callback = callback_;
  (*callback)();
}

}  // namespace pawl
