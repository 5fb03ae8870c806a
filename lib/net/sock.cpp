// SPDX-License-Identifier: MIT
// Traps: a socket may be told to be writable before its connect has ended (readiness may be
// spurious); a Unix socket is writable while the receiver of a datagram is full.
#include "pawl/net/sock.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/accept_error.hpp"
#include "net/connect_result.hpp"
#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int sends_per_attempt = 16;

/// An operation that gives `Result...` behind its error.
template <typename... Result>
class Operation : public SockOperation {
 public:
  using Callback = Function<void(std::error_code, Result...)>;

  Operation(EventLoop& loop, std::string_view name, int fd, Interest side, Callback callback,
            Place place)
      : SockOperation(loop, name, fd, side, place), callback_(std::move(callback)) {
    loop.parts().refuse_wrong_thread(name.data());
    if (!callback_) throw std::logic_error(std::string(name) + ": an empty callback");
  }

  void set_error(std::error_code error) override { error_ = error; }
  void tell() override {
    Callback callback = std::move(callback_);
    call_with_result(callback);
  }
  void drop() override { callback_.reset(); }

 protected:
  virtual void call_with_result(Callback& callback) = 0;
  System& system() { return loop().system(); }
  /// For the end of an attempt: true exactly when the call doesn't have to be made again.
  bool is_over(const SystemResult& result) {
    if (result.would_block()) return false;
    if (!result.ok()) error_ = result.code();
    return true;
  }

  std::error_code error_;

 private:
  Callback callback_;
};

class Connect final : public Operation<> {
 public:
  Connect(EventLoop& loop, int fd, const Endpoint& peer, Callback callback, Place place)
      : Operation(loop, "sock_connect", fd, Interest::write, std::move(callback), place),
        peer_(peer) {}

  bool attempt() override {
    if (has_begun_) return has_ended();
    has_begun_ = true;
    const SocketAddress address(peer_);
    const SystemResult result = system().connect(fd(), address.get(), address.bytes());
    if (result.error == EINPROGRESS) return false;
    // EAGAIN, of a Unix listener whose backlog is full: nothing would tell when it isn't.
    if (!result.ok()) error_ = result.code();
    return true;
  }

 private:
  bool has_ended() {
    error_ = connect_result(system(), fd());
    if (error_ == std::errc::operation_in_progress) return false;  // a spurious wake-up
    return true;
  }
  void call_with_result(Callback& callback) override { callback(error_); }

  Endpoint peer_;
  bool has_begun_ = false;  // true exactly after connect() was called
};

class Accept final : public Operation<AcceptedSocket> {
 public:
  Accept(EventLoop& loop, int fd, Callback callback, Place place)
      : Operation(loop, "sock_accept", fd, Interest::read, std::move(callback), place) {}

  bool attempt() override {
    SocketAddress peer;
    SystemResult result;
    for (unsigned skipped = 0; skipped <= most_skipped; ++skipped) {
      result = system().accept(fd(), peer.get(), peer.bytes_pointer());
      // One that died in the backlog isn't the one that is waited for.
      if (classify_accept_error(result.error) != AcceptError::connection) break;
    }
    if (!is_over(result)) return false;
    if (!result.ok()) return true;
    accepted_.socket = UniqueFd(result.fd());  // before anything else wants memory
    accepted_.peer = peer.endpoint();
    return true;
  }

 private:
  void call_with_result(Callback& callback) override { callback(error_, std::move(accepted_)); }

  AcceptedSocket accepted_;
};

class SendAll final : public Operation<std::size_t> {
 public:
  SendAll(EventLoop& loop, int fd, std::string bytes, Callback callback, Place place)
      : Operation(loop, "sock_sendall", fd, Interest::write, std::move(callback), place),
        bytes_(std::move(bytes)) {}

  bool attempt() override {
    for (int i = 0; i < sends_per_attempt && sent_ < bytes_.size(); ++i) {
      const SystemResult result = system().send(fd(), bytes_.data() + sent_, bytes_.size() - sent_);
      if (!is_over(result)) return false;
      if (!result.ok()) return true;
      sent_ += result.bytes();
    }
    return sent_ == bytes_.size();
  }

 private:
  void call_with_result(Callback& callback) override { callback(error_, sent_); }

  std::string bytes_;
  std::size_t sent_ = 0;
};

/// Room for what is received: the loop's own unless that is too small.
class Room {
 public:
  Room(EventLoop& loop, std::size_t bytes) {
    if (bytes <= Scratch::read_bytes) {
      data_ = loop.parts().scratch.read_buffer();
    } else {
      own_.reset(new char[bytes]);
      data_ = own_.get();
    }
  }
  char* data() { return data_; }

 private:
  std::unique_ptr<char[]> own_;
  char* data_;
};

class Receive final : public Operation<std::string> {
 public:
  Receive(EventLoop& loop, int fd, std::size_t limit, Callback callback, Place place)
      : Operation(loop, "sock_recv", fd, Interest::read, std::move(callback), place),
        limit_(limit) {}

