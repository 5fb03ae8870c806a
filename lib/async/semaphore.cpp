// SPDX-License-Identifier: MIT
#include "pawl/async/semaphore.hpp"

#include "async/future_hub.hpp"

namespace pawl {

using PermitState = QueuedState<Permit>;

/// What a semaphore shares with its permits.
class SemaphoreCore : public std::enable_shared_from_this<SemaphoreCore> {
 public:
  SemaphoreCore(FutureHub& hub, std::size_t value) : hub_(hub), left_(value) {}

  Future<Permit> acquire(Place place) {
    auto* state = make_state<PermitState>(hub_, place);
    Future<Permit> future(state);
    if (left_ == 0) {
      line_.push(*state);
    } else {
      --left_;
      state->set_value(shared_from_this());
    }
    return future;
  }
  Permit try_acquire() {
    FutureCore::refuse_wrong_thread(hub_, "Semaphore::try_acquire");
    if (left_ == 0) return Permit();
    --left_;
    return Permit(shared_from_this());
  }
  void release() noexcept {
    hub_.report_wrong_thread("Permit::release");
    if (PermitState* next = line_.pop_wanted()) {
      next->set_value(shared_from_this());
    } else {
      ++left_;
    }
  }
  void close() noexcept { line_.fail_all(Errc::broken_promise); }
  bool locked() const { return left_ == 0; }

 private:
  FutureHub& hub_;
  std::size_t left_;
  WaiterQueue<PermitState> line_;
};

void Permit::release() noexcept {
  if (const std::shared_ptr<SemaphoreCore> core = std::move(core_)) core->release();
}

Semaphore::Semaphore(EventLoop& loop, std::size_t value)
    : core_(std::make_shared<SemaphoreCore>(FutureCore::hub_of(loop), value)) {}

Semaphore::~Semaphore() { core_->close(); }

Future<Permit> Semaphore::acquire(Place place) { return core_->acquire(place); }

Permit Semaphore::try_acquire() { return core_->try_acquire(); }

bool Semaphore::locked() const { return core_->locked(); }

}  // namespace pawl
