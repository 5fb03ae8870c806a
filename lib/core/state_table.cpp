// SPDX-License-Identifier: MIT
#include "pawl/core/state_table.hpp"

#include <stdexcept>

namespace pawl {
namespace {

int next_state(const StateTableView& table, std::size_t state, std::size_t event) {
  return table.next[state * table.event_count + event];
}

/// Calls `visit(from, to, "event, event")` once for each arrow of the diagram. What stays in its
/// state without an arrow to draw (a final state absorbs everything) is left out.
template <typename Visit>
void for_each_arrow(const StateTableView& table, Visit visit) {
  for (std::size_t from = 0; from < table.state_count; ++from) {
    for (std::size_t to = 0; to < table.state_count; ++to) {
      std::string label;
      std::size_t events = 0;
      for (std::size_t event = 0; event < table.event_count; ++event) {
        if (next_state(table, from, event) != static_cast<int>(to)) continue;
        if (!label.empty()) label += ", ";
        label += table.events[event];
        ++events;
      }
      const bool is_absorbing = from == to && events == table.event_count;
      if (events > 0 && !is_absorbing) visit(table.states[from], table.states[to], label);
    }
  }
}

}  // namespace

std::string to_markdown(const StateTableView& table) {
  std::string text = "| " + std::string(table.machine) + " |";
  for (std::size_t event = 0; event < table.event_count; ++event) {
    text += " " + std::string(table.events[event]) + " |";
  }
  text += "\n|---|";
  for (std::size_t event = 0; event < table.event_count; ++event) text += "---|";
  for (std::size_t state = 0; state < table.state_count; ++state) {
    text += "\n| **" + std::string(table.states[state]) + "** |";
    for (std::size_t event = 0; event < table.event_count; ++event) {
      const int next = next_state(table, state, event);
      text += next < 0 ? " – |" : " " + std::string(table.states[next]) + " |";
    }
  }
  return text + "\n";
}

std::string to_graphviz(const StateTableView& table) {
  std::string text = "digraph \"" + std::string(table.machine) + "\" {\n  rankdir=LR;\n";
  for_each_arrow(table, [&](std::string_view from, std::string_view to, const std::string& label) {
    text += "  \"" + std::string(from) + "\" -> \"" + std::string(to) + "\" [label=\"" + label +
            "\"];\n";
  });
  return text + "}\n";
}

std::string to_mermaid(const StateTableView& table) {
  std::string text = "stateDiagram-v2\n";
  if (table.state_count > 0) text += "  [*] --> " + std::string(table.states[0]) + "\n";
  for_each_arrow(table, [&](std::string_view from, std::string_view to, const std::string& label) {
    text += "  " + std::string(from) + " --> " + std::string(to) + " : " + label + "\n";
  });
  return text;
}

void throw_impossible_event(std::string_view machine, std::string_view state,
                            std::string_view event) {
  throw std::logic_error("pawl: " + std::string(machine) + " in state " + std::string(state) +
                         " can't get event " + std::string(event));
}

}  // namespace pawl
