// SPDX-License-Identifier: MIT
#pragma once

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"

/// One pass that doesn't wait.
inline void pass(pawl::EventLoop& loop) { loop.run_once(pawl::Duration::zero()); }

/// Several of them: enough for whatever is on its way to arrive.
void passes(pawl::EventLoop& loop, int count = 10);

/// Makes passes, which wait, until `condition` holds. Fails the test if it never does.
template <typename Condition>
void run_until(pawl::EventLoop& loop, Condition condition) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (Clock::now() >= end) FAIL("waited for 30 s in vain");
    loop.run_once(std::chrono::milliseconds(100));
  }
}

/// The same for a loop whose clock stands still: the passes don't wait.
template <typename Condition>
void spin_until(pawl::EventLoop& loop, Condition condition) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (Clock::now() >= end) FAIL("waited for 30 s in vain");
    pass(loop);
  }
}

/// Sizes of the kernel's buffers, in bytes; 0 leaves the kernel's own.
struct BufferSizes {
  int send = 0;
  int receive = 0;
};
/// The smallest that the kernel has: a few hundred kilobytes never fit.
constexpr BufferSizes tight{4096, 4096};

/// The kernel, but what dials has the smallest buffers too.
class TightSystem final : public pawl::System {
 public:
  pawl::SystemResult socket(int family, int type, int protocol) override;
};

/// Both ends of a TCP connection over loopback. `sizes` hold for both.
struct TcpPair {
  explicit TcpPair(BufferSizes sizes = {});
  pawl::UniqueFd ours;
  pawl::UniqueFd theirs;
};

/// A socket that listens at a free port of 127.0.0.1, and that pawl knows nothing about.
class RawListener {
 public:
  explicit RawListener(int backlog = 128, BufferSizes sizes = {});
  pawl::Endpoint endpoint() const;
  int fd() const { return fd_.get(); }
  /// Whoever has come; waits for it in the loop.
  pawl::UniqueFd accept(pawl::EventLoop& loop);
  void close() { fd_.reset(); }

 private:
  pawl::UniqueFd fd_;
};

/// A raw socket that connects to `endpoint`; the kernel answers for whoever listens there.
pawl::UniqueFd raw_connect(const pawl::Endpoint& endpoint, BufferSizes sizes = {});

/// An endpoint of 127.0.0.1 at which nobody listens.
pawl::Endpoint refusing_endpoint();

/// One end of a stream that pawl knows nothing about: a raw socket, driven from the same loop.
class RawPeer {
 public:
  RawPeer(pawl::EventLoop& loop, pawl::UniqueFd socket);
  ~RawPeer();
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  /// What is sent must fit into the kernel's buffer.
  void send(std::string_view bytes);
  /// FIN, unless the connection is gone already.
  void end();
  /// FIN, and RST when something is unread.
  void close();
  /// RST.
  void reset();

  void stop_reading();
  void start_reading();
  /// Reads at most `limit` bytes now.
  void read(std::size_t limit);
  /// Counts what comes instead of keeping it.
  void keep_nothing() { keeps_ = false; }

  const std::string& received() const { return received_; }
  std::size_t received_bytes() const { return received_bytes_; }
  bool has_ended() const { return has_ended_; }
  /// The errno that reading ended with, or 0.
  int error() const { return error_; }
  bool is_over() const { return has_ended_ || error_ != 0; }
  int fd() const { return fd_.get(); }

 private:
  pawl::EventLoop& loop_;
  pawl::UniqueFd fd_;
  std::string received_;
  std::size_t received_bytes_ = 0;
  bool keeps_ = true;
  bool reads_ = false;
  bool has_ended_ = false;
  int error_ = 0;
};

/// Notes what a connection tells, in its order.
class Recorder {
 public:
  Recorder() = default;
  explicit Recorder(pawl::Connection& connection) { attach(connection); }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  /// Sets on_connected, on_data, on_eof and on_closed.
  void attach(pawl::Connection& connection);
  /// Sets on_drained too, with which output takes a longer way than with most users.
  void attach_drained(pawl::Connection& connection);

  /// "connected data drained eof closed", each a word; data that comes in a row is one.
  std::string order;
  std::string data;
  std::error_code error;
  int drained = 0;
  int closed = 0;  // how often on_closed came

 private:
  void note(std::string_view word);
};

/// A connection of pawl's, recorded, and its raw peer.
struct Link {
  explicit Link(pawl::EventLoop& loop, pawl::ConnectionOptions options = {},
                BufferSizes sizes = {});
  Link(pawl::EventLoop& loop, TcpPair pair, pawl::ConnectionOptions options);

  bool is_closed() const { return record.closed > 0; }

  std::unique_ptr<pawl::Connection> connection;
  RawPeer peer;
  Recorder record;
};

/// `bytes` that look random and don't repeat.
std::string noise(std::size_t bytes, std::uint32_t seed = 1);

/// Where two streams begin to differ, in words; empty when they are equal.
std::string difference(std::string_view a, std::string_view b);

/// A sum of a stream that doesn't depend on how it was cut. Order counts.
class Checksum {
 public:
  void add(std::string_view bytes) {
    for (const char byte : bytes) {
      value_ = (value_ ^ static_cast<unsigned char>(byte)) * 1099511628211U;
    }
    bytes_ += bytes.size();
  }
  std::size_t bytes() const { return bytes_; }
  friend bool operator==(const Checksum& a, const Checksum& b) {
    return a.value_ == b.value_ && a.bytes_ == b.bytes_;
  }

 private:
  std::uint64_t value_ = 14695981039346656037U;
  std::size_t bytes_ = 0;
};
