// SPDX-License-Identifier: MIT
// How a datagram socket sends.
//
// Traps: a pending ICMP error makes the next send fail although nothing is wrong with it;
// sendmmsg(2) doesn't say why it stopped after the first; a Unix socket is writable while a
// receiver that it isn't connected to is full; one whose device has no room is writable too.
#include <algorithm>

#include "net/datagram_frame.hpp"
#include "net/datagram_queue.hpp"
#include "net/packet_info.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int sends_per_wakeup = 16;                   // of a batch each
constexpr std::size_t longest_ipv4 = 65'535 - 20 - 8;  // RFC 791, RFC 768: total, headers
constexpr std::size_t longest_ipv6 = 65'535 - 8;       // RFC 8200: the header isn't counted

/// What ICMP makes of a connected socket: udp(7), icmp(7) and the kernel's icmp_err_convert.
bool is_from_network(int error) {
  return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH ||
         error == EHOSTDOWN || error == ENONET || error == ENOPROTOOPT || error == EOPNOTSUPP ||
         error == EPROTO || error == EACCES || error == EMSGSIZE;
}

bool is_ip(const Endpoint& endpoint) {
  return endpoint.family() == Endpoint::Family::ipv4 || endpoint.family() == Endpoint::Family::ipv6;
}

}  // namespace

std::error_code DatagramSocket::send_to(std::string_view bytes, const Endpoint& destination) {
  return enqueue(bytes, destination, nowhere_, false);
}

std::error_code DatagramSocket::send_to(std::string_view bytes, const Endpoint& destination,
                                        const Endpoint& source) {
  if (const std::error_code error = refusal_of_source(source)) return error;
  return enqueue(bytes, destination, source, false);
}

std::error_code DatagramSocket::send(std::string_view bytes) {
  return enqueue(bytes, peer_, nowhere_, true);
}

/// True exactly when a socket of our family can send there.
bool DatagramSocket::suits(const Endpoint& destination) const {
  if (destination.is_unix() != local_.is_unix()) return false;
  return local_.family() != Endpoint::Family::ipv4 ||
         destination.family() == Endpoint::Family::ipv4;
}

/// What is known to be wrong before the kernel is asked.
std::error_code DatagramSocket::refusal(std::size_t bytes, const Endpoint& destination) const {
  if (!is_taking()) return std::make_error_code(std::errc::bad_file_descriptor);
  if (destination.family() == Endpoint::Family::none) {
    return std::make_error_code(std::errc::destination_address_required);
  }
  if (!suits(destination)) return std::make_error_code(std::errc::address_family_not_supported);
  const bool is_ipv4 = local_.family() == Endpoint::Family::ipv4;
  if (!local_.is_unix() && bytes > (is_ipv4 ? longest_ipv4 : longest_ipv6)) {
    return std::make_error_code(std::errc::message_size);
  }
  const std::size_t cost = bytes + DatagramQueue::overhead;
  if (cost > options_.queue_limit || queue_->cost() > options_.queue_limit - cost) {
    return Errc::write_limit;
  }
  return {};
}

std::error_code DatagramSocket::refusal_of_source(const Endpoint& source) const {
  if (source.family() == Endpoint::Family::none) return {};
  if (!is_ip(source) || !suits(source)) {
    return std::make_error_code(std::errc::address_family_not_supported);
  }
  const bool is_group = PacketSource::of(source, local_.family()).is_group();
  return is_group ? std::make_error_code(std::errc::invalid_argument) : std::error_code();
}

std::error_code DatagramSocket::enqueue(std::string_view bytes, const Endpoint& destination,
                                        const Endpoint& source, bool is_to_peer) {
  if (const std::error_code error = refusal(bytes.size(), destination)) return error;
  if (__builtin_expect(source.family() == Endpoint::Family::none, true)) {
    queue_->push(bytes, destination, is_to_peer, loop_.parts().scratch);
  } else {
    queue_->push_from(PacketSource::of(source, local_.family()), bytes, destination,
                      loop_.parts().scratch);
  }
  is_drain_due_ = true;
  needs_flush_ = true;
  step(DatagramEvent::queued);
  request_flush();
  return {};
}

