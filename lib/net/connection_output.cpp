// SPDX-License-Identifier: MIT
// Traps: what the kernel took less of than it was given is a full buffer; a file may be shorter
// than it was said to be; descriptors must go exactly once, with the first byte of their piece.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/connection_frame.hpp"
#include "net/fd_message.hpp"
#include "net/output_cork.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int sends_per_wakeup = 16;  // of `pieces_per_send` each
constexpr std::size_t pieces_per_send = 64;
constexpr std::uint64_t longest_sendfile = 1024 * 1024;  // bytes, so that others have their turn
constexpr std::size_t copy_bytes = 16 * 1024;
constexpr std::size_t most_taken = 16 * 1024 * 1024;  // bytes that no kernel takes at once
constexpr Duration retry_after = std::chrono::milliseconds(100);  // for want of memory, as accepts

/// True exactly when it says nothing of the socket: sendfile(2) doesn't tell which side failed, and
/// neither every kind of file nor every kind of socket can do it.
bool is_of_file(int error) {
  switch (error) {
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
    case EBADF:
    case EIO:
    case EISDIR:
    case ENXIO:
    case EOVERFLOW:
    case ESPIPE: return true;
    default: return false;
  }
}

}  // namespace

/// False, and said in debug mode: this side has ended.
bool Connection::refuse_write() const {
  if (loop_.is_debug()) loop_.report("write dropped: " + describe());
  return false;
}

inline bool Connection::has_room(std::size_t bytes) const {
  const std::size_t limit = options_->write_limit;
  return bytes <= limit && output_.memory_bytes() <= limit - bytes;
}

/// False, and dropped, when nothing can be written any more, or not that much. `bytes` are those
/// that are left to be kept.
inline bool Connection::accepts_output(std::string_view& bytes) {
  if (!can_write()) return refuse_write();
  if (has_room(bytes.size())) return true;
  offer(bytes);
  if (!can_write()) return refuse_write();
  if (has_room(bytes.size())) return true;
  end_by_limit(bytes.size());
  return false;
}

/// Before there is too much, the kernel gets what it takes, and then of `bytes`, too.
void Connection::offer(std::string_view& bytes) {
  if (fd_ < 0 || parts_.is_forked_child()) return;
  if (!output_.empty()) offer_output();
  const bool is_next = output_.empty() && can_write() && !has_room(bytes.size());
  if (!is_next || bytes.size() > options_->write_limit + most_taken) return;
  const SystemResult sent = parts_.system.send(fd_, bytes.data(), bytes.size());
  if (!sent.ok()) {
    stop_sending(sent.error);
    return request_flush();  // which ends it, should sending have failed
  }
  note_sent(sent);
  bytes.remove_prefix(sent.bytes());
}

void Connection::end_by_limit(std::size_t bytes) {
  end(CloseReason::limit, Errc::write_limit, "write");
  unsent_bytes_ += bytes;
}

/// For who can wait with the rest, which it returns. on_drained comes.
std::string_view Connection::write_what_fits(std::string_view bytes) {
  if (can_write() && !has_room(bytes.size())) offer(bytes);
  if (!can_write()) {
    refuse_write();
    return {};
  }
  const std::size_t most =
      std::max<std::size_t>(options_->write_limit, 1);  // or nothing would come
  const std::size_t room = std::min(most - std::min(most, output_.memory_bytes()), bytes.size());
  output_.append(bytes.substr(0, room), parts_.scratch);
  after_write();
  return bytes.substr(room);
}

inline void Connection::after_write() {
  if (output_.empty()) {  // nothing, or the kernel has it already: on_drained tells
    is_drain_due_ = true;
    return request_flush();
  }
  if (fd_ < 0) output_.settle(parts_.scratch);  // it is CONNECTING
  if (output_.memory_bytes() >= options_->high_water) unusual_.is_congested = true;
  is_drain_due_ = unusual_.is_followed;
  step(ConnectionEvent::written);
  request_flush();
}

