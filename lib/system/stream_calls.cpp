// SPDX-License-Identifier: MIT
#include "system/stream_calls.hpp"

#include <sys/socket.h>

namespace pawl {

ssize_t StreamCalls::send_once(int fd, const void* data, std::size_t bytes) {
  return ::send(fd, data, bytes, MSG_NOSIGNAL);
}

ssize_t StreamCalls::recv_once(int fd, void* buffer, std::size_t bytes) {
  return ::recv(fd, buffer, bytes, 0);
}

}  // namespace pawl
