// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/dial_attempt.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"

namespace pawl {

/// Finds out where a peer is and gets a connected socket to it: looks its name up, then tries its
/// addresses, the families in turn, each a little after the one before (RFC 8305, "Happy
/// Eyeballs"), beginning with those of one family while the other's are still to come. The first
/// that answers wins, the others are closed. One deadline for all; it is put off, once, when
/// something moved only after it was over, because the loop stood still.
///
/// Owns:    the sockets, until `done` gets one. Destroying it ends every attempt.
/// Threads: the loop's.
/// Calls:   `done(error, fd, peer)` once, from the loop. It may destroy this.
class Dialer final {
 public:
  using Done = Function<void(std::error_code, int fd, const Endpoint& peer)>;

  Dialer(EventLoop& loop, std::shared_ptr<const ConnectionOptions> options, Done done, Place place);
  Dialer(const Dialer&) = delete;
  Dialer& operator=(const Dialer&) = delete;
  ~Dialer();

  void dial(std::string_view host, std::uint16_t port);
  void dial(const Endpoint& peer);

  /// "example.org:80", "[::1]:80", with control bytes as "?".
  static std::string name_of(std::string_view host, std::uint16_t port);

  /// "resolve", or what the last attempt did.
  std::string_view operation() const { return operation_; }
  /// Those that failed, in the order of their ends.
  const std::vector<DialAttempt>& failures() const { return failures_; }
  std::vector<DialAttempt> take_failures() { return std::move(failures_); }

 private:
  class Attempt;
  void on_found(std::error_code error, const std::vector<Endpoint>& found, bool is_all);
  void add(const std::vector<Endpoint>& found);
  void on_attempt(Attempt& attempt);
  void on_attempt_delay();
  void on_timeout();
  bool moves_late();
  bool is_silent() const;
  Attempt* connected() const;
  void start_next();
  void start_attempts();
  void arm_next_start(TimePoint when);
  bool starts_again(const Attempt& attempt, std::error_code error);
  void drop(Attempt& attempt, std::error_code error);
  void note_failure(const Attempt& attempt, std::error_code error);
  void note_timeouts();
  void give_up();
  void succeed(Attempt& attempt);
  void finish(std::error_code error, int fd, const Endpoint& peer);
  template <typename Step>
  bool has_memory_for(Step step);

  EventLoop& loop_;
  std::shared_ptr<const ConnectionOptions> options_;
  Done done_;
  Place place_;
  std::string_view operation_ = "connect";
  std::vector<Endpoint> endpoints_;
  std::size_t next_ = 0;  // of endpoints_
  std::vector<std::unique_ptr<Attempt>> running_;
  std::vector<DialAttempt> failures_;
  std::optional<TimePoint> waiting_since_;  // for room in the backlog of a Unix socket
  Lookup lookup_;
  bool is_resolving_ = false;       // true exactly while more addresses may come
  bool is_next_start_due_ = false;  // true exactly while next_start_ is to run
  bool was_put_off_ = false;        // true exactly when the deadline was
  TimePoint deadline_ = TimePoint::max();
  ScopedHandle next_start_;
  ScopedHandle deferred_;
  ScopedHandle timeout_;
};

}  // namespace pawl
