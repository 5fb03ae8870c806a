// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

namespace pawl {

/// Room for a batch of datagrams, as recvmmsg(2) fills it.
///
/// Threads: the loop's.
class ReceiveBatch {
 public:
  ReceiveBatch() = default;
  /// What was received goes along; the other one has no room any more.
  ReceiveBatch(ReceiveBatch&& other) noexcept { *this = std::move(other); }
  ReceiveBatch& operator=(ReceiveBatch&& other) noexcept {
    buffer_ = std::move(other.buffer_);
    entries_ = std::move(other.entries_);
    messages_ = std::move(other.messages_);
    controls_ = std::move(other.controls_);
    controls_bytes_ = std::exchange(other.controls_bytes_, 0);
    count_ = std::exchange(other.count_, 0);
    stride_ = std::exchange(other.stride_, 0);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

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
  const msghdr& header(std::size_t index) const { return messages_[index].msg_hdr; }

  /// Makes the first `count` ready to be filled again.
  void reset(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) messages_[i].msg_hdr.msg_namelen = address_bytes;
  }

  /// Makes room for `bytes` of control messages beside each of the first `count`. The next `reset`
  /// doesn't take it away: that is for `detach_controls`.
  void attach_controls(std::size_t count, std::size_t bytes) {
    bytes = (bytes + alignof(cmsghdr) - 1) / alignof(cmsghdr) * alignof(cmsghdr);
    if (bytes * count > controls_bytes_) {
      controls_.reset(new char[bytes * count]);
      controls_bytes_ = bytes * count;
    }
    for (std::size_t i = 0; i < count; ++i) {
      messages_[i].msg_hdr.msg_control = controls_.get() + i * bytes;
      messages_[i].msg_hdr.msg_controllen = bytes;
    }
  }
  void detach_controls(std::size_t count, std::size_t from = 0) {
    if (controls_ == nullptr) return;
    for (std::size_t i = from; i < from + count; ++i) {
      messages_[i].msg_hdr.msg_control = nullptr;
      messages_[i].msg_hdr.msg_controllen = 0;
    }
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
    std::unique_ptr<char[]> buffer(new char[count * (stride + gap)]);
    auto entries = std::make_unique<Entry[]>(count);
    messages_ = std::make_unique<mmsghdr[]>(count);  // the last that may fail; then all is new
    buffer_ = std::move(buffer);
    entries_ = std::move(entries);
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
  std::unique_ptr<char[]> controls_;
  std::size_t controls_bytes_ = 0;
  unsigned count_ = 0;
  std::size_t stride_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace pawl
