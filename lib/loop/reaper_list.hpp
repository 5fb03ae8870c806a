// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "pawl/core/time.hpp"

namespace pawl {

class CallbackRunner;
class ChildReaper;

/// Some of the child processes that a loop waits for, by links in themselves: to enter one and to
/// take it out takes no memory.
///
/// Owns:    the orphans among them.
/// Threads: the loop's.
class ReaperList {
 public:
  ReaperList() = default;
  ReaperList(const ReaperList&) = delete;
  ReaperList& operator=(const ReaperList&) = delete;

  void add(ChildReaper& reaper);
  void remove(ChildReaper& reaper);
  bool empty() const { return first_ == nullptr; }

  /// When one of them wants to be looked at; there must be one.
  TimePoint next_look() const;
  /// Looks at those that are due, which may call user code.
  void look(TimePoint now, CallbackRunner& runner);

  /// True exactly when one of them keeps the loop alive.
  bool is_alive() const;
  /// One line for each of those.
  std::string describe_live() const;

  /// The loop goes: looks at the orphans once more, and destroys them. The others are left out.
  void clear();

 private:
  ChildReaper* first_due(TimePoint now) const;

  ChildReaper* first_ = nullptr;
};

}  // namespace pawl
