// SPDX-License-Identifier: MIT
#include "net/shared_socket.hpp"

#include <sys/socket.h>

#include "pawl/system/system.hpp"

namespace pawl {

void end_for_all_holders(System& system, int fd, SocketEnd how) {
  if (how == SocketEnd::reset) {
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;  // connect(2): dissolves the association, which resets TCP's
    if (system.connect(fd, &nowhere, sizeof nowhere).ok()) return;
  }
  system.shutdown(fd, SHUT_RDWR);
}

}  // namespace pawl
