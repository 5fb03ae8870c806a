// SPDX-License-Identifier: MIT
// Traps: user code may destroy the socket or throw in the middle of a batch, so what was taken from
// the kernel and not delivered is kept; a pending ICMP error makes the next send fail although
// nothing is wrong with it; sendmmsg(2) doesn't say why it stopped after the first; a Unix socket
// is writable while a receiver that it isn't connected to is full.
#include "pawl/net/datagram_socket.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/datagram_queue.hpp"
#include "net/frame_call.hpp"
#include "net/unix_socket_file.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int sends_per_wakeup = 16;  // of a batch each
constexpr Duration memory_pause = std::chrono::milliseconds(50);
constexpr std::size_t longest_ipv4 = 65'535 - 20 - 8;  // RFC 791, RFC 768: total, headers
constexpr std::size_t longest_ipv6 = 65'535 - 8;       // RFC 8200: the header isn't counted

/// True exactly when the descriptor itself is of no use, so that the next try can only fail too.
bool is_fatal(int error) { return error == EBADF || error == ENOTSOCK || error == EFAULT; }

bool is_short_of_memory(int error) { return error == ENOMEM || error == ENOBUFS; }

/// What ICMP makes of a connected socket: udp(7), icmp(7) and the kernel's icmp_err_convert.
bool is_from_network(int error) {
  return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH ||
         error == EHOSTDOWN || error == ENONET || error == ENOPROTOOPT || error == EOPNOTSUPP ||
         error == EPROTO || error == EACCES || error == EMSGSIZE;
}

std::string count_of_datagrams(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " datagram" : " datagrams") + " unsent";
}

}  // namespace

std::string_view to_string(DatagramState state) { return datagram_table.name(state); }

std::string DatagramError::to_string() const {
  const std::string operation =
      is_lost ? "send of " + std::to_string(length) + " bytes to " : "receive from ";
  return operation + peer.to_string() + ": " + error.message();
}

DatagramSocket::DatagramSocket(EventLoop& loop, const Endpoint& local, DatagramOptions options,
                               Place place)
    : loop_(loop),
      options_(std::move(options)),
      place_(place),
      queue_(std::make_unique<DatagramQueue>()) {
  options_.batch = std::clamp<std::size_t>(options_.batch, 1, DatagramQueue::longest_batch);
  try {
    open(local);
    if (const std::error_code error = loop.add_handler(fd_, interest_, *this, place)) {
      throw std::system_error(error, "DatagramSocket at " + local_.to_string() + ": watch");
    }
  } catch (...) {
    if (fd_ >= 0) loop.system().close(fd_);
    throw;
  }
}

DatagramSocket::~DatagramSocket() {
  if (frame_ != nullptr) frame_->is_destroyed = true;
  loop_.parts().pass_end.remove(flush_position_);
  queue_->clear(loop_.parts().scratch);
  if (fd_ >= 0) close_socket();
}

// User code

void DatagramSocket::on_datagram(Function<void(DatagramSocket&, const Datagram&)> callback) {
  set(on_datagram_, std::move(callback));
}

void DatagramSocket::on_error(Function<void(DatagramSocket&, const DatagramError&)> callback) {
  set(on_error_, std::move(callback));
}

void DatagramSocket::on_drained(Function<void(DatagramSocket&)> callback) {
  set(on_drained_, std::move(callback));
}

void DatagramSocket::on_closed(Function<void(DatagramSocket&, std::error_code)> callback) {
  set(on_closed_, std::move(callback));
}

template <typename Callback>
void DatagramSocket::set(Callback& member, Callback&& callback) {
  if (frame_ != nullptr && frame_->running == &member) frame_->running = nullptr;
  member = std::move(callback);
}

/// Runs `body`, which may call user code, and then sends what that left to send.
template <typename Body>
void DatagramSocket::in_frame(Body body) {
  struct AtTheEnd {
    DatagramSocket& socket;
    Frame& frame;
    ~AtTheEnd() {
      if (frame.is_destroyed) return;
      socket.frame_ = nullptr;
      if (socket.has_news()) socket.defer();
      socket.request_flush();  // of what was sent since the last one, or before an exception
    }
  };
  Frame frame;
  frame_ = &frame;
  const AtTheEnd at_the_end{*this, frame};
  body();
  if (frame.is_destroyed) return;
  update_interest();
}

