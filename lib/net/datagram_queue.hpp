// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "loop/scratch.hpp"
#include "net/packet_info.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

/// Datagrams that the kernel hasn't taken yet, in order: their bytes one behind the other in one
/// buffer, which goes back to the loop when the queue is empty.
class DatagramQueue {
 public:
  static constexpr std::size_t overhead = 64;  // what an entry counts beside its bytes
  static constexpr std::size_t longest_batch = 64;

  bool empty() const { return first_ == entries_.size(); }
  std::size_t size() const { return entries_.size() - first_; }
  std::size_t bytes() const { return bytes_; }
  /// Bytes and overhead of all.
  std::size_t cost() const { return bytes_ + size() * overhead; }

  /// `is_to_peer`: it goes to whom the socket is connected to, which is `destination`. Throws
  /// `std::bad_alloc`, and then nothing has changed.
  void push(std::string_view bytes, const Endpoint& destination, bool is_to_peer,
            Scratch& scratch) {
    prepare(scratch);
    add(buffer_.size(), bytes, destination, is_to_peer, false);
  }
  /// The same, for one that is to come from `source`.
  void push_from(const PacketSource& source, std::string_view bytes, const Endpoint& destination,
                 Scratch& scratch);
  /// Those that were to go to the connected peer go to the same one by address: there will be
  /// another.
  void address_all();

  std::size_t first_length() const { return entries_[first_].length; }
  std::size_t length(std::size_t index) const { return entries_[first_ + index].length; }
  const Endpoint& first_destination() const { return entries_[first_].destination; }

  /// Gives the kernel up to `limit` datagrams. The value is how many it took; they stay here.
  SystemResult send(System& system, int fd, std::size_t limit);
  void pop(std::size_t count, Scratch& scratch);
  void clear(Scratch& scratch) { pop(size(), scratch); }

 private:
  struct Entry {
    Endpoint destination;
    std::size_t offset;  // in all bytes that ever were queued
    std::size_t length;
    bool is_to_peer;
    bool has_source;  // which lies before its bytes
    std::size_t begin() const { return has_source ? offset - sizeof(PacketSource) : offset; }
  };

  void prepare(Scratch& scratch);
  void add(std::size_t before, std::string_view bytes, const Endpoint& destination, bool is_to_peer,
           bool has_source);
  void forget_sent_ones();

  std::vector<Entry> entries_;
  std::size_t first_ = 0;  // the first that is still to go
  std::string buffer_;
  std::size_t buffer_offset_ = 0;  // of the buffer's first byte
  std::size_t bytes_ = 0;
};

}  // namespace pawl
