// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

class ForkGuard;

/// Several loops, each on a thread of its own.
///
/// Owns:     the threads and their loops. Destroying it stops and joins them.
/// Threads:  any, but its own for `join` and the destructor. The observer and the system of
///           `options` are shared by all loops.
/// Calls:    `body` once on each thread, on all of them at the same time. It makes what belongs to
///           the loop, a `Server` with `reuse_port` say, runs the loop, and has destroyed all that
///           when it returns.
/// Promises: the constructor returns when all loops are made: what is posted from then on reaches
///           them. `stop` ends a `run_forever` that hasn't begun too.
/// Fails:    the constructor throws what making a loop or a thread threw, when all threads have
///           ended. What leaves `body` ends its thread; `join` throws the first of it.
///           In a forked child it has no threads: `join` throws `std::logic_error`, and destroying
///           it waits for nobody. A child that was forked from a body ends when that returns.
class PAWL_API LoopGroup {
 public:
  using Body = Function<void(EventLoop& loop, std::size_t index)>;

  /// At least one loop. The threads show up in `top -H` as `name` and their index.
  LoopGroup(std::size_t loops, Body body, LoopOptions options = {}, std::string name = "pawl");
  LoopGroup(const LoopGroup&) = delete;
  LoopGroup& operator=(const LoopGroup&) = delete;
  ~LoopGroup();

  std::size_t size() const { return mailboxes_.size(); }
  /// Each index in turn.
  std::size_t next() { return turn_.fetch_add(1, std::memory_order_relaxed) % size(); }
  /// Runs `callback` on the thread of the loop at `index`, so that a descriptor that it holds can
  /// be handed over. False, and destroyed, when that loop is gone. Throws `std::out_of_range` for
  /// an index that isn't one.
  bool call_soon_threadsafe(std::size_t index, Function<void(EventLoop&)> callback);
  /// `EventLoop::stop` for each.
  void stop();
  /// Waits until every body has returned. Throws what left one of them, once.
  void join();

 private:
  void run(std::size_t index, const LoopOptions& options);
  void wait_until_made();
  void join_threads();
  bool is_forked_child() const;

  std::unique_ptr<ForkGuard> fork_guard_;
  Body body_;
  std::vector<std::thread> threads_;
  std::vector<std::shared_ptr<Mailbox>> mailboxes_;  // of the loops, from when they are made
  std::vector<EventLoop*> loops_;
  std::atomic<std::size_t> turn_{0};

  std::mutex mutex_;  // guards the rest, and the two vectors until all are made
  std::unique_ptr<std::condition_variable> changed_;
  std::size_t made_ = 0;        // loops that were made, or couldn't be
  bool may_run_ = false;        // true exactly when all were
  bool is_given_up_ = false;    // true exactly when one couldn't
  std::exception_ptr failure_;  // the first
  std::mutex joining_;          // held by who joins: a thread can't be joined by two at once
};

}  // namespace pawl
