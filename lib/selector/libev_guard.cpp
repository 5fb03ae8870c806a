// SPDX-License-Identifier: MIT
// Traps: libev aborts the process when it gets no memory, and, without a callback for it, when a
// system call fails for a reason that it doesn't know. With one it goes on, in some places by
// trying again for ever; so the second failure leaves it by longjmp, over nothing but C. What it
// was doing is done again by the next ev_run.
#include "selector/libev_guard.hpp"

#include <ev.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "pawl/selector/libev_callbacks.hpp"

namespace pawl {
namespace {

// What one call may take for each descriptor, and beside that: each of libev's arrays once or twice
// over, as they double.
constexpr std::size_t bytes_for_each = 1024;
constexpr std::size_t bytes_for_all = 1024 * 1024;

thread_local LibevGuard* at_work = nullptr;
std::atomic<bool> is_left_alone{false};
std::atomic<LibevGuard::Reallocate> reallocate_function{&std::realloc};

void on_error(const char*) noexcept {
  // Not ours: libev does with it what it does by itself, at its next try.
  if (!LibevGuard::take_error()) ev_set_syserr_cb(nullptr);
}

}  // namespace

void LibevGuard::install() {
  if (is_left_alone.load()) return;
  ev_set_allocator(&LibevGuard::allocate);
  ev_set_syserr_cb(&on_error);
}

bool LibevGuard::reserve(std::size_t descriptors) {
  return reserve_.ensure(bytes_for_all + bytes_for_each * descriptors);
}

int LibevGuard::run(void (*call)(void*), void* argument) {
  if (at_work == this) {
    call(argument);
    return 0;
  }
  error_ = 0;
  at_work = this;
  if (setjmp(way_out_) == 0) call(argument);
  at_work = nullptr;
  return error_;
}

void LibevGuard::leave() { std::longjmp(way_out_, 1); }

void LibevGuard::rethrow() {
  if (exception_ != nullptr) std::rethrow_exception(std::exchange(exception_, nullptr));
}

bool LibevGuard::take_error() {
  if (at_work == nullptr) return false;
  if (at_work->error_ != 0) at_work->leave();
  at_work->error_ = errno != 0 ? errno : EIO;
  return true;
}

void* LibevGuard::allocate(void* block, long bytes) noexcept {
  const auto size = static_cast<std::size_t>(bytes);
  if (at_work != nullptr) return at_work->reserve_.reallocate(block, size);
  if (size != 0) return system_reallocate(block, size);
  std::free(block);
  return nullptr;
}

void* LibevGuard::system_reallocate(void* block, std::size_t bytes) {
  return reallocate_function.load()(block, bytes);
}

void LibevGuard::set_system_reallocate(Reallocate function) { reallocate_function = function; }

void leave_libev_callbacks() noexcept { is_left_alone = true; }

bool take_libev_error() noexcept { return LibevGuard::take_error(); }

void* libev_reallocate(void* block, long bytes) noexcept {
  return LibevGuard::allocate(block, bytes);
}

}  // namespace pawl
