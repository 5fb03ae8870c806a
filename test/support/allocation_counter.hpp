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

/// Makes one allocation fail, or all for a while, counted over all threads: the `nth` (from 0) of
/// those that are made while an `Armed` is there. One at a time.
class FailingAllocation {
 public:
  explicit FailingAllocation(long nth);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;

  /// How many were counted.
  static long count();
  static bool has_failed();

  /// For its lifetime, and on every thread, allocations count, and the chosen one fails.
  class Armed {
   public:
    Armed();
    ~Armed();
    Armed(const Armed&) = delete;
    Armed& operator=(const Armed&) = delete;
  };
  /// For its lifetime each that counts fails, if that is `wanted`.
  class All {
   public:
    explicit All(bool wanted);
    ~All();
    All(const All&) = delete;
    All& operator=(const All&) = delete;

   private:
    const int wanted_;
  };
  /// For its lifetime this thread's allocations neither count nor fail: for a test's own code.
  class Spared {
   public:
    Spared();
    ~Spared();
    Spared(const Spared&) = delete;
    Spared& operator=(const Spared&) = delete;
  };
};

/// How many pieces of what `operator new` gave haven't been given back, by any thread.
long live_allocations();
