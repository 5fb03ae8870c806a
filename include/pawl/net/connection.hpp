// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
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
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/loop/timer_handle.hpp"
#include "pawl/net/close_reason.hpp"
#include "pawl/net/connection_state.hpp"
#include "pawl/net/dial_attempt.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/output_queue.hpp"
#include "pawl/net/peer_credentials.hpp"
#include "pawl/net/socket_options.hpp"
#include "pawl/net/tcp_info.hpp"

namespace pawl {

class Dialer;
class EventLoop;
class MessageReader;
class RelaySide;
class Resolver;
class Server;
struct LoopParts;
enum class SocketEnd : std::uint8_t;
struct SystemResult;

/// What a connection is made with. Durations of 0 are no limit.
///
/// Timeouts and limits judge the peer: what it has sent or taken is looked at once more before one
/// of them ends a connection, however long the loop stood still; and `idle_timeout` doesn't run
/// while reading is paused, while bytes wait for an `on_data` that isn't set, or when the peer has
/// ended its side and the answer is still being made here.
struct ConnectionOptions : SocketOptions {
  /// For the whole dial, lookup included. What happened while the loop stood still is looked at
  /// first; a dial that only then could go on has as much again, once.
  Duration connect_timeout = std::chrono::seconds(30);
  Duration idle_timeout{};  ///< in RECEIVING: no byte either way, while this side reads
  Duration write_timeout = std::chrono::seconds(30);  ///< in SENDING: the kernel takes no byte
  Duration close_timeout = std::chrono::seconds(30);  ///< from the pass of `close()` to the end
  std::size_t high_water = 64 * 1024;                 ///< unsent bytes that make it congested
  std::size_t low_water = 16 * 1024;                  ///< unsent bytes that end that
  std::size_t write_limit = 16 * 1024 * 1024;  ///< bytes that the kernel refused and that end it
  bool allow_half_open = false;                ///< the peer's end doesn't close this side