/// What is sent from outside of this socket's own callbacks leaves before the loop polls.
void DatagramSocket::request_flush() noexcept {
  if (frame_ != nullptr || flush_position_ != 0 || !needs_flush_) return;
  flush_position_ = loop_.parts().pass_end.add_enlisted<&DatagramSocket::on_pass_end>(*this);
}

/// Before the loop polls.
void DatagramSocket::on_pass_end() {
  flush_position_ = 0;
  flush(false);
  if (has_news()) defer();
  update_interest();
}

/// `is_writable`: the kernel has just said that there is room. Without memory to go on it is tried
/// again in the next pass.
void DatagramSocket::flush(bool is_writable) try {
  needs_flush_ = false;
  if (fd_ < 0 || is_send_paused_ || loop_.parts().is_forked_child()) return;
  bool is_stuck = is_writable;
  int suspected = 0;  // the error of a send that may have been an earlier datagram's
  for (int i = 0; i < sends_per_wakeup && !queue_->empty(); ++i) {
    const SystemResult result = queue_->send(loop_.system(), fd_, options_.batch);
    if (!result.ok()) {
      if (!go_on_after(result.error, is_stuck, suspected)) break;
      continue;
    }
    is_stuck = false;
    is_pause_told_ = false;
    if (suspected != 0) tell_later(std::exchange(suspected, 0), peer_, 0, false);
    count_sent(result.bytes());
  }
  if (suspected != 0) tell_later(suspected, peer_, 0, false);
  if (!queue_->empty()) return;
  if (state() == DatagramState::closing) return end(DatagramEvent::flushed, {}, "close");
  if (state() == DatagramState::sending) step(DatagramEvent::flushed);
  if (std::exchange(is_drain_due_, false) && on_drained_) is_drained_ = true;
} catch (const std::bad_alloc&) {
  needs_flush_ = true;
  defer();
  throw;
}

/// The first of the queue can't be sent. True when there is something else to try.
bool DatagramSocket::go_on_after(int error, bool is_stuck, int& suspected) {
  if (error == EAGAIN) {
    // There is room, but not at the receiver, of whose room we aren't told unless connected.
    const bool is_receivers = is_stuck && local_.is_unix() && queue_->first_destination() != peer_;
    if (is_receivers) fail_first(error);
    return is_receivers;
  }
  // Two at most are told of one try; the room for them is made before anything is changed.
  if (failures_.capacity() - failures_.size() < 2) failures_.reserve(2 * failures_.size() + 2);
  if (is_short_of_memory(error)) {
    pause_sending(error);
    return false;
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

/// The kernel, or a device, has no room, and nothing would tell when there is.
void DatagramSocket::pause_sending(int error) {
  send_retry_ = loop_.call_later(
      memory_pause,
      [this] {
        is_send_paused_ = false;
        needs_flush_ = true;
        request_flush();
      },
      place_);
  is_send_paused_ = true;
  if (std::exchange(is_pause_told_, true)) return;
  tell_later(error, queue_->first_destination(), queue_->first_length(), false);
}

void DatagramSocket::count_sent(std::size_t datagrams) {
  for (std::size_t i = 0; i < datagrams; ++i) bytes_sent_ += queue_->length(i);
  datagrams_sent_ += datagrams;
  queue_->pop(datagrams, loop_.parts().scratch);
}

void DatagramSocket::fail_first(int error) {
  tell_later(error, queue_->first_destination(), queue_->first_length(), true);
  ++datagrams_lost_;
  queue_->pop(1, loop_.parts().scratch);
}

void DatagramSocket::tell_later(int error, const Endpoint& peer, std::size_t length, bool is_lost) {
  Failure failure{system_error_code(error), peer, length, is_lost};
  if (on_error_ || frame_ != nullptr) return failures_.push_back(std::move(failure));
  if (!loop_.is_debug()) return;
  loop_.report(describe() + ": " +
               DatagramError{failure.error, failure.peer, length, is_lost}.to_string());
}

}  // namespace pawl
