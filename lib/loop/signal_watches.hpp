// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

#include "loop/callback_pool.hpp"
#include "loop/callback_runner.hpp"
#include "pawl/loop/mailbox.hpp"

namespace pawl {

/// The signal handlers of one loop.
///
/// Threads: the loop's.
class SignalWatches {
 public:
  SignalWatches(Mailbox& mailbox, CallbackPool& pool, CallbackRunner& runner)
      : mailbox_(mailbox), pool_(pool), runner_(runner) {}
  ~SignalWatches() { clear(); }
  SignalWatches(const SignalWatches&) = delete;
  SignalWatches& operator=(const SignalWatches&) = delete;

  std::error_code add(int signal, Function<void()> callback, Place place);
  bool remove(int signal);
  /// Runs the handlers of the signals in `set`; bit n - 1 is signal n.
  void run(std::uint64_t set);
  std::size_t size() const { return watches_.size(); }
  /// One line for each.
  std::string describe_live() const;
  void clear();

 private:
  struct Watch {
    int signal;
    CallbackSlot* slot;
  };
  std::vector<Watch>::iterator find(int signal);

  Mailbox& mailbox_;
  CallbackPool& pool_;
  CallbackRunner& runner_;
  std::vector<Watch> watches_;
};

}  // namespace pawl