/// The first write of a callback that answers with what it got stays where that lies until the
/// callback returns.
void Connection::write(std::string_view bytes) {
  const bool is_first =
      frame_ != nullptr && !unusual_.any() && state() == ConnectionState::receiving;
  if (!is_first || !output_.borrow(bytes, cork_room_, parts_.scratch)) {
    return write_copied(bytes);
  }
  machine_.step(ConnectionEvent::written);
}

void Connection::write_copied(std::string_view bytes) {
  const bool is_open = state() == ConnectionState::receiving || state() == ConnectionState::sending;
  const bool is_usual = frame_ != nullptr && !unusual_.any() && is_open;
  if (!is_usual || !output_.append_to_cork(bytes, cork_room_, parts_.scratch)) {
    return write_unusual(bytes);
  }
  if (state() == ConnectionState::receiving) machine_.step(ConnectionEvent::written);
}

void Connection::write_unusual(std::string_view bytes) {
  if (!accepts_output(bytes)) return;
  output_.append(bytes, parts_.scratch);
  after_write();
}

void Connection::write(std::string&& bytes) {
  std::string_view left = bytes;
  if (!accepts_output(left)) return;
  if (left.size() == bytes.size()) {
    output_.append(std::move(bytes), parts_.scratch);
  } else {
    output_.append(left, parts_.scratch);
  }
  after_write();
}

void Connection::write_file(UniqueFd file, std::uint64_t offset, std::uint64_t length) {
  if (!can_write()) {
    refuse_write();
    return;
  }
  if (!file) return end(system_error_code(EBADF), "write_file");
  output_.append_file(std::move(file), offset, length, parts_.scratch);
  after_write();
}

void Connection::write_fds(std::string_view bytes, std::vector<UniqueFd> fds) {
  if (bytes.empty() || fds.empty() || fds.size() > FdMessage::most_fds) {
    throw std::logic_error("Connection::write_fds: " + std::to_string(fds.size()) +
                           " descriptors with " + std::to_string(bytes.size()) +
                           " bytes; 1 to 253 go with at least one byte");
  }
  if (state() != ConnectionState::done && !is_unix()) {
    throw std::logic_error("Connection::write_fds: no Unix socket: " + describe());
  }
  if (can_write() && fd_ >= 0 && !has_room(bytes.size())) offer_output();
  if (!can_write()) {
    refuse_write();
    return;
  }
  const bool has_room_for_it = has_room(bytes.size());
  if (!has_room_for_it && (fd_ < 0 || !output_.empty())) return end_by_limit(bytes.size());
  output_.append_fds(bytes, std::move(fds), parts_.scratch);
  if (!has_room_for_it) offer_output();  // the bytes can't go before the descriptors
  if (can_write() && !has_room(0)) return end_by_limit(0);
  after_write();
}

/// Of the socket, or of the one that is to be.
bool Connection::is_unix() const {
  if (fd_ < 0) return peer_.is_unix();
  int domain = 0;
  unsigned bytes = sizeof domain;
  if (!loop_.system().getsockopt(fd_, SOL_SOCKET, SO_DOMAIN, &domain, &bytes).ok()) {
    return peer_.family() != Endpoint::Family::ipv4 && peer_.family() != Endpoint::Family::ipv6;
  }
  return domain == AF_UNIX;
}

/// What a call took, of what it was given.
struct Connection::Sent {
  SystemResult result;
  std::uint64_t wanted;
};

/// Gives the kernel what it takes. Returns an errno; EAGAIN when it took less than all.
int Connection::send_some() {
  const Sent sent = send_first();
  if (state() == ConnectionState::done) return 0;  // by the file
  if (!sent.result.ok()) return sent.result.error;
  if (sent.result.bytes() > 0) note_sent(sent.result);
  output_.consume(sent.result.bytes(), parts_.scratch);
  return sent.result.bytes() < sent.wanted ? EAGAIN : 0;
}

