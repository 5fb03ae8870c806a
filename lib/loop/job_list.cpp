// SPDX-License-Identifier: MIT
#include "loop/job_list.hpp"

#include <algorithm>
#include <utility>

#include "loop/age.hpp"

namespace pawl {

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
  pool.post([state] { run(state); });
  state->list = this;
  state->position = jobs_.size();
  jobs_.push_back(state);
  return Job(std::move(state));
}

// On a thread of the pool.
void JobList::run(const std::shared_ptr<JobState>& state) {
  auto expected = JobState::Phase::queued;
  if (!state->phase.compare_exchange_strong(expected, JobState::Phase::begun)) return;
  state->work();
  state->work.reset();
  state->answer.post([state] { finish(*state); });
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
  auto expected = JobState::Phase::queued;
  if (state->phase.compare_exchange_strong(expected, JobState::Phase::given_up)) {
    state->work.reset();
  }
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
