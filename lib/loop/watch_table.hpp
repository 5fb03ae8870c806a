// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "loop/callback_pool.hpp"
#include "loop/callback_runner.hpp"
#include "loop/reporter.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/selector/selector.hpp"

namespace pawl {

/// Who is to be told when a descriptor is ready: a flat array, by descriptor.
///
/// Each registration has a number of its own, which goes through the selector as its data: an event
/// that was collected for an earlier owner of the same descriptor is dropped.
///
/// Threads: the loop's.
class WatchTable {
 public:
  WatchTable(Selector& selector, CallbackPool& pool, CallbackRunner& runner)
      : selector_(selector), pool_(pool), runner_(runner) {}

  std::error_code add_callback(int fd, Interest side, Function<void()> callback, Place place,
                               TimePoint now);
  bool remove_callback(int fd, Interest side);
  /// `keeps_alive`: counts as a thing that could run.
  std::error_code add_handler(int fd, Interest interest, IoHandler& handler, bool keeps_alive,
                              Place place, TimePoint now);
  std::error_code modify_handler(int fd, Interest interest);
  bool remove_handler(int fd);
  /// A handler goes on, and no longer keeps the loop alive.
  void let_loop_end(int fd);

  /// Calls whoever is registered for each of `ready`, if it still is.
  void dispatch(std::vector<Ready>& ready);
  /// Nobody is called for them in this pass; who must be is in a later one.
  void put_off(const std::vector<Ready>& ready) noexcept {
    tell_again(ready.data(), ready.data() + ready.size());
  }

  /// How many registrations keep the loop alive.
  std::size_t live_count() const { return live_count_; }

  /// One line for each of them.
  std::string describe_live(TimePoint now) const;
  /// Reports what was closed, or closed and opened anew, while it was watched; each once.
  void report_closed_ones(System& system, Reporter& reporter);
  /// For debug mode: remembers which file a descriptor stood for.
  void remember_files(System& system) { file_source_ = &system; }

  /// Calls `visit(fd, interest)` for each registration.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
      if (watches_[fd].is_used()) visit(static_cast<int>(fd), watches_[fd].interest);
    }
  }

  /// Destroys every callback.
  void clear();

 private:
  struct Watch {
    IoHandler* handler = nullptr;  // or one or both of the callbacks, each with a reference
    CallbackSlot* reader = nullptr;
    CallbackSlot* writer = nullptr;
    const char* file = "";
    int line = 0;
    std::uint32_t generation = 0;
    TimePoint since{};
    std::int64_t inode = 0;  // in debug mode; negative when its loss was reported
    Interest interest = Interest::none;
    bool keeps_alive = false;

    bool is_used() const { return handler != nullptr || reader != nullptr || writer != nullptr; }
  };

  Watch* find(int fd);
  Watch& at(int fd) { return watches_[static_cast<std::size_t>(fd)]; }
  Watch* current(const Ready& ready);
  void grow();
  void drop_strangers(std::vector<Ready>& ready) const;
  std::error_code start(int fd, Interest interest, Place place, TimePoint now);
  void stop(int fd, Watch& watch);
  void run_handler(const Watch& watch, Interest events, bool is_timed);
  void run_handler_timed(const Watch& watch, Interest events);
  void run_hang_up(const Ready& ready, bool is_timed);
  void tell_again(const Ready* event, const Ready* end) noexcept;
  void run_side(const Ready& ready, Interest side);
  static CallbackSlot*& side_of(Watch& watch, Interest side);
  static void* token(const Watch& watch);

  Selector& selector_;
  CallbackPool& pool_;
  CallbackRunner& runner_;
  System* file_source_ = nullptr;
  std::vector<Watch> watches_;
  std::uint32_t next_generation_ = 0;
  std::size_t live_count_ = 0;
};

}  // namespace pawl
