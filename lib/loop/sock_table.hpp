// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "loop/sock_operation.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/loop/scoped_handle.hpp"

namespace pawl {

/// The operations of one loop that wait on descriptors of the user's, by descriptor.
///
/// Threads: the loop's.
class SockTable {
 public:
  /// Has the operation done and told. One that reads tries in the next pass, so that nothing is
  /// taken from the socket that a `cancel` would lose.
  void start(const std::shared_ptr<SockOperation>& operation);
  void cancel(SockOperation& operation);
  /// The loop goes: destroys every callback.
  void clear();

 private:
  class Watch;
  class Delivery;

  std::error_code refusal(SockOperation& operation);
  ScopedHandle make_delivery(const std::shared_ptr<SockOperation>& operation);
  void enter(const std::shared_ptr<SockOperation>& operation);
  void begin(const std::shared_ptr<SockOperation>& operation);
  std::error_code wait(SockOperation& operation);
  void on_ready(Watch& watch, Interest events);
  void leave(SockOperation& operation);
  void settle(Watch& watch);
  void fail_all(Watch& watch, std::error_code error);
  void watch_for_closed_ones(EventLoop& loop, Place place);
  void fail_closed_ones();
  Watch* find(int fd);
  static bool try_once(SockOperation& operation);
  static void tell(SockOperation& operation);
  static void finish(SockOperation& operation, std::error_code error);

  std::vector<std::shared_ptr<Watch>> watches_;  // by fd; shared with the call that may remove it
  std::size_t count_ = 0;                        // of those that there are
  ScopedHandle check_;
  bool is_checking_ = false;  // true exactly while check_ is pending
  bool is_closed_ = false;    // true exactly after clear()
};

}  // namespace pawl