/// Calls user code from inside a frame. False when the socket was destroyed.
template <typename... Arguments>
bool DatagramSocket::call(Function<void(DatagramSocket&, Arguments...)>& member,
                          Arguments... arguments) {
  return call_in_frame(*this, *frame_, member, std::forward<Arguments>(arguments)...);
}

/// True exactly when a callback is due that doesn't wait for the descriptor.
bool DatagramSocket::has_news() const {
  if (!failures_.empty() || is_drained_) return true;
  if (state() == DatagramState::done) return !is_close_told_;
  return !held_.empty() && !is_paused_;
}

void DatagramSocket::defer() {
  if (is_deferred_) return;
  is_deferred_ = true;
  deferred_ = loop_.call_soon([this] { on_deferred(); }, place_);
}

void DatagramSocket::on_deferred() {
  is_deferred_ = false;
  in_frame([this] {
    if (!tell_failures() || !deliver_held()) return;
    if (std::exchange(is_drained_, false) && state() != DatagramState::done && !is_drain_due_) {
      if (!call(on_drained_)) return;
    }
    if (state() == DatagramState::done) tell_closed();
  });
}

/// False when the socket was destroyed.
bool DatagramSocket::tell_failures() {
  // Those that come up meanwhile wait for the next pass.
  for (std::size_t left = failures_.size(); left > 0 && !failures_.empty(); --left) {
    const Failure failure = std::move(failures_.front());
    failures_.erase(failures_.begin());
    if (!call<const DatagramError&>(on_error_, DatagramError{failure.error, failure.peer,
                                                             failure.length, failure.is_lost})) {
      return false;
    }
  }
  return true;
}

/// False when the socket was destroyed.
bool DatagramSocket::deliver_held() {
  while (!held_.empty() && !is_paused_) {
    const Held held = std::move(held_.front());
    held_.erase(held_.begin());
    if (!deliver(held.bytes, held.from, held.length)) return false;
  }
  return true;
}

void DatagramSocket::tell_closed() {
  if (is_close_told_ || !failures_.empty()) return;
  is_close_told_ = true;
  call(on_closed_, error_);
}

// Input

/// Before the loop polls.
void DatagramSocket::on_pass_end() {
  flush_position_ = 0;
  flush(false);
  if (has_news()) defer();
  update_interest();
}

void DatagramSocket::on_ready(Interest events) {
  // An error while nothing was waited for: it stays in the kernel for whoever reads or sends next.
  if (events == Interest::none) return;
  in_frame([this, events] {
    Frame& frame = *frame_;
    if (has(events, Interest::read) && wants_input()) receive();
    if (!frame.is_destroyed) flush(has(events, Interest::write));
  });
}

/// True exactly while datagrams go in and out.
bool DatagramSocket::is_taking() const {
  return state() == DatagramState::open || state() == DatagramState::sending;
}

bool DatagramSocket::wants_input() const {
  return is_taking() && !is_paused_ && !is_out_of_memory_ && held_.empty();
}

/// Delivers a batch; keeps of it what a callback that paused, threw or closed left over.
struct DatagramSocket::Delivery {
  DatagramSocket& socket;
  Frame& frame;
  ReceiveBatch& batch;
  std::size_t count;
  std::size_t next = 0;

  ~Delivery() {
    const bool keeps = !frame.is_destroyed && socket.is_taking();
    for (; keeps && next < count; ++next) {
      socket.held_.push_back(Held{std::string(batch.bytes(next)), from(next), batch.length(next)});
    }
    batch.reset(count);
  }
  Endpoint from(std::size_t index) const {
    return Endpoint::from_sockaddr(batch.from(index), batch.from_bytes(index));
  }
  void run() {
    while (next < count && !socket.is_paused_ && socket.is_taking()) {
      const std::size_t index = next++;
      if (!socket.deliver(batch.bytes(index), from(index), batch.length(index))) return;
    }
  }
};

/// One batch a wake-up. The loop comes back for the rest when others had their turn.
void DatagramSocket::receive() {
  const auto count = static_cast<unsigned>(options_.batch);
  ReceiveBatch& batch = loop_.parts().scratch.receive_batch(count, options_.datagram_bytes);
  // MSG_TRUNC asks for true lengths.
  const SystemResult result = loop_.system().recvmmsg(fd_, batch.messages(), count, MSG_TRUNC);
  if (result.would_block()) return;
  if (!result.ok()) return on_receive_error(result.error);
  Delivery{*this, *frame_, batch, result.bytes()}.run();
}

