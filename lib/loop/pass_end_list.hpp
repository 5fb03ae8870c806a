// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pawl/loop/io_handler.hpp"

namespace pawl {

/// Who has something to finish before the loop polls again: `on_ready(Interest::none)` is called
/// once for each. That must not run user code.
///
/// Threads: the loop's.
class PassEndList {
 public:
  /// A place in the list; 0 is none.
  using Position = std::uint32_t;

  bool empty() const { return handlers_.empty(); }

  Position add(IoHandler& handler) {
    handlers_.push_back(&handler);
    return static_cast<Position>(handlers_.size());
  }

  void remove(Position position) {
    if (position != 0) handlers_[position - 1] = nullptr;
  }

  void run() {
    for (std::size_t i = 0; i < handlers_.size(); ++i) {
      if (IoHandler* handler = handlers_[i]) handler->on_ready(Interest::none);
    }
    handlers_.clear();
  }

 private:
  std::vector<IoHandler*> handlers_;
};

}  // namespace pawl