  // For dialing alone
  Resolver* resolver = nullptr;  ///< borrowed; null: `Resolver::of` the loop
  Endpoint bind;           ///< the source; nowhere: the kernel chooses, as it does for a port of 0
  bool fast_open = false;  ///< first bytes go with the SYN where kernel and peer can (RFC 7413)
  Duration attempt_delay = std::chrono::milliseconds(250);  ///< between two addresses, RFC 8305 §5
  /// How long a name's IPv6 addresses are waited for when its IPv4 ones have come, RFC 8305 §3.
  Duration resolution_delay = std::chrono::milliseconds(50);
};

/// One stream to one peer: an explicit state machine over a socket.
///
/// Owns:     its socket and its callbacks. Its owner holds the `unique_ptr` (or the `Server` does).
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    back only from the loop, never from inside a call that you make.
/// Promises: `on_closed` comes exactly once and last, after all data that came before the end. The
///           peer's end doesn't discard what we haven't sent; a failed write doesn't discard what
///           can be read. Destroying it in any state, from any callback, is safe: it is aborted
///           silently, and none of its callbacks runs afterwards. What is written in one callback
///           leaves together when it returns. Whenever bytes that were written are lost, a TCP peer
///           sees a reset (RST) and never an end, which would make a part look whole; a Unix socket
///           has no reset, so its peer gets what the kernel had taken, and then an end.
///           A peer that has gone is noticed in each state, also while reading is paused or after
///           its end was read; what is unread then waits for `resume_reading`.
/// Fork:     dead in a forked child: destroying it there closes the child's number, and nothing
///           reaches the peer. The parent's goes on, and ends as if there were no child; but while
///           one waits in a call on its copy, Linux 6.5 and 6.6 may make an end of a reset.
/// Fails:    by `on_closed(error)`; `describe()` tells operation, peer and state in words.
class PAWL_API Connection final : private IoHandler {
 public:
  /// Looks `host` up (a numeric address needs no lookup), tries its addresses, IPv6 and IPv4 in
  /// turn and each a little after the one before (RFC 8305), and is CONNECTING until one answers.
  /// Failure comes through `on_closed`, never from here; `attempts()` tells what was tried.
  static std::unique_ptr<Connection> connect(EventLoop& loop, std::string_view host,
                                             std::uint16_t port, ConnectionOptions options = {},
                                             Place place = Place::here());
  static std::unique_ptr<Connection> connect(EventLoop& loop, const Endpoint& peer,
                                             ConnectionOptions options = {},
                                             Place place = Place::here());
  /// Makes a connection of a connected stream socket, which is made non-blocking. It is RECEIVING.
  /// The options of the socket are set on it. Whatever is no stream socket
  /// (`std::errc::not_a_socket`, `wrong_protocol_type`) or isn't connected (`not_connected`), and
  /// an option that can't be set, end the connection at once: the socket is closed, and `on_closed`
  /// tells.
  static std::unique_ptr<Connection> adopt(EventLoop& loop, UniqueFd socket,
                                           ConnectionOptions options = {},
                                           Place place = Place::here());
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  /// It can send now. Not for connections that a server accepted.
  void on_connected(Function<void(Connection&)> callback);
  /// Bytes came. They are valid until the callback returns. Until this is set for the first time,
  /// what comes stays with the kernel, which slows the peer down; its end is told if nothing is
  /// unread before it. Without a callback ({}), what comes is read and dropped.
  void on_data(Function<void(Connection&, std::string_view)> callback);
  /// Time to write more: comes once after `write`, that of nothing too, when everything is with the
  /// kernel, or, if it was congested meanwhile, when the unsent bytes are at low_water again. Never
  /// while it is congested. It comes too when what was written is lost, because sending has failed,
  /// while input waits for `resume_reading`. When the connection ends in good order in the same
  /// pass, it comes before `on_closed`.
  void on_drained(Function<void(Connection&)> callback);
  /// The peer will send no more. Unless half-open connections are allowed, this side sends what it
  /// still has and then closes.
  void on_eof(Function<void(Connection&)> callback);
  /// Descriptors came over a Unix socket, before the bytes that they were sent with (`on_data`,
  /// without which neither is read). A connection without this callback refuses them: the kernel
  /// closes them. Where this process has no room for them, the bytes come without them, and then
  /// the end, with EMFILE.
  void on_fds(Function<void(Connection&, std::vector<UniqueFd>)> callback);
  /// The end. No error: it was closed in good order, and everything was handed to the kernel. An
  /// error of sending comes as soon as nothing is left to read.
  void on_closed(Function<void(Connection&, std::error_code)> callback);

  /// Sends bytes after those that were written before; while CONNECTING they are kept for later.
  /// More unsent bytes than write_limit, of those that the kernel doesn't take when it is offered
  /// them, end the connection with `Errc::write_limit`. After `shutdown`, `close` or the end they
  /// are dropped (debug mode says so).
  void write(std::string_view bytes);
  /// As above; a big string is taken over instead of copied.
  void write(std::string&& bytes);
  void write(const char* text) { write(std::string_view(text)); }
  /// Sends `length` bytes of `file` from `offset` on, in order with what is written, and closes the
  /// file. They pass by this process's memory where the kernel can (sendfile(2)), and don't count
  /// for write_limit and high_water. Reading a slow disk blocks the loop. A file that ends too
  /// early, or can't be read, ends the connection: with `Errc::file_ended` or the kernel's error.
  void write_file(UniqueFd file, std::uint64_t offset, std::uint64_t length);
  /// Sends descriptors with `bytes`, which must not be empty, over a Unix socket; 253 at most
  /// (unix(7)). They are closed here when they have gone. Throws `std::logic_error` for anything
  /// else and for any other socket.
  void write_fds(std::string_view bytes, std::vector<UniqueFd> fds);

  /// Sends what is unsent, then tells the peer that there is no more (FIN). Goes on reading.
  void shutdown();
  /// As `shutdown`, then reads and drops what still comes until the peer has ended too, so that a
  /// RST can't overtake our last bytes; then closes. A peer that sends more than 1 MiB is listened
  /// to until it has everything: has acknowledged it or, over a Unix socket, read it. Ends after
  /// close_timeout at the latest: with `Errc::unsent_data`, and a reset, when the peer hasn't got
  /// everything by then. `on_data` and `on_eof` don't come any more.
  void close();
  /// Drops what is unsent and resets the connection (RST): `on_closed` gets `Errc::aborted`.
  void abort();

