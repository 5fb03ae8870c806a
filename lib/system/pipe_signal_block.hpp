// SPDX-License-Identifier: MIT
#pragma once

#include <csignal>

namespace pawl {

/// Keeps SIGPIPE from this thread for its lifetime: for calls that can't be told to raise none.
/// What the process does with the signal isn't touched, and one that was pending before still is.
///
/// Threads: the one that made it.
class PipeSignalBlock {
 public:
  PipeSignalBlock();
  PipeSignalBlock(const PipeSignalBlock&) = delete;
  PipeSignalBlock& operator=(const PipeSignalBlock&) = delete;
  ~PipeSignalBlock();

  /// True exactly when one waited already, so that another couldn't be told from it.
  bool was_pending() const { return was_pending_; }
  /// Takes the signal that a call raised for this thread, if it raised one.
  void take();

 private:
  sigset_t before_;
  bool was_blocked_ = false;
  bool was_pending_ = false;
};

}  // namespace pawl
