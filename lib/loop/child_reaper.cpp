// SPDX-License-Identifier: MIT
#include "loop/child_reaper.hpp"

#include <algorithm>
#include <utility>

#include "loop/loop_parts.hpp"

namespace pawl {
namespace {

constexpr Duration longest_pause = std::chrono::milliseconds(50);

}  // namespace

ChildReaper::ChildReaper(EventLoop& loop, int pid, Function<void(const ChildStatus&)> on_end,
                         Place place)
    : loop_(loop), pid_(pid), on_end_(std::move(on_end)), place_(place) {
  const SystemResult opened = loop.system().pidfd_open(pid);
  if (opened.ok()) pidfd_ = opened.fd();
  if (pidfd_ < 0 || loop.add_handler(pidfd_, Interest::read, *this, place)) look_later();
}

ChildReaper::~ChildReaper() {
  if (pidfd_ < 0) return;
  loop_.remove_handler(pidfd_);
  loop_.system().close(pidfd_);
}

void ChildReaper::look_later() {
  timer_ = loop_.call_later(
      pause_, [this] { look(); }, place_);
  pause_ = std::min(pause_ * 2, longest_pause);
}

void ChildReaper::orphan(Function<void(const ChildStatus&)> on_end) {
  on_end_ = std::move(on_end);
  if (pidfd_ < 0) return;
  WatchTable& watches = loop_.parts().watches;
  if (!watches.remove_handler(pidfd_)) return;
  watches.add_handler(pidfd_, Interest::read, *this, false, place_, loop_.pass_time());
}

void ChildReaper::look() {
  ChildStatus status;
  const SystemResult result = loop_.system().wait_child(pid_, status);
  if (result.ok() && !status.has_ended) return look_later();
  // ECHILD: somebody else reaped it, so nobody will ever know how it ended.
  Function<void(const ChildStatus&)> on_end = std::move(on_end_);
  on_end(status);
}

void ChildReaper::on_ready(Interest) { look(); }

std::string ChildReaper::describe() const { return "child process " + std::to_string(pid_); }

}  // namespace pawl