  /// No `on_data` until `resume_reading`; the kernel's buffer fills up and slows the peer down.
  void pause_reading();
  void resume_reading();
  /// Gives bytes of `on_data` back: they come again in the next pass, before what follows them. For
  /// the change to another protocol, together with another `on_data` or `release`.
  void unread(std::string_view bytes);
  /// As the option of this name.
  void set_allow_half_open(bool allows) { allows_half_open_ = allows; }

  /// What is left of a connection that was released.
  struct Released {
    UniqueFd socket;     ///< none, when it wasn't connected
    std::string unread;  ///< input that was given back
    std::string unsent;  ///< output that the kernel didn't take
  };
  /// Gives the socket away, also to a forked child (before the fork or after it, in the parent:
  /// what is closed here then ends nothing there), after an attempt to send what is unsent. The
  /// connection is DONE; `on_closed` comes without an error, unless sending had failed before.
  /// Nothing is left of one that is DONE already. Throws `std::logic_error`, and goes on, when a
  /// file or descriptors are unsent even then.
  Released release();

  ConnectionState state() const { return machine_.state(); }
  /// Why it is DONE; none while it isn't, and after a good end.
  std::error_code error() const { return error_; }
  CloseReason close_reason() const { return close_reason_; }
  /// True exactly after `close()`, or after the peer's end made this side close.
  bool is_closing() const { return unusual_.is_closing; }
  /// The addresses that were tried in vain, in the order of their ends.
  const std::vector<DialAttempt>& attempts() const;
  /// Bytes written and not yet with the kernel, those of files too; when it is DONE, those that
  /// never went. In a 32-bit program, no more of them than 2^32 - 1.
  std::size_t buffered() const;
  /// True exactly from the moment when high_water was reached until low_water is.
  bool is_congested() const { return unusual_.is_congested; }
  bool is_reading_paused() const { return unusual_.is_paused; }
  /// True exactly when the peer's end of stream has been read.
  bool has_peer_ended() const { return unusual_.has_peer_ended; }
  /// Totals, in bytes.
  std::uint64_t bytes_received() const { return bytes_received_; }
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  /// Since when it is connected; the epoch before that.
  TimePoint connected_at() const { return connected_at_; }
  /// When bytes went or came last, to the pass; the time of connecting before any did.
  TimePoint last_received_at() const { return last_input_; }
  TimePoint last_sent_at() const { return last_output_; }
  /// Nowhere before it is connected and after it is DONE.
  Endpoint local_endpoint() const;
  /// Where it is connected to, or was, or is to be. Nowhere before a name has led to an address.
  Endpoint peer_endpoint() const { return peer_; }
  /// None for a Unix socket, and when it isn't connected.
  std::optional<TcpInfo> tcp_info() const;
  /// None but for a Unix socket.
  std::optional<PeerCredentials> peer_credentials() const;
  /// "connection to 127.0.0.1:80 RECEIVING, 0 bytes unsent"; when it is DONE, what ended it.
  std::string describe() const override;
  EventLoop& loop() { return loop_; }

 private:
  friend class MessageReader;
  friend class RelaySide;
  friend class Server;

  /// How far this side's stream is.
  enum class Output : std::uint8_t { open, finishing, finished, failed };

  using DataCallback = Function<void(Connection&, std::string_view)>;

  /// What is out of the ordinary: together in one word, so that a message's way looks at it at
  /// once.
  struct Unusual {
    bool is_paused = false;       // true exactly between pause_reading() and resume_reading()
    bool has_peer_ended = false;  // true exactly after recv() gave 0
    bool is_closing = false;      // true exactly after close(), ours or the peer's end's
    bool is_congested = false;
    Output output_side = Output::open;
    bool is_followed = false;        // true from on_drained() on, and when the loop has an observer
    bool has_special_input = false;  // true from on_fds() or unread() on
    bool waits_otherwise = false;    // true exactly when the loop was told not to wait for reading

