// SPDX-License-Identifier: MIT
#include "pawl/async/future_core.hpp"

#include <new>
#include <stdexcept>
#include <string>

#include "async/future_hub.hpp"
#include "loop/loop_parts.hpp"
#include "pawl/async/cancelled_error.hpp"
#include "pawl/async/promise.hpp"

namespace pawl {

CancelledError::CancelledError()
    : std::system_error(std::make_error_code(std::errc::operation_canceled), "future cancelled") {}

CancelledError::~CancelledError() = default;

// ---- waiters

FutureWaiter::~FutureWaiter() { stop_waiting(); }

void FutureWaiter::wait(FutureCore& source) noexcept {
  stop_waiting();
  source.add_waiter(*this);
}

void FutureCore::add_waiter(FutureWaiter& waiter) noexcept {
  const bool is_over = !is_pending() && !is_ending_;  // one that is ending posts its waiters itself
  if (is_over && hub_.is_closed()) return waiter.on_dropped();
  if (is_over && !is_posted_) post_waiters();
  waiter.source_ = this;
  waiter.link_before(waiters_);
  ++waiter_count_;
}

void FutureCore::post_waiters() noexcept {
  is_posted_ = true;
  retain();  // until they have run, or the loop goes: the hub lets go of it then
  hub_.post(*this);
}

/// Nobody waits any more for what was posted, and nobody holds it: what it has goes back now.
void FutureCore::withdraw() noexcept {
  is_posted_ = false;
  unlink();
  release();
}

void FutureCore::PostedWaiters::operator()() {
  FutureCore& core = *std::exchange(core_, nullptr);
  if (core.is_posted_) {
    --core.weak_references_;  // there is a strong one
    core.run_waiters();
  } else {
    core.release_weakly();
  }
}

/// Those that are here now; what comes meanwhile waits for the next pass.
void FutureCore::run_waiters() {
  /// What an exception leaves over isn't lost.
  struct Batch {
    FutureCore& core;
    FutureLink waiters;
    explicit Batch(FutureCore& of) : core(of) { waiters.take_ring(of.waiters_); }
    ~Batch() {
      if (waiters.is_alone()) return;
      FutureLink later;
      later.take_ring(core.waiters_);
      core.waiters_.take_ring(waiters);
      while (!later.is_alone()) {
        FutureLink& next = *later.next;
        next.unlink();
        next.link_before(core.waiters_);
      }
      if (!core.is_posted_) core.post_waiters();
    }
  };
  struct Release {
    FutureCore& core;
    ~Release() { core.release(); }
  };
  const Release at_the_end{*this};
  is_posted_ = false;
  unlink();
  if (waiter_count_ == 1) {
    FutureWaiter& waiter = static_cast<FutureWaiter&>(*waiters_.next);
    waiter.stop_waiting();
    return waiter.on_done(*this);
  }
  Batch batch(*this);
  while (!batch.waiters.is_alone() && !hub_.loop().parts().is_forked_child()) {
    FutureWaiter& waiter = static_cast<FutureWaiter&>(*batch.waiters.next);
    waiter.stop_waiting();
    waiter.on_done(*this);
  }
}

void FutureCore::drop_waiters() noexcept {
  while (!waiters_.is_alone()) {
    FutureWaiter& waiter = static_cast<FutureWaiter&>(*waiters_.next);
    waiter.stop_waiting();
    waiter.on_dropped();
  }
}

// ---- the end

FutureCore::~FutureCore() = default;

EventLoop& FutureCore::loop() const {
  if (hub_.is_closed()) throw std::logic_error("pawl: the loop of a future is gone");
  return hub_.loop();
}

void FutureCore::finish(FutureStatus status) {
  status_ = status;
  unlink();  // of those that are told when the loop closes
  if (waiter_count_ > 0 && !is_posted_) {
    if (hub_.is_closed()) {
      hub_.drop_waiters(*this);
    } else {
      post_waiters();
    }
  }
  release();
}

bool FutureCore::cancel() noexcept {
  if (!is_pending()) return false;
  status_ = FutureStatus::cancelled;
  hub_.cancel(*this);
  return true;
}

void FutureCore::discard() noexcept {
  unlink();
  release();
}

void FutureCore::fail(std::error_code error) {
  error_ = error;
  finish(FutureStatus::failed);
}

void FutureCore::fail(std::exception_ptr exception) {
  exception_ = std::move(exception);
  finish(FutureStatus::failed);
}

void FutureCore::fail_as(FutureCore& source) {
  source.look();
  error_ = source.error_;
  exception_ = source.exception_;
  if (source.status_ != FutureStatus::cancelled) return finish(FutureStatus::failed);
  finish(FutureStatus::cancelled);
}

void FutureCore::tell_of_closing() { link_before(hub_.closing()); }

void FutureCore::bury() noexcept { hub_.bury(*this); }

void FutureCore::release_weakly() noexcept {
  if (--weak_references_ == 0 && is_buried_) destroy();
}

// ---- what went wrong

std::exception_ptr FutureCore::exception() {
  if (is_pending()) throw_pending("exception", place());
  look();
  if (status_ == FutureStatus::fulfilled) return nullptr;
  if (exception_ == nullptr) {
    exception_ = status_ == FutureStatus::cancelled
                     ? std::make_exception_ptr(CancelledError())
                     : std::make_exception_ptr(
                           std::system_error(error_, "future made at " + to_string(place())));
  }
  return exception_;
}

std::error_code FutureCore::error() {
  if (is_pending()) throw_pending("error", place());
  look();
  if (status_ == FutureStatus::fulfilled) return {};
  if (status_ == FutureStatus::cancelled) {
    return std::make_error_code(std::errc::operation_canceled);
  }
  if (error_) return error_;
  try {
    std::rethrow_exception(exception_);
  } catch (const std::system_error& thrown) {
    error_ = thrown.code();
  } catch (const std::bad_alloc&) {
    error_ = std::make_error_code(std::errc::not_enough_memory);
  } catch (...) {
    error_ = Errc::other_exception;
  }
  return error_;
}

void FutureCore::throw_failure() { std::rethrow_exception(exception()); }

void FutureCore::report_unseen() noexcept try {
  std::string what = "an exception";
  try {
    std::rethrow_exception(exception());
  } catch (const std::exception& thrown) {
    what = thrown.what();
  } catch (...) {
  }
  hub_.report("nobody looked at the exception of the future made at " + to_string(place()) + ": " +
              what);
} catch (const std::exception&) {
  // One line less: there was no memory, or this isn't the loop's thread.
}

void FutureCore::throw_pending(const char* operation, Place place) {
  throw std::logic_error(std::string("Future::") + operation +
                         " asked of a future that isn't done, made at " + to_string(place));
}

void FutureCore::throw_set_twice(Place place) {
  throw std::logic_error("Promise set twice; made at " + to_string(place));
}

void FutureCore::throw_empty_future() {
  throw std::logic_error("pawl::Future: used while empty (moved from, or never set)");
}

// ---- memory

void FutureCore::refuse_wrong_thread(FutureHub& hub, const char* operation) {
  hub.refuse_wrong_thread(operation);
}

FutureHub& FutureCore::hub_of(EventLoop& loop) { return FutureHub::of(loop); }

void* FutureCore::allocate(FutureHub& hub, std::size_t bytes, std::size_t alignment) {
  return hub.allocate(bytes, alignment);
}

void FutureCore::free(FutureHub& hub, void* memory, std::size_t bytes,
                      std::size_t alignment) noexcept {
  hub.free(memory, bytes, alignment);
}

}  // namespace pawl
