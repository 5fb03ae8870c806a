// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/state_table.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/datagram_state.hpp"
#include "pawl/net/endpoint.hpp"

namespace pawl {

class DatagramQueue;
class EventLoop;
class ReceiveBatch;
class UnixSocketFile;

/// What a datagram socket is made with. A size or a hop limit of 0 stays as the kernel has it. At
/// [::] hop limits, type of service and what concerns multicast hold for IPv4's datagrams too.
struct DatagramOptions {
  Endpoint peer;                          ///< whom to connect to from the start; nowhere: nobody
  std::size_t datagram_bytes = 65'535;    ///< longer ones come cut, and say so
  std::size_t batch = 32;                 ///< datagrams in one system call and wake-up; 1 to 64
  std::size_t queue_limit = 1024 * 1024;  ///< unsent bytes; each datagram counts 64 more
  Duration close_timeout = std::chrono::seconds(1);  ///< for what `close()` still has to send
  std::size_t receive_buffer = 0;   ///< in bytes (SO_RCVBUF); the kernel drops what doesn't fit
  std::size_t send_buffer = 0;      ///< in bytes (SO_SNDBUF)
  bool reuse_address = false;       ///< others may bind the same (SO_REUSEADDR): for multicast
  bool reuse_port = false;          ///< several sockets share the port's load (SO_REUSEPORT)
  bool broadcast = false;           ///< may send to broadcast addresses (SO_BROADCAST)
  bool is_ipv6_only = false;        ///< [::] doesn't take IPv4 too (IPV6_V6ONLY)
  int ttl = 0;                      ///< hops to a single receiver (IP_TTL, IPV6_UNICAST_HOPS)
  int multicast_ttl = 0;            ///< hops to a group; the kernel's is 1
  bool multicast_loop = true;       ///< this machine's own members get what is sent to a group
  std::string multicast_interface;  ///< "eth0": where what is sent to a group leaves
  int type_of_service = 0;          ///< DSCP and ECN (IP_TOS, IPV6_TCLASS)
  bool multicast_all = false;       ///< hears groups that others on this machine have joined too
  bool tells_destination = false;   ///< `Datagram::to` is set (IP_PKTINFO)
};

/// One datagram that came. Valid until the callback returns.
struct Datagram {
  std::string_view bytes;  ///< may be empty
  const Endpoint& from;    ///< nowhere for a Unix socket without a name
  std::size_t length;      ///< of what was sent, in bytes; more than there are here if truncated
  /// Which address of ours, or which group, it was sent to, with our port. Nowhere unless
  /// `DatagramOptions::tells_destination`. An answer comes from there with
  /// `send_to(bytes, datagram.from, datagram.to)`, unless it is a group or a broadcast.
  const Endpoint& to;
  bool is_truncated() const { return length > bytes.size(); }
};

/// What went wrong without ending the socket.
struct DatagramError {
  std::error_code error;
  const Endpoint& peer;  ///< where the datagram was to go, or who is connected
  std::size_t length;    ///< of the datagram that was lost or has to wait, in bytes; else 0
  bool is_lost;          ///< true exactly when a datagram of ours wasn't sent
  /// "send of 5 bytes to 127.0.0.1:80: Message too long", "receive from …: Connection refused"
  PAWL_API std::string to_string() const;
};

/// Sends and receives datagrams: UDP, or a Unix socket.
///
/// Owns:     its socket, its callbacks and the file of its Unix path, which it removes when it
/// goes.
///           (A file that a dead process left behind is replaced; one where somebody listens is
///           not.) Destroying it in any state, from any callback, is safe: what is unsent is
///           dropped silently, and none of its callbacks runs afterwards.
/// Fork:     dead in a forked child, which sends nothing with it and is refused what would change
///           the parent's (`Errc::used_after_fork`). When the parent's ends while a child holds a
///           copy, that gets nothing any more and who sends there is refused; a port that was asked
///           for, and an abstract name, are taken until the child ends too, one that the kernel
///           chose is free.
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    back only from the loop, never from inside a call that you make.
/// Promises: what is sent in one callback leaves together when it returns, or with the end of the
///           pass (sendmmsg), in order. Nothing is dropped untold on this side: a datagram that was
///           accepted is with the kernel or comes back through `on_error`, unless the socket was
///           aborted. While the kernel has no room for what is sent (ENOBUFS, ENOMEM) the socket
///           waits 50 ms between two tries, and tells it once by `on_error`. No socket keeps the
///           loop for more than one batch a pass.
/// Fails:    the constructor throws `std::system_error`, which names operation and endpoint. What
///           the network or the kernel has against one datagram fails that datagram alone, and an
///           ICMP error on a connected socket is an event: the socket lives on.
class PAWL_API DatagramSocket final : private IoHandler {
 public:
  /// Binds to `local`; port 0 lets the kernel choose. With a peer in the options `local` may be
  /// nowhere: the kernel chooses both; a Unix socket gets an abstract name, so that it can be
  /// answered. Throws `std::invalid_argument` when both are nowhere.
  DatagramSocket(EventLoop& loop, const Endpoint& local, DatagramOptions options = {},
                 Place place = Place::here());
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;
  ~DatagramSocket();

