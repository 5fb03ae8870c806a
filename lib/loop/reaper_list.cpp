// SPDX-License-Identifier: MIT
#include "loop/reaper_list.hpp"

#include <algorithm>
#include <memory>

#include "loop/callback_runner.hpp"
#include "loop/child_reaper.hpp"

namespace pawl {

void ReaperList::add(ChildReaper& reaper) {
  reaper.list_ = this;
  reaper.previous_ = nullptr;
  reaper.next_ = first_;
  if (first_ != nullptr) first_->previous_ = &reaper;
  first_ = &reaper;
}

void ReaperList::remove(ChildReaper& reaper) {
  (reaper.previous_ != nullptr ? reaper.previous_->next_ : first_) = reaper.next_;
  if (reaper.next_ != nullptr) reaper.next_->previous_ = reaper.previous_;
  reaper.list_ = nullptr;
  reaper.next_ = reaper.previous_ = nullptr;
}

TimePoint ReaperList::next_look() const {
  TimePoint earliest = TimePoint::max();
  for (const ChildReaper* reaper = first_; reaper != nullptr; reaper = reaper->next_) {
    earliest = std::min(earliest, reaper->next_look_);
  }
  return earliest;
}

ChildReaper* ReaperList::first_due(TimePoint now) const {
  for (ChildReaper* reaper = first_; reaper != nullptr; reaper = reaper->next_) {
    if (reaper->next_look_ <= now) return reaper;
  }
  return nullptr;
}

// From the beginning after each, because a callback may take any of them out. Who was looked at and
// goes on isn't due again.
void ReaperList::look(TimePoint now, CallbackRunner& runner) {
  while (!runner.is_forked_child()) {
    ChildReaper* reaper = first_due(now);
    if (reaper == nullptr) return;
    const int pid = reaper->pid_;
    runner.guard([=] { reaper->look(); },
                 [=] { return "callback of child process " + std::to_string(pid); });
  }
}

bool ReaperList::is_alive() const {
  for (const ChildReaper* reaper = first_; reaper != nullptr; reaper = reaper->next_) {
    if (!reaper->is_orphan_) return true;
  }
  return false;
}

std::string ReaperList::describe_live() const {
  std::string text;
  for (const ChildReaper* reaper = first_; reaper != nullptr; reaper = reaper->next_) {
    if (reaper->is_orphan_) continue;
    text += reaper->describe() + ", registered at " + to_string(reaper->place_) + "\n";
  }
  return text;
}

void ReaperList::clear() {
  while (first_ != nullptr) {
    ChildReaper& reaper = *first_;
    remove(reaper);
    if (!reaper.is_orphan_) continue;
    const std::unique_ptr<ChildReaper> orphan(&reaper);
    orphan->look_for_the_last_time();
  }
}

}  // namespace pawl
