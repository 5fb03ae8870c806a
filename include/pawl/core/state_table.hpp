// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include "pawl/core/api.hpp"
#include "pawl/core/observer.hpp"

namespace pawl {

/// One cell of a state table: the next state, or a hole, which means "can't happen".
template <typename State>
struct Cell {
  State next{};
  bool is_hole = true;

  constexpr Cell() = default;
  constexpr Cell(State state) : next(state), is_hole(false) {}
};

/// A state table without its types, for printing and for the error of a hole.
struct StateTableView {
  std::string_view machine;
  const std::string_view* states;
  std::size_t state_count;
  const std::string_view* events;
  std::size_t event_count;
  const int* next;  ///< [state × event_count + event]: the next state, or -1 for a hole
};

/// The table in Markdown: a row for each state, a column for each event, "–" for a hole.
PAWL_API std::string to_markdown(const StateTableView& table);
/// The same as a Graphviz digraph; events with the same arrow share it.
PAWL_API std::string to_graphviz(const StateTableView& table);
/// The same as a Mermaid `stateDiagram-v2`.
PAWL_API std::string to_mermaid(const StateTableView& table);
/// Throws the `std::logic_error` of an event that can't happen in a state.
[[noreturn]] PAWL_API void throw_impossible_event(std::string_view machine, std::string_view state,
                                                  std::string_view event);

/// A state machine as one matrix, state × event → state, known to the compiler.
///
/// `State` and `Event` are enums that count from 0. The proofs are for `static_assert`.
template <typename State, typename Event, std::size_t state_count, std::size_t event_count>
struct StateTable {
  using StateType = State;
  using EventType = Event;

  std::string_view machine;
  std::array<std::string_view, state_count> states;
  std::array<std::string_view, event_count> events;
  std::array<std::array<Cell<State>, event_count>, state_count> cells;

  constexpr Cell<State> at(State state, Event event) const {
    return cells[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
  }
  constexpr std::string_view name(State state) const {
    return states[static_cast<std::size_t>(state)];
  }
  constexpr std::string_view name(Event event) const {
    return events[static_cast<std::size_t>(event)];
  }

  /// True exactly when from every state some row of events leads to `goal`.
  constexpr bool every_state_reaches(State goal) const {
    std::array<bool, state_count> reaches{};
    reaches[static_cast<std::size_t>(goal)] = true;
    for (std::size_t round = 0; round < state_count; ++round) {
      for (std::size_t from = 0; from < state_count; ++from) {
        for (const Cell<State>& cell : cells[from]) {
          if (!cell.is_hole && reaches[static_cast<std::size_t>(cell.next)]) reaches[from] = true;
        }
      }
    }
    for (const bool reached : reaches) {
      if (!reached) return false;
    }
    return true;
  }

  /// True exactly when `state` answers every event and never leaves itself.
  constexpr bool absorbs_all(State state) const {
    for (const Cell<State>& cell : cells[static_cast<std::size_t>(state)]) {
      if (cell.is_hole || cell.next != state) return false;
    }
    return true;
  }

  /// True exactly when every state but `start` is somewhere's next.
  constexpr bool every_state_is_reached_from(State start) const {
    std::array<bool, state_count> reached{};
    reached[static_cast<std::size_t>(start)] = true;
    for (std::size_t round = 0; round < state_count; ++round) {
      for (std::size_t from = 0; from < state_count; ++from) {
        if (!reached[from]) continue;
        for (const Cell<State>& cell : cells[from]) {
          if (!cell.is_hole) reached[static_cast<std::size_t>(cell.next)] = true;
        }
      }
    }
    for (const bool value : reached) {
      if (!value) return false;
    }
    return true;
  }

  std::string to_markdown() const { return print(&pawl::to_markdown); }
  std::string to_graphviz() const { return print(&pawl::to_graphviz); }
  std::string to_mermaid() const { return print(&pawl::to_mermaid); }

 private:
  std::string print(std::string (*printer)(const StateTableView&)) const {
    std::array<int, state_count * event_count> next{};
    for (std::size_t from = 0; from < state_count; ++from) {
      for (std::size_t event = 0; event < event_count; ++event) {
        const Cell<State>& cell = cells[from][event];
        next[from * event_count + event] = cell.is_hole ? -1 : static_cast<int>(cell.next);
      }
    }
    return printer(StateTableView{machine, states.data(), state_count, events.data(), event_count,
                                  next.data()});
  }
};

/// A state that only `step` writes, as `table` says.
///
/// Threads: its owner's.
/// Calls:   the observer, once for each step that changes the state or is asked to stay.
/// Fails:   an event that the table calls impossible throws `std::logic_error`, state unchanged.
template <const auto& table>
class StateMachine {
  using Table = std::decay_t<decltype(table)>;

 public:
  using State = typename Table::StateType;
  using Event = typename Table::EventType;

  explicit constexpr StateMachine(State start) : state_(start) {}

  State state() const { return state_; }

  /// Moves on `event` and returns the new state.
  State step(Event event) {
    const Cell<State> cell = table.at(state_, event);
    if (cell.is_hole) throw_impossible_event(table.machine, table.name(state_), table.name(event));
    return state_ = cell.next;
  }

  /// The same, and tells `observer`, which may be null.
  State step(Event event, Observer* observer, const void* object, std::string_view label) {
    const State from = state_;
    step(event);
    if (observer != nullptr) {
      observer->on_transition(Transition{table.machine, object, label, table.name(from),
                                         table.name(event), table.name(state_)});
    }
    return state_;
  }

 private:
  State state_;
};

}  // namespace pawl