inline void Connection::note_sent(SystemResult sent) {
  // Outside of a wake-up, the last pass may have been long ago.
  last_output_ = frame_ != nullptr ? parts_.pass_time : loop_.time();
  bytes_sent_ += sent.bytes();
}

Connection::Sent Connection::send_first() {
  const OutputQueue::Attachment* attachment = output_.attachment(0);
  if (attachment == nullptr) return send_pieces();
  return attachment->file ? send_file() : send_fds();
}

/// True exactly while a Fast Open's SYN hasn't been answered: to shut that down would take it back,
/// and the bytes with it. It is writable when it has been.
bool Connection::is_still_opening() const {
  if (!options_->fast_open) return false;
  std::uint8_t state = 0;  // the first member of a tcp_info
  unsigned bytes = sizeof state;
  const SystemResult asked = parts_.system.getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &state, &bytes);
  return asked.ok() && state == TCP_SYN_SENT;
}

/// Everything is with the kernel.
inline void Connection::finish_output() {
  if (state() == ConnectionState::sending) step(ConnectionEvent::flushed);
  if (unusual_.output_side == Output::finishing && !is_still_opening()) {
    unusual_.output_side = Output::finished;
    // When both sides have ended it is closed right away, which tells the peer as much.
    const SystemResult told =
        unusual_.has_peer_ended ? SystemResult() : parts_.system.shutdown(fd_, SHUT_WR);
    if (!told.ok()) {
      const int cause = take_socket_error();
      return fail_output(cause != 0 ? cause : told.error, "shutdown");
    }
  }
  if (unusual_.output_side == Output::finished && unusual_.has_peer_ended) end({}, "close");
}

/// What one callback wrote, when it lies in a shared buffer. False when the queue has to see to it.
inline bool Connection::send_corked() {
  const std::string_view bytes = output_.corked();
  if (bytes.empty()) return false;
  take_sent(parts_.system.send(fd_, bytes.data(), bytes.size()));
  return true;
}

void Connection::take_sent(SystemResult sent) {
  if (!sent.ok()) return stop_sending(sent.error);
  note_sent(sent);
  or_lose_output([&] { output_.consume(sent.bytes(), parts_.scratch); });
}

/// Until it is writable again; or for ever, which reading makes known.
void Connection::stop_sending(int error) {
  const bool is_short = error == ENOBUFS || error == ENOMEM;
  if (is_short) wait_for_memory(error);
  is_short_ = is_short && state() != ConnectionState::done;
  // EINPROGRESS is Fast Open's, when the SYN took nothing along: tcp(7).
  const bool is_full = is_short || error == EAGAIN || error == EINPROGRESS;
  if (!is_full) fail_output(error);
  or_lose_output([this] { output_.settle(parts_.scratch); });
}

/// The socket counts as writable meanwhile, so that asking would be all that the loop does.
void Connection::wait_for_memory(int error) {
  const TimePoint now = loop_.time();
  const TimePoint retry = add_saturated(now, retry_after);
  if (!has_timer_ || timer_.when() > retry) set_timer(retry);
  if (!is_short_ && !has(interest_, Interest::write)) last_output_ = now;
  output_error_ = error;
}

void Connection::send_queued() {
  for (int i = 0; i < sends_per_wakeup && !output_.empty(); ++i) {
    if (const int error = send_some()) return stop_sending(error);
  }
  is_short_ = false;
}

void Connection::flush_output() {
  if (fd_ >= 0 && !is_short_) offer_output();
}

void Connection::offer_output() {
  if (parts_.is_forked_child()) return;
  if (peers_turn_ == TimePoint::max()) peers_turn_ = loop_.time();  // of a close()
  if (!send_corked()) send_queued();
  end_flush();
}

/// What was possible has been sent.
void Connection::end_flush() {
  if (state() == ConnectionState::done) return;  // by a file
  if (output_.empty() && unusual_.output_side != Output::failed) finish_output();
  if (unusual_.output_side == Output::failed) return end_failed_output();
  const bool is_drained =
      unusual_.is_congested ? output_.memory_bytes() <= options_->low_water : output_.empty();
  if (!is_drained) return;
  unusual_.is_congested = false;
  if (is_drain_due_) tell_drained_later();
}