  /// A datagram came, empty ones included.
  void on_datagram(Function<void(DatagramSocket&, const Datagram&)> callback);
  /// A datagram wasn't sent, or the connected peer isn't there: ECONNREFUSED, and
  /// what else the kernel takes for permanent (ip(7), IP_RECVERR).
  void on_error(Function<void(DatagramSocket&, const DatagramError&)> callback);
  /// Time to send more: comes once after `send`, when nothing is queued any more.
  void on_drained(Function<void(DatagramSocket&)> callback);
  /// The end, after all else. No error: everything that was queued is with the kernel.
  void on_closed(Function<void(DatagramSocket&, std::error_code)> callback);

  /// Queues one datagram, which may be empty. An error here means that it was dropped: `Errc::
  /// write_limit` (the queue is full), `std::errc::message_size` (IP can't carry it),
  /// `std::errc::address_family_not_supported`, `std::errc::destination_address_required` and,
  /// after `close`, `std::errc::bad_file_descriptor`. What turns out later comes through
  /// `on_error`. A Unix receiver whose queue is full takes no datagram from a socket that isn't
  /// connected to it: `std::errc::resource_unavailable_try_again`.
  std::error_code send_to(std::string_view bytes, const Endpoint& destination);
  /// The same, from `source`, an address of this machine, whose port doesn't count: so that a
  /// server at 0.0.0.0 or [::] answers from the address that was asked. Nowhere: from the one that
  /// the kernel chooses. `std::errc::address_family_not_supported` for a source of another family,
  /// `std::errc::invalid_argument` for a group; one that isn't this machine's comes through
  /// `on_error`.
  std::error_code send_to(std::string_view bytes, const Endpoint& destination,
                          const Endpoint& source);
  /// The same, to the connected peer.
  std::error_code send(std::string_view bytes);

  /// From now on only `peer` is heard, and `send` goes there: what others had sent before, and
  /// nobody has got yet, is dropped. What was queued still goes where it was to go. When the socket
  /// isn't bound to a certain address the kernel chooses the one that suits the peer, each time
  /// anew. Nowhere ends all that: the local endpoint is as it was bound again, with the same port.
  /// (A port that the kernel chose is given up and taken again in that moment; somebody else may
  /// have it then: `std::errc::address_in_use`.) The kernel's error at once; the old peer stays.
  std::error_code connect(const Endpoint& peer);

  /// Receives what is sent to `group`, on an interface by name ("eth0"); on the one that the kernel
  /// chooses, or that the group's address names, when it is empty. Fails with
  /// `std::errc::no_such_device`, `std::errc::address_in_use` (joined already) and the kernel's.
  std::error_code join_group(const Endpoint& group, std::string_view interface = {});
  std::error_code leave_group(const Endpoint& group, std::string_view interface = {});
  /// The same for what `source` sends to the group, and nobody else (RFC 3678, RFC 4607); several
  /// sources can be joined. Their ports don't count.
  std::error_code join_source_group(const Endpoint& group, const Endpoint& source,
                                    std::string_view interface = {});
  std::error_code leave_source_group(const Endpoint& group, const Endpoint& source,
                                     std::string_view interface = {});

