// SPDX-License-Identifier: MIT
#pragma once

#include <pthread.h>

#include <cstddef>

/// No thread can be started while it lives: none has room for such a stack.
class NoThreads {
 public:
  NoThreads() {
    ::pthread_getattr_default_np(&old_);
    pthread_attr_t huge = old_;
    ::pthread_attr_setstacksize(&huge, std::size_t{3} << (sizeof(void*) == 8 ? 45 : 30));
    ::pthread_setattr_default_np(&huge);
  }
  ~NoThreads() { ::pthread_setattr_default_np(&old_); }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t old_{};
};
