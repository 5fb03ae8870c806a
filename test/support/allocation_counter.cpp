// SPDX-License-Identifier: MIT
// Replaces the global operator new of the program it is linked into: each form of it, because a
// sanitizer brings its own for those that are missing, and tells them apart.
#include "support/allocation_counter.hpp"

#include <malloc.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

thread_local long allocations = 0;
thread_local long held_bytes = 0;
thread_local long left = -1;  // allocations that still succeed; -1: any number

long size_of(void* memory) { return static_cast<long>(::malloc_usable_size(memory)); }

bool may_allocate() {
  if (left == 0) return false;
  if (left > 0) --left;
  ++allocations;
  return true;
}

void* allocate(std::size_t bytes) noexcept {
  if (!may_allocate()) return nullptr;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  held_bytes += size_of(memory);
  return memory;
}

void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  if (!may_allocate()) return nullptr;
  void* memory = nullptr;
  if (::posix_memalign(&memory, static_cast<std::size_t>(alignment), bytes) != 0) return nullptr;
  held_bytes += size_of(memory);
  return memory;
}

void release(void* memory) noexcept {
  held_bytes -= size_of(memory);
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
