// SPDX-License-Identifier: MIT
#include "pawl/core/state_table.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

enum class Door : std::uint8_t { open, closed, locked, gone };
enum class Act : std::uint8_t { push, turn_key, burn };

using DoorTable = pawl::StateTable<Door, Act, 4, 3>;
constexpr auto hole = pawl::Cell<Door>();

constexpr DoorTable door_table{
    "door",
    {"OPEN", "CLOSED", "LOCKED", "GONE"},
    {"push", "turn_key", "burn"},
    {{
        {{Door::closed, hole, Door::gone}},
        {{Door::open, Door::locked, Door::gone}},
        {{Door::locked, Door::closed, Door::gone}},
        {{Door::gone, Door::gone, Door::gone}},
    }},
};

/// The same with one cell changed.
constexpr DoorTable with(Door state, Act event, pawl::Cell<Door> cell) {
  DoorTable table = door_table;
  table.cells[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)] = cell;
  return table;
}

constexpr DoorTable fireproof = with(Door::locked, Act::burn, hole);
constexpr DoorTable wall = [] {
  DoorTable table = with(Door::locked, Act::burn, Door::locked);
  table.cells[2][1] = Door::locked;
  return table;
}();

static_assert(door_table.every_state_reaches(Door::gone));
static_assert(fireproof.every_state_reaches(Door::gone), "unlock it, then burn it");
static_assert(!wall.every_state_reaches(Door::gone), "nothing leads out of LOCKED");
static_assert(!door_table.every_state_reaches(Door::open), "GONE leads nowhere");

static_assert(door_table.absorbs_all(Door::gone));
static_assert(!door_table.absorbs_all(Door::open));
static_assert(!with(Door::gone, Act::push, hole).absorbs_all(Door::gone), "a hole isn't an answer");
static_assert(!with(Door::gone, Act::burn, Door::open).absorbs_all(Door::gone), "it rises again");

static_assert(door_table.every_state_is_reached_from(Door::open));
static_assert(!door_table.every_state_is_reached_from(Door::gone));
static_assert(!with(Door::closed, Act::turn_key, hole).every_state_is_reached_from(Door::open),
              "nothing leads to LOCKED");

static_assert(door_table.at(Door::closed, Act::turn_key).next == Door::locked);
static_assert(door_table.at(Door::open, Act::turn_key).is_hole);
static_assert(door_table.name(Door::locked) == "LOCKED");
static_assert(door_table.name(Act::turn_key) == "turn_key");

using DoorMachine = pawl::StateMachine<door_table>;

struct Recorder final : pawl::Observer {
  void on_transition(const pawl::Transition& step) override {
    lines.push_back(std::string(step.machine) + " " + std::string(step.label) + ": " +
                    std::string(step.from) + " -" + std::string(step.event) + "-> " +
                    std::string(step.to));
    objects.push_back(step.object);
  }
  std::vector<std::string> lines;
  std::vector<const void*> objects;
};

}  // namespace

TEST_CASE("A state machine moves as its table says") {
  DoorMachine door(Door::open);
  CHECK(door.state() == Door::open);
  CHECK(door.step(Act::push, nullptr, nullptr, "") == Door::closed);
  CHECK(door.step(Act::turn_key, nullptr, nullptr, "") == Door::locked);
  CHECK(door.step(Act::push, nullptr, nullptr, "") == Door::locked);
  CHECK(door.step(Act::burn, nullptr, nullptr, "") == Door::gone);
  CHECK(door.step(Act::push, nullptr, nullptr, "") == Door::gone);
  CHECK(door.state() == Door::gone);
}

TEST_CASE("An event that can't happen throws its machine, state and event, and nothing moves") {
  Recorder recorder;
  DoorMachine door(Door::open);
  CHECK_THROWS_AS(door.step(Act::turn_key, &recorder, nullptr, ""), std::logic_error);
  CHECK_THROWS_WITH(door.step(Act::turn_key, &recorder, nullptr, ""),
                    "pawl: door in state OPEN can't get event turn_key");
  CHECK(door.state() == Door::open);
  CHECK(recorder.lines.empty());
}

TEST_CASE("The observer is told each step, one that stays included") {
  Recorder recorder;
  DoorMachine door(Door::closed);
  door.step(Act::turn_key, &recorder, &door, "front");
  door.step(Act::push, &recorder, &door, "front");
  door.step(Act::burn, &recorder, nullptr, "");
  CHECK(recorder.lines == std::vector<std::string>{
                              "door front: CLOSED -turn_key-> LOCKED",
                              "door front: LOCKED -push-> LOCKED",
                              "door : LOCKED -burn-> GONE",
                          });
  CHECK(recorder.objects == std::vector<const void*>{&door, &door, nullptr});
}

TEST_CASE("The observer sees the machine in its new state") {
  struct Looker final : pawl::Observer {
    void on_transition(const pawl::Transition&) override { seen = door->state(); }
    DoorMachine* door = nullptr;
    Door seen = Door::open;
  };
  Looker looker;
  DoorMachine door(Door::open);
  looker.door = &door;
  door.step(Act::push, &looker, nullptr, "");
  CHECK(looker.seen == Door::closed);
}

TEST_CASE("A state table prints itself in Markdown") {
  CHECK(door_table.to_markdown() ==
        "| door | push | turn_key | burn |\n"
        "|---|---|---|---|\n"
        "| **OPEN** | CLOSED | – | GONE |\n"
        "| **CLOSED** | OPEN | LOCKED | GONE |\n"
        "| **LOCKED** | LOCKED | CLOSED | GONE |\n"
        "| **GONE** | GONE | GONE | GONE |\n");
}

TEST_CASE("A state table prints itself for Graphviz, without the final state's loops") {
  CHECK(door_table.to_graphviz() ==
        "digraph \"door\" {\n"
        "  rankdir=LR;\n"
        "  \"OPEN\" -> \"CLOSED\" [label=\"push\"];\n"
        "  \"OPEN\" -> \"GONE\" [label=\"burn\"];\n"
        "  \"CLOSED\" -> \"OPEN\" [label=\"push\"];\n"
        "  \"CLOSED\" -> \"LOCKED\" [label=\"turn_key\"];\n"
        "  \"CLOSED\" -> \"GONE\" [label=\"burn\"];\n"
        "  \"LOCKED\" -> \"CLOSED\" [label=\"turn_key\"];\n"
        "  \"LOCKED\" -> \"LOCKED\" [label=\"push\"];\n"
        "  \"LOCKED\" -> \"GONE\" [label=\"burn\"];\n"
        "}\n");
}

TEST_CASE("A state table prints itself for Mermaid, events with one arrow on one line") {
  constexpr DoorTable kicked = with(Door::open, Act::turn_key, Door::closed);
  CHECK(kicked.to_mermaid() ==
        "stateDiagram-v2\n"
        "  [*] --> OPEN\n"
        "  OPEN --> CLOSED : push, turn_key\n"
        "  OPEN --> GONE : burn\n"
        "  CLOSED --> OPEN : push\n"
        "  CLOSED --> LOCKED : turn_key\n"
        "  CLOSED --> GONE : burn\n"
        "  LOCKED --> CLOSED : turn_key\n"
        "  LOCKED --> LOCKED : push\n"
        "  LOCKED --> GONE : burn\n");
}
