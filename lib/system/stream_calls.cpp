// SPDX-License-Identifier: MIT
#include "system/stream_calls.hpp"

#include <cerrno>

namespace pawl {
namespace {

std::int64_t as_returned(const SystemResult& result) {
  if (result.ok()) return result.value;
  errno = result.error;
  return -1;
}

}  // namespace

StreamCalls::StreamCalls(System& system) : system_(system) {
  if (&system != &System::real()) return;
  send_ = &::send;
  recv_ = &::recv;
}

SystemResult StreamCalls::result_of(std::int64_t returned) {
  if (returned >= 0) return SystemResult{returned, 0};
  return SystemResult{-1, errno == EINTR ? EAGAIN : errno};
}

std::int64_t StreamCalls::send_by_system(int fd, const void* data, std::size_t bytes) {
  return as_returned(system_.send(fd, data, bytes));
}

std::int64_t StreamCalls::recv_by_system(int fd, void* buffer, std::size_t bytes) {
  return as_returned(system_.recv(fd, buffer, bytes));
}

}  // namespace pawl
