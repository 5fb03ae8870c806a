// SPDX-License-Identifier: MIT
#include "pawl/loop/mailbox.hpp"

#include <system_error>

#include "pawl/system/system.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {

Mailbox::Mailbox(System& system)
    : system_(system), wake_fd_(-1), fork_guard_(std::make_unique<ForkGuard>()) {
  const SystemResult made = system_.eventfd();
  if (!made.ok()) throw std::system_error(made.code(), "EventLoop: eventfd for the wake-up");
  wake_fd_ = made.fd();
}

Mailbox::~Mailbox() { system_.close(wake_fd_); }

// Of what the loop is told it may die before the one who told it has woken it: hence the `keep`s.

bool Mailbox::post(Function<void()>&& callback) {
  std::shared_ptr<Mailbox> keep;
  Function<void()> refused;  // dies when the lock is gone
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_closed_) {
      refused = std::move(callback);
      return false;
    }
    letters_.push_back(std::move(callback));
    // Whoever posted the first of them has woken the loop, which will take all.
    if (has_letters_.load(std::memory_order_relaxed)) return true;
    keep = weak_from_this().lock();
    has_letters_.store(true);
  }
  wake();
  return true;
}

void Mailbox::wake() noexcept {
  // Whoever makes the first change after begin_wait() writes; the loop sees the others when it is
  // up. A forked child shares the parent's eventfd and must not wake the parent.
  if (!is_waiting_.load() || !is_waiting_.exchange(false)) return;
  if (fork_guard_->is_forked_child()) return;
  const std::uint64_t one = 1;
  system_.write(wake_fd_, &one, sizeof one);
}

void Mailbox::stop() noexcept {
  const std::shared_ptr<Mailbox> keep = weak_from_this().lock();
  is_stopping_.store(true);
  wake();
}

void Mailbox::raise(int signal) noexcept {
  signals_.fetch_or(std::uint64_t{1} << (signal - 1));
  wake();
}

bool Mailbox::begin_wait() {
  is_waiting_.store(true);
  if (!has_letters_.load() && !is_stopping_.load() && signals_.load() == 0) return true;
  is_waiting_.store(false);
  return false;
}

void Mailbox::leave_pass() noexcept {
  is_waiting_.store(true);
  if (has_letters_.load() || is_stopping_.load() || signals_.load() != 0) wake();
}

std::error_code Mailbox::drain_wake_fd() noexcept {
  std::uint64_t count;
  const SystemResult result = system_.read(wake_fd_, &count, sizeof count);
  return result.would_block() ? std::error_code() : result.code();
}

void Mailbox::take_letters(Letters& letters) {
  const std::lock_guard<std::mutex> lock(mutex_);
  letters_.swap(letters);
  has_letters_.store(false);
}

std::uint64_t Mailbox::take_signals() {
  return signals_.load(std::memory_order_relaxed) == 0 ? 0 : signals_.exchange(0);
}

void Mailbox::close(Letters& letters) {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_closed_ = true;
  letters_.swap(letters);
}

}  // namespace pawl
