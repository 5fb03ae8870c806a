// SPDX-License-Identifier: MIT
#include "pawl/async/event.hpp"

namespace pawl {

void Event::set() {
  FutureCore::refuse_wrong_thread(hub_, "Event::set");
  is_set_ = true;
  while (QueuedState<void>* state = waiting_.pop()) state->set_value();
}

Future<void> Event::wait(Place place) {
  auto* state = make_state<QueuedState<void>>(hub_, place);
  Future<void> future(state);
  if (is_set_) {
    state->set_value();
  } else {
    waiting_.push(*state);
  }
  return future;
}

}  // namespace pawl
