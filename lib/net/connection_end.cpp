// SPDX-License-Identifier: MIT
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/connection_frame.hpp"
#include "net/dialer.hpp"
#include "net/output_cork.hpp"
#include "net/shared_socket.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr std::uint32_t enough_dropped = 1024 * 1024;  // bytes of input after close()
constexpr Duration look_interval = std::chrono::milliseconds(100);
constexpr Duration standstill = std::chrono::milliseconds(10);  // later than a loop's timers are

CloseReason reason_of(std::error_code error) {
  if (!error) return CloseReason::clean;
  const bool is_reset = error == std::errc::connection_reset || error == std::errc::broken_pipe;
  return is_reset ? CloseReason::peer_reset : CloseReason::failed;
}

}  // namespace

std::string_view to_string(CloseReason reason) {
  switch (reason) {
    case CloseReason::open: return "open";
    case CloseReason::clean: return "clean";
    case CloseReason::peer_ended: return "peer ended";
    case CloseReason::peer_reset: return "peer reset";
    case CloseReason::failed: return "failed";
    case CloseReason::connect_timeout: return "connect timeout";
    case CloseReason::idle_timeout: return "idle timeout";
    case CloseReason::write_timeout: return "write timeout";
    case CloseReason::close_timeout: return "close timeout";
    case CloseReason::limit: return "limit";
    case CloseReason::aborted: return "aborted";
    case CloseReason::server_closed: return "server closed";
    case CloseReason::released: return "released";
  }
  return "unknown";
}

void Connection::shutdown() {
  if (state() == ConnectionState::done || unusual_.output_side != Output::open) return;
  unusual_.output_side = Output::finishing;
  request_flush();
}

void Connection::close() {
  if (state() == ConnectionState::done || unusual_.is_closing) return;
  unusual_.is_closing = true;
  unusual_.is_paused = is_unheard_ = false;
  if (rare_ != nullptr) rare_->unread.clear();  // input that is dropped, as what still comes
  if (unusual_.output_side == Output::open) unusual_.output_side = Output::finishing;
  if (state() == ConnectionState::connecting && output_.empty()) return end({}, "close");
  if (fd_ < 0) {
    peers_turn_ = loop_.time();
    arm_timer();
  } else {
    peers_turn_ = TimePoint::max();  // comes with the first flush: whoever closes may block before
  }
  request_flush();
}

void Connection::abort() { end(CloseReason::aborted, Errc::aborted, "abort"); }

void Connection::end(std::error_code error, std::string_view operation) {
  if (!error && has_peer_ended_first_) return end(CloseReason::peer_ended, {}, "peer's end");
  end(reason_of(error), error, operation);
}

void Connection::end_by_timer(CloseReason reason) {
  if (unusual_.output_side == Output::failed) return end_by_input({}, ended_by_);
  if (is_short_) return end(system_error_code(output_error_), "send");
  end(reason, Errc::timed_out, to_string(reason));
}

void Connection::end(CloseReason reason, std::error_code error, std::string_view operation) {
  if (state() == ConnectionState::done) return;
  ended_in_ = state();
  close_reason_ = reason;
  ended_by_ = operation;
  error_ = error;
  if (unusual_.output_side != Output::failed) unsent_bytes_ = output_.bytes();
  step(error ? ConnectionEvent::failed : ConnectionEvent::closed);
  output_.clear(parts_.scratch);
  unusual_.is_congested = false;
  if (error || reason == CloseReason::released) is_drained_ = false;  // on_closed tells enough
  timer_.cancel();
  end_dial();
  if (fd_ >= 0) end_socket(is_cut(error) ? SocketEnd::reset : SocketEnd::in_order);
  if (frame_ == nullptr) defer();
}

// After close()

/// Input that nobody is to get any more. False when it was the end.
bool Connection::drop_input(std::size_t bytes) {
  const std::size_t room = enough_dropped + 1 - dropped_bytes_;
  dropped_bytes_ += static_cast<std::uint32_t>(std::min(bytes, room));
  if (has_dropped_enough()) end_when_all_arrived();
  return state() != ConnectionState::done;
}

/// True exactly when it waits for nothing more than that the peer gets what was sent: to a peer
/// that never stops it won't listen for ever.
bool Connection::has_dropped_enough() const {
  const bool is_over = unusual_.output_side == Output::finished ||  //
                       unusual_.output_side == Output::failed;
  return is_over && dropped_bytes_ > enough_dropped;
}

/// To close a socket that has input resets it (RFC 2525, 2.17), which must not overtake anything.
void Connection::end_when_all_arrived() {
  if (unusual_.output_side == Output::failed) return end_by_input({}, ended_by_);
  const SystemResult asked = parts_.system.unacknowledged_bytes(fd_);
  if (asked.ok() && asked.value == 0) end({}, "close");  // what isn't known hasn't arrived
}

