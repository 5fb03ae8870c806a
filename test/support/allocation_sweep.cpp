// SPDX-License-Identifier: MIT
#include "support/allocation_sweep.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <string_view>

#include "support/open_fds.hpp"
#include "support/virtual_clock.hpp"

using pawl::Duration;
using pawl::EventLoop;
using pawl::SystemResult;
using pawl::TimePoint;
using Clock = std::chrono::steady_clock;

extern "C" __attribute__((weak)) void __sanitizer_print_stack_trace();

namespace {

constexpr Clock::duration longest_scenario = std::chrono::seconds(2);
constexpr Clock::duration longest_idle = std::chrono::seconds(5);

/// Says which allocation it was when the library ends the program.
class TerminateHandler {
 public:
  TerminateHandler() : old_(std::set_terminate(&tell)) {}
  ~TerminateHandler() { std::set_terminate(old_); }
  TerminateHandler(const TerminateHandler&) = delete;
  TerminateHandler& operator=(const TerminateHandler&) = delete;

  static inline long allocation = 0;

 private:
  [[noreturn]] static void tell() {
    const Spared spared;
    std::fprintf(stderr, "std::terminate after allocation %ld had failed\n", allocation);
    if (__sanitizer_print_stack_trace != nullptr) __sanitizer_print_stack_trace();
    std::abort();
  }

  std::terminate_handler old_;
};

/// What must be the same before and after.
struct Holdings {
  std::size_t fds = open_fd_count();
  long memory = live_allocations();  // last: counting the others takes some
};

/// A thread that nobody waits for may give back what it has a little later.
long settled_memory(long wanted) {
  for (int i = 0; i < 500 && live_allocations() != wanted; ++i) ::poll(nullptr, 0, 1);
  return live_allocations();
}

/// False when there was no such allocation.
bool try_once(const std::function<void(Trial&)>& scenario, long nth) {
  INFO("allocation " << nth << " failed (-1: all, or none)");
  TerminateHandler::allocation = nth;
  const Holdings before;
  bool has_failed = false;
  {
    const FailingAllocation failing(nth);
    {
      Trial trial;
      scenario(trial);
    }
    has_failed = FailingAllocation::has_failed();
  }
  const long memory = settled_memory(before.memory);
  if (memory != before.memory) {
    FAIL_CHECK("allocation " << nth << ": " << memory - before.memory << " pieces left behind");
  }
  const std::size_t fds = open_fd_count();
  if (fds != before.fds) FAIL_CHECK("allocation " << nth << ": descriptors left behind");
  return has_failed;
}

/// One after the other, unless that would take too long: then so many at a time that it doesn't.
long step(long nth, long count, Clock::time_point begun) {
  const char* wanted = std::getenv("PAWL_SWEEP");
  if (nth < 2 || (wanted != nullptr && std::string_view(wanted) == "whole")) return 1;
  const Clock::duration spent = Clock::now() - begun;
  const Clock::duration left = std::max(longest_scenario - spent, Clock::duration(1));
  const Clock::duration still_wanted = spent / (nth + 1) * std::max(count - nth, 1L);
  return std::clamp(static_cast<long>(still_wanted / left) + 1, 1L, std::max(count / 10, 1L));
}

}  // namespace

SystemResult SweepSystem::getaddrinfo(const char* node, const char*, const addrinfo* hints,
                                      addrinfo** results) {
  if (std::strncmp(node, "slow", 4) == 0 && hints->ai_family != AF_INET) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return has_ended_waits_; });
    return {EAI_AGAIN, 0};
  }
  if (hints->ai_family == AF_INET6) return {EAI_NODATA, 0};
  struct OneAddress {
    addrinfo info;
    sockaddr_in address;
  };
  auto* entry =
      static_cast<OneAddress*>(std::calloc(1, sizeof(OneAddress)));  // which never fails here
  entry->address.sin_family = AF_INET;
  entry->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 6);
  entry->info.ai_addr = reinterpret_cast<sockaddr*>(&entry->address);
  entry->info.ai_addrlen = sizeof entry->address;
  *results = &entry->info;
  return {0, 0};
}

