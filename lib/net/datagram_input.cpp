// SPDX-License-Identifier: MIT
// How a datagram socket receives.
//
// Traps: user code may destroy the socket or throw in the middle of a batch, so what was taken from
// the kernel and not delivered is kept; what others had sent before connect(2) lies in the kernel's
// buffer after it.
#include <sys/socket.h>

#include <new>

#include "net/datagram_frame.hpp"
#include "net/packet_info.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

Endpoint sender_of(const ReceiveBatch& batch, std::size_t index) {
  return Endpoint::from_sockaddr(batch.from(index), batch.from_bytes(index));
}

}  // namespace

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
  return is_taking() && !is_paused_ && !is_out_of_memory_ && !has_held();
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
    if (keeps && next < count && !keep_copies()) {
      keep_batch();
      return;
    }
    batch.reset(count);
    batch.detach_controls(count);
  }
  bool keep_copies() {
    try {
      for (; next < count; ++next) {
        socket.held_.push_back(Held{std::string(batch.bytes(next)), sender_of(batch, next),
                                    socket.destination_of(batch, next), batch.length(next)});
      }
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }
  /// The loop makes another one.
  void keep_batch() { *socket.kept_ = Kept{std::move(batch), next, count}; }

  void run() {
    while (next < count && !socket.is_paused_ && socket.is_taking()) {
      const std::size_t index = next;
      if (!socket.deliver_from(batch, index, next)) return;
    }
  }
};

/// One batch a wake-up. The loop comes back for the rest when others had their turn.
void DatagramSocket::receive() {
  const auto count = static_cast<unsigned>(options_.batch);
  ReceiveBatch& batch = loop_.parts().scratch.receive_batch(count, options_.datagram_bytes);
  if (options_.tells_destination && !local_.is_unix()) {
    batch.attach_controls(count, sizeof(PacketControl));
  }
  // MSG_TRUNC asks for true lengths.
  const SystemResult result = loop_.system().recvmmsg(fd_, batch.messages(), count, MSG_TRUNC);
  const std::size_t came = result.ok() ? result.bytes() : 0;
  batch.detach_controls(count - came, came);
  const bool is_last = came < count && (result.ok() || result.would_block());
  if (!result.ok() && !is_last) return on_receive_error(result.error);
  Frame& frame = *frame_;
  const std::uint32_t connects = connects_;
  Delivery{*this, frame, batch, came}.run();
  // What comes from now on has passed the kernel's own filter.
  if (is_last && !frame.is_destroyed && !has_held() && connects == connects_) is_mixed_ = false;
}

/// Whom a received datagram was sent to, when that is asked for.
Endpoint DatagramSocket::destination_of(const ReceiveBatch& batch, std::size_t index) const {
  if (!options_.tells_destination) return Endpoint();
  return PacketControl::destination_of(batch.header(index), local_.port());
}

/// Moves `next` on once nothing can fail any more but the user. False when the socket was
/// destroyed.
bool DatagramSocket::deliver_from(const ReceiveBatch& batch, std::size_t index, std::size_t& next) {
  const Endpoint from = sender_of(batch, index);
  if (__builtin_expect(options_.tells_destination, false)) {
    const Endpoint to = destination_of(batch, index);
    ++next;
    return deliver(batch.bytes(index), from, to, batch.length(index));
  }
  ++next;
  return deliver(batch.bytes(index), from, nowhere_, batch.length(index));
}

/// False when the socket was destroyed.
bool DatagramSocket::deliver(std::string_view bytes, const Endpoint& from, const Endpoint& to,
                             std::size_t length) {
  if (__builtin_expect(is_mixed_, false) && from != peer_name_) return true;
  ++datagrams_received_;
  bytes_received_ += length;
  return call<const Datagram&>(on_datagram_, Datagram{bytes, from, length, to});
}

bool DatagramSocket::has_held() const { return !held_.empty() || kept_->next < kept_->count; }

void DatagramSocket::drop_held() {
  held_.clear();
  kept_->next = kept_->count;
}

/// False when the socket was destroyed.
bool DatagramSocket::deliver_held() {
  while (!held_.empty() && !is_paused_) {
    const Held held = std::move(held_.front());
    held_.erase(held_.begin());
    if (!deliver(held.bytes, held.from, held.to, held.length)) return false;
  }
  while (kept_->next < kept_->count && !is_paused_) {
    struct Borrow {  // the bytes must outlive the socket, which may be destroyed
      DatagramSocket& socket;
      Frame& frame;
      ReceiveBatch batch;
      ~Borrow() {
        if (!frame.is_destroyed) socket.kept_->batch = std::move(batch);
      }
    };
    Borrow borrow{*this, *frame_, std::move(kept_->batch)};
    if (!deliver_from(borrow.batch, kept_->next, kept_->next)) return false;
  }
  if (kept_->count > 0 && kept_->next == kept_->count) *kept_ = Kept{};
  return true;
}

void DatagramSocket::on_receive_error(int error) {
  if (is_fatal_for_datagrams(error)) {
    return end(DatagramEvent::failed, system_error_code(error), "receive");
  }
  if (is_short_of_memory(error)) pause_receiving();  // it would be so again at once
  call<const DatagramError&>(on_error_, DatagramError{system_error_code(error), peer_, 0, false});
}

void DatagramSocket::pause_receiving() {
  memory_retry_ = loop_.call_later(
      memory_pause,
      [this] {
        is_out_of_memory_ = false;
        update_interest();
      },
      place_);
  is_out_of_memory_ = true;
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

}  // namespace pawl
