// SPDX-License-Identifier: MIT
#include "pawl/loop/mailbox.hpp"

#include <algorithm>
#include <system_error>

#include "loop/leak.hpp"
#include "pawl/system/system.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {
namespace {

constexpr unsigned word_bits = CHAR_BIT * sizeof(unsigned long);

}  // namespace

Mailbox::Mailbox(System& system)
    : system_(system),
      wake_fd_(-1),
      fork_guard_(std::make_unique<ForkGuard>()),
      fork_mark_(fork_guard_->mark()) {
  const SystemResult made = system_.eventfd();
  if (!made.ok()) throw std::system_error(made.code(), "EventLoop: eventfd for the wake-up");
  wake_fd_ = made.fd();
}

Mailbox::~Mailbox() {
  if (is_forked_child()) {
    Letters letters;
    close(letters);
  }
  system_.close(wake_fd_);
}

// Of what the loop is told it may die before the one who told it has woken it: hence the `keep`s.

bool Mailbox::post(Function<void()>&& callback) { return deliver(std::move(callback), 1); }

bool Mailbox::post_in_place(Function<void()>&& callback) noexcept {
  return deliver(std::move(callback), 0);
}

/// `places`: how many it takes of those that aren't kept.
bool Mailbox::deliver(Function<void()>&& callback, std::size_t places) {
  std::shared_ptr<Mailbox> keep;
  Function<void()> refused;  // dies when the lock is gone
  if (is_forked_child()) {   // where whoever held the lock isn't there to give it back
    refused = std::move(callback);
    return false;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_closed_) {
      refused = std::move(callback);
      return false;
    }
    make_room(places);
    kept_places_ -= 1 - places;
    letters_.push_back(std::move(callback));
    // Whoever posted the first of them has woken the loop, which will take all.
    if (has_letters_.load(std::memory_order_relaxed)) return true;
    keep = weak_from_this().lock();
    has_letters_.store(true);
  }
  wake();
  return true;
}

void Mailbox::keep_place() {
  if (is_forked_child()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  make_room(1);
  ++kept_places_;
}

void Mailbox::give_back_place() noexcept {
  if (is_forked_child()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  --kept_places_;
}

/// Without memory, nothing has changed.
void Mailbox::make_room(std::size_t places) {
  const std::size_t needed = letters_.size() + kept_places_ + places;
  if (needed > letters_.capacity()) letters_.reserve(std::max(needed, 2 * letters_.capacity()));
}

void Mailbox::wake() noexcept {
  // Whoever makes the first change after begin_wait() writes; the loop sees the others when it is
  // up. A forked child shares the parent's eventfd and must not wake the parent.
  if (!is_waiting_.load() || !is_waiting_.exchange(false)) return;
  if (is_forked_child()) return;
  const std::uint64_t one = 1;
  system_.write(wake_fd_, &one, sizeof one);
}

void Mailbox::stop() noexcept {
  const std::shared_ptr<Mailbox> keep = weak_from_this().lock();
  is_stopping_.store(true);
  wake();
}

void Mailbox::raise(int signal) noexcept {
  const auto bit = static_cast<unsigned>(signal - 1);
  signals_[bit / word_bits].fetch_or(1UL << bit % word_bits);
  wake();
}

bool Mailbox::begin_wait() {
  is_waiting_.store(true);
  if (!has_letters_.load() && !is_stopping_.load() && !has_signals()) return true;
  is_waiting_.store(false);
  return false;
}

void Mailbox::leave_pass() noexcept {
  is_waiting_.store(true);
  if (has_letters_.load() || is_stopping_.load() || has_signals()) wake();
}

std::error_code Mailbox::drain_wake_fd() noexcept {
  std::uint64_t count;
  const SystemResult result = system_.read(wake_fd_, &count, sizeof count);
  return result.would_block() ? std::error_code() : result.code();
}

void Mailbox::take_letters(Letters& letters) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (letters.capacity() < kept_places_) letters.reserve(letters_.capacity());
  letters_.swap(letters);
  has_letters_.store(false);
}

bool Mailbox::has_signals(std::memory_order order) const {
  for (const auto& word : signals_) {
    if (word.load(order) != 0) return true;
  }
  return false;
}

std::uint64_t Mailbox::take_signals() {
  if (!has_signals(std::memory_order_relaxed)) return 0;
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    all |= std::uint64_t{signals_[i].exchange(0)} << i * word_bits;
  }
  return all;
}

void Mailbox::close(Letters& letters) {
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (is_forked_child()) {
    // Somebody who isn't there may be in the middle of a change for ever.
    if (!lock.try_lock()) return leak(letters_);
  } else {
    lock.lock();
  }
  is_closed_ = true;
  letters_.swap(letters);
}

MailboxPlace::MailboxPlace(std::shared_ptr<Mailbox> mailbox) : mailbox_(std::move(mailbox)) {
  mailbox_->keep_place();
}

MailboxPlace::~MailboxPlace() {
  if (mailbox_ != nullptr) mailbox_->give_back_place();
}

bool MailboxPlace::post(Function<void()>&& callback) noexcept {
  const std::shared_ptr<Mailbox> mailbox = std::move(mailbox_);
  return mailbox->post_in_place(std::move(callback));
}

}  // namespace pawl
