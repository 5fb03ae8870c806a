// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <memory>

#include "pawl/core/api.hpp"

struct ev_loop;

namespace pawl {

class EventLoop;

/// Runs a pawl loop inside a libev program, so that both share one thread.
///
/// For libraries that come with a libev adapter (hiredis, verto, libwebsockets). The program runs
/// `ev_run` as ever and never calls `EventLoop::run`. Link with `pawl-ev` (libev itself).
///
/// Owns:     its watchers in `host`. Both loops must outlive it.
/// Threads:  the one that runs `ev_run`.
/// Promises: `ev_run` doesn't return while the pawl loop has something left that could run.
/// Fails:    an exception that leaves a callback can't pass through libev: it ends `ev_run`
///           (`ev_break`) and waits in `rethrow_exception()`. `EventLoop::stop` ends `ev_run` too.
///           In a forked child `host` goes on without the pawl loop.
class PAWL_API LibevHost {
 public:
  LibevHost(struct ev_loop* host, EventLoop& loop);
  LibevHost(const LibevHost&) = delete;
  LibevHost& operator=(const LibevHost&) = delete;
  ~LibevHost();

  /// Throws what left a callback, once; call it after `ev_run`.
  void rethrow_exception();

 private:
  struct Watchers;
  std::unique_ptr<Watchers> watchers_;
};

}  // namespace pawl
