// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>

#include "pawl/core/unique_fd.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

/// The file under which a bound Unix socket is found: unix(7). Removes it when it goes, unless
/// another socket has taken its place, or this is a forked child.
class UnixSocketFile {
 public:
  UnixSocketFile() = default;
  UnixSocketFile(const UnixSocketFile&) = delete;
  UnixSocketFile& operator=(const UnixSocketFile&) = delete;
  ~UnixSocketFile() { remove(); }

  /// Binds `fd`, of `type` SOCK_STREAM or SOCK_DGRAM, to `endpoint`, which may be of any family. A
  /// socket file that nobody listens at any more is replaced. Others who bind in that directory
  /// wait until `unlock()`, for a second at most: of several that find one such file one gets it.
  SystemResult bind(System& system, int fd, int type, const Endpoint& endpoint);
  /// Whoever comes now finds a socket that answers.
  void unlock() { lock_.reset(); }
  void remove();

 private:
  static bool is_stale(System& system, int type, const Endpoint& endpoint);

  UniqueFd lock_;             // of the directory
  System* system_ = nullptr;  // null: there is no file
  std::string path_;
  std::int64_t inode_ = 0;
  std::int64_t process_ = 0;  // that bound it
};

}  // namespace pawl
