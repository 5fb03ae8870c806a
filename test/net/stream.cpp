// SPDX-License-Identifier: MIT
#include "net/stream.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"
#include "support/sockets.hpp"

using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::SystemResult;
using pawl::UniqueFd;

namespace {

pawl::System& kernel() { return pawl::System::real(); }

SystemResult checked(SystemResult result, const char* what) {
  if (!result.ok()) throw std::system_error(result.code(), what);
  return result;
}

void set_sizes(int fd, BufferSizes sizes) {
  const auto set = [fd](int name, int bytes) {
    if (bytes == 0) return;
    checked(kernel().setsockopt(fd, SOL_SOCKET, name, &bytes, sizeof bytes), "setsockopt");
  };
  set(SO_SNDBUF, sizes.send);
  set(SO_RCVBUF, sizes.receive);
  // Loopback's segments of 64 KiB don't fit into a small buffer, and the receiver waits 40 ms for
  // the rest of one before it acknowledges what has come.
  const int segment = 1000;
  if (sizes.send == 0) return;
  checked(kernel().setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment), "setsockopt");
}

UniqueFd stream_socket(BufferSizes sizes, int family = AF_INET) {
  UniqueFd fd(checked(kernel().socket(family, SOCK_STREAM, 0), "socket").fd());
  set_sizes(fd.get(), sizes);
  return fd;
}

Endpoint endpoint_of(int fd) {
  pawl::SocketAddress address;
  checked(kernel().getsockname(fd, address.get(), address.bytes_pointer()), "getsockname");
  return address.endpoint();
}

}  // namespace

void passes(EventLoop& loop, int count) {
  for (int i = 0; i < count; ++i) pass(loop);
}

SystemResult TightSystem::socket(int family, int type, int protocol) {
  const SystemResult result = System::socket(family, type, protocol);
  if (result.ok()) set_sizes(result.fd(), tight);
  return result;
}

TcpPair::TcpPair(BufferSizes sizes) {
  RawListener listener(1, sizes);
  ours = raw_connect(listener.endpoint(), sizes);
  EventLoop loop;
  theirs = listener.accept(loop);
}

RawListener::RawListener(int backlog, BufferSizes sizes) : fd_(stream_socket(sizes)) {
  const pawl::SocketAddress address(Endpoint::loopback(0));
  checked(kernel().bind(fd_.get(), address.get(), address.bytes()), "bind");
  checked(kernel().listen(fd_.get(), backlog), "listen");
}

Endpoint RawListener::endpoint() const { return endpoint_of(fd_.get()); }

UniqueFd RawListener::accept(EventLoop& loop) {
  struct Waiting {
    ~Waiting() { loop.remove_reader(fd); }
    EventLoop& loop;
    int fd;
  };
  loop.add_reader(fd_.get(), [] {});
  const Waiting until_the_end{loop, fd_.get()};
  UniqueFd accepted;
  run_until(loop, [&] {
    const SystemResult result = kernel().accept(fd_.get(), nullptr, nullptr);
    if (!result.would_block()) accepted.reset(checked(result, "accept").fd());
    return static_cast<bool>(accepted);
  });
  return accepted;
}

UniqueFd raw_connect(const Endpoint& endpoint, BufferSizes sizes) {
  const pawl::SocketAddress address(endpoint);
  UniqueFd fd = stream_socket(sizes, address.family());
  make_blocking(fd.get());
  checked(kernel().connect(fd.get(), address.get(), address.bytes()), "connect");
  make_blocking(fd.get(), false);
  return fd;
}

Endpoint refusing_endpoint() { return RawListener().endpoint(); }

// RawPeer

RawPeer::RawPeer(EventLoop& loop, UniqueFd socket) : loop_(loop), fd_(std::move(socket)) {
  start_reading();
}

RawPeer::~RawPeer() { stop_reading(); }

void RawPeer::send(std::string_view bytes) {
  const SystemResult result = checked(kernel().send(fd_.get(), bytes.data(), bytes.size()), "send");
  if (result.bytes() != bytes.size()) throw std::logic_error("RawPeer::send: too much at once");
}

void RawPeer::end() { kernel().shutdown(fd_.get(), SHUT_WR); }

void RawPeer::close() {
  stop_reading();
  fd_.reset();
}

void RawPeer::reset() {
  const linger now{1, 0};
  kernel().setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void RawPeer::stop_reading() {
  if (std::exchange(reads_, false)) loop_.remove_reader(fd_.get());
}

void RawPeer::start_reading() {
  reads_ = !loop_.add_reader(fd_.get(), [this] { read(1024 * 1024); });
}

void RawPeer::read(std::size_t limit) {
  std::array<char, 65536> buffer;
  while (limit > 0 && !is_over()) {
    const SystemResult result =
        kernel().recv(fd_.get(), buffer.data(), std::min(limit, buffer.size()));
    if (result.would_block()) return;
    if (!result.ok()) error_ = result.error;
    if (result.ok() && result.bytes() == 0) has_ended_ = true;
    if (is_over()) return stop_reading();
    received_bytes_ += result.bytes();
    if (keeps_) received_.append(buffer.data(), result.bytes());
    limit -= result.bytes();
  }
}

// Recorder

void Recorder::attach(Connection& connection) {
  connection.on_connected([this](Connection&) { note("connected"); });
  connection.on_data([this](Connection&, std::string_view bytes) {
    note("data");
    data += bytes;
  });
  connection.on_eof([this](Connection&) { note("eof"); });
  connection.on_closed([this](Connection&, std::error_code reason) {
    ++closed;
    error = reason;
    note("closed");
  });
}

void Recorder::attach_drained(Connection& connection) {
  connection.on_drained([this](Connection&) {
    ++drained;
    note("drained");
  });
}

void Recorder::note(std::string_view word) {
  const bool is_more_data =
      word == "data" && order.size() >= 4 && order.compare(order.size() - 4, 4, word) == 0;
  if (is_more_data) return;
  if (!order.empty()) order += ' ';
  order += word;
}

// Link

Link::Link(EventLoop& loop, ConnectionOptions options, BufferSizes sizes)
    : Link(loop, TcpPair(sizes), options) {}

Link::Link(EventLoop& loop, TcpPair pair, ConnectionOptions options)
    : connection(Connection::adopt(loop, std::move(pair.ours), options)),
      peer(loop, std::move(pair.theirs)),
      record(*connection) {}

std::string noise(std::size_t bytes, std::uint32_t seed) {
  std::string text(bytes, '\0');
  std::uint64_t state = 0x9E3779B97F4A7C15U + seed;
  for (std::size_t i = 0; i < bytes; i += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(&text[i], &state, std::min(sizeof state, bytes - i));
  }
  return text;
}

std::string difference(std::string_view a, std::string_view b) {
  if (a == b) return "";
  const auto [in_a, in_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  static_cast<void>(in_b);
  return std::to_string(a.size()) + " and " + std::to_string(b.size()) + " bytes differ at " +
         std::to_string(in_a - a.begin());
}
