// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "pawl/core/function.hpp"

namespace pawl {

/// Calls `member`, a callback of `owner`'s, in the frame that says what it does meanwhile: it may
/// set itself anew, or destroy its owner. False when the owner was destroyed.
template <typename Owner, typename Frame, typename... Arguments, typename... Given>
bool call_in_frame(Owner& owner, Frame& frame, Function<void(Owner&, Arguments...)>& member,
                   Given&&... arguments) {
  if (!member) return true;
  struct Return {
    Function<void(Owner&, Arguments...)>& member;
    Function<void(Owner&, Arguments...)> callback;
    Frame& frame;
    ~Return() {
      if (frame.is_destroyed) return;
      if (std::exchange(frame.running, nullptr) == &member) member = std::move(callback);
    }
  };
  frame.running = &member;
  Return running{member, std::move(member), frame};
  running.callback(owner, std::forward<Given>(arguments)...);
  return !frame.is_destroyed;
}

}  // namespace pawl
