// SPDX-License-Identifier: MIT
#include "pawl/async/cancel_callback.hpp"

#include <utility>

#include "async/future_hub.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/mailbox.hpp"

namespace pawl {

struct CancelCallback::Parts {
  Parts(std::shared_ptr<Mailbox> mailbox, Function<void()> wanted)
      : callback(std::move(wanted)), place(std::move(mailbox)) {}

  Function<void()> callback;
  MailboxPlace place;
};

CancelCallback::CancelCallback(const FutureCore& core, Function<void()> callback) {
  if (core.hub().is_closed()) return;  // nobody calls back any more
  parts_ = std::make_shared<Parts>(core.loop().mailbox(), std::move(callback));
}

void CancelCallback::post(const FutureCore& core) noexcept {
  const std::shared_ptr<Parts> parts = std::exchange(parts_, nullptr);
  if (parts == nullptr || !parts->callback || core.hub().is_closed()) return;
  const auto call = [parts] { parts->callback(); };
  try {
    core.loop().call_soon(call, core.place());
  } catch (...) {  // no memory; or a destructor runs on a wrong thread, and debug mode has said so
    parts->place.post(call);
  }
}

}  // namespace pawl
