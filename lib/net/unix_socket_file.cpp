// SPDX-License-Identifier: MIT
// Traps: a path may hold a plain file, which is nobody's to remove; between two starts of a program
// the file of the first outlives it and would keep the second from binding; a successor may have
// bound the path already when its predecessor goes; of two that find a file stale the second would
// remove the first one's fresh one, and a stream socket that is bound and doesn't listen yet looks
// stale too, so all this is done under a lock. (Nothing takes a file's place in one step if it is
// still the same one, and a file that serves as a lock would stay behind.)
#include "net/unix_socket_file.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "net/socket_address.hpp"

namespace pawl {

SystemResult UnixSocketFile::bind(System& system, int fd, int type, const Endpoint& endpoint) {
  const SocketAddress address(endpoint);
  if (endpoint.family() != Endpoint::Family::unix_path) {
    return system.bind(fd, address.get(), address.bytes());
  }
  std::string path = endpoint.host();
  // Who may not read the directory, or waits in vain, goes on without.
  const SystemResult locked = system.lock_directory_of(path.c_str());
  if (locked.ok()) lock_.reset(locked.fd());
  SystemResult bound = system.bind(fd, address.get(), address.bytes());
  if (bound.error == EADDRINUSE && is_stale(system, type, endpoint)) {
    system.unlink(path.c_str());
    bound = system.bind(fd, address.get(), address.bytes());
  }
  if (!bound.ok()) {
    unlock();
    return bound;
  }
  system_ = &system;
  path_ = std::move(path);
  process_ = system.process_id().value;
  inode_ = system.socket_inode(path_.c_str()).value;
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
  if (system.process_id().value != process_) return;  // a forked child: it is the parent's
  const SystemResult now = system.socket_inode(path_.c_str());
  if (now.ok() && now.value == inode_) system.unlink(path_.c_str());
}

}  // namespace pawl