  /// No `on_datagram` until `resume_reading`; the kernel keeps what its buffer has room for.
  void pause_reading();
  void resume_reading();

  /// Receives nothing more, sends what is queued and closes, after close_timeout at the latest
  /// (with `Errc::unsent_data` when something was left).
  void close();
  /// Closes now: what is queued is dropped. `on_closed` gets `Errc::aborted`.
  void abort();

  DatagramState state() const { return machine_.state(); }
  /// Why it is DONE; none while it isn't.
  std::error_code error() const { return error_; }
  bool is_reading_paused() const { return is_paused_; }
  /// With the port or the name that the kernel chose.
  Endpoint local_endpoint() const { return local_; }
  /// Nowhere when it isn't connected.
  Endpoint peer_endpoint() const { return peer_; }
  /// Accepted and not yet with the kernel; when it is DONE, those that never went.
  std::size_t unsent_datagrams() const;
  std::size_t buffered() const;  ///< their bytes

  // Totals
  std::uint64_t datagrams_received() const { return datagrams_received_; }
  std::uint64_t bytes_received() const { return bytes_received_; }
  std::uint64_t datagrams_sent() const { return datagrams_sent_; }
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  /// Accepted, and told as lost by `on_error`.
  std::uint64_t datagrams_lost() const { return datagrams_lost_; }
  /// Those that came and found the receive buffer full; 0 for a Unix socket, whose senders wait
  /// instead, and when it is DONE. Asks the kernel; none where it doesn't tell.
  std::optional<std::uint64_t> dropped_by_kernel() const;

  /// "datagram socket at 127.0.0.1:53 to 127.0.0.1:80 OPEN, 0 datagrams unsent"; when it is DONE,
  /// what ended it.
  std::string describe() const override;
  EventLoop& loop() { return loop_; }

 private:
  /// On the stack of whoever calls user code: tells it what that has done meanwhile.
  struct Frame {
    bool is_destroyed = false;
    const void* running = nullptr;  // the member whose callback runs; null when it was set anew
  };
  /// A datagram that was taken from the kernel and couldn't be delivered yet.
  struct Held {
    std::string bytes;
    Endpoint from;
    Endpoint to;
    std::size_t length;
  };
  struct Kept;
  /// An error that is still to be told.
  struct Failure {
    std::error_code error;
    Endpoint peer;
    std::size_t length;
    bool is_lost;
  };
  struct Delivery;

  // Making it
  void open(const Endpoint& local);
  void set_options();
  void set_multicast_options();
  void bind(const Endpoint& local);
  template <typename Value>
  void set_option(int level, int name, const Value& value, const char* operation);
  [[noreturn]] void throw_error(int error, const char* operation) const;
  template <typename Value>
  void set_option_of_both(int ipv6_name, int ipv4_name, const Value& value, const char* operation);
  const Endpoint& known_endpoint() const;
  bool takes_ipv4_too() const;
  void enlist();
  void resign();
  std::error_code change_membership(int name, const Endpoint& group, std::string_view interface);
  std::error_code change_source(int name, const Endpoint& group, const Endpoint& source,
                                std::string_view interface);

  // Whom it is connected to
  std::error_code disconnect();
  std::error_code dissolve();
  std::error_code associate(const Endpoint& peer);
  bool suits(const Endpoint& destination) const;
  bool is_bound_to_any() const;
  void tell_error_of_old_peer();
  std::error_code learn_local_endpoint();

  // What the loop calls
  void on_ready(Interest events) override;
  void on_pass_end();
  void on_deferred();

  // User code
  template <typename Body>
  void in_frame(Body body);
  template <typename... Arguments>
  bool call(Function<void(DatagramSocket&, Arguments...)>& member, Arguments... arguments);
  template <typename Callback>
  void set(Callback& member, Callback&& callback);
  void defer() noexcept;
  bool has_news() const;
  bool tell_failures();
  bool deliver_held();
  void tell_closed();

