// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace pawl {

/// Memory for libev when there is none: libev can't be told that, and would abort the process.
///
/// It is address space that costs nothing until it is used. What was taken from it is never used
/// again, and goes with the reserve.
class LibevReserve {
 public:
  LibevReserve() = default;
  ~LibevReserve();
  LibevReserve(const LibevReserve&) = delete;
  LibevReserve& operator=(const LibevReserve&) = delete;

  /// False when there aren't `bytes` to be had.
  bool ensure(std::size_t bytes);

  /// Works as realloc(3) and free(3), on blocks of either kind. Null when all is used up.
  void* reallocate(void* block, std::size_t bytes);

 private:
  struct Arena {
    Arena* next;
    std::size_t size;
    std::size_t used;
  };
  /// Stands before each block of an arena.
  struct alignas(std::max_align_t) Header {
    std::size_t bytes;
  };

  bool owns(const void* block) const;
  void* take(std::size_t bytes);

  Arena* arenas_ = nullptr;  // the newest first
};

}  // namespace pawl
