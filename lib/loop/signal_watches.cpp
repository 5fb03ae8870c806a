// SPDX-License-Identifier: MIT
#include "loop/signal_watches.hpp"

#include <algorithm>
#include <utility>

#include "loop/signal_hub.hpp"
#include "pawl/core/error.hpp"

namespace pawl {
namespace {

int lowest_signal(std::uint64_t set) { return __builtin_ctzll(set) + 1; }

}  // namespace

std::vector<SignalWatches::Watch>::iterator SignalWatches::find(int signal) {
  return std::find_if(watches_.begin(), watches_.end(),
                      [=](const Watch& watch) { return watch.signal == signal; });
}

std::error_code SignalWatches::add(int signal, Function<void()> callback, Place place) {
  if (runner_.is_forked_child()) return Errc::used_after_fork;
  CallbackPool::Taken slot(pool_, pool_.take(CallbackKind::signal, std::move(callback), place));
  const auto known = find(signal);
  if (known != watches_.end()) {
    pool_.discard(std::exchange(known->slot, slot.take()));
    return {};
  }
  watches_.reserve(watches_.size() + 1);
  if (const std::error_code error = signal_hub::add(signal, mailbox_)) return error;
  watches_.push_back(Watch{signal, slot.take()});
  return {};
}

bool SignalWatches::remove(int signal) {
  const auto known = find(signal);
  if (known == watches_.end()) return false;
  // In a child the hub is another one, which has never heard of this loop.
  if (!runner_.is_forked_child()) signal_hub::remove(signal, mailbox_);
  CallbackSlot* slot = known->slot;
  watches_.erase(known);
  pool_.discard(slot);
  return true;
}

void SignalWatches::run(std::uint64_t set) {
  while (set != 0 && !runner_.is_forked_child()) {
    const auto known = find(lowest_signal(set));
    set &= set - 1;
    if (known == watches_.end()) continue;
    CallbackSlot* slot = known->slot;
    const CallbackPool::Hold hold(pool_, slot);  // it may remove itself
    try {
      runner_.run(slot);
    } catch (...) {
      for (; set != 0; set &= set - 1) mailbox_.raise(lowest_signal(set));  // for the next pass
      throw;
    }
  }
}

std::string SignalWatches::describe_live() const {
  std::string text;
  for (const Watch& watch : watches_) {
    text += describe(*watch.slot) + ", signal " + std::to_string(watch.signal) + "\n";
  }
  return text;
}

void SignalWatches::clear() {
  while (!watches_.empty()) remove(watches_.back().signal);
}

}  // namespace pawl
