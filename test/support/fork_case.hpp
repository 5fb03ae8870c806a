// SPDX-License-Identifier: MIT
#pragma once

#include <catch2/catch.hpp>
#include <string>
#include <utility>

#include "pawl/loop/event_loop.hpp"
#include "support/forked.hpp"

/// Runs `loop` until nothing is left; the first callback to write into it is to fork. In the child
/// no other may run; in the parent all do.
class ForkOrder {
 public:
  void add(char what) {
    order_ += what;
    if (fork_.fork() && stops_) loop->stop();
  }
  /// The child's exit code.
  template <typename Run>
  int run(Run run) {
    return fork_.child_code(run, [&] { return order_.size() == 1 ? 0 : 1; });
  }
  int run() {
    return run([&] { loop->run(); });
  }
  const std::string& text() const { return order_; }
  void stop_in_child(bool stops) { stops_ = stops; }

  pawl::EventLoop* loop = nullptr;

 private:
  ForkInCallback fork_;
  std::string order_;
  bool stops_ = false;
};

/// A loop, and whether the child calls stop(): both ways are tried by each test.
struct ForkCase {
  explicit ForkCase(pawl::LoopOptions options = {}) : loop(std::move(options)) {
    order.loop = &loop;
    order.stop_in_child(stops);
  }
  void check(const std::string& parents_order) {
    const int code = order.run();
    if (order.text() != parents_order) CHECK(order.text() == parents_order);
    CHECK(code == (stops ? ForkInCallback::returned : ForkInCallback::threw_logic_error));
  }

  bool stops = GENERATE(false, true);
  pawl::EventLoop loop;
  ForkOrder order;
};
