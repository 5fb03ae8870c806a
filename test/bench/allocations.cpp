// SPDX-License-Identifier: MIT
// Counts allocations of the whole process, the libraries' included: the program's malloc comes
// first in the dynamic linker's search. While counting is off it costs one predicted branch for
// everyone.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "contender.hpp"

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* block, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}

namespace {

bool counting = false;
std::atomic<std::uint64_t> counted{0};

void count_one() {
  if (__builtin_expect(counting, 0)) counted.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) {
  count_one();
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) {
  count_one();
  return __libc_calloc(count, size);
}

void* realloc(void* block, std::size_t size) {
  count_one();
  return __libc_realloc(block, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count_one();
  return __libc_memalign(alignment, size);
}

}  // extern "C"

namespace bench {

void count_allocations(bool on) {
  if (on) counted = 0;
  counting = on;
}

std::uint64_t allocations() { return counted; }

}  // namespace bench
