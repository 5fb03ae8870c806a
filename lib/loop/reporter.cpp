// SPDX-License-Identifier: MIT
// The one file of the library that prints, and only when it was asked to.
#include "loop/reporter.hpp"

#include <cstdio>
#include <new>
#include <string>

namespace pawl {

void Reporter::say(std::string_view line) {
  if (const std::shared_ptr<Sink> sink = sink_) return (*sink)(line);
  const std::string text = "pawl: " + std::string(line) + "\n";  // one write, so lines stay whole
  std::fwrite(text.data(), 1, text.size(), stderr);
}

// What is told of has happened, and may be an end: without memory it is a line less.

void TracingObserver::on_transition(const Transition& transition) try {
  std::string line(transition.machine);
  if (!transition.label.empty()) line += " " + std::string(transition.label);
  line += ": " + std::string(transition.from) + " -> " + std::string(transition.to) + " (" +
          std::string(transition.event) + ")";
  reporter_.say(line);
} catch (const std::bad_alloc&) {
}

void TracingObserver::on_step(const StepRun& run) try {
  reporter_.say("running " + std::string(run.machine) + " " + std::string(run.label) + " step " +
                std::string(run.step));
} catch (const std::bad_alloc&) {
}

}  // namespace pawl
