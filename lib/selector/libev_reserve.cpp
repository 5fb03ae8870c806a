// SPDX-License-Identifier: MIT
#include "selector/libev_reserve.hpp"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "selector/libev_guard.hpp"

namespace pawl {
namespace {

constexpr std::size_t alignment = alignof(std::max_align_t);

std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

LibevReserve::~LibevReserve() {
  while (arenas_ != nullptr) {
    Arena* const arena = arenas_;
    arenas_ = arena->next;
    ::munmap(arena, arena->size);
  }
}

bool LibevReserve::ensure(std::size_t bytes) {
  if (arenas_ != nullptr && arenas_->size - arenas_->used >= bytes) return true;
  if (arenas_ != nullptr && arenas_->used == aligned(sizeof(Arena))) {  // too small, and unused
    Arena* const arena = arenas_;
    arenas_ = arena->next;
    ::munmap(arena, arena->size);
  }
  const std::size_t size = bytes + aligned(sizeof(Arena));
  void* const pages = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return false;
  auto* const arena = static_cast<Arena*>(pages);
  *arena = Arena{arenas_, size, aligned(sizeof(Arena))};
  arenas_ = arena;
  return true;
}

bool LibevReserve::owns(const void* block) const {
  const std::less<const void*> is_before;
  for (const Arena* arena = arenas_; arena != nullptr; arena = arena->next) {
    const char* const end = reinterpret_cast<const char*>(arena) + arena->size;
    if (!is_before(block, arena) && is_before(block, end)) return true;
  }
  return false;
}

void* LibevReserve::take(std::size_t bytes) {
  const std::size_t size = sizeof(Header) + aligned(bytes);
  if (arenas_ == nullptr || arenas_->size - arenas_->used < size) return nullptr;
  char* const place = reinterpret_cast<char*>(arenas_) + arenas_->used;
  arenas_->used += size;
  *reinterpret_cast<Header*>(place) = Header{bytes};
  return place + sizeof(Header);
}

void* LibevReserve::reallocate(void* block, std::size_t bytes) {
  const bool is_ours = block != nullptr && owns(block);
  if (bytes == 0) {
    if (!is_ours) std::free(block);
    return nullptr;
  }
  if (!is_ours) {
    if (void* grown = LibevGuard::system_reallocate(block, bytes)) return grown;
  }
  void* moved = is_ours ? LibevGuard::system_reallocate(nullptr, bytes) : nullptr;
  if (moved == nullptr) moved = take(bytes);
  if (moved == nullptr || block == nullptr) return moved;
  const std::size_t old_bytes =
      is_ours ? (static_cast<Header*>(block) - 1)->bytes : ::malloc_usable_size(block);
  std::memcpy(moved, block, std::min(old_bytes, bytes));
  if (!is_ours) std::free(block);
  return moved;
}

}  // namespace pawl