    bool any() const {
      static_assert(sizeof(Unusual) == sizeof(std::uint64_t));
      std::uint64_t word;
      std::memcpy(&word, this, sizeof word);
      return word != 0;
    }
  };
  /// On the stack of whoever calls user code: tells it what that has done meanwhile.
  struct Frame {
    void keep(std::unique_ptr<DataCallback> callback);
    bool settle();

    bool has_news = false;  // true exactly when something of the next two happened
    bool is_destroyed = false;
    DataCallback* kept = nullptr;   // on_data, when it was set anew or destroyed by itself; owned
    const void* running = nullptr;  // the member whose callback runs; null when it was set anew
  };
  /// What most connections of a server do without.
  struct Rare {
    Function<void(Connection&)> connected;
    Function<void(Connection&)> drained;
    Function<void(Connection&)> eof;
    Function<void(Connection&, std::vector<UniqueFd>)> fds;
    std::string target;                 // what was dialed, when it was a name
    std::string unread;                 // input that was given back
    std::vector<DialAttempt> attempts;  // that failed
  };

  Connection(EventLoop& loop, std::shared_ptr<const ConnectionOptions> options, Place place);
  static std::unique_ptr<Connection> make(EventLoop& loop, ConnectionOptions&& options,
                                          Place place);

  // Becoming connected
  void make_dialer();
  void introduce(Function<void(Connection&)>& on_connection);
  void on_dialed(std::error_code error, int fd, const Endpoint& peer);
  void end_dial();
  std::error_code start_with(int fd, const Endpoint& peer);
  std::error_code start(int fd);

  // What the loop calls
  void on_ready(Interest events) override;
  void on_ready_unusual(Interest events);
  void on_hang_up();
  void on_pass_end();
  void on_timer();
  void look_again();
  void judge(bool has_moved);
  void on_deferred();

  // User code
  template <typename Body>
  void in_frame(Body body);  // body(Frame&)
  template <typename... Arguments>
  bool call(Function<void(Connection&, Arguments...)>& member, Arguments... arguments);
  template <typename Callback>
  void set(Callback& member, Callback&& callback);
  struct FrameEnd;
  void leave_frame();
  void leave_frame_after(std::int64_t sent);
  void end_frame();
  void leave_by_exception();
  void tell_closed();
  void tell_drained_later();
  void forget_data_callback();
  void swap_data_callback(std::unique_ptr<DataCallback> fresh);
  Rare& rare();

  // Input
  void read_input();
  void read_usual(Frame& frame);
  void read_nothing_usual(std::int64_t received);
  bool read_once();
  bool read_special();
  bool take_received(SystemResult result, const char* buffer);
  void read_more(int reads);
  bool has_use_for_input() const;
  void look_for_end();
  void read_again();
  void on_no_input(SystemResult result);
  template <typename Work>
  bool has_memory(Work work);
  bool receive_with_fds(SystemResult& result);
  bool take_input(std::string_view bytes);
  void call_data(Frame& frame, std::string_view bytes);
  bool call_data(std::string_view bytes);
  bool deliver_unread();
  void on_peer_end();
  bool has_unread_input() const;
  void follow_peer();
  void end_by_input(std::error_code error, std::string_view operation);
  bool wants_input() const;

  // Output
  bool accepts_output(std::string_view& bytes);
  bool has_room(std::size_t bytes) const;
  void offer(std::string_view& bytes);
  void end_by_limit(std::size_t bytes);
  std::string_view write_what_fits(std::string_view bytes);
  bool can_write() const;
  bool refuse_write() const;
  bool is_unix() const;
  void write_copied(std::string_view bytes);
  void write_unusual(std::string_view bytes);
  void after_write();
  void request_flush() noexcept;
  void flush();
  void flush_output();
  void offer_output();
  void end_flush();
  struct Sent;
  bool has_usual_output() const;
  void flush_usual();
  bool send_corked();
  void take_sent(SystemResult sent);
  void send_queued();
  void note_sent(SystemResult sent);
  void stop_sending(int error);
  void wait_for_memory(int error);
  template <typename Work>
  void or_lose_output(Work work);
  int send_some();
  Sent send_first();
  Sent send_pieces();
  Sent send_file();
  Sent send_fds();
  Sent copy_file(const OutputQueue::Attachment& range);
  bool is_still_opening() const;
  void finish_output();
  void fail_output(int error, std::string_view operation = "send");
  void end_failed_output();

