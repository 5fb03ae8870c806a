// SPDX-License-Identifier: MIT
// Replaces the global operator new of the program it is linked into: each form of it, because a
// sanitizer brings its own for those that are missing, and tells them apart.
#include "support/allocation_counter.hpp"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

// From the sanitizers, where there are any.
extern "C" __attribute__((weak)) void __sanitizer_print_stack_trace();

namespace {

thread_local long allocations = 0;
thread_local long held_bytes = 0;
thread_local long left = -1;  // allocations that still succeed; -1: any number

// Of `FailingAllocation`.
std::atomic<long> live{0};
std::atomic<int> armed{0};
std::atomic<long> counted{0};
std::atomic<long> failing{-1};  // the one that fails; -1: none
std::atomic<int> all_fail{0};
std::atomic<bool> one_of_all_has_failed{false};
thread_local int spared = 0;

/// Where the failing one is asked for, for a person who looks for the fault.
void print_trace_if_wanted() {
  if (std::getenv("PAWL_SWEEP_TRACE") == nullptr || __sanitizer_print_stack_trace == nullptr)
    return;
  ++spared;
  __sanitizer_print_stack_trace();
  --spared;
}

bool is_chosen_to_fail() {
  if (armed.load(std::memory_order_relaxed) == 0 || spared > 0) return false;
  if (all_fail.load(std::memory_order_relaxed) > 0) {
    one_of_all_has_failed = true;
    print_trace_if_wanted();
    return true;
  }
  const long chosen = failing.load(std::memory_order_relaxed);
  if (counted.fetch_add(1, std::memory_order_relaxed) != chosen) return false;
  print_trace_if_wanted();
  return true;
}

long size_of(void* memory) { return static_cast<long>(::malloc_usable_size(memory)); }

bool may_allocate() {
  if (left == 0 || is_chosen_to_fail()) return false;
  if (left > 0) --left;
  ++allocations;
  return true;
}

void note_allocated(void* memory) {
  if (memory == nullptr) return;
  held_bytes += size_of(memory);
  live.fetch_add(1, std::memory_order_relaxed);
}

void* allocate(std::size_t bytes) noexcept {
  if (!may_allocate()) return nullptr;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  note_allocated(memory);
  return memory;
}

void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  if (!may_allocate()) return nullptr;
  void* memory = nullptr;
  if (::posix_memalign(&memory, static_cast<std::size_t>(alignment), bytes) != 0) return nullptr;
  note_allocated(memory);
  return memory;
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  held_bytes -= size_of(memory);
  live.fetch_sub(1, std::memory_order_relaxed);
  std::free(memory);
}

void* checked(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

using std::align_val_t;
using std::nothrow_t;
using std::size_t;

long AllocationCounter::total() { return allocations; }

long HeldBytes::total() { return held_bytes; }

OutOfMemory::OutOfMemory(long after) { left = after; }

OutOfMemory::~OutOfMemory() { left = -1; }

FailingAllocation::FailingAllocation(long nth) {
  counted = 0;
  failing = nth;
  one_of_all_has_failed = false;
}

FailingAllocation::~FailingAllocation() { failing = -1; }

long FailingAllocation::count() { return counted; }

bool FailingAllocation::has_failed() {
  return one_of_all_has_failed || (failing >= 0 && counted > failing);
}

FailingAllocation::All::All(bool wanted) : wanted_(wanted ? 1 : 0) { all_fail += wanted_; }

FailingAllocation::All::~All() { all_fail -= wanted_; }

FailingAllocation::Armed::Armed() { ++armed; }

FailingAllocation::Armed::~Armed() { --armed; }

FailingAllocation::Spared::Spared() { ++spared; }

FailingAllocation::Spared::~Spared() { --spared; }

long live_allocations() { return live; }

// clang-format off: a table
void* operator new(size_t bytes) { return checked(allocate(bytes)); }
void* operator new[](size_t bytes) { return checked(allocate(bytes)); }
void* operator new(size_t bytes, align_val_t to) { return checked(allocate(bytes, to)); }
void* operator new[](size_t bytes, align_val_t to) { return checked(allocate(bytes, to)); }
void* operator new(size_t bytes, const nothrow_t&) noexcept { return allocate(bytes); }
void* operator new[](size_t bytes, const nothrow_t&) noexcept { return allocate(bytes); }

void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t, align_val_t) noexcept { release(memory); }
void operator delete(void* memory, const nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, const nothrow_t&) noexcept { release(memory); }
// clang-format on
