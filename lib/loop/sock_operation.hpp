// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <system_error>

#include "pawl/core/place.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"

namespace pawl {

/// One thing that is to be done on a descriptor of the user's, and then told.
class SockOperation : public std::enable_shared_from_this<SockOperation> {
 public:
  enum class Phase : std::uint8_t { waiting, over, told, cancelled };

  SockOperation(EventLoop& loop, std::string_view name, int fd, Interest side, Place place)
      : loop_(loop), name_(name), fd_(fd), side_(side), place_(place) {}
  virtual ~SockOperation() = default;
  SockOperation(const SockOperation&) = delete;
  SockOperation& operator=(const SockOperation&) = delete;

  /// Tries. True exactly when it is over, well or not; false: it would block.
  virtual bool attempt() = 0;
  /// It is over, with this.
  virtual void set_error(std::error_code error) = 0;
  /// Calls the user.
  virtual void tell() = 0;
  /// Destroys the user's callback, uncalled.
  virtual void drop() = 0;

  EventLoop& loop() { return loop_; }
  std::string_view name() const { return name_; }
  int fd() const { return fd_; }
  Interest side() const { return side_; }
  Place place() const { return place_; }

  Phase phase = Phase::waiting;
  ScopedHandle soon;  // what the loop is to do with it

 private:
  EventLoop& loop_;
  std::string_view name_;
  int fd_;
  Interest side_;
  Place place_;
};

}  // namespace pawl
