// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/faulty_system.hpp"

/// The kernel, of which one call fails, with a clock that goes on when nothing else does.
class CallSweepSystem final : public FaultySystem {
 public:
  pawl::TimePoint now() override { return now_; }
  void advance(pawl::Duration span) { now_ += span; }
  /// What close(2) answers, it has closed; and what is told to be no socket is none.
  pawl::SystemResult close(int fd) override;
  pawl::SystemResult accept(int fd, sockaddr* address, unsigned* address_bytes) override;
  /// The error is that of getaddrinfo(3) itself, its errno is the one that fails.
  pawl::SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) override;

 private:
  pawl::TimePoint now_{pawl::Duration(std::chrono::hours(1))};
};

/// One run of a scenario, in which at most one kind of system call fails.
class CallTrial {
 public:
  CallTrial() = default;
  CallTrial(const CallTrial&) = delete;
  CallTrial& operator=(const CallTrial&) = delete;

  CallSweepSystem& system() { return system_; }
  /// On the system whose calls fail.
  pawl::EventLoop& loop();
  /// On the kernel itself: for the other end.
  pawl::EventLoop& peers();
  void end_loop() { loop_.reset(); }

  /// Makes passes of both loops until `is_over()`; what never comes, or takes a pass after the
  /// other without waiting, is a problem.
  void run_until(const std::function<bool()>& is_over);
  /// Makes passes for as long as something happens.
  void settle();

  /// Notes what is neither right nor a clear error.
  void expect(bool is_right, const std::string& otherwise) {
    if (!is_right) problem(otherwise);
  }
  void problem(const std::string& text) { problems_.push_back(text); }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  /// True when a system call was made.
  bool pass();
  std::string counts() const;

  CallSweepSystem system_;
  std::unique_ptr<pawl::EventLoop> loop_;
  std::unique_ptr<pawl::EventLoop> peers_;
  std::vector<std::string> problems_;
};

/// Runs `scenario` again and again, while each system call that it makes fails once, and from then
/// on for ever, with each error of its man page: the most telling ones, or all with
/// PAWL_SWEEP=whole. What a scenario throws is a clear error when it is a `std::system_error`.
/// Nothing may hang, spin or leak. Fails the test with a line for each problem.
void each_call_fails(const std::function<void(CallTrial&)>& scenario);
