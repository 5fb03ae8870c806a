// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "pawl/core/api.hpp"

namespace pawl {

/// One step of one state machine.
struct Transition {
  std::string_view machine;  ///< the kind: "connection", "listener" …
  const void* object;        ///< which one; only to tell them apart
  std::string_view label;    ///< what a person calls it: its peer or address; may be empty
  std::string_view from;
  std::string_view event;
  std::string_view to;
};

/// Something that goes through named steps, a task, is about to run one.
struct StepRun {
  std::string_view machine;  ///< "task"
  const void* object;        ///< which one; only to tell them apart
  std::string_view label;    ///< its name
  std::string_view step;
};

/// Told what the machines of a loop do.
///
/// Owns:    nothing; whoever sets it keeps it alive as long as the loop.
/// Threads: called on the loop's thread.
/// Calls:   made in the middle of a step: look, don't throw, don't fork, and touch nothing of the
///          loop from inside.
class PAWL_API Observer {
 public:
  virtual ~Observer();
  virtual void on_transition(const Transition&) {}
  virtual void on_step(const StepRun&) {}
};

}  // namespace pawl