/// As many pieces as there are before the next that isn't plain bytes.
Connection::Sent Connection::send_pieces() {
  const std::string_view first = output_.piece(0);
  if (output_.piece(1).empty() || output_.attachment(1) != nullptr) {
    return {parts_.system.send(fd_, first.data(), first.size()), first.size()};
  }
  std::array<iovec, pieces_per_send> pieces;
  msghdr message{};
  message.msg_iov = pieces.data();
  std::uint64_t wanted = 0;
  for (; message.msg_iovlen < pieces.size(); ++message.msg_iovlen) {
    const std::string_view piece = output_.piece(message.msg_iovlen);
    if (piece.empty() || output_.attachment(message.msg_iovlen) != nullptr) break;
    pieces[message.msg_iovlen] = iovec{const_cast<char*>(piece.data()), piece.size()};
    wanted += piece.size();
  }
  return {parts_.system.sendmsg(fd_, &message, 0), wanted};
}

/// Descriptors go once, with the first byte; the rest of their piece is plain bytes.
Connection::Sent Connection::send_fds() {
  const std::string_view bytes = output_.piece(0);
  std::vector<UniqueFd>& fds = output_.attachment(0)->fds;
  if (fds.empty()) return {parts_.system.send(fd_, bytes.data(), bytes.size()), bytes.size()};
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  FdMessage message(piece, fds);
  const SystemResult result = parts_.system.sendmsg(fd_, message.get(), 0);
  if (result.ok() && result.bytes() > 0) fds.clear();
  return {result, bytes.size()};
}

Connection::Sent Connection::send_file() {
  const OutputQueue::Attachment& range = *output_.attachment(0);
  const std::size_t wanted =
      static_cast<std::size_t>(std::min<std::uint64_t>(range.length, longest_sendfile));
  SystemResult result = parts_.system.sendfile(fd_, range.file.get(), range.offset, wanted);
  if (is_of_file(result.error)) return copy_file(range);
  if (result.ok() && result.bytes() == 0) end(Errc::file_ended, "write_file");
  // Less may be a full socket or the end of the file; the next try tells.
  return {result, result.bytes()};
}

/// By way of this process's memory; reading the file tells what is wrong with it.
Connection::Sent Connection::copy_file(const OutputQueue::Attachment& range) {
  std::array<char, copy_bytes> buffer;
  const std::size_t wanted =
      static_cast<std::size_t>(std::min<std::uint64_t>(range.length, buffer.size()));
  const SystemResult got =
      parts_.system.pread(range.file.get(), buffer.data(), wanted, range.offset);
  if (!got.ok()) end(got.code(), "read for write_file");
  if (got.ok() && got.bytes() == 0) end(Errc::file_ended, "write_file");
  if (state() == ConnectionState::done) return {got, 0};
  return {parts_.system.send(fd_, buffer.data(), got.bytes()), got.bytes()};
}

/// What came before may still be there to read: `end_failed_output`. Who has paused reading until
/// what was written has gone is told that there is none of it left.
void Connection::fail_output(int error, std::string_view operation) {
  unusual_.output_side = Output::failed;
  output_error_ = error;
  ended_by_ = operation;
  is_short_ = false;
  unsent_bytes_ = output_.bytes();
  output_.clear(parts_.scratch);
  unusual_.is_congested = false;
  last_output_ = loop_.time();
  if (is_drain_due_) tell_drained_later();
}

/// The end of a connection that can't send any more, as soon as nothing is left to read.
void Connection::end_failed_output() {
  if (fails_at_once_ || !has_unread_input()) end_by_input({}, ended_by_);
}

void Connection::tell_drained_later() {
  is_drain_due_ = false;
  if (rare_ == nullptr || !rare_->drained) return;
  is_drained_ = true;
  defer();
}

}  // namespace pawl