void SweepSystem::freeaddrinfo(addrinfo* results) { std::free(results); }

void SweepSystem::end_waits() {
  const std::lock_guard<std::mutex> lock(mutex_);
  has_ended_waits_ = true;
  changed_.notify_all();
}

Trial::~Trial() {
  const FailingAllocation::All without_memory(ends_have_no_memory_);
  const FailingAllocation::Armed armed;
  loop_.reset();
}

EventLoop& Trial::loop() {
  if (loop_ == nullptr) loop_ = std::make_unique<EventLoop>(options_on(system_));
  return *loop_;
}

bool Trial::is_fine(std::error_code error) const {
  if (error && (error != std::errc::not_enough_memory || !has_failed())) FAIL(error.message());
  return !error;
}

void Trial::fail(const char* what) {
  FAIL(what);
  std::abort();  // never
}

void Trial::check_failed(const char* what) const {
  if (!has_failed()) FAIL(what << " although no allocation had failed");
}

void Trial::check_out_of_memory(const std::system_error& error) const {
  if (error.code() != std::errc::not_enough_memory || !has_failed()) FAIL(error.what());
}

/// False when nothing is left that could run.
bool Trial::pass(EventLoop& loop) {
  const std::optional<TimePoint> deadline = loop.next_deadline();
  Duration wait = patience_;
  if (deadline) wait = std::min(wait, std::max(*deadline - system_.now(), Duration::zero()));
  bool is_alive = true;
  const Clock::time_point begun = Clock::now();
  attempt([&] { is_alive = loop.run_once(wait); });
  const Clock::duration took = Clock::now() - begun;
  if (wait == Duration::zero() || took < wait) {
    idle_passes_ = 0;
    idle_ = {};
    return is_alive;
  }
  idle_ += took;
  if (++idle_passes_ >= 2 && deadline) {
    system_.set(std::max(*deadline, system_.now()));
    idle_passes_ = 0;
  }
  return is_alive;
}

void Trial::run(EventLoop& loop, const std::function<bool()>& is_over) {
  idle_ = {};
  for (int passes = 0; !is_over(); ++passes) {
    pass(loop);
    if (passes > 100'000 || idle_ > longest_idle) FAIL("it never ends:\n" << loop.why_alive());
  }
}

void Trial::run(const std::function<bool()>& is_over) { run(loop(), is_over); }

void Trial::run_dry(EventLoop& loop) {
  bool is_alive = true;
  idle_ = {};
  for (int passes = 0; is_alive; ++passes) {
    is_alive = pass(loop);
    if (passes > 100'000 || idle_ > longest_idle) FAIL("it never ends:\n" << loop.why_alive());
  }
}

void Trial::run_dry() { run_dry(loop()); }

void each_allocation_fails(const std::function<void(Trial&)>& scenario) {
  const TerminateHandler handler;
  constexpr long none = -1;
  {
    const FailingAllocation enough(none);  // what is made once for all
    Trial trial;
    scenario(trial);
  }
  try_once(scenario, none);
  const long count = FailingAllocation::count();
  CHECK(count > 0);
  const char* only = std::getenv("PAWL_SWEEP_ONLY");
  const bool only_ends = only != nullptr && std::string_view(only) == "ends";
  if (only == nullptr || only_ends) {
    Trial::ends_have_no_memory_ = true;
    try_once(scenario, none);
    Trial::ends_have_no_memory_ = false;
  }
  if (only != nullptr) {
    if (!only_ends) try_once(scenario, std::atol(only));
    return;
  }
  const Clock::time_point begun = Clock::now();
  for (long nth = 0; try_once(scenario, nth); nth += step(nth, count, begun)) {
    if (nth > 10 * count + 1000) FAIL("each failure is followed by more allocations");
  }
}
