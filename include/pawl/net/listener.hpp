// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/state_table.hpp"
#include "pawl/core/time.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/listener_state.hpp"
#include "pawl/net/socket_options.hpp"

namespace pawl {

class EventLoop;
class UnixSocketFile;

/// The socket's options are inherited by what is accepted.
struct ListenerOptions : SocketOptions {
  int backlog = 1024;              ///< the kernel caps it at net.core.somaxconn
  bool reuse_port = false;         ///< several sockets share the port (SO_REUSEPORT)
  bool is_ipv6_only = false;       ///< [::] doesn't take IPv4 too (IPV6_V6ONLY)
  int fast_open_queue = 0;         ///< pending Fast Open requests (RFC 7413); 0: none are taken
  std::size_t accept_budget = 64;  ///< accepts in one pass, at most
  Duration retry_after = std::chrono::milliseconds(50);  ///< when accepting fails for now
};

/// Accepts connections at one endpoint and hands their sockets over.
///
/// Owns:     its socket, and the file of a Unix socket, which goes with it. A socket file that
///           nobody listens at any more is replaced; of several processes that find one at once one
///           listens, and the others get address_in_use. Destroying it, from its own callback too,
///           stops listening.
/// Fork:     dead in a forked child, where destroying it leaves socket and file to the parent. When
///           the parent's ends, the child's copies listen no more, and who is in the backlog hears
///           of it (by a reset; by an end, at a Unix socket); unless the socket was taken over:
///           others may listen with that one on purpose.
/// Threads:  the loop's. The loop must outlive it.
/// Promises: a flood of connections doesn't starve the loop (accept_budget). When accepting fails
///           for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM), because somebody
///           forbids it (EPERM, EACCES), or in a way that nobody knows, it never spins: it waits
///           retry_after between two tries, and the kernel's backlog holds the others. Connections
///           that died in the backlog (ECONNABORTED and what accept(2) calls network errors) are
///           skipped. A socket that is of no use any more (EINVAL, because another holder shut it
///           down; EBADF, ENOTSOCK) ends the listener, which says so once.
/// Fails:    the constructor throws `std::system_error`, which names the operation and the
///           endpoint.
class PAWL_API Listener final : private IoHandler {
 public:
  using AcceptCallback = Function<void(UniqueFd socket, const Endpoint& peer)>;

  Listener(EventLoop& loop, const Endpoint& endpoint, AcceptCallback on_accept,
           ListenerOptions options = {}, Place place = Place::here());
  /// Takes over a socket that listens already, such as one of `inherited_sockets()`. The options of
  /// the socket, backlog and reuse_port are left as they are.
  Listener(EventLoop& loop, UniqueFd socket, AcceptCallback on_accept, ListenerOptions options = {},
           Place place = Place::here());
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  /// Accepting fails for now, with this; comes once until one was accepted again.
  void on_exhausted(Function<void(std::error_code)> callback);
  /// The socket is of no use any more, and the listener DONE. Comes once, and never when
  /// `close` has ended it; while a grace lasts it may.
  void on_failed(Function<void(std::error_code)> callback);

  void pause();
  void resume();
  /// Stops listening; the kernel refuses whoever comes then. Those who wait in its backlog are
  /// accepted and handed over before that, from the loop, in `grace` at most (a Unix path is given
  /// up at once); with no grace the kernel resets them. Who gets through to the backlog between
  /// the last accept and close(2), or is in the middle of TCP's handshake then, is reset too: the
  /// kernel leaves that window. It ends a pause.
  void close(Duration grace = {});

  ListenerState state() const { return machine_.state(); }
  /// Why it is DONE; none while it isn't, and when `close` has ended it.
  std::error_code error() const { return error_; }
  /// With the port that the kernel chose for port 0.
  Endpoint local_endpoint() const { return local_; }
  /// "listener at 127.0.0.1:80 LISTENING"; when it failed, why.
  std::string describe() const override;

 private:
  friend class Server;

  Listener(EventLoop& loop, AcceptCallback&& on_accept, ListenerOptions&& options, Place place);
  void open(const Endpoint& endpoint);
  void watch();
  void on_ready(Interest events) override;
  std::size_t next_batch();
  bool accepts() const;
  bool accept_one(AcceptCallback& on_accept);
  void on_no_room(int error);
  bool does_listen() const;
  void stop_for_all_holders();
  std::size_t waiting() const;
  void fail(int error);
  void finish();
  void go_on(ListenerEvent event);
  void look_soon();
  void end(ListenerEvent event);
  void step(ListenerEvent event);

  EventLoop& loop_;
  ListenerOptions options_;
  std::shared_ptr<AcceptCallback> on_accept_;  // shared with the call, which may destroy this
  std::shared_ptr<Function<void(std::error_code)>> on_exhausted_;
  std::shared_ptr<Function<void(std::error_code)>> on_failed_;
  Function<void()> on_drained_;  // the server's: told when it is DONE
  Place place_;
  StateMachine<listener_table> machine_{ListenerState::listening};
  std::error_code error_;
  UniqueFd fd_;
  std::unique_ptr<UnixSocketFile> file_;
  Endpoint local_;
  bool is_taken_over_ = false;  // true exactly when others may listen with the same socket
  bool is_told_ = false;        // true exactly from on_exhausted to the next accept
  std::size_t batch_ = 1;       // accepts in this wake-up; grows while they come without a pause
  std::uint64_t last_pass_ = 0;
  unsigned skipped_ = 0;  // errors of connections since the last one without
  std::size_t left_ = 0;  // draining: so many more at most
  ScopedHandle retry_;
  ScopedHandle look_;  // while draining
  ScopedHandle grace_;
};

}  // namespace pawl
