// SPDX-License-Identifier: MIT
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/connection_frame.hpp"
#include "net/dialer.hpp"
#include "net/output_cork.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

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
  unusual_.is_paused = false;
  if (rare_ != nullptr) rare_->unread.clear();  // input that is dropped, as what still comes
  if (unusual_.output_side == Output::open) unusual_.output_side = Output::finishing;
  if (state() == ConnectionState::connecting && output_.empty()) return end({}, "close");
  close_started_ = loop_.time();
  if (fd_ < 0) arm_timer();  // flushing does it otherwise, unless that ends the connection
  request_flush();
}

void Connection::abort() { end(CloseReason::aborted, Errc::aborted, "abort"); }

void Connection::end(std::error_code error, std::string_view operation) {
  end(reason_of(error), error, operation);
}

void Connection::end_by_timer(CloseReason reason) {
  if (unusual_.output_side == Output::failed) return end(system_error_code(output_error_), "send");
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
  timer_.cancel();
  end_dial();
  if (fd_ >= 0) end_socket(is_cut(error) ? SocketEnd::reset : SocketEnd::in_order);
  if (frame_ == nullptr) defer();
}

/// True exactly when the peer must not take what it has got for the whole: accepted bytes are lost,
/// or would go on their way behind the back of whoever was told of a failure.
bool Connection::is_cut(std::error_code error) {
  const bool is_known =
      close_reason_ == CloseReason::aborted || close_reason_ == CloseReason::limit;
  if (is_known || unsent_bytes_ > 0) return true;
  if (!error || loop_.system().untransmitted_bytes(fd_).value <= 0) return false;
  unacknowledged_bytes_ =
      static_cast<std::uint32_t>(loop_.system().unacknowledged_bytes(fd_).value);
  return true;
}

/// The one way out for a socket, but for `release`.
void Connection::end_socket(SocketEnd how) {
  if (how == SocketEnd::reset) {
    const linger reset{1, 0};  // socket(7): a close with a linger of 0 seconds resets
    loop_.system().setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }
  loop_.remove_handler(fd_);
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
  end(CloseReason::released, {}, "release");
  return released;
}

}  // namespace pawl