/// False when the socket was destroyed.
bool DatagramSocket::deliver(std::string_view bytes, const Endpoint& from, std::size_t length) {
  ++datagrams_received_;
  bytes_received_ += length;
  return call<const Datagram&>(on_datagram_, Datagram{bytes, from, length});
}

void DatagramSocket::on_receive_error(int error) {
  if (is_fatal(error)) return end(DatagramEvent::failed, system_error_code(error), "receive");
  if (is_short_of_memory(error)) {  // which would be so again at once
    is_out_of_memory_ = true;
    memory_retry_ = loop_.call_later(
        memory_pause,
        [this] {
          is_out_of_memory_ = false;
          update_interest();
        },
        place_);
  }
  call<const DatagramError&>(on_error_, DatagramError{system_error_code(error), peer_, 0, false});
}

void DatagramSocket::pause_reading() {
  is_paused_ = true;
  if (frame_ == nullptr) update_interest();
}

void DatagramSocket::resume_reading() {
  is_paused_ = false;
  if (frame_ != nullptr) return;
  if (has_news()) defer();
  update_interest();
}

// Output

std::error_code DatagramSocket::send_to(std::string_view bytes, const Endpoint& destination) {
  return enqueue(bytes, destination, false);
}

std::error_code DatagramSocket::send(std::string_view bytes) { return enqueue(bytes, peer_, true); }

/// What is known to be wrong before the kernel is asked.
std::error_code DatagramSocket::refusal(std::size_t bytes, const Endpoint& destination) const {
  if (!is_taking()) return std::make_error_code(std::errc::bad_file_descriptor);
  if (destination.family() == Endpoint::Family::none) {
    return std::make_error_code(std::errc::destination_address_required);
  }
  const bool is_ipv4 = local_.family() == Endpoint::Family::ipv4;
  if (destination.is_unix() != local_.is_unix() ||
      (is_ipv4 && destination.family() != Endpoint::Family::ipv4)) {
    return std::make_error_code(std::errc::address_family_not_supported);
  }
  if (!local_.is_unix() && bytes > (is_ipv4 ? longest_ipv4 : longest_ipv6)) {
    return std::make_error_code(std::errc::message_size);
  }
  const std::size_t cost = bytes + DatagramQueue::overhead;
  if (cost > options_.queue_limit || queue_->cost() > options_.queue_limit - cost) {
    return Errc::write_limit;
  }
  return {};
}

std::error_code DatagramSocket::enqueue(std::string_view bytes, const Endpoint& destination,
                                        bool is_to_peer) {
  if (const std::error_code error = refusal(bytes.size(), destination)) return error;
  queue_->push(bytes, destination, is_to_peer, loop_.parts().scratch);
  is_drain_due_ = true;
  needs_flush_ = true;
  step(DatagramEvent::queued);
  request_flush();
  return {};
}

/// What is sent from outside of this socket's own callbacks leaves before the loop polls.
void DatagramSocket::request_flush() {
  if (frame_ != nullptr || flush_position_ != 0 || !needs_flush_) return;
  flush_position_ = loop_.parts().pass_end.add<&DatagramSocket::on_pass_end>(*this);
}

/// `is_writable`: the kernel has just said that there is room.
void DatagramSocket::flush(bool is_writable) {
  needs_flush_ = false;
  if (fd_ < 0) return;
  bool is_stuck = is_writable;
  int suspected = 0;  // the error of a send that may have been an earlier datagram's
  for (int i = 0; i < sends_per_wakeup && !queue_->empty(); ++i) {
    const SystemResult result = queue_->send(loop_.system(), fd_, options_.batch);
    if (!result.ok()) {
      if (!go_on_after(result.error, is_stuck, suspected)) break;
      continue;
    }
    is_stuck = false;
    if (suspected != 0) tell_later(std::exchange(suspected, 0), peer_, 0, false);
    count_sent(result.bytes());
  }
  if (suspected != 0) tell_later(suspected, peer_, 0, false);
  if (!queue_->empty()) return;
  if (state() == DatagramState::closing) return end(DatagramEvent::flushed, {}, "close");
  if (state() == DatagramState::sending) step(DatagramEvent::flushed);
  if (std::exchange(is_drain_due_, false) && on_drained_) is_drained_ = true;
}

