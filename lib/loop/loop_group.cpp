// SPDX-License-Identifier: MIT
#include "pawl/loop/loop_group.hpp"

#include <pthread.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "loop/leak.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {

LoopGroup::LoopGroup(std::size_t loops, Body body, LoopOptions options, std::string name)
    : fork_guard_(std::make_unique<ForkGuard>()),
      body_(std::move(body)),
      changed_(std::make_unique<std::condition_variable>()) {
  const std::size_t count = std::max<std::size_t>(loops, 1);
  mailboxes_.resize(count);
  loops_.resize(count);
  try {
    for (std::size_t i = 0; i < count; ++i) {
      threads_.emplace_back([this, i, options] { run(i, options); });
      const std::string title = name.substr(0, 11) + "-" + std::to_string(i);
      ::pthread_setname_np(threads_.back().native_handle(), title.substr(0, 15).c_str());
    }
  } catch (...) {  // no thread could be started
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    made_ += count - threads_.size();
  }
  wait_until_made();
}

void LoopGroup::wait_until_made() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_->wait(lock, [this] { return made_ == size(); });
  may_run_ = failure_ == nullptr;
  is_given_up_ = !may_run_;
  lock.unlock();
  changed_->notify_all();
  if (is_given_up_) join();
}

LoopGroup::~LoopGroup() {
  if (is_forked_child()) {  // see thread_pool.cpp for the traps
    leak(threads_);
    leak(changed_);
    return;
  }
  stop();
  join_threads();
}

void LoopGroup::run(std::size_t index, const LoopOptions& options) {
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  try {
    EventLoop loop(options);
    lock.lock();
    loops_[index] = &loop;
    mailboxes_[index] = loop.mailbox();
    ++made_;
    changed_->notify_all();
    changed_->wait(lock, [this] { return may_run_ || is_given_up_; });
    const bool may_run = may_run_;
    lock.unlock();
    if (may_run) body_(loop, index);
  } catch (...) {
    if (is_forked_child()) return;  // and ends, as this was its only thread
    if (!lock.owns_lock()) lock.lock();
    if (!failure_) failure_ = std::current_exception();
    if (loops_[index] == nullptr) ++made_;
    changed_->notify_all();
  }
}

bool LoopGroup::call_soon_threadsafe(std::size_t index, Function<void(EventLoop&)> callback) {
  EventLoop& loop = *loops_.at(index);  // which is there when its letters are read
  return mailboxes_[index]->post(
      [&loop, callback = std::move(callback)]() mutable { callback(loop); });
}

void LoopGroup::stop() {
  for (const std::shared_ptr<Mailbox>& mailbox : mailboxes_) {
    if (mailbox != nullptr) mailbox->stop();
  }
}

bool LoopGroup::is_forked_child() const { return fork_guard_->is_forked_child(); }

void LoopGroup::join() {
  if (is_forked_child()) throw std::logic_error("LoopGroup: used in a forked child");
  join_threads();
  std::unique_lock<std::mutex> lock(mutex_);
  const std::exception_ptr failure = std::exchange(failure_, nullptr);
  lock.unlock();
  if (failure) std::rethrow_exception(failure);
}

void LoopGroup::join_threads() {
  const std::lock_guard<std::mutex> lock(joining_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace pawl
