// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <system_error>
#include <utility>

#include "pawl/async/future_waiter.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

class EventLoop;
class FutureHub;
class TaskBase;

enum class FutureStatus : std::uint8_t { pending, fulfilled, failed, cancelled };

/// What all that know one future share, but for the value: `FutureState` adds that.
///
/// For the library's own classes. Each kind of future (a promise's, a `then`'s, a sleep's …) is one
/// class derived from this, with all it needs in one piece of memory out of the loop's pool.
///
/// Owns:     itself, while there are references: one for each handle, one for whoever will finish
///           it while it is pending, one for the loop while callbacks are to run. Weak references
///           keep the memory, not the value.
/// Threads:  the loop's.
/// Calls:    no user code but destructors; waiters are called from the loop.
class PAWL_API FutureCore : private FutureLink {
 public:
  FutureCore(const FutureCore&) = delete;
  FutureCore& operator=(const FutureCore&) = delete;

  void retain() noexcept { ++references_; }
  void release() noexcept {
    if (--references_ == 0) return bury();
    if (references_ == 1 && is_posted_ && waiter_count_ == 0) withdraw();
  }
  void retain_weakly() noexcept { ++weak_references_; }
  void release_weakly() noexcept;

  FutureStatus status() const noexcept { return status_; }
  bool is_pending() const noexcept { return status_ == FutureStatus::pending; }
  Place place() const noexcept { return Place{file_, line_}; }
  FutureHub& hub() const noexcept { return hub_; }
  /// Throws `std::logic_error` when the loop is gone.
  EventLoop& loop() const;

  /// True exactly when somebody waits for it.
  bool has_waiters() const noexcept { return waiter_count_ > 0; }
  /// True exactly when nobody waits for it and it has no more than `references`.
  bool is_held_by(std::uint32_t references) const noexcept {
    return references_ <= references && waiter_count_ == 0;
  }
  /// True exactly when nobody holds it or waits for it but whoever will finish it.
  bool is_unwanted() const noexcept { return is_held_by(1); }
  /// True exactly when the caller, who holds one reference, isn't the only one who may look.
  bool is_shared() const noexcept {
    return references_ > 1 || weak_references_ > 0 || waiter_count_ > 0;
  }

  /// False when it was done already. Everything it would have taken is freed at once, and what it
  /// waits for is cancelled too.
  bool cancel() noexcept;
  /// What was just made can't be started for want of memory: gives up the reference of whoever was
  /// to finish it.
  void discard() noexcept;
  /// Finishes it with an error. It must be pending.
  void fail(std::error_code error);
  void fail(std::exception_ptr exception);
  /// Finishes it as `source` was finished, which must be failed or cancelled.
  void fail_as(FutureCore& source);

  /// Null when it has a value. Throws `std::logic_error` when it is pending.
  std::exception_ptr exception();
  std::error_code error();
  /// What went wrong, as `exception`, for somebody who passes it on.
  [[noreturn]] void throw_failure();
  /// Somebody has seen how it went.
  void look() noexcept {
    if (std::exchange(is_looked_at_, true) || !is_returnable_) return;
    on_look();
  }
  bool is_looked_at() const noexcept { return is_looked_at_; }
  /// True exactly when its value goes back to where it comes from, a `Queue`, unless somebody looks
  /// at it.
  bool is_returnable() const noexcept { return is_returnable_; }

  /// For `why_alive()`: what this waits for, and whose result it is. Null when nobody knows.
  virtual const FutureCore* waits_for() const { return nullptr; }
  virtual const TaskBase* task() const { return nullptr; }

  /// In debug mode: throws `std::logic_error` on another thread than the loop's.
  static void refuse_wrong_thread(FutureHub& hub, const char* operation);

