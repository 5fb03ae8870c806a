// SPDX-License-Identifier: MIT
// Traps: the peer's end is reported again and again until the read interest is gone, and so are
// bytes that nobody reads yet; descriptors that came and are refused have to be closed, or they
// leak.
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <new>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/connection_frame.hpp"
#include "net/fd_message.hpp"
#include "net/output_cork.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int reads_per_wakeup = 4;  // of a whole read buffer each

}  // namespace

/// Calls on_data where it is, which is the way of every byte: set anew or destroyed meanwhile, it
/// stays in the frame.
inline void Connection::call_data(Frame& frame, std::string_view bytes) {
  frame.running = on_data_.get();
  on_data_->call(*this, bytes);
}

/// The same. False when the connection was destroyed.
inline bool Connection::call_data(std::string_view bytes) {
  Frame& frame = *frame_;
  call_data(frame, bytes);
  return !frame.is_destroyed;
}

/// False when there is nothing more to do for this connection.
inline bool Connection::take_input(std::string_view bytes) {
  last_input_ = parts_.pass_time;
  bytes_received_ += bytes.size();
  return unusual_.is_closing ? drop_input(bytes.size()) : call_data(bytes);
}

inline bool Connection::take_received(SystemResult result, const char* buffer) {
  if (!result.ok() || result.bytes() == 0) {
    on_no_input(result);
    return false;
  }
  // A short read means that it is drained.
  return take_input(std::string_view(buffer, result.bytes())) &&
         result.bytes() == Scratch::read_bytes;
}

/// False when there is nothing more to read now.
inline bool Connection::read_once() {
  if (unusual_.has_special_input && rare_->fds) return read_special();
  char* buffer = parts_.scratch.read_buffer();
  return take_received(parts_.system.recv(fd_, buffer, Scratch::read_bytes), buffer);
}

/// The same as `read_input`, when nothing is out of the ordinary.
inline void Connection::read_usual(Frame& frame) {
  if (on_data_ == nullptr) return look_for_end();
  const std::int64_t received =
      parts_.stream_calls.recv(fd_, parts_.scratch.made_read_buffer(), Scratch::read_bytes);
  if (received <= 0) return read_nothing_usual(received);
  const auto size = static_cast<std::size_t>(received);
  last_input_ = parts_.pass_time;
  bytes_received_ += size;
  call_data(frame, std::string_view(parts_.scratch.made_read_buffer(), size));
  if (size == Scratch::read_bytes && !frame.is_destroyed) read_more(reads_per_wakeup - 1);
}

/// Nor is it so where the system isn't the kernel.
void Connection::read_nothing_usual(std::int64_t received) {
  const SystemResult result = StreamCalls::result_of(received);
  parts_.stream_calls.are_kernels() ? on_no_input(result) : read_more(reads_per_wakeup);
}

void Connection::read_input() {
  if (unusual_.has_special_input && !deliver_unread()) return;
  read_more(reads_per_wakeup);
}

/// False until on_data is set.
inline bool Connection::has_use_for_input() const {
  return on_data_ != nullptr || unusual_.is_closing;
}

void Connection::read_more(int reads) {
  for (int i = 0; i < reads && wants_input(); ++i) {
    if (!has_use_for_input()) return look_for_end();
    if (unusual_.has_special_input && !rare_->unread.empty()) return;  // comes first, in a pass
    or_lose_output([this] { output_.leave_read_buffer(parts_.scratch); });
    if (!read_once()) return;
  }
}

/// For who has no use for input: its end is told if nothing comes before it. Whatever does stays
/// where it is, and isn't waited for any more, or it would be reported without end.
void Connection::look_for_end() {
  is_unheard_ = rare_ != nullptr && !rare_->unread.empty();
  if (is_unheard_) return;
  char byte = 0;
  iovec piece{&byte, 1};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  const SystemResult peeked = parts_.system.recvmsg(fd_, &message, MSG_PEEK);
  is_unheard_ = peeked.ok() && peeked.bytes() > 0;
  if (!is_unheard_) on_no_input(peeked);
}

/// There is use for it now.
void Connection::read_again() {
  peers_turn_ = loop_.time();
  if (frame_ == nullptr) request_flush();
  if (rare_ != nullptr && !rare_->unread.empty()) defer();
}

bool Connection::read_special() {
  SystemResult result;
  if (!receive_with_fds(result)) return false;  // for now
  return take_received(result, parts_.scratch.read_buffer());
}

void Connection::on_no_input(SystemResult result) {
  if (result.would_block()) return;
  if (!result.ok()) return end_by_input(result.code(), "recv");
  on_peer_end();
}

