// SPDX-License-Identifier: MIT
#include "system/fork_count.hpp"

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <new>

namespace pawl {
namespace {

// The process's, as its forks are. As wide as takes no lock on any processor.
std::atomic<std::size_t> forks{0};

// Before the fork: whoever closes a descriptor after it, in another thread, is to know.
void note_fork() { forks.fetch_add(1, std::memory_order_relaxed); }

bool watch_forks() {
  if (::pthread_atfork(&note_fork, nullptr, nullptr) != 0) throw std::bad_alloc();  // its one error
  return true;
}

}  // namespace

std::size_t fork_count() {
  [[maybe_unused]] static const bool is_watching = watch_forks();
  return forks.load(std::memory_order_relaxed);
}

}  // namespace pawl
