// SPDX-License-Identifier: MIT
// Everything that the backends must agree about. They only translate.
#include "pawl/selector/selector.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "pawl/core/error.hpp"
#include "pawl/system/system.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {

Selector::Selector(std::string_view name, ClosedFdCheck check)
    : name_(name),
      closed_fd_check_(check),
      fork_guard_(std::make_unique<ForkGuard>()),
      fork_mark_(fork_guard_->mark()) {}

Selector::~Selector() = default;

int Selector::fileno() const { return -1; }

std::error_code Selector::add(int fd, Interest interest, void* data) {
  if (is_forked_child()) return Errc::used_after_fork;
  if (fd < 0) return system_error_code(EBADF);
  if (find(fd) != nullptr) return Errc::already_registered;
  if (static_cast<std::size_t>(fd) >= records_.size()) {
    if (!System::real().is_open(fd)) return system_error_code(EBADF);  // before growing for it
    const auto needed = static_cast<std::size_t>(fd) + 1;
    const std::size_t size = std::max(needed, records_.size() * 2);
    // What is registered can be modified without memory.
    changed_.reserve(size);
    applying_.reserve(size);
    records_.resize(size);
  }
  Record& record = records_[static_cast<std::size_t>(fd)];
  record.key = SelectorKey{fd, interest, data};
  ++record.generation;
  record.applied = Interest::none;
  record.is_always_ready = false;
  record.is_closed = false;
  if (const std::error_code error = attach(fd, record)) return error;
  record.is_registered = true;
  ++size_;
  return {};
}

std::error_code Selector::attach(int fd, Record& record) {
  const bool backend_sees_fd =
      record.key.interest != Interest::none && closed_fd_check_ == ClosedFdCheck::by_backend;
  if (!backend_sees_fd && !System::real().is_open(fd)) return system_error_code(EBADF);
  if (record.key.interest == Interest::none) return {};
  const int error = change(fd, Interest::none, record.key.interest);
  if (error == EPERM) {
    record.is_always_ready = true;
    always_ready_.push_back(fd);
  } else if (error != 0) {
    return system_error_code(error);
  }
  record.applied = record.key.interest;
  return {};
}

std::error_code Selector::modify(int fd, Interest interest, void* data) {
  if (is_forked_child()) return Errc::used_after_fork;
  Record* record = find(fd);
  if (record == nullptr) return Errc::not_registered;
  record->key.interest = interest;
  record->key.data = data;
  if (record->applied != interest && !record->is_change_queued) {
    changed_.push_back(fd);
    record->is_change_queued = true;
  }
  return {};
}

std::error_code Selector::remove(int fd) {
  if (is_forked_child()) return Errc::used_after_fork;
  Record* record = find(fd);
  if (record == nullptr) return Errc::not_registered;
  if (record->is_always_ready) {
    always_ready_.erase(std::find(always_ready_.begin(), always_ready_.end(), fd));
  } else if (record->applied != Interest::none) {
    change(fd, record->applied, Interest::none);
  }
  record->is_registered = false;
  record->key = SelectorKey{-1, Interest::none, nullptr};
  --size_;
  return {};
}

std::error_code Selector::select(std::optional<Duration> timeout, std::vector<Ready>& ready) {
  ready.clear();
  if (is_forked_child()) return Errc::used_after_fork;
  ready_ = &ready;
  if (!changed_.empty()) apply_changes();
  if (const int error = std::exchange(shortage_, 0)) {
    ready_ = nullptr;
    return system_error_code(error);
  }
  if (!always_ready_.empty()) report_always_ready();
  if (!ready.empty()) timeout = Duration::zero();
  const std::error_code error = wait_until_ready(timeout);
  ready_ = nullptr;
  return error;
}

std::error_code Selector::wait_until_ready(std::optional<Duration> timeout) {
  const bool is_finite = timeout && *timeout > Duration::zero();
  const TimePoint end =
      is_finite ? add_saturated(System::real().now(), *timeout) : TimePoint::max();
  if (timeout && !is_finite) timeout = Duration::zero();
  for (;;) {
    const int error = wait(timeout);
    if (error != 0 && error != EINTR) return system_error_code(error);
    if (!ready_->empty()) return {};
    if (timeout && !is_finite) {
      if (error == 0) return {};
    } else if (is_finite) {
      const TimePoint now = System::real().now();
      if (now >= end) return {};
      timeout = end - now;
    }
  }
}

bool Selector::flush() {
  if (is_forked_child()) return false;
  apply_changes();
  if (!changed_.empty()) return true;
  return std::any_of(always_ready_.begin(), always_ready_.end(), [this](int fd) {
    return records_[static_cast<std::size_t>(fd)].key.interest != Interest::none;
  });
}

void Selector::apply_changes() {
  applying_.swap(changed_);
  for (const int fd : applying_) {
    Record& record = records_[static_cast<std::size_t>(fd)];
    record.is_change_queued = false;
    if (record.is_registered && record.applied != record.key.interest) apply(fd, record);
  }
  applying_.clear();
}

void Selector::apply(int fd, Record& record) {
  if (record.is_always_ready || record.is_closed) {
    record.applied = record.key.interest;
    return;
  }
  const int error = change(fd, record.applied, record.key.interest);
  // epoll_ctl(2): the kernel's memory or its limit of watches, which says nothing of the
  // descriptor.
  const bool is_short = error == ENOSPC || error == ENOMEM;
  if (is_short || (error != 0 && error != EPERM && ready_ == nullptr)) {
    if (is_short) shortage_ = error;
    changed_.push_back(fd);  // flush() has nobody to tell; select() will try again
    record.is_change_queued = true;
    return;
  }
  record.applied = record.key.interest;
  if (error == EPERM) {
    record.is_always_ready = true;
    always_ready_.push_back(fd);
  } else if (error != 0) {
    report_closed(fd);
  }
}

void Selector::report_always_ready() {
  for (const int fd : always_ready_) {
    if (System::real().is_open(fd)) {
      report(fd, Interest::read_write, generation(fd));
    } else {
      report_closed(fd);
    }
  }
}

void Selector::report_closed(int fd) {
  Record* record = find(fd);
  if (record == nullptr || record->is_closed) return;
  report(fd, Interest::read_write, record->generation);
  record->is_closed = true;
  change(fd, record->applied, Interest::none);
}

const SelectorKey* Selector::get_key(int fd) const {
  const Record* record = find(fd);
  return record == nullptr ? nullptr : &record->key;
}

Interest Selector::applied_interest(int fd) const {
  const Record* record = find(fd);
  return record == nullptr || record->is_closed ? Interest::none : record->applied;
}

}  // namespace pawl
