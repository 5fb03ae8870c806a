// SPDX-License-Identifier: MIT
#include "pawl/loop/thread_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <system_error>

namespace pawl {

ThreadPool::ThreadPool(std::size_t threads, std::string name)
    : limit_(std::max<std::size_t>(threads, 1)), name_(name.substr(0, 15)) {}

ThreadPool::~ThreadPool() {
  std::deque<Function<void()>> unbegun;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closing_ = true;
    unbegun.swap(jobs_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::post(Function<void()> work) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (is_closing_) return;
  if (jobs_.size() >= idle_ && threads_.size() < limit_) start_thread();
  jobs_.push_back(std::move(work));
  const bool wakes = begin_waking();
  lock.unlock();  // before the wake-up, or whoever wakes up waits for the lock
  if (wakes) wake_.notify_one();
}

// Whoever wakes up sees to the next one. So a burst of short jobs, which are over before a second
// thread is up, costs one wake-up, and it isn't the poster who pays for the others.
bool ThreadPool::begin_waking() {
  if (jobs_.empty() || idle_ == 0 || is_waking_) return false;
  is_waking_ = true;
  return true;
}

void ThreadPool::start_thread() {
  try {
    threads_.emplace_back([this] { run_jobs(); });
  } catch (const std::system_error&) {
    if (threads_.empty()) throw;  // with fewer threads the job only waits longer
    return;
  }
  ::pthread_setname_np(threads_.back().native_handle(), name_.c_str());
}

void ThreadPool::run_jobs() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    while (jobs_.empty() && !is_closing_) {
      ++idle_;
      wake_.wait(lock);
      --idle_;
      is_waking_ = false;
    }
    if (is_closing_) return;
    Function<void()> work = std::move(jobs_.front());
    jobs_.pop_front();
    const bool wakes = begin_waking();
    lock.unlock();
    if (wakes) wake_.notify_one();
    work();
    work.reset();
    lock.lock();
  }
}

std::size_t ThreadPool::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return threads_.size();
}

}  // namespace pawl
