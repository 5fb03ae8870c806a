// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "pawl/core/function.hpp"
#include "pawl/core/observer.hpp"

namespace pawl {

/// Says one line to whoever listens: the user's sink, else standard error.
class Reporter {
 public:
  void set_sink(Function<void(std::string_view)> sink) {
    sink_ = sink ? std::make_shared<Sink>(std::move(sink)) : nullptr;
  }
  void say(std::string_view line);

 private:
  using Sink = Function<void(std::string_view)>;

  std::shared_ptr<Sink> sink_;  // shared with the call that may replace it
};

/// What PAWL_TRACE=1 stands for: each transition as a line.
class TracingObserver final : public Observer {
 public:
  explicit TracingObserver(Reporter& reporter) : reporter_(reporter) {}
  void on_transition(const Transition& transition) override;
  void on_step(const StepRun& run) override;

 private:
  Reporter& reporter_;
};

}  // namespace pawl
