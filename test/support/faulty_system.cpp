// SPDX-License-Identifier: MIT
#include "support/faulty_system.hpp"

#include <algorithm>

using pawl::SystemResult;

int FaultySystem::strike(Call call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& row = entry(call);
  ++row.count;
  ++total_;
  Fault& fault = row.fault;
  if (fault.times == 0) return 0;
  if (fault.skip > 0) {
    --fault.skip;
    return 0;
  }
  if (fault.times != forever) --fault.times;
  return fault.error;
}

std::size_t FaultySystem::limited(std::size_t bytes) const { return std::min(bytes, chunk_limit_); }

SystemResult FaultySystem::random(void* buffer, std::size_t bytes) {
  if (const int error = strike(Call::random)) return {-1, error};
  return System::random(buffer, bytes);
}

SystemResult FaultySystem::socket(int family, int type, int protocol) {
  if (const int error = strike(Call::socket)) return {-1, error};
  return System::socket(family, type, protocol);
}

SystemResult FaultySystem::socketpair(int family, int type, int protocol, int (&fds)[2]) {
  if (const int error = strike(Call::socketpair)) return {-1, error};
  return System::socketpair(family, type, protocol, fds);
}

SystemResult FaultySystem::bind(int fd, const sockaddr* address, unsigned address_bytes) {
  if (const int error = strike(Call::bind)) return {-1, error};
  return System::bind(fd, address, address_bytes);
}

SystemResult FaultySystem::listen(int fd, int backlog) {
  if (const int error = strike(Call::listen)) return {-1, error};
  return System::listen(fd, backlog);
}

SystemResult FaultySystem::accept(int fd, sockaddr* address, unsigned* address_bytes) {
  if (const int error = strike(Call::accept)) return {-1, error};
  return System::accept(fd, address, address_bytes);
}

SystemResult FaultySystem::connect(int fd, const sockaddr* address, unsigned address_bytes) {
  if (const int error = strike(Call::connect)) return {-1, error};
  return System::connect(fd, address, address_bytes);
}

SystemResult FaultySystem::send(int fd, const void* data, std::size_t bytes) {
  if (const int error = strike(Call::send)) return {-1, error};
  return System::send(fd, data, limited(bytes));
}

SystemResult FaultySystem::recv(int fd, void* buffer, std::size_t bytes) {
  if (const int error = strike(Call::recv)) return {-1, error};
  return System::recv(fd, buffer, limited(bytes));
}

SystemResult FaultySystem::sendmsg(int fd, const msghdr* message, int flags) {
  if (const int error = strike(Call::sendmsg)) return {-1, error};
  return System::sendmsg(fd, message, flags);
}

SystemResult FaultySystem::recvmsg(int fd, msghdr* message, int flags) {
  if (const int error = strike(Call::recvmsg)) return {-1, error};
  return System::recvmsg(fd, message, flags);
}

SystemResult FaultySystem::sendfile(int fd, int file, std::uint64_t offset, std::size_t bytes) {
  if (const int error = strike(Call::sendfile)) return {-1, error};
  return System::sendfile(fd, file, offset, limited(bytes));
}

SystemResult FaultySystem::sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (const int error = strike(Call::sendmmsg)) return {-1, error};
  return System::sendmmsg(fd, messages, count, flags);
}

SystemResult FaultySystem::recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (const int error = strike(Call::recvmmsg)) return {-1, error};
  return System::recvmmsg(fd, messages, count, flags);
}

SystemResult FaultySystem::shutdown(int fd, int how) {
  if (const int error = strike(Call::shutdown)) return {-1, error};
  return System::shutdown(fd, how);
}

SystemResult FaultySystem::getsockopt(int fd, int level, int name, void* value, unsigned* bytes) {
  if (const int error = strike(Call::getsockopt)) return {-1, error};
  return System::getsockopt(fd, level, name, value, bytes);
}

SystemResult FaultySystem::setsockopt(int fd, int level, int name, const void* value,
                                      unsigned bytes) {
  if (const int error = strike(Call::setsockopt)) return {-1, error};
  return System::setsockopt(fd, level, name, value, bytes);
}

SystemResult FaultySystem::getsockname(int fd, sockaddr* address, unsigned* address_bytes) {
  if (const int error = strike(Call::getsockname)) return {-1, error};
  return System::getsockname(fd, address, address_bytes);
}

SystemResult FaultySystem::getpeername(int fd, sockaddr* address, unsigned* address_bytes) {
  if (const int error = strike(Call::getpeername)) return {-1, error};
  return System::getpeername(fd, address, address_bytes);
}

