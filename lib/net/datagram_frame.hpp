// SPDX-License-Identifier: MIT
// What the parts of DatagramSocket share.
#pragma once

#include <cerrno>
#include <cstddef>
#include <utility>

#include "loop/loop_parts.hpp"
#include "loop/receive_batch.hpp"
#include "net/frame_call.hpp"
#include "pawl/net/datagram_socket.hpp"

namespace pawl {

/// True exactly when the descriptor itself is of no use, so that the next try can only fail too.
inline bool is_fatal_for_datagrams(int error) {
  return error == EBADF || error == ENOTSOCK || error == EFAULT;
}

inline bool is_short_of_memory(int error) { return error == ENOMEM || error == ENOBUFS; }

constexpr Duration memory_pause = std::chrono::milliseconds(50);

/// A batch that couldn't be delivered whole, when there was no memory to copy the rest.
struct DatagramSocket::Kept {
  ReceiveBatch batch;
  std::size_t next = 0;
  std::size_t count = 0;
};

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
  if (loop_.parts().is_forked_child()) return true;  // what follows is the parent's alone
  return call_in_frame(*this, *frame_, member, std::forward<Arguments>(arguments)...);
}

}  // namespace pawl
