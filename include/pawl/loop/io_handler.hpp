// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "pawl/core/api.hpp"
#include "pawl/selector/selector.hpp"

namespace pawl {

/// Something that owns a descriptor and is told by the loop when it can go on.
///
/// For classes; for a lambda there is `EventLoop::add_reader`.
class PAWL_API IoHandler {
 public:
  /// `events` is part of what it was registered for. It may remove and destroy itself in here.
  /// `Interest::none`: an error or a hang-up came while it waited for nothing, which is told once
  /// after each `add_handler` and each change to `Interest::none`.
  virtual void on_ready(Interest events) = 0;
  /// One line for a person: what this is, and where it stands.
  virtual std::string describe() const = 0;

 protected:
  ~IoHandler() = default;
};

}  // namespace pawl
