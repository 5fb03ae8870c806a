// SPDX-License-Identifier: MIT
#include "loop/job_list.hpp"

#include <algorithm>
#include <utility>

#include "loop/age.hpp"

namespace pawl {

using Phase = JobState::Phase;

/// What the pool has of a job. When the pool goes before the job began, the loop is told all the
/// same, which would wait for ever.
class JobList::Errand {
 public:
  explicit Errand(std::shared_ptr<JobState> state) noexcept : state_(std::move(state)) {}
  Errand(Errand&&) noexcept = default;
  Errand& operator=(Errand&&) = delete;
  ~Errand() {
    if (state_ == nullptr) return;
    const Phase was = state_->leave_queue(Phase::dropped, Phase::taken);
    if (was == Phase::queued) send_back(std::move(state_));
  }
  void operator()() {
    if (!state_->leave_queue(Phase::taken)) return;
    state_->work();
    send_back(std::move(state_));
  }

 private:
  std::shared_ptr<JobState> state_;  // null when it was sent back
};

/// What comes back of a job, with all that its work has captured: the loop's thread destroys that,
/// unless the loop is gone.
class JobList::Answer {
 public:
  explicit Answer(std::shared_ptr<JobState> state) noexcept : state_(std::move(state)) {}
  Answer(Answer&&) noexcept = default;
  Answer& operator=(Answer&&) = delete;
  ~Answer() {
    if (state_ != nullptr) state_->work.reset();  // whoever still has a ticket
  }
  void operator()() { finish(*state_); }

 private:
  std::shared_ptr<JobState> state_;
};

void Job::cancel() {
  if (state_ != nullptr && state_->list != nullptr) state_->list->cancel(*state_);
}

bool Job::cancelled() const { return state_ != nullptr && state_->is_cancelled; }

void JobList::clear() {
  while (!jobs_.empty()) cancel(*jobs_.back());
}

Job JobList::start(ThreadPool& pool, Function<void()> work, Function<void()> done, Place place,
                   TimePoint now) {
  // All that takes memory comes before the job can begin.
  if (jobs_.size() == jobs_.capacity()) jobs_.reserve(std::max<std::size_t>(16, 2 * jobs_.size()));
  auto state = std::make_shared<JobState>(mailbox_);
  state->work = std::move(work);
  state->done = std::move(done);
  state->place = place;
  state->since = now;
  pool.post(Errand(state));
  state->list = this;
  state->position = jobs_.size();
  jobs_.push_back(state);
  Phase expected = Phase::starting;
  state->phase.compare_exchange_strong(expected, Phase::queued);
  if (expected == Phase::dropped) send_back(state);
  return Job(std::move(state));
}

void JobList::send_back(std::shared_ptr<JobState> state) noexcept {
  MailboxPlace& answer = state->answer;
  answer.post(Answer(std::move(state)));
}

void JobList::finish(JobState& state) {
  if (state.list == nullptr) return;
  state.list->forget(state);
  Function<void()> done = std::move(state.done);
  done();
}

void JobList::forget(JobState& state) {
  state.list = nullptr;
  jobs_.back()->position = state.position;
  std::swap(jobs_[state.position], jobs_.back());
  jobs_.pop_back();  // whoever called still holds the state
}

void JobList::cancel(JobState& cancelled) {
  const std::shared_ptr<JobState> state = jobs_[cancelled.position];
  state->is_cancelled = true;
  forget(*state);
  if (state->leave_queue(Phase::given_up)) state->work.reset();
  state->done.reset();
}

std::string JobList::describe_live(TimePoint now) const {
  std::string text;
  for (const auto& state : jobs_) {
    text += "job registered at " + to_string(state->place) + ", age " + to_age(now - state->since) +
            "\n";
  }
  return text;
}

}  // namespace pawl
