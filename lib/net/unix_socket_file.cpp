// SPDX-License-Identifier: MIT
// Traps: a path may hold a plain file, which is nobody's to remove; between two starts of a program
// the file of the first outlives it and would keep the second from binding; a successor may have
// bound the path already when its predecessor goes.
#include "net/unix_socket_file.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "net/socket_address.hpp"
#include "pawl/core/unique_fd.hpp"

namespace pawl {

SystemResult UnixSocketFile::bind(System& system, int fd, int type, const Endpoint& endpoint) {
  const SocketAddress address(endpoint);
  SystemResult bound = system.bind(fd, address.get(), address.bytes());
  if (endpoint.family() != Endpoint::Family::unix_path) return bound;
  const std::string path = endpoint.host();
  if (bound.error == EADDRINUSE && is_stale(system, type, endpoint)) {
    system.unlink(path.c_str());
    bound = system.bind(fd, address.get(), address.bytes());
  }
  if (!bound.ok()) return bound;
  system_ = &system;
  path_ = path;
  inode_ = system.socket_inode(path.c_str()).value;
  return bound;
}

/// True exactly when it is a socket's, and nobody answers there.
bool UnixSocketFile::is_stale(System& system, int type, const Endpoint& endpoint) {
  if (!system.socket_inode(endpoint.host().c_str()).ok()) return false;
  const SystemResult made = system.socket(AF_UNIX, type, 0);
  if (!made.ok()) return false;
  const UniqueFd probe(made.fd());
  const SocketAddress address(endpoint);
  return system.connect(probe.get(), address.get(), address.bytes()).error == ECONNREFUSED;
}

void UnixSocketFile::remove() {
  if (system_ == nullptr) return;
  System& system = *std::exchange(system_, nullptr);
  const SystemResult now = system.socket_inode(path_.c_str());
  if (now.ok() && now.value == inode_) system.unlink(path_.c_str());
}

}  // namespace pawl
