// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>

#include "pawl/system/system.hpp"

/// The calls that `FaultySystem` can make fail.
enum class Call : std::uint8_t {
  random,
  socket,
  socketpair,
  bind,
  listen,
  accept,
  connect,
  send,
  recv,
  sendmsg,
  recvmsg,
  sendfile,
  sendmmsg,
  recvmmsg,
  shutdown,
  getsockopt,
  setsockopt,
  getsockname,
  getpeername,
  unread_bytes,
  unacknowledged_bytes,
  untransmitted_bytes,
  getaddrinfo,
  close,
  read,
  write,
  pread,
  read_file,
  pipe,
  set_non_blocking,
  set_close_on_exec,
  is_non_blocking,
  eventfd,
  open_null,
  inode,
  unlink,
  lock_directory,
  socket_inode,
  open_directory,
  spawn,
  pidfd_open,
  wait_child,
  kill,
  number_of_calls  ///< no call: the last one, wherever others come in
};
constexpr std::size_t call_count = static_cast<std::size_t>(Call::number_of_calls);

/// The kernel, with a table of faults in front of it. It counts calls too.
class FaultySystem : public pawl::System {
 public:
  static constexpr int forever = std::numeric_limits<int>::max();

  /// The next `times` calls fail with `error`, after the first `skip` have gone through.
  void fail(Call call, int error, int times = 1, int skip = 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    entry(call).fault = Fault{error, times, skip};
  }
  void heal(Call call) { fail(call, 0, 0); }
  /// No `send`, `recv`, `read`, `write`, `pread` or `sendfile` moves more than this.
  void set_chunk_limit(std::size_t bytes) { chunk_limit_ = bytes; }

  /// How often `call` was made, failed ones included.
  int count(Call call) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return table_[static_cast<std::size_t>(call)].count;
  }

  /// How often any of them was made.
  int total() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return total_;
  }

  pawl::SystemResult random(void* buffer, std::size_t bytes) override;
  pawl::SystemResult socket(int family, int type, int protocol) override;
  pawl::SystemResult socketpair(int family, int type, int protocol, int (&fds)[2]) override;
  pawl::SystemResult bind(int fd, const sockaddr* address, unsigned address_bytes) override;
  pawl::SystemResult listen(int fd, int backlog) override;
  pawl::SystemResult accept(int fd, sockaddr* address, unsigned* address_bytes) override;
  pawl::SystemResult connect(int fd, const sockaddr* address, unsigned address_bytes) override;
  pawl::SystemResult send(int fd, const void* data, std::size_t bytes) override;
  pawl::SystemResult recv(int fd, void* buffer, std::size_t bytes) override;
  pawl::SystemResult sendmsg(int fd, const msghdr* message, int flags) override;
  pawl::SystemResult recvmsg(int fd, msghdr* message, int flags) override;
  pawl::SystemResult sendfile(int fd, int file, std::uint64_t offset, std::size_t bytes) override;
  pawl::SystemResult sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) override;
  pawl::SystemResult recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags) override;
  pawl::SystemResult shutdown(int fd, int how) override;
  pawl::SystemResult getsockopt(int fd, int level, int name, void* value, unsigned* bytes) override;
  pawl::SystemResult setsockopt(int fd, int level, int name, const void* value,
                                unsigned bytes) override;
  pawl::SystemResult getsockname(int fd, sockaddr* address, unsigned* address_bytes) override;
  pawl::SystemResult getpeername(int fd, sockaddr* address, unsigned* address_bytes) override;
  pawl::SystemResult unread_bytes(int fd) override;
  pawl::SystemResult unacknowledged_bytes(int fd) override;
  pawl::SystemResult untransmitted_bytes(int fd) override;
  pawl::SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) override;
  pawl::SystemResult close(int fd) override;
  pawl::SystemResult read(int fd, void* buffer, std::size_t bytes) override;
  pawl::SystemResult write(int fd, const void* data, std::size_t bytes) override;
  pawl::SystemResult pread(int fd, void* buffer, std::size_t bytes, std::uint64_t offset) override;
  pawl::SystemResult read_file(const char* path, std::string& text) override;
  pawl::SystemResult pipe(int (&fds)[2]) override;
  pawl::SystemResult set_non_blocking(int fd, bool is_non_blocking) override;
  pawl::SystemResult set_close_on_exec(int fd) override;
  pawl::SystemResult is_non_blocking(int fd) override;
  pawl::SystemResult eventfd() override;
  pawl::SystemResult open_null() override;
  pawl::SystemResult inode(int fd) override;
  pawl::SystemResult unlink(const char* path) override;
  pawl::SystemResult socket_inode(const char* path) override;
  pawl::SystemResult open_directory(const char* path) override;
  pawl::SystemResult spawn(const pawl::SpawnRequest& request) override;
  pawl::SystemResult pidfd_open(int pid) override;
  pawl::SystemResult wait_child(int pid, pawl::ChildStatus& status) override;
  pawl::SystemResult lock_directory_of(const char* path) override;
  pawl::SystemResult kill(int pid, int signal) override;

 private:
  struct Fault {
    int error = 0;
    int times = 0;
    int skip = 0;
  };
  struct Entry {
    Fault fault;
    int count = 0;
  };

  Entry& entry(Call call) { return table_[static_cast<std::size_t>(call)]; }
  /// Counts the call. The errno that it is to fail with, or 0.
  int strike(Call call);
  mutable std::mutex mutex_;  // guards the table: threads of a resolver make calls too
  std::size_t limited(std::size_t bytes) const;

  std::array<Entry, call_count> table_{};
  int total_ = 0;
  std::size_t chunk_limit_ = std::numeric_limits<std::size_t>::max();
};
