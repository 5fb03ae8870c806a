// SPDX-License-Identifier: MIT
#include "pawl/async/run_child.hpp"

#include <csignal>
#include <memory>
#include <utility>

namespace pawl {
namespace {

class ChildState : public FutureState<ChildExit> {
 public:
  using FutureState<ChildExit>::FutureState;

  void start(ChildProcessOptions options) {
    try {
      child_ = std::make_unique<ChildProcess>(
          loop(), std::move(options),
          [this](ChildProcess&, const ChildExit& end) {
            const std::unique_ptr<ChildProcess> ended = std::move(child_);
            set_value(end);
          },
          place());
    } catch (...) {
      return fail(std::current_exception());
    }
    tell_of_closing();
  }

 protected:
  void on_cancel() noexcept override {
    child_->kill(SIGKILL);
    child_.reset();
  }
  void on_loop_closed() noexcept override {
    child_.reset();
    fail(Errc::loop_closed);
  }

 private:
  std::unique_ptr<ChildProcess> child_;
};

}  // namespace

Future<ChildExit> run_child(EventLoop& loop, ChildProcessOptions options, Place place) {
  auto* state = make_state<ChildState>(FutureCore::hub_of(loop), place);
  return start_future<ChildExit>(state, [&] { state->start(std::move(options)); });
}

}  // namespace pawl