SystemResult FaultySystem::unread_bytes(int fd) {
  if (const int error = strike(Call::unread_bytes)) return {-1, error};
  return System::unread_bytes(fd);
}

SystemResult FaultySystem::unacknowledged_bytes(int fd) {
  if (const int error = strike(Call::unacknowledged_bytes)) return {-1, error};
  return System::unacknowledged_bytes(fd);
}

SystemResult FaultySystem::untransmitted_bytes(int fd) {
  if (const int error = strike(Call::untransmitted_bytes)) return {-1, error};
  return System::untransmitted_bytes(fd);
}

SystemResult FaultySystem::getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                       addrinfo** results) {
  if (const int error = strike(Call::getaddrinfo)) return {-1, error};
  return System::getaddrinfo(node, service, hints, results);
}

SystemResult FaultySystem::close(int fd) {
  if (const int error = strike(Call::close)) return {-1, error};
  return System::close(fd);
}

SystemResult FaultySystem::read(int fd, void* buffer, std::size_t bytes) {
  if (const int error = strike(Call::read)) return {-1, error};
  return System::read(fd, buffer, limited(bytes));
}

SystemResult FaultySystem::write(int fd, const void* data, std::size_t bytes) {
  if (const int error = strike(Call::write)) return {-1, error};
  return System::write(fd, data, limited(bytes));
}

SystemResult FaultySystem::pread(int fd, void* buffer, std::size_t bytes, std::uint64_t offset) {
  if (const int error = strike(Call::pread)) return {-1, error};
  return System::pread(fd, buffer, limited(bytes), offset);
}

SystemResult FaultySystem::read_file(const char* path, std::string& text) {
  if (const int error = strike(Call::read_file)) return {-1, error};
  return System::read_file(path, text);
}

SystemResult FaultySystem::pipe(int (&fds)[2]) {
  if (const int error = strike(Call::pipe)) return {-1, error};
  return System::pipe(fds);
}

SystemResult FaultySystem::set_non_blocking(int fd, bool is_non_blocking) {
  if (const int error = strike(Call::set_non_blocking)) return {-1, error};
  return System::set_non_blocking(fd, is_non_blocking);
}

SystemResult FaultySystem::set_close_on_exec(int fd) {
  if (const int error = strike(Call::set_close_on_exec)) return {-1, error};
  return System::set_close_on_exec(fd);
}

SystemResult FaultySystem::is_non_blocking(int fd) {
  if (const int error = strike(Call::is_non_blocking)) return {-1, error};
  return System::is_non_blocking(fd);
}

SystemResult FaultySystem::eventfd() {
  if (const int error = strike(Call::eventfd)) return {-1, error};
  return System::eventfd();
}

SystemResult FaultySystem::open_null() {
  if (const int error = strike(Call::open_null)) return {-1, error};
  return System::open_null();
}

SystemResult FaultySystem::inode(int fd) {
  if (const int error = strike(Call::inode)) return {-1, error};
  return System::inode(fd);
}

SystemResult FaultySystem::unlink(const char* path) {
  if (const int error = strike(Call::unlink)) return {-1, error};
  return System::unlink(path);
}

SystemResult FaultySystem::socket_inode(const char* path) {
  if (const int error = strike(Call::socket_inode)) return {-1, error};
  return System::socket_inode(path);
}

SystemResult FaultySystem::open_directory(const char* path) {
  if (const int error = strike(Call::open_directory)) return {-1, error};
  return System::open_directory(path);
}

SystemResult FaultySystem::spawn(const pawl::SpawnRequest& request) {
  if (const int error = strike(Call::spawn)) return {-1, error};
  return System::spawn(request);
}

SystemResult FaultySystem::pidfd_open(int pid) {
  if (const int error = strike(Call::pidfd_open)) return {-1, error};
  return System::pidfd_open(pid);
}

SystemResult FaultySystem::wait_child(int pid, pawl::ChildStatus& status) {
  if (const int error = strike(Call::wait_child)) return {-1, error};
  return System::wait_child(pid, status);
}

SystemResult FaultySystem::lock_directory_of(const char* path) {
  if (const int error = strike(Call::lock_directory)) return {-1, error};
  return System::lock_directory_of(path);
}

SystemResult FaultySystem::kill(int pid, int signal) {
  if (const int error = strike(Call::kill)) return {-1, error};
  return System::kill(pid, signal);
}
