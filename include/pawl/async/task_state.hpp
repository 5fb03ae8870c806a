// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "pawl/core/api.hpp"
#include "pawl/core/state_table.hpp"

namespace pawl {

/// Where a task stands:
///
/// | state    | means                                         | what wakes it                  |
/// |----------|-----------------------------------------------|--------------------------------|
/// | ready    | its next step is in the loop's queue          | the next pass                  |
/// | running  | a step is on the stack                        | –                              |
/// | sleeping |                                               | a timer                        |
/// | reading  |                                               | its descriptor can be read     |
/// | writing  |                                               | its descriptor can be written  |
/// | awaiting |                                               | a future, or another task's    |
/// | done     | with its result, its exception, or cancelled  | nothing                        |
enum class TaskState : std::uint8_t { ready, running, sleeping, reading, writing, awaiting, done };

enum class TaskEvent : std::uint8_t {
  run,     ///< the loop has come to it
  yield,   ///< the step wants the others to have their turn
  sleep,   ///< the step waits for a moment
  read,    ///< the step waits to read
  write,   ///< the step waits to write
  await,   ///< the step waits for a future or a task
  finish,  ///< the step has given the result
  fail,    ///< the step has thrown, or what it wants to wait for can't be waited for
  cancel,
};

namespace task_states {
constexpr auto ready = TaskState::ready;
constexpr auto running = TaskState::running;
constexpr auto sleeping = TaskState::sleeping;
constexpr auto reading = TaskState::reading;
constexpr auto writing = TaskState::writing;
constexpr auto awaiting = TaskState::awaiting;
constexpr auto done = TaskState::done;
constexpr Cell<TaskState> never{};
}  // namespace task_states

// clang-format off
inline constexpr StateTable<TaskState, TaskEvent, 7, 9> task_table = [] {
  using namespace task_states;
  return StateTable<TaskState, TaskEvent, 7, 9>{
    "task",
    {"READY", "RUNNING", "SLEEPING", "READING", "WRITING", "AWAITING", "DONE"},
    {"run", "yield", "sleep", "read", "write", "await", "finish", "fail", "cancel"},
    {{
      // run      yield  sleep     read     write    await     finish fail   cancel
      {{running, never, never,    never,   never,   never,    never, never, done}},
      {{never,   ready, sleeping, reading, writing, awaiting, done,  done,  done}},
      {{running, never, never,    never,   never,   never,    never, never, done}},
      {{running, never, never,    never,   never,   never,    never, never, done}},
      {{running, never, never,    never,   never,   never,    never, never, done}},
      {{running, never, never,    never,   never,   never,    never, never, done}},
      {{done,    done,  done,     done,    done,    done,     done,  done,  done}},
    }}};
}();
// clang-format on

static_assert(task_table.every_state_reaches(TaskState::done));
static_assert(task_table.every_state_is_reached_from(TaskState::ready));
static_assert(task_table.absorbs_all(TaskState::done));

/// "READY", "RUNNING", "SLEEPING", "READING", "WRITING", "AWAITING", "DONE"
PAWL_API std::string_view to_string(TaskState state);

}  // namespace pawl
