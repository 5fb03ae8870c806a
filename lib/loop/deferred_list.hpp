// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pawl {

/// Who has something to tell in the next pass, first in, first out: a member function of each is
/// called once, and may run user code. As `call_soon`, but an end wants no memory: the room is made
/// when the object begins.
///
/// Threads: the loop's.
class DeferredList {
 public:
  /// A place in the list; 0 is none.
  using Position = std::uint32_t;

  /// There will be one more who may be added. Throws `std::bad_alloc`.
  void enlist() {
    for (Half& half : halves_) reserve(half.entries, half.entries.size() + members_ + 1);
    ++members_;
  }
  /// One that was enlisted goes.
  void resign(Position position) noexcept {
    remove(position);
    --members_;
  }

  /// Calls `(object.*function)()` in the next pass, unless it is removed before. For one that is
  /// enlisted and isn't in the list.
  template <auto function, typename Object>
  Position add(Object& object) noexcept {
    std::vector<Entry>& entries = halves_[later_].entries;
    entries.push_back(Entry{&object, [](void* it) { (static_cast<Object*>(it)->*function)(); }});
    ++pending_;
    return static_cast<Position>(2 * entries.size() + later_);
  }
  void remove(Position position) noexcept {
    if (position == 0) return;
    halves_[position % 2].entries[position / 2 - 1] = Entry{};
    --pending_;
  }

  bool empty() const { return pending_ == 0; }

  /// What is in it now is what `run` calls; after an exception, the rest of the last batch.
  void begin_batch() {
    Half& due = halves_[1 - later_];
    if (due.next < due.entries.size()) return;
    due.entries.clear();
    due.next = 0;
    later_ = 1 - later_;
  }
  /// Has `guard` call each of the batch, as long as `goes_on`.
  template <typename GoesOn, typename Guard>
  void run(GoesOn goes_on, Guard guard) {
    Half& due = halves_[1 - later_];
    while (due.next < due.entries.size() && goes_on()) {
      // Taken out first: who has been called may be gone when the list is next looked at.
      const Entry entry = std::exchange(due.entries[due.next++], Entry{});
      if (entry.object == nullptr) continue;
      --pending_;
      guard([=] { entry.call(entry.object); });
    }
  }

 private:
  struct Entry {
    void* object = nullptr;
    void (*call)(void*) = nullptr;
  };
  struct Half {
    std::vector<Entry> entries;
    std::size_t next = 0;
  };

  static void reserve(std::vector<Entry>& entries, std::size_t count) {
    if (count > entries.capacity()) entries.reserve(2 * count);
  }

  std::array<Half, 2> halves_;
  std::size_t later_ = 0;  // the half that is added to; the other one is run
  std::size_t members_ = 0;
  std::size_t pending_ = 0;
};

}  // namespace pawl
