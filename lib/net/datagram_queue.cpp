// SPDX-License-Identifier: MIT
#include "net/datagram_queue.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "net/socket_address.hpp"

namespace pawl {

void DatagramQueue::prepare(Scratch& scratch) {
  if (!empty()) return;
  buffer_ = scratch.take_buffer();
  buffer_offset_ = 0;
}

void DatagramQueue::push_from(const PacketSource& source, std::string_view bytes,
                              const Endpoint& destination, Scratch& scratch) {
  prepare(scratch);
  const std::size_t before = buffer_.size();
  buffer_.append(reinterpret_cast<const char*>(&source), sizeof source);
  add(before, bytes, destination, false, true);
}

/// `before`: how long the buffer is again when there is no memory.
void DatagramQueue::add(std::size_t before, std::string_view bytes, const Endpoint& destination,
                        bool is_to_peer, bool has_source) {
  try {
    const std::size_t offset = buffer_offset_ + buffer_.size();
    buffer_.append(bytes);
    entries_.push_back(Entry{destination, offset, bytes.size(), is_to_peer, has_source});
  } catch (...) {
    buffer_.resize(before);
    throw;
  }
  bytes_ += bytes.size();
}

void DatagramQueue::address_all() {
  for (Entry& entry : entries_) entry.is_to_peer = false;
}

SystemResult DatagramQueue::send(System& system, int fd, std::size_t limit) {
  std::array<mmsghdr, longest_batch> messages;
  std::array<iovec, longest_batch> parts;
  std::array<sockaddr_storage, longest_batch> addresses;
  std::array<PacketControl, longest_batch> controls;
  const std::size_t count = std::min({size(), limit, longest_batch});
  for (std::size_t i = 0; i < count; ++i) {
    const Entry& entry = entries_[first_ + i];
    parts[i] = iovec{buffer_.data() + (entry.offset - buffer_offset_), entry.length};
    messages[i] = mmsghdr{};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    if (entry.has_source) {
      PacketSource source;
      std::memcpy(&source, buffer_.data() + (entry.begin() - buffer_offset_), sizeof source);
      controls[i].set_source(messages[i].msg_hdr, source);
    }
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
  const std::size_t gone = entries_[first_].begin() - buffer_offset_;
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