/// The first of the queue can't be sent. True when there is something else to try.
bool DatagramSocket::go_on_after(int error, bool is_stuck, int& suspected) {
  if (error == EAGAIN) {
    // There is room, but not at the receiver, of whose room we aren't told unless connected.
    const bool is_receivers = is_stuck && local_.is_unix() && queue_->first_destination() != peer_;
    if (is_receivers) fail_first(error);
    return is_receivers;
  }
  const bool is_connected = peer_.family() != Endpoint::Family::none;
  if (is_connected && !local_.is_unix() && is_from_network(error) && suspected != error) {
    if (suspected != 0) tell_later(suspected, peer_, 0, false);
    suspected = error;  // the kernel has forgotten it now; if it comes again it is this one's own
    return true;
  }
  suspected = 0;
  fail_first(error);
  return true;
}

void DatagramSocket::count_sent(std::size_t datagrams) {
  for (std::size_t i = 0; i < datagrams; ++i) bytes_sent_ += queue_->length(i);
  datagrams_sent_ += datagrams;
  queue_->pop(datagrams, loop_.parts().scratch);
}

void DatagramSocket::fail_first(int error) {
  ++datagrams_lost_;
  tell_later(error, queue_->first_destination(), queue_->first_length(), true);
  queue_->pop(1, loop_.parts().scratch);
}

void DatagramSocket::tell_later(int error, const Endpoint& peer, std::size_t length, bool is_lost) {
  const Failure failure{system_error_code(error), peer, length, is_lost};
  if (on_error_ || frame_ != nullptr) return failures_.push_back(failure);
  if (!loop_.is_debug()) return;
  loop_.report(describe() + ": " +
               DatagramError{failure.error, failure.peer, length, is_lost}.to_string());
}

// Ends

void DatagramSocket::close() {
  if (!is_taking()) return;
  held_.clear();
  if (state() == DatagramState::open) return end(DatagramEvent::close, {}, "close");
  step(DatagramEvent::close);
  close_timer_ = loop_.call_later(
      options_.close_timeout,
      [this] { end(DatagramEvent::failed, Errc::unsent_data, "close timeout"); }, place_);
  request_flush();
  if (frame_ == nullptr) update_interest();
}

void DatagramSocket::abort() { end(DatagramEvent::failed, Errc::aborted, "abort"); }

void DatagramSocket::end(DatagramEvent event, std::error_code error, const char* operation) {
  if (state() == DatagramState::done) return;
  ended_in_ = state();
  ended_by_ = operation;
  error_ = error;
  unsent_bytes_ = queue_->bytes();
  unsent_datagrams_ = queue_->size();
  step(event);
  queue_->clear(loop_.parts().scratch);
  held_.clear();
  close_timer_.cancel();
  memory_retry_.cancel();
  close_socket();
  defer();
}

void DatagramSocket::close_socket() {
  loop_.remove_handler(fd_);
  loop_.system().close(std::exchange(fd_, -1));
  file_.reset();
}

// State

void DatagramSocket::step(DatagramEvent event) {
  Observer* observer = loop_.observer();
  if (observer == nullptr) {
    machine_.step(event, nullptr, this, {});
  } else {
    machine_.step(event, observer, this, local_.to_string());
  }
}

void DatagramSocket::update_interest() {
  if (fd_ < 0) return;
  // What was queued since the last flush hasn't been refused by the kernel yet.
  const bool is_refused = !queue_->empty() && !needs_flush_;
  const Interest wanted = (wants_input() ? Interest::read : Interest::none) |
                          (is_refused ? Interest::write : Interest::none);
  if (wanted == interest_) return;
  interest_ = wanted;
  loop_.modify_handler(fd_, wanted);
}

std::size_t DatagramSocket::unsent_datagrams() const {
  return state() == DatagramState::done ? unsent_datagrams_ : queue_->size();
}

std::size_t DatagramSocket::buffered() const {
  return state() == DatagramState::done ? unsent_bytes_ : queue_->bytes();
}

std::string DatagramSocket::describe() const {
  std::string text = "datagram socket at " + local_.to_string();
  if (peer_.family() != Endpoint::Family::none) text += " to " + peer_.to_string();
  text += " " + std::string(to_string(state()));
  if (state() != DatagramState::done) return text + ", " + count_of_datagrams(queue_->size());
  text += ": " + std::string(ended_by_) + " in " + std::string(to_string(ended_in_)) + ": " +
          (error_ ? error_.message() : "in good order");
  if (unsent_datagrams_ > 0) text += ", " + count_of_datagrams(unsent_datagrams_);
  return text;
}

}  // namespace pawl
