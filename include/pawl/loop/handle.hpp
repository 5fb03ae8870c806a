// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <utility>

#include "pawl/core/api.hpp"
#include "pawl/core/time.hpp"

namespace pawl {

/// Where a callback that was handed to a loop stands.
enum class CallbackStatus : std::uint8_t { free, pending, running, done, cancelled };

/// What a callback's tickets share with the loop. The rest of it is the loop's own.
struct CallbackTicket {
  TimePoint when{};
  std::uint32_t references = 0;  ///< tickets, and one for the loop while it needs the callback
  CallbackStatus status = CallbackStatus::free;
};

/// A ticket for a callback that a loop is going to run.
///
/// Owns:     nothing of the callback; a copy is the same ticket, and dropping all cancels nothing.
/// Threads:  the loop's, copying and destroying included.
/// Promises: it may outlive the callback and the loop; `cancel()` then does nothing.
class PAWL_API Handle {
 public:
  Handle() noexcept = default;
  Handle(const Handle& other) noexcept : ticket_(other.ticket_) {
    if (ticket_ != nullptr) ++ticket_->references;
  }
  Handle(Handle&& other) noexcept : ticket_(std::exchange(other.ticket_, nullptr)) {}
  Handle& operator=(Handle other) noexcept {
    std::swap(ticket_, other.ticket_);
    return *this;
  }
  ~Handle() {
    if (ticket_ != nullptr && --ticket_->references == 0) recycle(ticket_);
  }

  /// The callback won't run (again) afterwards, and what it captured is freed at once; when it is
  /// the one that is running, as soon as it returns. Again, or after it ran, it does nothing.
  void cancel();

  /// True exactly when a `cancel()` came in time to keep a run from happening.
  bool cancelled() const {
    return ticket_ != nullptr && ticket_->status == CallbackStatus::cancelled;
  }

 protected:
  friend class CallbackPool;
  friend class EventLoop;
  /// Takes over one of the ticket's references.
  explicit Handle(CallbackTicket* ticket) noexcept : ticket_(ticket) {}

  CallbackTicket* ticket_ = nullptr;

 private:
  static void recycle(CallbackTicket* ticket) noexcept;
};

}  // namespace pawl