  // Input
  void receive();
  void on_receive_error(int error);
  bool deliver(std::string_view bytes, const Endpoint& from, const Endpoint& to,
               std::size_t length);
  bool deliver_from(const ReceiveBatch& batch, std::size_t index, std::size_t& next);
  Endpoint destination_of(const ReceiveBatch& batch, std::size_t index) const;
  bool has_held() const;
  void drop_held();
  void pause_receiving();
  bool is_taking() const;
  bool wants_input() const;

  // Output
  std::error_code refusal(std::size_t bytes, const Endpoint& destination) const;
  std::error_code refusal_of_source(const Endpoint& source) const;
  std::error_code enqueue(std::string_view bytes, const Endpoint& destination,
                          const Endpoint& source, bool is_to_peer);
  void request_flush() noexcept;
  void flush(bool is_writable);
  bool go_on_after(int error, bool is_stuck, int& suspected);
  void pause_sending(int error);
  void count_sent(std::size_t datagrams);
  void fail_first(int error);
  void tell_later(int error, const Endpoint& peer, std::size_t length, bool is_lost);

  // State
  void step(DatagramEvent event);
  void end(DatagramEvent event, std::error_code error, const char* operation);
  void on_close_timeout();
  void close_socket();
  void update_interest();

  EventLoop& loop_;
  DatagramOptions options_;
  Place place_;
  int fd_ = -1;
  Interest interest_ = Interest::read;  // what the loop was told
  StateMachine<datagram_table> machine_{DatagramState::open};
  DatagramState ended_in_ = DatagramState::open;  // where it stood when it ended
  bool is_paused_ = false;         // true exactly between pause_reading() and resume_reading()
  bool is_out_of_memory_ = false;  // true exactly while memory_retry_ is pending
  bool is_send_paused_ = false;    // true exactly while send_retry_ is pending
  bool is_pause_told_ = false;     // true exactly from the first pause to the next datagram sent
  bool is_mixed_ = false;          // true exactly while others' datagrams may still lie before
                                   // those of the peer
  bool is_drain_due_ = false;      // true exactly from send() until on_drained is on its way
  bool needs_flush_ = false;       // true exactly from send() until the kernel is asked
  bool is_drained_ = false;        // true exactly while on_drained waits for the loop
  bool is_close_told_ = false;     // true exactly after on_closed
  std::error_code error_;
  const char* ended_by_ = "";
  Frame* frame_ = nullptr;
  std::unique_ptr<DatagramQueue> queue_;
  std::size_t unsent_bytes_ = 0;         // when DONE
  std::size_t unsent_datagrams_ = 0;     // when DONE
  std::uint32_t flush_position_ = 0;     // in the loop's list of what to do before polling; 0: none
  std::uint32_t deferred_position_ = 0;  // in its list of what to tell in the next pass; 0: none
  std::uint32_t connects_ = 0;           // how often the peer has changed
  std::vector<Held> held_;
  std::unique_ptr<Kept> kept_;  // what comes after those
  std::vector<Failure> failures_;
  std::uint64_t datagrams_received_ = 0;
  std::uint64_t bytes_received_ = 0;
  std::uint64_t datagrams_sent_ = 0;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t datagrams_lost_ = 0;
  Endpoint local_;
  Endpoint bound_;  // where it was bound to, with the port that it got; for IP
  Endpoint peer_;
  Endpoint nowhere_;
  Endpoint peer_name_;  // the same as the kernel has it: IPv4 mapped on IPv6, 0.0.0.0 resolved
  std::unique_ptr<UnixSocketFile> file_;  // of a Unix path
  ScopedHandle close_timer_;
  ScopedHandle memory_retry_;
  ScopedHandle send_retry_;
  Function<void(DatagramSocket&, const Datagram&)> on_datagram_;
  Function<void(DatagramSocket&, const DatagramError&)> on_error_;
  Function<void(DatagramSocket&)> on_drained_;
  Function<void(DatagramSocket&, std::error_code)> on_closed_;
};

}  // namespace pawl
