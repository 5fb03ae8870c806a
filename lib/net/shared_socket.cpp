// SPDX-License-Identifier: MIT
// Traps: what close(2) does to a socket it does when the last copy is closed; shutdown(2) leaves
// the backlog of a Unix socket, and what lies in a queue, as it is; from Linux 6.5 to 6.6
// connect(2) doesn't dissolve an association while another holder waits in a call on the socket
// (EBUSY).
#include "net/shared_socket.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <thread>

#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

SystemResult dissolve(System& system, int fd) {
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  return system.connect(fd, &nowhere, sizeof nowhere);
}

namespace {

constexpr int wake_up_tries = 100;  // a microsecond each, or a turn of whoever is to wake up

/// False when whoever waits on the socket can't be woken.
bool reset(System& system, int fd) {
  SystemResult result = dissolve(system, fd);
  if (result.error != EBUSY) return result.ok();
  system.shutdown(fd, SHUT_RD);  // wakes who reads, and tells the peer nothing
  for (int i = 0; i < wake_up_tries && result.error == EBUSY; ++i) {
    std::this_thread::yield();
    result = dissolve(system, fd);
  }
  return result.ok();
}

/// True exactly when close(2) would reset the connection (RFC 2525, 2.17).
bool has_unread(System& system, int fd) {
  const SystemResult asked = system.unread_bytes(fd);
  return asked.ok() && asked.value > 0;
}

/// Nobody can put anything into its queue any more. Who waits for room there hears of the end.
void empty_queue(System& system, int fd) {
  char byte = 0;
  while (system.recv(fd, &byte, sizeof byte).ok()) {
  }
}

/// What is sent to it goes nowhere, and is refused, when it takes from nobody but itself.
void connect_to_itself(System& system, int fd) {
  SocketAddress local;
  if (!system.getsockname(fd, local.get(), local.bytes_pointer()).ok()) return;
  if (local.endpoint().port() == 0) return;        // the kernel chose it, and has it back
  system.connect(fd, local.get(), local.bytes());  // the unspecified address is loopback's here
}

}  // namespace

void end_for_all_holders(System& system, int fd, SocketEnd how) {
  const bool is_reset = how == SocketEnd::reset || has_unread(system, fd);
  if (is_reset && reset(system, fd)) return;
  system.shutdown(fd, SHUT_RDWR);
}

void stop_listening_for_all_holders(System& system, int fd) {
  if (!system.shutdown(fd, SHUT_RDWR).ok()) return;
  for (;;) {
    const SystemResult waiting = system.accept(fd, nullptr, nullptr);
    if (!waiting.ok()) return;
    system.close(waiting.fd());
  }
}

void end_datagrams_for_all_holders(System& system, int fd, bool is_unix) {
  if (is_unix) {
    if (system.shutdown(fd, SHUT_RDWR).ok()) empty_queue(system, fd);
  } else {
    dissolve(system, fd);
    connect_to_itself(system, fd);
  }
}

}  // namespace pawl
