// SPDX-License-Identifier: MIT
#include "pawl/async/run_until_complete.hpp"

#include <stdexcept>
#include <string>

#include "loop/loop_parts.hpp"
#include "pawl/async/task_base.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {
namespace {

class Stopper final : public FutureWaiter {
 public:
  explicit Stopper(EventLoop& loop) : loop_(loop) {}
  bool is_done() const { return is_done_; }

 private:
  void on_done(FutureCore&) override {
    is_done_ = true;
    loop_.stop();
  }
  void on_dropped() noexcept override {}

  EventLoop& loop_;
  bool is_done_ = false;  // true exactly when it is this that has stopped the loop
};

}  // namespace

void run_until_done(EventLoop& loop, FutureCore& core) {
  Stopper stopper(loop);
  stopper.wait(core);
  loop.run();
  if (stopper.is_done()) return;
  const std::string waiting = loop.why_alive();
  const bool is_dry = !loop.parts().is_alive();
  std::string text = "run_until_complete: the loop ";
  text += is_dry ? "ran dry" : "was stopped";
  text += " before the future made at " + to_string(core.place()) + " was done";
  if (const std::string what = TaskBase::describe_wait(core); !what.empty()) text += "; " + what;
  if (!waiting.empty()) text += "; left are:\n" + waiting;
  throw std::runtime_error(text);
}

}  // namespace pawl
