// SPDX-License-Identifier: MIT
#include "loop/watch_table.hpp"

#include <algorithm>
#include <stdexcept>

#include "loop/age.hpp"

namespace pawl {

void* WatchTable::token(const Watch& watch) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(watch.generation));
}

CallbackSlot*& WatchTable::side_of(Watch& watch, Interest side) {
  return side == Interest::read ? watch.reader : watch.writer;
}

WatchTable::Watch* WatchTable::find(int fd) {
  if (fd < 0 || static_cast<std::size_t>(fd) >= watches_.size()) return nullptr;
  return at(fd).is_used() ? &at(fd) : nullptr;
}

/// As far as the selector, which doubles what it has.
void WatchTable::grow() {
  const auto needed = static_cast<std::size_t>(selector_.fd_limit());
  if (needed <= watches_.size()) return;
  watches_.reserve(needed);  // exactly: resize() alone would double again
  watches_.resize(needed);
}

std::error_code WatchTable::start(int fd, Interest interest, Place place, TimePoint now) {
  const std::uint32_t generation = ++next_generation_;
  const auto data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(generation));
  if (const std::error_code error = selector_.add(fd, interest, data)) return error;
  try {
    grow();
  } catch (...) {
    selector_.remove(fd);
    throw;
  }
  Watch& watch = at(fd);
  watch = Watch{};
  watch.generation = generation;
  watch.interest = interest;
  watch.file = place.file;
  watch.line = place.line;
  watch.since = now;
  if (file_source_ != nullptr) watch.inode = file_source_->inode(fd).value;
  return {};
}

void WatchTable::stop(int fd, Watch& watch) {
  if (watch.keeps_alive) --live_count_;
  watch = Watch{};
  selector_.remove(fd);
}

std::error_code WatchTable::add_callback(int fd, Interest side, Function<void()> callback,
                                         Place place, TimePoint now) {
  const auto kind = side == Interest::read ? CallbackKind::reader : CallbackKind::writer;
  Watch* watch = find(fd);
  if (watch != nullptr && watch->handler != nullptr) return Errc::already_registered;
  CallbackPool::Taken slot(pool_, pool_.take(kind, std::move(callback), place));
  if (watch == nullptr) {
    if (const std::error_code error = start(fd, side, place, now)) return error;
    watch = &at(fd);
    watch->keeps_alive = true;
    ++live_count_;
  } else if (!has(watch->interest, side)) {
    if (const std::error_code error = selector_.modify(fd, watch->interest | side, token(*watch))) {
      return error;
    }
    watch->interest |= side;
  }
  CallbackSlot* old = std::exchange(side_of(*watch, side), slot.take());
  if (old != nullptr) pool_.discard(old);
  return {};
}

bool WatchTable::remove_callback(int fd, Interest side) {
  Watch* watch = find(fd);
  if (watch == nullptr || side_of(*watch, side) == nullptr) return false;
  CallbackSlot* old = std::exchange(side_of(*watch, side), nullptr);
  watch->interest &= ~side;
  if (watch->is_used()) {
    selector_.modify(fd, watch->interest, token(*watch));
  } else {
    stop(fd, *watch);
  }
  pool_.discard(old);
  return true;
}

std::error_code WatchTable::add_handler(int fd, Interest interest, IoHandler& handler,
                                        bool keeps_alive, Place place, TimePoint now) {
  if (find(fd) != nullptr) return Errc::already_registered;
  if (const std::error_code error = start(fd, interest, place, now)) return error;
  Watch& watch = at(fd);
  watch.handler = &handler;
  watch.keeps_alive = keeps_alive;
  if (keeps_alive) ++live_count_;
  return {};
}

std::error_code WatchTable::modify_handler(int fd, Interest interest) {
  Watch* watch = find(fd);
  if (watch == nullptr || watch->handler == nullptr) return Errc::not_registered;
  if (watch->interest == interest) return {};
  watch->interest = interest;
  return selector_.modify(fd, interest, token(*watch));
}

bool WatchTable::remove_handler(int fd) {
  Watch* watch = find(fd);
  if (watch == nullptr || watch->handler == nullptr) return false;
  stop(fd, *watch);
  return true;
}

void WatchTable::let_loop_end(int fd) {
  Watch* watch = find(fd);
  if (watch == nullptr || !watch->keeps_alive) return;
  watch->keeps_alive = false;
  --live_count_;
}

WatchTable::Watch* WatchTable::current(const Ready& ready) {
  Watch& watch = at(ready.key.fd);
  return token(watch) == ready.key.data ? &watch : nullptr;  // one that isn't used has none
}

