// SPDX-License-Identifier: MIT
// Traps: a pool may be destroyed by its own job, whose thread can't wait for itself; in a forked
// child the threads are gone, but the lock may be held by one of them, a condition variable waits
// for those who wait for it before it goes, and a handle can be neither joined nor detached.
#include "pawl/loop/thread_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "loop/leak.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {

/// What the threads see; the last of them and the pool frees it.
struct ThreadPool::Parts : std::enable_shared_from_this<Parts> {
  using Jobs = std::vector<Function<void()>>;

  Parts(std::size_t most, std::string title)
      : limit(std::max<std::size_t>(most, 1)), name(std::move(title)) {}

  void run_jobs();
  void start_thread();
  bool begin_waking();
  bool is_idle() const { return next_job == jobs.size(); }
  Function<void()> take_job();
  void close();
  void close_in_child();

  const std::size_t limit;
  const std::string name;
  const ForkGuard fork_guard;
  mutable std::mutex mutex;  // guards the rest
  std::condition_variable wake;
  Jobs jobs;
  std::size_t next_job = 0;  // those before it were taken
  std::vector<std::thread> threads;
  std::size_t idle = 0;
  bool is_waking = false;  // true exactly while one of the idle ones was woken and isn't up yet
  bool is_closing = false;
};

ThreadPool::ThreadPool(std::size_t threads, std::string name)
    : parts_(std::make_shared<Parts>(threads, name.substr(0, 15))) {}

ThreadPool::~ThreadPool() {
  parts_->fork_guard.is_forked_child() ? parts_->close_in_child() : parts_->close();
}

void ThreadPool::Parts::close() {
  Jobs unbegun;
  std::vector<std::thread> ending;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    is_closing = true;
    unbegun.swap(jobs);
    ending.swap(threads);
  }
  wake.notify_all();
  for (std::thread& thread : ending) {
    const bool is_this = thread.get_id() == std::this_thread::get_id();
    is_this ? thread.detach() : thread.join();
  }
}

void ThreadPool::Parts::close_in_child() {
  Jobs unbegun;
  {
    const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    lock ? unbegun.swap(jobs) : leak(jobs);  // else somebody is in the middle of a change for ever
  }
  leak(threads);  // which each hold the rest, for ever
}

void ThreadPool::post(Function<void()> work) {
  const std::shared_ptr<Parts> parts = parts_;  // the work may be over before the end of this
  if (parts->fork_guard.is_forked_child()) {
    throw std::logic_error("ThreadPool: used in a forked child; make a new one there");
  }
  std::unique_lock<std::mutex> lock(parts->mutex);
  if (parts->is_closing) return;
  if (parts->jobs.size() - parts->next_job >= parts->idle) parts->start_thread();
  parts->jobs.push_back(std::move(work));
  const bool wakes = parts->begin_waking();
  lock.unlock();  // before the wake-up, or whoever wakes up waits for the lock
  if (wakes) parts->wake.notify_one();
}

// Whoever wakes up sees to the next one. So a burst of short jobs, which are over before a second
// thread is up, costs one wake-up, and it isn't the poster who pays for the others.
bool ThreadPool::Parts::begin_waking() {
  if (is_idle() || idle == 0 || is_waking) return false;
  is_waking = true;
  return true;
}

void ThreadPool::Parts::start_thread() {
  if (threads.size() == limit) return;
  try {
    threads.emplace_back([parts = shared_from_this()] { parts->run_jobs(); });
  } catch (const std::system_error& error) {
    if (threads.empty()) throw std::system_error(error.code(), "ThreadPool: starting a thread");
    return;  // with fewer threads the job only waits longer
  } catch (const std::bad_alloc&) {
    if (threads.empty()) throw;
    return;
  }
  ::pthread_setname_np(threads.back().native_handle(), name.c_str());
}

Function<void()> ThreadPool::Parts::take_job() {
  Function<void()> job = std::move(jobs[next_job++]);
  if (is_idle()) {
    jobs.clear();
    next_job = 0;
  } else if (next_job > 64 && next_job > jobs.size() / 2) {
    jobs.erase(jobs.begin(), jobs.begin() + static_cast<std::ptrdiff_t>(next_job));
    next_job = 0;
  }
  return job;
}

void ThreadPool::Parts::run_jobs() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    while (is_idle() && !is_closing) {
      ++idle;
      wake.wait(lock);
      --idle;
      is_waking = false;
    }
    if (is_closing) return;
    Function<void()> work = take_job();
    const bool wakes = begin_waking();
    lock.unlock();
    if (wakes) wake.notify_one();
    work();
    work.reset();
    if (fork_guard.is_forked_child()) return;  // the other jobs are the parent's
    lock.lock();
  }
}

std::size_t ThreadPool::size() const {
  if (parts_->fork_guard.is_forked_child()) return 0;
  const std::lock_guard<std::mutex> lock(parts_->mutex);
  return parts_->threads.size();
}

}  // namespace pawl
