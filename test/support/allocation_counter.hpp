// SPDX-License-Identifier: MIT
#pragma once

/// Counts what this thread takes from `operator new`, from its construction on.
class AllocationCounter {
 public:
  AllocationCounter() : start_(total()) {}
  long count() const { return total() - start_; }

 private:
  static long total();

  long start_;
};

/// Counts how many bytes more than at its construction this thread holds of what `operator new`
/// gave. For tests with one thread: what another one frees isn't seen.
class HeldBytes {
 public:
  HeldBytes() : start_(total()) {}
  long count() const { return total() - start_; }

 private:
  static long total();

  long start_;
};

/// For its lifetime `operator new` fails on this thread, once it has succeeded `after` times.
class OutOfMemory {
 public:
  explicit OutOfMemory(long after);
  ~OutOfMemory();
  OutOfMemory(const OutOfMemory&) = delete;
  OutOfMemory& operator=(const OutOfMemory&) = delete;
};
