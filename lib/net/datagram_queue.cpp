// SPDX-License-Identifier: MIT
#include "net/datagram_queue.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "net/socket_address.hpp"

namespace pawl {

void DatagramQueue::push(std::string_view bytes, const Endpoint& destination, bool is_to_peer,
                         Scratch& scratch) {
  if (empty()) {
    buffer_ = scratch.take_buffer();
    buffer_offset_ = 0;
  }
  entries_.push_back(Entry{destination, buffer_offset_ + buffer_.size(), bytes.size(), is_to_peer});
  buffer_.append(bytes);
  bytes_ += bytes.size();
}

void DatagramQueue::address_all() {
  for (Entry& entry : entries_) entry.is_to_peer = false;
}

SystemResult DatagramQueue::send(System& system, int fd, std::size_t limit) {
  std::array<mmsghdr, longest_batch> messages;
  std::array<iovec, longest_batch> parts;
  std::array<sockaddr_storage, longest_batch> addresses;
  const std::size_t count = std::min({size(), limit, longest_batch});
  for (std::size_t i = 0; i < count; ++i) {
    const Entry& entry = entries_[first_ + i];
    parts[i] = iovec{buffer_.data() + (entry.offset - buffer_offset_), entry.length};
    messages[i] = mmsghdr{};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    if (entry.is_to_peer) continue;
    const SocketAddress address(entry.destination);
    std::copy_n(reinterpret_cast<const char*>(address.get()), address.bytes(),
                reinterpret_cast<char*>(&addresses[i]));
    messages[i].msg_hdr.msg_name = &addresses[i];
    messages[i].msg_hdr.msg_namelen = address.bytes();
  }
  return system.sendmmsg(fd, messages.data(), static_cast<unsigned>(count), 0);
}

void DatagramQueue::pop(std::size_t count, Scratch& scratch) {
  for (std::size_t i = 0; i < count; ++i) bytes_ -= entries_[first_++].length;
  if (!empty()) return forget_sent_ones();
  entries_.clear();
  first_ = 0;
  std::string gone = std::move(buffer_);  // which dies here unless it is taken
  scratch.give_back(std::move(gone));
}

/// Moves what is left to the front when that is less than what has gone, so that it pays.
void DatagramQueue::forget_sent_ones() {
  const std::size_t gone = entries_[first_].offset - buffer_offset_;
  if (gone > buffer_.size() / 2) {
    buffer_.erase(0, gone);
    buffer_offset_ += gone;
  }
  if (first_ > entries_.size() / 2) {
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

}  // namespace pawl