/// When there is something to do, although nothing has come.
TimePoint Connection::closing_deadline() const {
  const TimePoint end = deadline_after(peers_turn_, options_->close_timeout);
  return has_dropped_enough() ? std::min(end, parts_.pass_time + look_interval) : end;
}

/// `has_moved`: bytes went or came when it was looked at once more.
void Connection::judge_closing(bool has_moved) {
  if (has_dropped_enough()) end_when_all_arrived();
  if (state() == ConnectionState::done) return;
  const TimePoint end_of_grace = deadline_after(peers_turn_, options_->close_timeout);
  if (end_of_grace > parts_.pass_time) return arm_timer();
  // The whole time is the peer's; but while the loop stood still, it couldn't use it.
  const Duration late = parts_.pass_time - end_of_grace;
  if (has_moved && late >= standstill) {
    peers_turn_ += 2 * late;  // so much from now on
    return arm_timer();
  }
  const bool has_lost = unusual_.output_side == Output::failed || has_undelivered();
  end(CloseReason::close_timeout, has_lost ? make_error_code(Errc::unsent_data) : std::error_code(),
      "close timeout");
}

/// What the kernel has and the peer hasn't; without the end, which counts as a byte. For a Unix
/// socket it is no number of bytes, but 0 when there are none. None: it isn't known.
std::optional<std::uint32_t> Connection::bytes_on_their_way() const {
  const SystemResult asked = parts_.system.unacknowledged_bytes(fd_);
  if (!asked.ok()) return std::nullopt;
  const std::int64_t fin = unusual_.output_side == Output::finished ? 1 : 0;
  return static_cast<std::uint32_t>(std::max<std::int64_t>(asked.value - fin, 0));
}

/// True exactly when the peer doesn't have everything that was written.
bool Connection::has_undelivered() const {
  const bool has_unsent = !output_.empty() || unusual_.output_side == Output::finishing;
  return has_unsent || (fd_ >= 0 && bytes_on_their_way() != 0u);
}

int Connection::take_socket_error() {
  int error = 0;
  unsigned bytes = sizeof error;
  const SystemResult asked = parts_.system.getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &bytes);
  return asked.ok() ? error : asked.error;
}

// The socket

/// True exactly when the peer must not take what it has got for the whole: accepted bytes are lost,
/// or would go on their way behind the back of whoever was told of a failure.
bool Connection::is_cut(std::error_code error) {
  if (unsent_bytes_ > 0 || close_reason_ == CloseReason::limit) return true;
  if (close_reason_ == CloseReason::aborted) return true;
  if (!error) return false;
  const bool is_lost = error == Errc::unsent_data;  // or the kernel wouldn't have it any more
  if (is_lost || parts_.system.untransmitted_bytes(fd_).value > 0) {
    unacknowledged_bytes_ = bytes_on_their_way().value_or(0);
    return true;
  }
  // What would have come next is unknown: that mustn't look like an end in good order.
  return close_reason_ == CloseReason::failed || close_reason_ == CloseReason::peer_reset;
}

/// The one way out for a socket, but for `release`.
void Connection::end_socket(SocketEnd how) {
  const bool is_ours = !parts_.is_forked_child();  // else the parent goes on with it
  bool takes_more = parts_.has_forked();
  if (is_ours && how == SocketEnd::reset) {
    const linger reset{1, 0};  // socket(7): a close with a linger of 0 seconds resets
    const SystemResult set =
        loop_.system().setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    takes_more = takes_more || !set.ok();
  }
  parts_.end_handler(fd_);
  if (is_ours && takes_more) end_for_all_holders(loop_.system(), fd_, how);
  loop_.system().close(std::exchange(fd_, -1));
}

Connection::Released Connection::release() {
  flush();
  if (output_.has_attachments()) {
    throw std::logic_error("Connection::release: a file or descriptors are unsent: " + describe());
  }
  Released released;
  if (state() == ConnectionState::done) return released;
  for (std::size_t i = 0; !output_.piece(i).empty(); ++i) released.unsent += output_.piece(i);
  if (rare_ != nullptr) released.unread = std::exchange(rare_->unread, {});
  if (fd_ >= 0) {
    loop_.remove_handler(fd_);
    released.socket = UniqueFd(std::exchange(fd_, -1));
  }
  const bool has_failed = unusual_.output_side == Output::failed;
  end(CloseReason::released, has_failed ? system_error_code(output_error_) : std::error_code(),
      "release");
  return released;
}

}  // namespace pawl
