// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <system_error>

#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

class ReaperList;

/// Waits for the end of one child process and reaps it.
///
/// A process descriptor tells of the end. Where there is none, the loop's list of those without one
/// has this looked at again and again. Neither takes memory, so what was started is waited for.
///
/// Threads: the loop's.
class ChildReaper final : public IoHandler {
 public:
  /// With the status, or the error with which it can't be known any more.
  using EndCallback = Function<void(const ChildStatus&, std::error_code)>;

  /// `on_end` may destroy this.
  ChildReaper(EventLoop& loop, EndCallback on_end, Place place);
  ChildReaper(const ChildReaper&) = delete;
  ChildReaper& operator=(const ChildReaper&) = delete;
  ~ChildReaper();

  /// Begins to wait for the end of `pid`.
  void watch(int pid) noexcept;
  /// Nobody wants to know any more: waits without keeping the loop alive, and destroys itself at
  /// the end. The loop has it until then.
  void orphan() noexcept;
  /// Reaps it if it has ended, and tells. True when it did: this may be gone then.
  bool look();
  /// For the end of the loop: reaps it if it has ended, and tells nobody.
  void look_for_the_last_time() noexcept;

 private:
  friend class ReaperList;

  void on_ready(Interest events) override;
  std::string describe() const override;
  bool watch_descriptor() noexcept;
  void look_later();
  void close_descriptor();

  EventLoop& loop_;
  EndCallback on_end_;
  Place place_;
  int pid_ = -1;
  int pidfd_ = -1;  // -1: there is none, the list is for looking again and again
  bool is_orphan_ = false;
  Duration pause_ = std::chrono::milliseconds(1);
  TimePoint next_look_{};
  ReaperList* list_ = nullptr;  // where it is
  ChildReaper* next_ = nullptr;
  ChildReaper* previous_ = nullptr;
};

}  // namespace pawl
