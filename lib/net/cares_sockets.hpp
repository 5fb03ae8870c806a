// SPDX-License-Identifier: MIT
#pragma once

#define CARES_NO_DEPRECATED  // later versions warn about functions that all versions have
#include <ares.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "pawl/core/function.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

/// The sockets of a c-ares channel: made and used through the loop's `System`, watched by the loop.
///
/// Threads: the loop's.
/// Calls:   `on_ready` from the loop, for each socket that has something to do; never with c-ares
///          on the stack. `on_message` from inside c-ares, with each message that it gets whole.
class CaresSockets {
 public:
  CaresSockets(EventLoop& loop, Function<void()> on_ready,
               Function<void(std::string_view)> on_message)
      : loop_(loop), on_ready_(std::move(on_ready)), on_message_(std::move(on_message)) {}
  CaresSockets(const CaresSockets&) = delete;
  CaresSockets& operator=(const CaresSockets&) = delete;

  /// From now on `channel` has its sockets here; it is to be made with `on_state` and this.
  void serve(ares_channel channel);
  /// Lets c-ares read and write what it can, and only then count who was silent.
  void process(ares_channel channel) noexcept;
  /// The errno of this process for which the last socket couldn't be had, or 0; once.
  int take_error() { return std::exchange(error_, 0); }

  static void on_state(void* sockets, int fd, int is_read, int is_written);

  /// c-ares knows a server by its address alone. A link-local one has bytes that are always zero
  /// (RFC 4291 §2.5.6): there its interface is kept from c-ares's configuration to `connect`, and
  /// from `receive` to where c-ares compares whom an answer came from. Other addresses stay.
  static void put_scope_inside(in6_addr& address, std::uint32_t scope);

 private:
  struct Socket {
    int type = 0;
    bool is_read = false;     // true exactly while the loop watches it for reading
    bool is_written = false;  // … and for writing
  };

  // `errno` is how c-ares gets errors.
  static CaresSockets& self(void* data) { return *static_cast<CaresSockets*>(data); }
  static int make(int family, int type, int protocol, void* data);
  static int close(int fd, void* data);
  static int connect(int fd, const sockaddr* address, ares_socklen_t bytes, void* data);
  static ares_ssize_t receive(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                              ares_socklen_t* from_bytes, void* data);
  static ares_ssize_t send(int fd, const iovec* pieces, int count, void* data);

  std::error_code add(int fd, int type);
  void watch_writing(int fd, Socket& socket);
  void process_one_by_one(ares_channel channel) noexcept;

  EventLoop& loop_;
  Function<void()> on_ready_;
  Function<void(std::string_view)> on_message_;
  std::unordered_map<int, Socket> sockets_;
  int datagrams_left_ = 0;
  int error_ = 0;
};

}  // namespace pawl