  static FutureHub& hub_of(EventLoop& loop);
  static void* allocate(FutureHub& hub, std::size_t bytes, std::size_t alignment);
  static void free(FutureHub& hub, void* memory, std::size_t bytes, std::size_t alignment) noexcept;
  [[noreturn]] static void throw_pending(const char* operation, Place place);
  [[noreturn]] static void throw_set_twice(Place place);
  [[noreturn]] static void throw_empty_future();

 protected:
  FutureCore(FutureHub& hub, Place place) noexcept
      : hub_(hub), file_(place.file), line_(place.line) {}
  virtual ~FutureCore();

  /// Makes it known; the last thing that is done to a pending one, since it may be gone then.
  void finish(FutureStatus status);
  /// It was just cancelled: frees what it has captured, and cancels what it waits for.
  virtual void on_cancel() noexcept {}
  /// The last reference is gone: destroys the value.
  virtual void on_dispose() noexcept {}
  /// Destroys this and gives the memory back.
  virtual void destroy() noexcept = 0;

  void make_returnable() noexcept { is_returnable_ = true; }
  /// It is returnable, and is looked at for the first time.
  virtual void on_look() noexcept {}

  /// Told when the loop closes, by `on_loop_closed`, from now on until it is done.
  void tell_of_closing();
  virtual void on_loop_closed() noexcept {}

 private:
  friend class FutureHub;
  friend class FutureWaiter;

  /// What the loop runs: the waiters of a future, unless that has gone meanwhile.
  class PostedWaiters {
   public:
    explicit PostedWaiters(FutureCore& core) noexcept : core_(&core) { core.retain_weakly(); }
    PostedWaiters(PostedWaiters&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    PostedWaiters& operator=(PostedWaiters&&) = delete;
    ~PostedWaiters() {
      if (core_ != nullptr) core_->release_weakly();
    }
    void operator()();

   private:
    FutureCore* core_;
  };

  void add_waiter(FutureWaiter& waiter) noexcept;
  void post_waiters() noexcept;
  void withdraw() noexcept;
  void run_waiters();
  void drop_waiters() noexcept;
  void bury() noexcept;
  void report_unseen() noexcept;

  FutureHub& hub_;
  std::uint32_t references_ = 1;  // the one of whoever will finish it
  std::uint32_t weak_references_ = 0;
  std::uint32_t waiter_count_ = 0;
  FutureStatus status_ = FutureStatus::pending;
  bool is_looked_at_ = false;  // true exactly when somebody has seen how it went
  bool is_posted_ = false;     // true exactly while the loop is going to run the waiters
  bool is_buried_ = false;     // true exactly when the value is gone
  bool is_ending_ = false;     // true exactly while it is cancelled and hasn't finished
  bool is_returnable_ = false;
  FutureLink waiters_;
  std::error_code error_;
  std::exception_ptr exception_;
  const char* file_;
  int line_;
};

inline void FutureWaiter::stop_waiting() noexcept {
  if (source_ == nullptr) return;
  FutureCore& source = *std::exchange(source_, nullptr);
  unlink();
  if (--source.waiter_count_ == 0 && source.is_posted_ && source.references_ == 1) {
    source.withdraw();
  }
}

/// A counted pointer to a future's state.
template <typename State>
class FutureRef {
 public:
  FutureRef() noexcept = default;
  explicit FutureRef(State* state) noexcept : state_(state) {
    if (state_ != nullptr) state_->retain();
  }
  FutureRef(const FutureRef& other) noexcept : FutureRef(other.state_) {}
  template <typename Other>
  FutureRef(const FutureRef<Other>& other) noexcept : FutureRef(static_cast<State*>(other.get())) {}
  FutureRef(FutureRef&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  FutureRef& operator=(FutureRef other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~FutureRef() {
    if (state_ != nullptr) state_->release();
  }

  State* get() const noexcept { return state_; }
  State* operator->() const noexcept { return state_; }
  State& operator*() const noexcept { return *state_; }
  explicit operator bool() const noexcept { return state_ != nullptr; }

 private:
  State* state_ = nullptr;
};

}  // namespace pawl