void WatchTable::dispatch(std::vector<Ready>& ready) {
  // A user's own registrations with the selector may lie beyond the table; none of them is ours.
  if (static_cast<std::size_t>(selector_.fd_limit()) > watches_.size()) drop_strangers(ready);
  const bool is_timed = runner_.is_debug();
  const unsigned char* const mark = runner_.fork_mark();  // here, as each event asks it
  const auto is_forked_child = [mark] { return __builtin_expect(*mark == 0, false); };
  const Ready* event = ready.data();
  const Ready* const end = event + ready.size();
  try {
    for (; event != end; ++event) {
      const Watch* watch = current(*event);
      if (watch == nullptr) continue;
      if (watch->handler == nullptr) {
        run_side(*event, Interest::read);
        if (!is_forked_child()) run_side(*event, Interest::write);
      } else if (const Interest events = event->events & watch->interest;
                 events != Interest::none) {
        run_handler(*watch, events, is_timed);
      } else {
        run_hang_up(*event, is_timed);
      }
      if (is_forked_child()) return;
    }
  } catch (...) {
    tell_again(event + 1, end);
    throw;
  }
}

/// An exception ends the pass before these were told. The selector repeats what is waited for by
/// itself; a hang-up it tells but once.
void WatchTable::tell_again(const Ready* event, const Ready* end) noexcept {
  for (; event != end; ++event) {
    const Watch* watch = event->events == Interest::none ? find(event->key.fd) : nullptr;
    if (watch == nullptr || token(*watch) != event->key.data) continue;
    if (watch->interest == Interest::none) {
      selector_.modify(event->key.fd, Interest::none, event->key.data);
    }
  }
}

void WatchTable::drop_strangers(std::vector<Ready>& ready) const {
  const auto is_beyond = [this](const Ready& each) {
    return static_cast<std::size_t>(each.key.fd) >= watches_.size();
  };
  ready.erase(std::remove_if(ready.begin(), ready.end(), is_beyond), ready.end());
}

inline void WatchTable::run_handler(const Watch& watch, Interest events, bool is_timed) {
  IoHandler* handler = watch.handler;
  if (__builtin_expect(is_timed, false)) return run_handler_timed(watch, events);
  try {
    handler->on_ready(events);
  } catch (...) {
    runner_.handle_exception();
  }
}

void WatchTable::run_handler_timed(const Watch& watch, Interest events) {
  IoHandler* handler = watch.handler;
  const Place place{watch.file, watch.line};
  runner_.guard_timed([=] { handler->on_ready(events); },
                      [=] { return "I/O handler registered at " + to_string(place); });
}

/// What came isn't waited for (any more), or is a hang-up, which comes to who waits for nothing.
__attribute__((noinline)) void WatchTable::run_hang_up(const Ready& ready, bool is_timed) {
  const Watch& watch = at(ready.key.fd);
  if (ready.events == watch.interest) run_handler(watch, Interest::none, is_timed);
}

void WatchTable::run_side(const Ready& ready, Interest side) {
  Watch* watch = has(ready.events, side) ? current(ready) : nullptr;
  CallbackSlot* slot = watch == nullptr ? nullptr : side_of(*watch, side);
  if (slot == nullptr) return;
  const CallbackPool::Hold hold(pool_, slot);  // it may remove itself
  runner_.run(slot);
}

std::string WatchTable::describe_live(TimePoint now) const {
  std::string text;
  for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
    const Watch& watch = watches_[fd];
    if (!watch.is_used() || !watch.keeps_alive) continue;
    const std::string suffix = ", fd " + std::to_string(fd) + ", age " + to_age(now - watch.since);
    if (watch.reader != nullptr) text += describe(*watch.reader) + suffix + "\n";
    if (watch.writer != nullptr) text += describe(*watch.writer) + suffix + "\n";
    if (watch.handler != nullptr) {
      text += watch.handler->describe() + suffix + ", registered at " +
              to_string(Place{watch.file, watch.line}) + "\n";
    }
  }
  return text;
}

void WatchTable::report_closed_ones(System& system, Reporter& reporter) {
  for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
    Watch& watch = watches_[fd];
    if (!watch.is_used() || watch.inode < 0) continue;
    const SystemResult now = system.inode(static_cast<int>(fd));
    if (now.ok() && now.value == watch.inode) continue;
    watch.inode = -1;
    reporter.say("fd " + std::to_string(fd) + " was closed" + (now.ok() ? " and opened anew" : "") +
                 " while it was watched; registered at " +
                 to_string(Place{watch.file, watch.line}) + "; remove it before closing it");
  }
}

void WatchTable::clear() {
  for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
    const int number = static_cast<int>(fd);
    remove_callback(number, Interest::read);
    remove_callback(number, Interest::write);
    remove_handler(number);
  }
}

}  // namespace pawl
