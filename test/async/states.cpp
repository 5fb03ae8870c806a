// SPDX-License-Identifier: MIT
// The task's state table: its page, and what an observer sees of it.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/async/promise.hpp"
#include "pawl/async/task.hpp"
#include "pawl/core/observer.hpp"
#include "support/environment.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::make_task;
using pawl::Next;
using pawl::Task;

namespace {

std::string page() {
  const auto& table = pawl::task_table;
  return "# States\n\n"
         "What a task can be, what can happen to it, and what it is then; a dash can't happen.\n"
         "Printed from the table in `include/pawl/async/task_state.hpp` by "
         "`test/async/states.cpp`,\n"
         "which fails when this page says anything else and writes it anew with "
         "`PAWL_WRITE_STATES=1`.\n"
         "\n## " +
         std::string(table.machine) + "\n\n" + table.to_markdown() + "\n```mermaid\n" +
         table.to_mermaid() + "```\n";
}

/// Notes each transition and step.
class Steps final : public pawl::Observer {
 public:
  void on_transition(const pawl::Transition& step) override {
    const std::string event = std::string(step.from) + " -" + std::string(step.event) + "-> ";
    lines.push_back(std::string(step.label) + ": " + event + std::string(step.to));
    seen.insert(event);
  }
  void on_step(const pawl::StepRun& run) override {
    lines.push_back("running " + std::string(run.machine) + " " + std::string(run.label) +
                    " step " + std::string(run.step));
  }
  pawl::LoopOptions options() {
    pawl::LoopOptions options;
    options.observer = this;
    return options;
  }

  std::vector<std::string> lines;
  std::set<std::string> seen;
};

/// What the table has arrows for, but for those of its last state, which absorbs everything.
std::set<std::string> arrows() {
  const auto& table = pawl::task_table;
  std::set<std::string> all;
  for (std::size_t state = 0; state + 1 < table.states.size(); ++state) {
    for (std::size_t event = 0; event < table.events.size(); ++event) {
      if (table.cells[state][event].is_hole) continue;
      all.insert(std::string(table.states[state]) + " -" + std::string(table.events[event]) +
                 "-> ");
    }
  }
  return all;
}

/// A task that does `wait` first, and is done then.
template <typename Wait>
std::unique_ptr<Task<>> once(EventLoop& loop, Wait wait) {
  return make_task(loop, "once", [wait, begun = false](Task<>&) mutable {
    if (begun) return Next::done();
    begun = true;
    return wait();
  });
}

}  // namespace

TEST_CASE("lib/async/STATES.md shows the state table as it is in the code") {
  const std::string path = PAWL_SOURCE_ROOT "/lib/async/STATES.md";
  if (std::getenv("PAWL_WRITE_STATES") != nullptr) std::ofstream(path) << page();
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text == page());
}

TEST_CASE("An observer sees each step of a task, by name, and each change of its state") {
  Steps steps;
  EventLoop loop(steps.options());
  const auto task = make_task(loop, "copier", [begun = false](Task<>& self) mutable {
    if (begun) return Next::done();
    begun = true;
    self.set_step("ending");
    return Next::yield();
  });
  loop.run();
  CHECK(steps.lines == std::vector<std::string>{
                           "copier: READY -run-> RUNNING",
                           "running task copier step 1",
                           "copier: RUNNING -yield-> READY",
                           "copier: READY -run-> RUNNING",
                           "running task copier step ending",
                           "copier: RUNNING -finish-> DONE",
                       });
}

TEST_CASE("A trace prints which step of which task runs") {
  const ScopedVariable trace("PAWL_TRACE", "1");
  EventLoop loop;
  std::vector<std::string> lines;
  loop.set_report_sink([&](std::string_view line) { lines.emplace_back(line); });
  const auto task = make_task(loop, "fetch", [](Task<>&) { return Next::done(); });
  task->set_step("connecting");
  loop.run();
  CHECK(lines == std::vector<std::string>{
                     "task fetch: READY -> RUNNING (run)",
                     "running task fetch step connecting",
                     "task fetch: RUNNING -> DONE (finish)",
                 });
}

TEST_CASE("Each arrow of the task's table is one that tasks take") {
  Steps steps;
  EventLoop loop(steps.options());
  const SocketPair pair;
  const int fd = pair.ours.get();
  const auto wait_in_each_way = [&](bool cancel) {
    pawl::Promise<int> promise(loop);
    std::vector<std::unique_ptr<Task<>>> tasks;
    tasks.push_back(once(loop, [] { return Next::sleep(1ms); }));
    tasks.push_back(once(loop, [=] { return Next::readable(fd); }));
    tasks.push_back(once(loop, [=] { return Next::writable(fd); }));
    tasks.push_back(once(loop, [&] { return Next::future(promise.future()); }));
    loop.run_once(Duration::zero());
    tasks.push_back(once(loop, [] { return Next::yield(); }));
    for (const auto& task : tasks) {
      if (cancel) task->cancel();
    }
    write_byte(pair.theirs.get());
    if (!cancel) promise.set_result(1);
    loop.run();
  };
  wait_in_each_way(false);
  wait_in_each_way(true);
  const auto failing = make_task(loop, "f", [](Task<>&) -> Next { throw std::runtime_error("f"); });
  const auto quitting = make_task(loop, "q", [](Task<>& self) {
    self.cancel();
    return Next::yield();
  });
  loop.run();
  CHECK(steps.seen == arrows());
}
