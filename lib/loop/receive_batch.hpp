// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>

namespace pawl {

/// Room for a batch of datagrams, as recvmmsg(2) fills it.
///
/// Threads: the loop's.
class ReceiveBatch {
 public:
  /// Makes room for `count` datagrams of `bytes` each. Costs nothing when the last user wanted the
  /// same.
  void prepare(unsigned count, std::size_t bytes) {
    if (count > count_ || bytes > stride_) grow(std::max(count, count_), std::max(bytes, stride_));
    if (bytes == bytes_) return;
    bytes_ = bytes;
    for (unsigned i = 0; i < count_; ++i) entries_[i].part.iov_len = bytes;
  }

  mmsghdr* messages() { return messages_.get(); }

  std::string_view bytes(std::size_t index) const {
    const iovec& part = entries_[index].part;
    return {static_cast<const char*>(part.iov_base), std::min(length(index), part.iov_len)};
  }
  /// Of what was sent, which may be more than came: asked for by MSG_TRUNC.
  std::size_t length(std::size_t index) const { return messages_[index].msg_len; }
  const sockaddr* from(std::size_t index) const {
    return reinterpret_cast<const sockaddr*>(&entries_[index].address);
  }
  unsigned from_bytes(std::size_t index) const { return messages_[index].msg_hdr.msg_namelen; }

  /// Makes the first `count` ready to be filled again.
  void reset(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) messages_[i].msg_hdr.msg_namelen = address_bytes;
  }

 private:
  static constexpr unsigned address_bytes = sizeof(sockaddr_storage);
  /// Keeps the datagrams' beginnings out of the same sets of the CPU's cache.
  static constexpr std::size_t gap = 64;

  struct Entry {
    iovec part;
    sockaddr_storage address;
  };

  void grow(unsigned count, std::size_t stride) {
    // Not cleared: memory that no datagram reaches is never touched, and so never taken.
    buffer_.reset(new char[count * (stride + gap)]);
    entries_ = std::make_unique<Entry[]>(count);
    messages_ = std::make_unique<mmsghdr[]>(count);
    for (unsigned i = 0; i < count; ++i) {
      entries_[i].part = iovec{buffer_.get() + i * (stride + gap), bytes_};
      messages_[i].msg_hdr.msg_name = &entries_[i].address;
      messages_[i].msg_hdr.msg_iov = &entries_[i].part;
      messages_[i].msg_hdr.msg_iovlen = 1;
    }
    count_ = count;
    stride_ = stride;
    reset(count);
  }

  std::unique_ptr<char[]> buffer_;
  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<mmsghdr[]> messages_;
  unsigned count_ = 0;
  std::size_t stride_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace pawl
