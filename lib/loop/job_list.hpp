// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "loop/callback_runner.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/job.hpp"
#include "pawl/loop/mailbox.hpp"
#include "pawl/loop/thread_pool.hpp"

namespace pawl {

class JobList;

/// One job: its work belongs to whoever takes it out of the queue, the rest to the loop.
struct JobState {
  /// `starting` until the pool has accepted it, though it may be taken before that is known;
  /// `dropped` when the pool didn't, or went at once.
  enum class Phase : std::uint8_t { starting, queued, taken, given_up, dropped };

  explicit JobState(std::shared_ptr<Mailbox> mailbox) : answer(std::move(mailbox)) {}

  /// What it was; a job that is on its way or in the queue is `if_starting` or `if_queued` then.
  Phase leave_queue(Phase if_starting, Phase if_queued) {
    Phase was = phase.load();
    for (;;) {
      if (was != Phase::starting && was != Phase::queued) return was;
      const Phase next = was == Phase::starting ? if_starting : if_queued;
      if (phase.compare_exchange_weak(was, next)) return was;
    }
  }
  /// True exactly once: for who takes it out of the queue.
  bool leave_queue(Phase next) {
    const Phase was = leave_queue(next, next);
    return was == Phase::starting || was == Phase::queued;
  }

  std::atomic<Phase> phase{Phase::starting};
  Function<void()> work;
  MailboxPlace answer;  // there before the work begins: its end must not want for memory

  JobList* list = nullptr;  // null when it is done, cancelled, or the loop is gone
  std::size_t position = 0;
  bool is_cancelled = false;
  Function<void()> done;
  Place place;
  TimePoint since{};
};

/// The jobs of one loop whose `done` is still to come.
///
/// Threads: the loop's.
class JobList {
 public:
  explicit JobList(std::shared_ptr<Mailbox> mailbox) : mailbox_(std::move(mailbox)) {}
  ~JobList() { clear(); }
  JobList(const JobList&) = delete;
  JobList& operator=(const JobList&) = delete;

  Job start(ThreadPool& pool, Function<void()> work, Function<void()> done, Place place,
            TimePoint now);
  void cancel(JobState& state);
  void clear();
  std::size_t size() const { return jobs_.size(); }
  /// One line for each.
  std::string describe_live(TimePoint now) const;

 private:
  class Errand;
  class Answer;

  static void send_back(std::shared_ptr<JobState> state) noexcept;
  static void finish(JobState& state);
  void forget(JobState& state);

  std::shared_ptr<Mailbox> mailbox_;
  std::vector<std::shared_ptr<JobState>> jobs_;
};

}  // namespace pawl
