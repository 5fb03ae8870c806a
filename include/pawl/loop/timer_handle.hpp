// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/loop/handle.hpp"

namespace pawl {

/// A ticket for a callback that a loop is going to run at a moment.
class PAWL_API TimerHandle : public Handle {
 public:
  TimerHandle() noexcept = default;

  /// The moment it is (or was) due; the next tick's for `call_every`. The epoch for an empty one.
  TimePoint when() const { return ticket_ == nullptr ? TimePoint{} : ticket_->when; }

 private:
  friend class CallbackPool;
  explicit TimerHandle(CallbackTicket* ticket) noexcept : Handle(ticket) {}
};

}  // namespace pawl
