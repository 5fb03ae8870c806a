// SPDX-License-Identifier: MIT
#pragma once

#include <csetjmp>
#include <cstddef>
#include <exception>

#include "selector/libev_reserve.hpp"

namespace pawl {

/// Keeps libev from ending the process, in the calls that go through here: its two callbacks, which
/// are the process's, work for whichever guard is at work on the thread.
///
/// Threads: one at a time.
class LibevGuard {
 public:
  /// Makes libev call us, unless the program keeps that for itself
  /// (`pawl/selector/libev_callbacks.hpp`).
  static void install();

  /// Gets room for what libev may want for this many descriptors. False when there is none.
  bool reserve(std::size_t descriptors);

  /// Calls `call()`, which calls libev. Returns an errno: that of the system call that libev gave
  /// up. From a callback of libev's it just calls.
  template <typename Call>
  int run(Call call) {
    return run([](void* it) { (*static_cast<Call*>(it))(); }, &call);
  }

  /// Calls `call()` from inside of libev's C, which an exception must not cross.
  template <typename Call>
  void protect(Call call) noexcept {
    try {
      call();
    } catch (...) {
      if (exception_ == nullptr) exception_ = std::current_exception();
    }
  }

  /// Throws what `protect` caught, if it did.
  void rethrow();

  /// Goes back to `run` at once. Only from a callback of libev's that its backend calls.
  [[noreturn]] void leave();

  // What the process's callbacks do.
  static bool take_error();
  static void* allocate(void* block, long bytes) noexcept;

  /// realloc(3), unless a test has put another in its place.
  static void* system_reallocate(void* block, std::size_t bytes);
  using Reallocate = void* (*)(void*, std::size_t);
  static void set_system_reallocate(Reallocate function);

 private:
  int run(void (*call)(void*), void* argument);

  LibevReserve reserve_;
  std::exception_ptr exception_;
  std::jmp_buf way_out_;
  int error_ = 0;
};

}  // namespace pawl
