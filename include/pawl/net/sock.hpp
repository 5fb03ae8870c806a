// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/endpoint.hpp"

// asyncio's operations on a socket of the caller's own, for protocols that pawl has no class for.
//
// Owns:     not the descriptor. It must be non-blocking; keep it open while an operation waits.
// Threads:  the loop's.
// Calls:    `callback` exactly once, from the loop, never from inside the call; not at all after
//           `SockHandle::cancel` or when the loop is destroyed first. An empty one is a
//           `std::logic_error`.
// Promises: what reads takes nothing from the socket that it doesn't tell: it tries in the next
//           pass, and again when there is something to read. What writes tries at once. One that
//           reads and one that writes may wait on a descriptor at a time; they go on in order.
// Fails:    through `callback`: with `std::errc::invalid_argument` when the descriptor blocks,
//           `Errc::already_registered` when another operation of its side waits there or the loop
//           watches it for somebody else (`add_reader`, a `Connection`), and
//           `std::errc::bad_file_descriptor` when it isn't open, or was closed under the operation:
//           that is noticed at once where the kernel tells, else within a second. While one waits,
//           `add_reader` and `add_writer` refuse the descriptor.

namespace pawl {

class EventLoop;
class SockOperation;

/// A ticket for an operation; dropping it cancels nothing.
///
/// Threads: the loop's.
class PAWL_API SockHandle {
 public:
  SockHandle() noexcept = default;
  explicit SockHandle(std::shared_ptr<SockOperation> operation) noexcept
      : operation_(std::move(operation)) {}

  /// The callback won't run, and what it captured is freed at once. The descriptor is free for
  /// others; what was sent so far is sent, and a connect goes on in the kernel.
  void cancel();
  /// True exactly when a `cancel()` came before the callback.
  bool cancelled() const;

 private:
  std::shared_ptr<SockOperation> operation_;
};

/// What `sock_recvfrom` gives.
struct ReceivedFrom {
  std::string bytes;
  Endpoint from;
};

/// What `sock_accept` gives. The socket is non-blocking.
struct AcceptedSocket {
  UniqueFd socket;
  Endpoint peer;
};

/// Connects `fd`. Nothing is looked up: `peer` is an address.
PAWL_API SockHandle sock_connect(EventLoop& loop, int fd, const Endpoint& peer,
                                 Function<void(std::error_code)> callback,
                                 Place place = Place::here());
/// Accepts one connection from a listening `fd`. Those that died in the backlog (ECONNABORTED and
/// what accept(2) calls network errors) are skipped. After any other error the next try may well
/// give the same one: wait before it.
PAWL_API SockHandle sock_accept(EventLoop& loop, int fd,
                                Function<void(std::error_code, AcceptedSocket)> callback,
                                Place place = Place::here());
/// Sends all of `bytes`. The second argument is how many the kernel took: all, or, with an error,
/// those before it.
PAWL_API SockHandle sock_sendall(EventLoop& loop, int fd, std::string bytes,
                                 Function<void(std::error_code, std::size_t)> callback,
                                 Place place = Place::here());
/// Receives at most `bytes`, and at least one unless the peer has ended: nothing and no error is
/// the end.
PAWL_API SockHandle sock_recv(EventLoop& loop, int fd, std::size_t bytes,
                              Function<void(std::error_code, std::string)> callback,
                              Place place = Place::here());
/// Receives one datagram of at most `bytes`; what is longer is cut.
PAWL_API SockHandle sock_recvfrom(EventLoop& loop, int fd, std::size_t bytes,
                                  Function<void(std::error_code, ReceivedFrom)> callback,
                                  Place place = Place::here());
/// Sends one datagram. The second argument is its length when it was sent.
PAWL_API SockHandle sock_sendto(EventLoop& loop, int fd, std::string bytes,
                                const Endpoint& destination,
                                Function<void(std::error_code, std::size_t)> callback,
                                Place place = Place::here());

}  // namespace pawl
