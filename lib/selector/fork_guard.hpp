// SPDX-License-Identifier: MIT
#pragma once

namespace pawl {

/// Notices, for the price of reading one byte, that this process is a forked child.
///
/// It is one page that the kernel empties in the child (MADV_WIPEONFORK, madvise(2), Linux 4.14).
/// getpid() would be a system call each time. Where the page can't be had, it never notices.
class ForkGuard {
 public:
  ForkGuard();
  ~ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  /// True exactly in a process that was forked off the one that made this.
  bool is_forked_child() const { return *mark() == 0; }

  /// The byte that is read: zero in a forked child, one elsewhere. It stays where it is.
  const unsigned char* mark() const { return page_ != nullptr ? page_ : &never; }

 private:
  static constexpr unsigned char never = 1;

  unsigned char* page_ = nullptr;
};

}  // namespace pawl