  bool attempt() override {
    Room room(loop(), limit_);
    const SystemResult result = system().recv(fd(), room.data(), limit_);
    if (!is_over(result)) return false;
    if (result.ok()) bytes_.assign(room.data(), result.bytes());
    return true;
  }

 private:
  void call_with_result(Callback& callback) override { callback(error_, std::move(bytes_)); }

  std::size_t limit_;
  std::string bytes_;
};

class ReceiveFrom final : public Operation<ReceivedFrom> {
 public:
  ReceiveFrom(EventLoop& loop, int fd, std::size_t limit, Callback callback, Place place)
      : Operation(loop, "sock_recvfrom", fd, Interest::read, std::move(callback), place),
        limit_(limit) {}

  bool attempt() override {
    Room room(loop(), limit_);
    sockaddr_storage from{};
    iovec part{room.data(), limit_};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const SystemResult result = system().recvmsg(fd(), &message, 0);
    if (!is_over(result)) return false;
    if (!result.ok()) return true;
    received_.bytes.assign(room.data(), result.bytes());
    const auto* address = reinterpret_cast<const sockaddr*>(&from);
    received_.from = Endpoint::from_sockaddr(address, message.msg_namelen);
    return true;
  }

 private:
  void call_with_result(Callback& callback) override { callback(error_, std::move(received_)); }

  std::size_t limit_;
  ReceivedFrom received_;
};

class SendTo final : public Operation<std::size_t> {
 public:
  SendTo(EventLoop& loop, int fd, std::string bytes, const Endpoint& destination, Callback callback,
         Place place)
      : Operation(loop, "sock_sendto", fd, Interest::write, std::move(callback), place),
        bytes_(std::move(bytes)),
        destination_(destination) {}

  bool attempt() override {
    const SocketAddress address(destination_);
    iovec part{bytes_.data(), bytes_.size()};
    msghdr message{};
    message.msg_name = const_cast<sockaddr*>(address.get());
    message.msg_namelen = address.bytes();
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const SystemResult result = system().sendmsg(fd(), &message, 0);
    const bool has_waited = std::exchange(has_waited_, true);
    // There is room here, but not at the receiver; nothing would tell when there is.
    const bool is_receivers = has_waited && result.would_block() && destination_.is_unix();
    if (is_receivers) error_ = result.code();
    if (result.ok()) sent_ = result.bytes();
    return is_receivers || is_over(result);
  }

 private:
  void call_with_result(Callback& callback) override { callback(error_, sent_); }

  std::string bytes_;
  Endpoint destination_;
  bool has_waited_ = false;  // true exactly after the first try
  std::size_t sent_ = 0;
};

template <typename Kind, typename... Arguments>
SockHandle start(EventLoop& loop, Arguments&&... arguments) {
  auto operation = std::make_shared<Kind>(loop, std::forward<Arguments>(arguments)...);
  loop.parts().socks.start(operation);
  return SockHandle(std::move(operation));
}

}  // namespace

void SockHandle::cancel() {
  if (operation_ == nullptr) return;
  const bool is_pending = operation_->phase == SockOperation::Phase::waiting ||
                          operation_->phase == SockOperation::Phase::over;
  if (is_pending) operation_->loop().parts().socks.cancel(*operation_);
}

bool SockHandle::cancelled() const {
  return operation_ != nullptr && operation_->phase == SockOperation::Phase::cancelled;
}

SockHandle sock_connect(EventLoop& loop, int fd, const Endpoint& peer,
                        Function<void(std::error_code)> callback, Place place) {
  return start<Connect>(loop, fd, peer, std::move(callback), place);
}

SockHandle sock_accept(EventLoop& loop, int fd,
                       Function<void(std::error_code, AcceptedSocket)> callback, Place place) {
  return start<Accept>(loop, fd, std::move(callback), place);
}

SockHandle sock_sendall(EventLoop& loop, int fd, std::string bytes,
                        Function<void(std::error_code, std::size_t)> callback, Place place) {
  return start<SendAll>(loop, fd, std::move(bytes), std::move(callback), place);
}

SockHandle sock_recv(EventLoop& loop, int fd, std::size_t bytes,
                     Function<void(std::error_code, std::string)> callback, Place place) {
  return start<Receive>(loop, fd, bytes, std::move(callback), place);
}

SockHandle sock_recvfrom(EventLoop& loop, int fd, std::size_t bytes,
                         Function<void(std::error_code, ReceivedFrom)> callback, Place place) {
  return start<ReceiveFrom>(loop, fd, bytes, std::move(callback), place);
}

SockHandle sock_sendto(EventLoop& loop, int fd, std::string bytes, const Endpoint& destination,
                       Function<void(std::error_code, std::size_t)> callback, Place place) {
  return start<SendTo>(loop, fd, std::move(bytes), destination, std::move(callback), place);
}

}  // namespace pawl
