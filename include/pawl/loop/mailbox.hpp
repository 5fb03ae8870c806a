// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"

namespace pawl {

class ForkGuard;
class System;

/// The part of a loop that other threads may touch, and that may outlive the loop.
///
/// A thread that can't be sure that the loop still lives keeps `EventLoop::mailbox()` and posts to
/// it.
///
/// Threads:  `post`, `stop` and `wake` any; `stop`, `wake` and `raise` also from a signal handler.
/// Promises: what was accepted runs on the loop's thread, in the order in which each thread posted
///           it; or, when the loop is destroyed first, is destroyed on the loop's thread. What is
///           posted may end the loop and destroy it while the `post` or `stop` is still returning.
///           In a forked child it accepts nothing, takes no lock, and doesn't wake the parent.
class PAWL_API Mailbox : public std::enable_shared_from_this<Mailbox> {
 public:
  /// Throws `std::system_error` when there is no descriptor left for the wake-up.
  explicit Mailbox(System& system);
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  /// False when the loop is gone, or the parent's: the callback is then destroyed here, unrun.
  bool post(Function<void()>&& callback);

  /// Ends the wait that the loop is in, or the next one.
  void wake() noexcept;
  /// As `EventLoop::stop`.
  void stop() noexcept;
  /// Notes that `signal` (1 to 64) has come.
  void raise(int signal) noexcept;

 private:
  friend class EventLoop;
  friend class MailboxPlace;
  friend struct LoopParts;
  using Letters = std::vector<Function<void()>>;

  /// Readable when the loop must wake up.
  int wake_fd() const { return wake_fd_; }
  std::error_code drain_wake_fd() noexcept;
  /// Announces that the loop is about to wait; false when something came and it must not.
  bool begin_wait();
  void end_wait() { is_waiting_.store(false, std::memory_order_relaxed); }
  /// Nobody is in a pass: whatever comes, or has come, must show at the descriptor, because a host
  /// may be waiting on it.
  void leave_pass() noexcept;
  bool has_letters() const { return has_letters_.load(std::memory_order_acquire); }
  /// Swaps what was posted into `letters`, which must be empty. Without memory for the places that
  /// are kept, nothing has changed.
  void take_letters(Letters& letters);
  std::uint64_t take_signals();
  bool has_signals(std::memory_order order = std::memory_order_seq_cst) const;
  bool is_stopping() const { return is_stopping_.load(std::memory_order_acquire); }
  bool take_stop() { return is_stopping_.exchange(false); }
  /// No `post` is accepted afterwards.
  void close(Letters& letters);

  /// Keeps room for one letter, which then can be posted without memory. `MailboxPlace` does it.
  void keep_place();
  void give_back_place() noexcept;
  bool post_in_place(Function<void()>&& callback) noexcept;

  void make_room(std::size_t places);
  bool deliver(Function<void()>&& callback, std::size_t places);
  bool is_forked_child() const { return *fork_mark_ == 0; }
  /// The byte that tells: zero in a forked child.
  const unsigned char* fork_mark() const { return fork_mark_; }

  System& system_;
  int wake_fd_;
  std::unique_ptr<ForkGuard> fork_guard_;
  const unsigned char* fork_mark_;
  std::atomic<bool> is_waiting_{false};  // true exactly while a wake-up must reach the descriptor
  std::atomic<bool> has_letters_{false};
  std::atomic<bool> is_stopping_{false};
  // Bit n - 1, counted through all of them: signal n has come. Words, because a signal's handler
  // sets them: not every 32-bit processor knows a wider number that takes no lock.
  std::array<std::atomic<unsigned long>, 64 / (CHAR_BIT * sizeof(unsigned long))> signals_{};
  std::mutex mutex_;  // guards the rest
  Letters letters_;   // with room for `kept_places_` more
  std::size_t kept_places_ = 0;
  bool is_closed_ = false;
};

/// Room for one letter: what is posted in it takes no memory, and so can't fail for want of it.
///
/// Owns:    its place, until it is used or goes.
/// Threads: one at a time.
class PAWL_API MailboxPlace {
 public:
  explicit MailboxPlace(std::shared_ptr<Mailbox> mailbox);
  MailboxPlace(const MailboxPlace&) = delete;
  MailboxPlace& operator=(const MailboxPlace&) = delete;
  ~MailboxPlace();

  /// As `Mailbox::post`, once. `callback` must be one that went into its `Function` without an
  /// allocation.
  bool post(Function<void()>&& callback) noexcept;

 private:
  std::shared_ptr<Mailbox> mailbox_;  // null when it is used
};

}  // namespace pawl