  // State
  void step(ConnectionEvent event);
  void step_observed(ConnectionEvent event);
  void end(std::error_code error, std::string_view operation);
  void end(CloseReason reason, std::error_code error, std::string_view operation);
  void end_by_timer(CloseReason reason);
  bool drop_input(std::size_t bytes);
  bool has_dropped_enough() const;
  void end_when_all_arrived();
  std::optional<std::uint32_t> bytes_on_their_way() const;
  bool has_undelivered() const;
  void judge_closing(bool has_moved);
  int take_socket_error();
  bool is_cut(std::error_code error);
  void end_socket(SocketEnd how);
  void defer() noexcept;
  void update_interest();
  void change_interest(Interest wanted);
  Interest wanted_interest() const;
  TimePoint deadline() const;
  TimePoint closing_deadline() const;
  void arm_timer();
  void set_timer(TimePoint when);
  std::string peer_name() const;

  EventLoop& loop_;
  LoopParts& parts_;  // the loop's
  std::shared_ptr<const ConnectionOptions> options_;
  int fd_ = -1;
  Unusual unusual_;
  Interest interest_ = Interest::none;  // what the loop was told
  StateMachine<connection_table> machine_{ConnectionState::connecting};
  ConnectionState ended_in_ = ConnectionState::connecting;  // where it stood when it ended
  CloseReason close_reason_ = CloseReason::open;
  bool allows_half_open_;
  bool has_idle_timeout_;
  bool is_unheard_ = false;    // true exactly while bytes wait for an on_data that isn't set
  bool is_short_ = false;      // true exactly while the kernel's want of memory is waited out
  std::uint32_t cork_room_;    // unsent bytes that change nothing but the state
  bool is_drain_due_ = false;  // true exactly from write() until on_drained comes, if it is to
  bool is_drained_ = false;    // true exactly while on_drained waits for the loop
  bool has_peer_ended_first_ = false;  // true exactly when the peer's end came before ours
  bool is_input_held_ = false;  // true exactly while a MessageReader has input that isn't told yet
  bool fails_at_once_ = false;  // true exactly in a relay: a reset doesn't wait for what is unread
  bool is_close_told_ = false;  // true exactly after on_closed
  bool has_timer_ = false;      // true exactly while timer_ is pending
  int output_error_ = 0;        // why unusual_.output_side failed, or is_short_
  std::uint32_t unacknowledged_bytes_ = 0;  // when DONE: what was lost on its way
  std::error_code error_;
  std::string_view ended_by_;  // the operation
  Frame* frame_ = nullptr;
  OutputQueue output_;
  std::uint64_t unsent_bytes_ = 0;       // when DONE
  std::uint32_t dropped_bytes_ = 0;      // input after close(), as far as it is counted
  std::uint32_t flush_position_ = 0;     // in the loop's list of what to do before polling; 0: none
  std::uint32_t deferred_position_ = 0;  // in its list of what to tell in the next pass; 0: none
  std::uint64_t bytes_received_ = 0;
  std::uint64_t bytes_sent_ = 0;
  TimePoint last_input_{};
  TimePoint last_output_{};
  // Since when its deadline runs: the first flush after close(), until when it is max; or that we
  // read again.
  TimePoint peers_turn_{};
  TimePoint connected_at_{};
  TimerHandle timer_;
  std::unique_ptr<Dialer> dialer_;  // while connecting
  Endpoint peer_;
  Place place_;
  std::unique_ptr<DataCallback> on_data_;  // so that it can run where it is
  Function<void(Connection&, std::error_code)> on_closed_;
  std::unique_ptr<Rare> rare_;
  Server* server_ = nullptr;  // that owns it
  std::size_t server_position_ = 0;
};

}  // namespace pawl
