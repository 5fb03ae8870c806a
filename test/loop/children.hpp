// SPDX-License-Identifier: MIT
#pragma once

#include <signal.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"

inline pawl::ChildProcessOptions shell(std::string script) {
  pawl::ChildProcessOptions options;
  options.arguments = {"sh", "-c", std::move(script)};
  return options;
}

/// Runs the loop until the child has ended.
inline pawl::ChildExit run(pawl::EventLoop& loop, pawl::ChildProcessOptions options) {
  std::optional<pawl::ChildExit> end;
  pawl::ChildProcess child(loop, std::move(options),
                           [&](pawl::ChildProcess&, const pawl::ChildExit& exit) { end = exit; });
  loop.run();
  REQUIRE(end);
  return *end;
}

inline bool is_gone(int pid) { return ::kill(pid, 0) < 0 && errno == ESRCH; }
