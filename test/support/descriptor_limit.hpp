// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <sys/resource.h>

#include <cerrno>
#include <system_error>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "support/open_fds.hpp"

/// How many descriptors this process may have open; a scope with another number.
class DescriptorLimit {
 public:
  /// As many as are allowed at all.
  DescriptorLimit() : DescriptorLimit(RLIM_INFINITY) {}

  explicit DescriptorLimit(rlim_t limit) {
    ::getrlimit(RLIMIT_NOFILE, &old_);
    current_ = old_;
    current_.rlim_cur = limit < old_.rlim_max ? limit : old_.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &current_);
  }
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &old_); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

  bool allows(int fd) const { return static_cast<rlim_t>(fd) < current_.rlim_cur; }

 private:
  rlimit old_{};
  rlimit current_{};
};

/// A scope in which whatever needs one more descriptor fails with EMFILE. Keep it small: UBSan
/// needs one too, to look at an object's type.
class NoDescriptorLeft {
 public:
  NoDescriptorLeft() : limit_(number_behind_all()) {
    do {
      fillers_.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    } while (fillers_.back());
  }

 private:
  static rlim_t number_behind_all() {
    std::error_code(EMFILE, std::system_category()).message();  // UBSan has seen it now
    return static_cast<rlim_t>(open_fds().rbegin()->first) + 1;
  }

  DescriptorLimit limit_;
  std::vector<pawl::UniqueFd> fillers_;
};
