// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/socket_address.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"

/// A datagram socket that pawl knows nothing about.
class RawDatagrams {
 public:
  explicit RawDatagrams(const pawl::Endpoint& local = pawl::Endpoint::loopback(0)) {
    const pawl::SocketAddress address(local);
    fd_.reset(checked(kernel().socket(address.family(), SOCK_DGRAM, 0), "socket").fd());
    checked(kernel().bind(fd_.get(), address.get(), address.bytes()), "bind");
  }

  void send(std::string_view bytes, const pawl::Endpoint& destination) {
    const pawl::SocketAddress address(destination);
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_name = const_cast<sockaddr*>(address.get());
    message.msg_namelen = address.bytes();
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    checked(kernel().sendmsg(fd_.get(), &message, 0), "sendmsg");
  }

  /// What has come by now, if anything has.
  std::optional<std::string> receive() {
    std::array<char, 65536> buffer;
    const pawl::SystemResult result = kernel().recv(fd_.get(), buffer.data(), buffer.size());
    if (!result.ok()) return std::nullopt;
    return std::string(buffer.data(), result.bytes());
  }
  std::vector<std::string> receive_all() {
    std::vector<std::string> all;
    while (std::optional<std::string> one = receive()) all.push_back(std::move(*one));
    return all;
  }

  pawl::Endpoint endpoint() const {
    pawl::SocketAddress local;
    checked(kernel().getsockname(fd_.get(), local.get(), local.bytes_pointer()), "getsockname");
    return local.endpoint();
  }
  int fd() const { return fd_.get(); }
  void close() { fd_.reset(); }

 private:
  static pawl::System& kernel() { return pawl::System::real(); }
  static pawl::SystemResult checked(pawl::SystemResult result, const char* what) {
    if (!result.ok()) throw std::system_error(result.code(), what);
    return result;
  }

  pawl::UniqueFd fd_;
};

/// Notes what a datagram socket tells, in its order.
class DatagramRecorder {
 public:
  explicit DatagramRecorder(pawl::DatagramSocket& socket) {
    socket.on_datagram([this](pawl::DatagramSocket&, const pawl::Datagram& datagram) {
      note("datagram");
      bytes.emplace_back(datagram.bytes);
      lengths.push_back(datagram.length);
      from = datagram.from;
    });
    socket.on_error([this](pawl::DatagramSocket&, const pawl::DatagramError& told) {
      note("error");
      errors.push_back(told.to_string());
      codes.push_back(told.error);
      lost += told.is_lost ? 1 : 0;
    });
    socket.on_drained([this](pawl::DatagramSocket&) {
      note("drained");
      ++drained;
    });
    socket.on_closed([this](pawl::DatagramSocket&, std::error_code reason) {
      note("closed");
      ++closed;
      error = reason;
    });
  }
  DatagramRecorder(const DatagramRecorder&) = delete;
  DatagramRecorder& operator=(const DatagramRecorder&) = delete;

  std::string order;  // "datagram error drained closed", each a word; a row of one kind is one
  std::vector<std::string> bytes;
  std::vector<std::size_t> lengths;
  pawl::Endpoint from;  // the last one's
  std::vector<std::string> errors;
  std::vector<std::error_code> codes;
  int lost = 0;
  int drained = 0;
  int closed = 0;
  std::error_code error;

 private:
  void note(const std::string& word) {
    if (word == last_) return;
    last_ = word;
    order += (order.empty() ? "" : " ") + word;
  }

  std::string last_;
};

/// "0", "1" … "count - 1"
inline std::vector<std::string> numbers(std::size_t count) {
  std::vector<std::string> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(std::to_string(i));
  return all;
}
