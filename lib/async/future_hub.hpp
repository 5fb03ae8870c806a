// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "loop/retry_list.hpp"
#include "pawl/async/future_core.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

/// What the futures and tasks of one loop share: their memory, and the work that must not recurse.
///
/// A chain of a million futures frees, cancels or breaks one another link by link; each of these
/// goes through a list here, so that the stack stays flat.
///
/// Owns:    itself, until the loop and the last of the futures are gone.
/// Threads: the loop's.
class FutureHub {
 public:
  explicit FutureHub(EventLoop& loop);
  FutureHub(const FutureHub&) = delete;
  FutureHub& operator=(const FutureHub&) = delete;

  static FutureHub& of(EventLoop& loop);

  /// The loop goes: whatever is pending is told, nothing is posted any more.
  void close() noexcept;
  bool is_closed() const noexcept { return is_closed_; }
  EventLoop& loop() const noexcept { return loop_; }

  void* allocate(std::size_t bytes, std::size_t alignment);
  void free(void* memory, std::size_t bytes, std::size_t alignment) noexcept;

  /// Each of these three does its work now, or leaves it to the one of its kind that is on the
  /// stack.
  void bury(FutureCore& core) noexcept;
  void cancel(FutureCore& core) noexcept;
  void drop_waiters(FutureCore& core) noexcept;

  /// Says in debug mode what became of an exception, from the loop: not from a destructor.
  void report(std::string line);
  bool is_debug() const noexcept { return is_debug_; }

  /// Throws `std::logic_error`, having reported it, when debug mode sees that this isn't the thread
  /// of the loop. `operation` is for people.
  void refuse_wrong_thread(const char* operation) const {
    if (is_debug_ && !is_closed_) throw_if_wrong_thread(operation);
  }

  /// The same for ends, which can't refuse: only reports.
  void report_wrong_thread(const char* operation) const noexcept;

  /// Has the loop run the waiters of `core`, which links it in one of two rings.
  void post(FutureCore& core) noexcept;

  /// Of the states that are told of the loop's end.
  FutureLink& closing() noexcept { return closing_; }
  /// Of the tasks that aren't done.
  FutureLink& tasks() noexcept { return tasks_; }

 private:
  ~FutureHub() = default;
  void throw_if_wrong_thread(const char* operation) const;
  void say_reports();
  void bury_now(FutureCore& core) noexcept;
  void queue_posted();
  void drop_posted(FutureLink& ring) noexcept;
  void take_chunk(std::size_t size_class);

  static constexpr std::size_t class_bytes = 32;
  static constexpr std::size_t class_count = 16;
  static constexpr std::size_t chunk_bytes = 32 * 1024;

  struct Free {
    Free* next;
  };
  struct Retry final : RetryList::Entry {
    explicit Retry(FutureHub& of) : hub(of) {}
    void retry() override { hub.queue_posted(); }
    FutureHub& hub;
  };

  EventLoop& loop_;
  const bool is_debug_;
  bool is_closed_ = false;
  std::size_t live_ = 0;  // allocations that are in use
  Free* free_[class_count] = {};
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  FutureLink closing_;
  FutureLink posted_;    // the loop is going to run their waiters
  FutureLink unqueued_;  // the same, but it wasn't told yet, for want of memory
  Retry retry_{*this};
  FutureLink tasks_;
  FutureLink dying_;
  bool is_burying_ = false;
  FutureLink cancelled_;
  bool is_cancelling_ = false;
  FutureLink dropped_;
  bool is_dropping_ = false;
  std::vector<std::string> reports_;
};

}  // namespace pawl
