// SPDX-License-Identifier: MIT
#include "loop/child_reaper.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "loop/loop_parts.hpp"

namespace pawl {
namespace {

constexpr Duration longest_pause = std::chrono::milliseconds(50);
constexpr Duration longest_pause_of_orphans = std::chrono::seconds(1);

}  // namespace

ChildReaper::ChildReaper(EventLoop& loop, EndCallback on_end, Place place)
    : loop_(loop), on_end_(std::move(on_end)), place_(place) {}

ChildReaper::~ChildReaper() {
  if (list_ != nullptr) list_->remove(*this);
  close_descriptor();
}

void ChildReaper::watch(int pid) noexcept {
  pid_ = pid;
  const SystemResult opened = loop_.system().pidfd_open(pid);
  if (opened.ok()) pidfd_ = opened.fd();
  if (pidfd_ >= 0 && watch_descriptor()) return;
  if (pidfd_ >= 0) loop_.system().close(std::exchange(pidfd_, -1));
  look_later();
}

bool ChildReaper::watch_descriptor() noexcept {
  try {
    return !loop_.add_handler(pidfd_, Interest::read, *this, place_);
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void ChildReaper::look_later() {
  next_look_ = add_saturated(loop_.time(), pause_);
  loop_.parts().polled_children.add(*this);
}

void ChildReaper::close_descriptor() {
  if (pidfd_ < 0) return;
  loop_.parts().end_handler(pidfd_);
  loop_.system().close(std::exchange(pidfd_, -1));
}

void ChildReaper::orphan() noexcept {
  is_orphan_ = true;
  on_end_.reset();
  if (pidfd_ < 0) return;  // it stays in the list
  loop_.parts().watches.let_loop_end(pidfd_);
  loop_.parts().orphans.add(*this);
}

bool ChildReaper::look() {
  ChildStatus status;
  const SystemResult result = loop_.system().wait_child(pid_, status);
  if (result.ok() && !status.has_ended) {
    pause_ = std::min(pause_ * 2, is_orphan_ ? longest_pause_of_orphans : longest_pause);
    next_look_ = add_saturated(loop_.time(), pause_);
    return false;
  }
  if (is_orphan_) {
    const std::unique_ptr<ChildReaper> ended(this);
    return true;
  }
  if (list_ != nullptr) list_->remove(*this);
  // ECHILD: somebody else took its status, so nobody will ever know how it ended.
  EndCallback on_end = std::move(on_end_);
  on_end(status, result.code());
  return true;
}

void ChildReaper::look_for_the_last_time() noexcept {
  if (loop_.parts().is_forked_child()) return;  // whose own child may have that number
  ChildStatus status;
  loop_.system().wait_child(pid_, status);
}

void ChildReaper::on_ready(Interest) {
  if (look()) return;
  // It has ended, but a tracer has it first: its descriptor would be ready for as long.
  close_descriptor();
  if (list_ != nullptr) list_->remove(*this);
  look_later();
}

std::string ChildReaper::describe() const { return "child process " + std::to_string(pid_); }

}  // namespace pawl
