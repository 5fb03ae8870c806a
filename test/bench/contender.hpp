#pragma once
// SPDX-License-Identifier: MIT
// What a library must be able to do to stand in the benchmark's table.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;
using Delays = std::vector<Nanoseconds>;
using Order = std::vector<std::uint32_t>;

/// The callback of every row but the chain: 24 captured bytes that count.
struct Payload {
  std::uint64_t* count;
  std::uint64_t step;
  std::uint64_t unused;

  void operator()() const { *count += step; }
};

/// A call that waits in a queue written by hand.
struct Call {
  void (*function)(const Payload&);
  Payload payload;

  explicit Call(const Payload& with) : function(&run), payload(with) {}
  void operator()() const { function(payload); }

 private:
  static void run(const Payload& payload) { payload(); }
};

/// The queue that users of a loop without one build for posts from other threads.
class PostQueue {
 public:
  /// True exactly when the queue was empty, so that the loop has to be woken.
  bool push(const Call& post) {
    const std::lock_guard lock(mutex_);
    posts_.push_back(post);
    return posts_.size() == 1;
  }

  void run_all() {
    {
      const std::lock_guard lock(mutex_);
      posts_.swap(running_);
    }
    for (const Call& post : running_) post();
    running_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<Call> posts_;
  std::vector<Call> running_;
};

/// libevent's classic: each byte that arrives at one pair sends one to the next pair.
class Chain {
 public:
  /// Opens `pairs` socketpairs, whose readers have the lowest numbers, so that a thousand of them
  /// are within everyone's select; throws std::system_error.
  explicit Chain(std::size_t pairs);
  ~Chain();
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  std::size_t size() const { return pairs_.size(); }
  int reader(std::size_t pair) const { return pairs_[pair][0]; }

  /// Sends the first byte to `active` pairs at equal distances; `writes` more will follow them.
  void start(std::size_t active, std::size_t writes);

  /// Reads the byte of a pair. False exactly when it was the last one under way.
  bool on_readable(std::size_t pair);

  /// The same for a library that has read the byte itself.
  bool on_byte(std::size_t pair);

  std::size_t bytes() const { return received_; }

  /// Whether each reader is below FD_SETSIZE: Debian's libevent aborts the process else.
  bool fits_fd_set() const { return pairs_.back()[0] < 1024; }

 private:
  void open_pair(int first_writer);
  void close_all();

  std::vector<std::array<int, 2>> pairs_;
  std::size_t writes_left_ = 0;
  std::size_t sent_ = 0;
  std::size_t received_ = 0;
};

/// One loop of one library, fresh. Every verb handles a whole batch, so that the virtual call costs
/// nothing; a verb that returns false says that the library has nothing of the kind.
class Loop {
 public:
  Loop() = default;
  virtual ~Loop() = default;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Makes one pass in which a callback calls `work`, where clocks are cached as in real programs.
  virtual void in_callback(const std::function<void()>& work) = 0;

  /// Timers: `prepare` allocates what users own (watchers, nodes, handles), untimed.
  virtual bool prepare_timers(std::size_t /*count*/) { return false; }
  virtual void add_timers(const Delays& /*delays*/) {}
  /// As add_timers, each delay counted from a reading of the clock of its own.
  virtual bool add_timers_from_now(const Delays& /*delays*/) { return false; }
  virtual void cancel_timers(const Order& /*order*/) {}
  virtual void run_timers(std::size_t /*count*/) {}

  /// Idle timeouts of a minute.
  virtual bool prepare_idle(std::size_t /*count*/) { return false; }
  virtual void touch_idle(const Order& /*order*/) {}

  virtual bool prepare_soon(std::size_t /*batch*/) { return false; }
  virtual void post_soon() {}
  virtual void run_soon() {}

  virtual bool prepare_posts() { return false; }
  virtual void post_from_thread(std::size_t /*count*/) {}
  virtual void run_posts(std::size_t /*count*/) {}

  virtual bool watch(Chain& /*chain*/) { return false; }
  /// Runs until the chain's last byte has arrived.
  virtual void run_chain() {}

  /// Reading is switched off and on for each fd, then one wait that doesn't block.
  virtual bool switch_off_and_on() { return false; }
  /// Each fd is removed and added as a new one, then one wait that doesn't block.
  virtual bool remove_and_add() { return false; }

  /// The same for the descriptor with its callback, where that isn't the same already.
  virtual bool replace_readers() { return remove_and_add(); }

  /// Chains of `links` continuations each, `count` of them side by side: made, started and run.
  virtual bool run_then_chains(std::size_t /*count*/, std::size_t /*links*/) { return false; }
  /// One future of `count` that are ready.
  virtual bool gather_ready(std::size_t /*count*/) { return false; }
  /// `count` tasks of which each makes `steps` steps, one a pass.
  virtual bool run_task_steps(std::size_t /*count*/, std::size_t /*steps*/) { return false; }
  /// `count` pieces of work that do nothing, on threads, `at_once` under way at a time; each comes
  /// back to the loop.
  virtual bool run_jobs(std::size_t /*count*/, std::size_t /*at_once*/) { return false; }

  /// What the callbacks of timers, call_soon and posts have counted.
  std::uint64_t ran() const { return ran_; }

 protected:
  Payload payload() { return {&ran_, 1, 0}; }

  std::uint64_t ran_ = 0;
};

/// A column of the table.
struct Contender {
  std::string name;
  std::string version;
  /// `selector` is "epoll", "poll" or "select"; nullptr when the library has no such backend.
  /// `threads` is true exactly when other threads will post to the loop.
  std::function<std::unique_ptr<Loop>(std::string_view selector, bool threads)> make;
};

/// The contenders of this program, in the order of the linker.
std::vector<Contender>& contenders();

/// A static object of each contender's file puts it into the table.
struct Registration {
  explicit Registration(Contender contender) { contenders().push_back(std::move(contender)); }
};

/// Calls of malloc and its relatives while counting was on.
void count_allocations(bool on);
std::uint64_t allocations();

}  // namespace bench