/// Does `work`, which is to keep input that came. False when there was no memory for that: what
/// came is lost, and so is the connection.
template <typename Work>
bool Connection::has_memory(Work work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc&) {
    end_by_input(system_error_code(ENOMEM), "receive descriptors");
    return false;
  }
}

/// recvmsg for those who want descriptors. False when what came has been dealt with: with
/// descriptors or an error. Bytes wait as unread ones while on_fds runs, which may pause or
/// release.
bool Connection::receive_with_fds(SystemResult& result) {
  iovec piece{parts_.scratch.read_buffer(), Scratch::read_bytes};
  FdMessage message(piece);
  result = parts_.system.recvmsg(fd_, message.get(), 0);
  if (!result.ok()) return true;
  std::vector<UniqueFd> fds;
  if (!has_memory([&] { fds = message.take_fds(); })) return false;
  if (unusual_.is_closing) return true;
  if (message.is_truncated()) {  // no room in this process's table; the kernel closed the others
    const std::string_view bytes(parts_.scratch.read_buffer(), result.bytes());
    if (take_input(bytes)) end_by_input(system_error_code(EMFILE), "receive descriptors");
    return false;
  }
  if (fds.empty()) return true;
  last_input_ = loop_.pass_time();
  bytes_received_ += result.bytes();
  const std::string_view bytes(parts_.scratch.read_buffer(), result.bytes());
  if (!has_memory([&] { unread(bytes); })) return false;
  if (call(rare_->fds, std::move(fds))) deliver_unread();
  return false;
}

void Connection::on_peer_end() {
  unusual_.has_peer_ended = true;
  has_peer_ended_first_ = unusual_.output_side == Output::open;
  if (!unusual_.is_closing) peers_turn_ = loop_.pass_time();  // that is news from the peer, too
  step(ConnectionEvent::peer_ended);
  if (unusual_.output_side == Output::failed) return end_by_input({}, "recv");
  if (!unusual_.is_closing && rare_ != nullptr) call(rare_->eof);
}

/// The way of every message, when nothing is out of the ordinary.
void Connection::on_ready(Interest events) {
  if (!has(events, Interest::read) || unusual_.any()) return on_ready_unusual(events);
  in_frame([this](Frame& frame) { read_usual(frame); });
}

void Connection::on_ready_unusual(Interest events) {
  if (events == Interest::none) return on_hang_up();
  in_frame([this, events](Frame&) {
    if (has(events, Interest::read)) read_input();
  });
}

/// Before the loop polls.
void Connection::on_pass_end() {
  flush_position_ = 0;
  flush();
  if (state() != ConnectionState::done) update_interest();
}

/// Registered without interest, it hears of nothing but this, once: the peer has reset, or there is
/// nobody left to read what is written here.
void Connection::on_hang_up() {
  in_frame([this](Frame&) {
    if (unusual_.output_side == Output::failed) return;  // the frame's end looks for more input
    const int error = take_socket_error();
    if (error != 0) return fail_output(error, "recv");
    if (unusual_.has_peer_ended && output_.empty()) end({}, "close");
  });
}

/// The peer's end is this side's too, after on_eof, unless half-open connections are allowed.
void Connection::follow_peer() {
  if (unusual_.has_peer_ended && !allows_half_open_) close();
}

/// What came before the end, and was neither told nor dropped.
bool Connection::has_unread_input() const {
  if (unusual_.is_closing || is_unheard_) return false;  // nobody is to get it
  if (is_input_held_ || (rare_ != nullptr && !rare_->unread.empty())) return true;
  return !unusual_.has_peer_ended && parts_.system.unread_bytes(fd_).value > 0;
}

/// Nothing more is to be read. If sending has failed before, that is the reason.
void Connection::end_by_input(std::error_code error, std::string_view operation) {
  if (unusual_.output_side != Output::failed) return end(error, operation);
  end(system_error_code(output_error_), ended_by_);
}

void Connection::unread(std::string_view bytes) {
  if (bytes.empty() || fd_ < 0 || unusual_.is_closing) return;  // nobody is to get them any more
  unusual_.has_special_input = true;
  rare().unread.insert(0, bytes);
  defer();
}

/// What was given back comes before what is still with the kernel. False when the connection was
/// destroyed, or has no use for input now.
bool Connection::deliver_unread() {
  if (rare_->unread.empty() || unusual_.is_paused || on_data_ == nullptr) return true;
  if (state() == ConnectionState::done || parts_.is_forked_child()) return true;
  const std::string bytes = std::exchange(rare_->unread, {});
  return call_data(bytes);
}

void Connection::pause_reading() {
  if (std::exchange(unusual_.is_paused, true)) return;
  if (frame_ == nullptr) request_flush();
}

void Connection::resume_reading() {
  if (std::exchange(unusual_.is_paused, false)) read_again();
}

}  // namespace pawl
