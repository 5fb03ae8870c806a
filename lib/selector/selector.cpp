// SPDX-License-Identifier: MIT
// Everything that the backends must agree about. They only translate.
#include "pawl/selector/selector.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "pawl/core/error.hpp"
#include "pawl/system/system.hpp"
#include "selector/fork_guard.hpp"

namespace pawl {

Selector::Selector(std::string_view name, ClosedFdCheck check, Interest supported)
    : name_(name),
      closed_fd_check_(check),
      supported_(supported),
      fork_guard_(std::make_unique<ForkGuard>()),
      fork_mark_(fork_guard_->mark()) {}

Selector::~Selector() = default;

int Selector::fileno() const { return -1; }

Selector* Selector::inner() const { return nullptr; }

std::error_code Selector::add(int fd, Interest interest, void* data) {
  if (is_forked_child()) return Errc::used_after_fork;
  if (fd < 0) return system_error_code(EBADF);
  if (find(fd) != nullptr) return Errc::already_registered;
  if (!is_supported(interest)) return std::make_error_code(std::errc::operation_not_supported);
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
  const std::uint32_t new_generation = record.generation + 1;
  const bool is_change_queued = record.is_change_queued;
  record = Record{};
  record.generation = new_generation;
  record.is_change_queued = is_change_queued;
  struct Undo {  // unless it comes to a good end
    Record* record;
    ~Undo() {
      if (record == nullptr) return;
      record->is_registered = false;
      record->key = SelectorKey{-1, Interest::none, nullptr};
    }
  };
  Undo undo{&record};
  record.key = SelectorKey{fd, interest, data};
  record.is_registered = true;
  if (const std::error_code error = attach(fd, record)) return error;
  undo.record = nullptr;
  ++size_;
  return {};
}

std::error_code Selector::attach(int fd, Record& record) {
  const bool backend_sees_fd = closed_fd_check_ == ClosedFdCheck::by_backend;
  if (!backend_sees_fd && !System::real().is_open(fd)) return system_error_code(EBADF);
  const int error = change(fd, Interest::none, record.key.interest);
  if (error == EPERM) {
    always_ready_.push_back(fd);
    record.is_always_ready = true;
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
  if (!is_supported(interest)) return std::make_error_code(std::errc::operation_not_supported);
  record->key.interest = interest;
  record->key.data = data;
  if (std::exchange(record->is_hang_up_told, false)) record->is_unapplied = true;
  if (needs_change(*record)) queue_change(fd, *record);
  return {};
}

/// Takes no memory: there is room for each registered one, once.
void Selector::queue_change(int fd, Record& record) {
  if (std::exchange(record.is_change_queued, true)) return;
  changed_.push_back(fd);
}

std::error_code Selector::remove(int fd) {
  if (is_forked_child()) return Errc::used_after_fork;
  Record* record = find(fd);
  if (record == nullptr) return Errc::not_registered;
  record->is_registered = false;
  record->key = SelectorKey{-1, Interest::none, nullptr};
  --size_;
  if (record->is_always_ready) {
    always_ready_.erase(std::find(always_ready_.begin(), always_ready_.end(), fd));
  } else {
    change(fd, record->applied, Interest::none);
  }
  return {};
}

std::error_code Selector::select(std::optional<Duration> timeout, std::vector<Ready>& ready) {
  ready.clear();
  if (is_forked_child()) return Errc::used_after_fork;
  ready_ = &ready;
  try {
    const std::error_code error = select_reported(timeout);
    ready_ = nullptr;
    return error;
  } catch (...) {
    ready_ = nullptr;
    take_back(ready);
    throw;
  }
}

/// `select`, into `ready_`.
std::error_code Selector::select_reported(std::optional<Duration> timeout) {
  std::vector<Ready>& ready = *ready_;
  if (!changed_.empty()) apply_changes();
  // What was found closed is told first; the next one tries again, and tells of the shortage.
  const int error = std::exchange(shortage_, 0);
  if (error != 0 && ready.empty()) return system_error_code(error);
  if (!always_ready_.empty()) report_always_ready();
  if (!ready.empty()) timeout = Duration::zero();
  return wait_until_ready(timeout);
}

/// Nobody gets these. What is told but once is told again.
void Selector::take_back(std::vector<Ready>& ready) {
  for (const Ready& one : ready) {
    Record* record = find(one.key.fd);
    if (record == nullptr || (one.events != Interest::none && !record->is_closed)) continue;
    record->is_closed = false;
    apply_again(one.key.fd);
  }
  ready.clear();
}

std::error_code Selector::wait_until_ready(std::optional<Duration> timeout) {
  const bool is_finite = timeout && *timeout > Duration::zero();
  const TimePoint end =
      is_finite ? add_saturated(System::real().now(), *timeout) : TimePoint::max();
  if (timeout && !is_finite) timeout = Duration::zero();
  for (;;) {
    const int error = wait(timeout);
    if (!ready_->empty()) return {};
    if (error != 0 && error != EINTR) return system_error_code(error);
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
    const Interest interest = records_[static_cast<std::size_t>(fd)].key.interest;
    return (interest & Interest::read_write) != Interest::none;  // urgent is none of them
  });
}

void Selector::apply_changes() {
  struct Rest {  // where one throws, those that are left stay queued
    Selector& selector;
    std::size_t done = 0;
    ~Rest() {
      std::vector<int>& all = selector.applying_;
      while (done < all.size()) selector.changed_.push_back(all[done++]);
      all.clear();
    }
  };
  applying_.swap(changed_);
  Rest rest{*this};
  for (; rest.done < applying_.size(); ++rest.done) {
    const int fd = applying_[rest.done];
    Record& record = records_[static_cast<std::size_t>(fd)];
    if (!needs_change(record)) {
      record.is_change_queued = false;
    } else {
      apply(fd, record);
    }
  }
}

void Selector::apply(int fd, Record& record) {
  int error = 0;
  if (!record.is_always_ready && !record.is_closed) {
    error = change(fd, record.applied, record.key.interest);
  }
  // Anything else, such as the kernel's want of memory or its limit of watches (epoll_ctl(2)), says
  // nothing of the descriptor.
  const bool is_closed = says_closed(error);
  const bool is_always_ready = error == EPERM;
  if (is_always_ready) always_ready_.push_back(fd);
  if (is_closed && ready_ != nullptr) report_closed(fd);
  record.is_change_queued = false;
  if (error == 0 || is_always_ready || (is_closed && ready_ != nullptr)) {
    record.applied = record.key.interest;
    record.is_unapplied = false;
    record.is_always_ready |= is_always_ready;
    return;
  }
  if (!is_closed) shortage_ = error;
  queue_change(fd, record);  // flush() has nobody to tell; select() will try again
}

bool Selector::says_closed(int error) {
  return error == EBADF || error == ENOENT || error == EINVAL || error == ELOOP;
}

void Selector::apply_again(int fd) {
  Record* record = find(fd);
  if (record == nullptr) return;
  record->is_hang_up_told = false;
  record->is_unapplied = true;
  queue_change(fd, *record);
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
  report(fd, ~Interest::none, record->generation);
  record->is_closed = true;
  change(fd, record->applied, Interest::none);
}

/// Nothing in `events` is waited for.
bool Selector::report_unwanted(Record& record, Interest events) {
  if (record.key.interest != Interest::none) return true;
  const bool is_due = record.is_registered && !record.is_hang_up_told && has(events, hang_up);
  if (!is_due) return false;
  record.is_hang_up_told = true;
  try {
    ready_->emplace_back(NewReady{record.key, Interest::none});
  } catch (const std::bad_alloc&) {
    apply_again(record.key.fd);  // the kernel won't say it a second time by itself
    throw;
  }
  return false;
}

bool Selector::is_watched(int fd) const {
  const Record* record = find(fd);
  return record != nullptr && !record->is_closed;
}

bool Selector::awaits_hang_up(int fd) const {
  const Record* record = find(fd);
  return record != nullptr && !record->is_closed && !record->is_hang_up_told &&
         record->key.interest == Interest::none;
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
