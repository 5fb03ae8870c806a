// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pawl {

/// Who has something to finish before the loop polls again: a member function of each is called
/// once. It must not run user code.
///
/// Threads: the loop's.
class PassEndList {
 public:
  /// A place in the list; 0 is none.
  using Position = std::uint32_t;

  bool empty() const { return entries_.empty(); }

  /// There will be one more for whom `add_enlisted` wants no memory. Throws `std::bad_alloc`.
  void enlist() {
    make_room(entries_.size() + members_ + 1);
    ++members_;
  }
  /// One that was enlisted goes.
  void resign(Position position) noexcept {
    remove(position);
    --members_;
  }

  /// Calls `(object.*function)()` before the loop polls, unless it is removed before.
  template <auto function, typename Object>
  Position add(Object& object) {
    make_room(entries_.size() + members_ + 1);
    return add_enlisted<function>(object);
  }
  /// The same, for one that is enlisted and isn't in the list.
  template <auto function, typename Object>
  Position add_enlisted(Object& object) noexcept {
    entries_.push_back(Entry{&object, [](void* it) { (static_cast<Object*>(it)->*function)(); }});
    return static_cast<Position>(entries_.size());
  }

  void remove(Position position) noexcept {
    if (position != 0) entries_[position - 1] = Entry{};
  }

  void run() {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      // Taken out first: who has been called may be gone when the list is next looked at.
      const Entry entry = std::exchange(entries_[i], Entry{});
      if (entry.object != nullptr) entry.call(entry.object);
    }
    entries_.clear();
  }

 private:
  struct Entry {
    void* object = nullptr;
    void (*call)(void*) = nullptr;
  };

  void make_room(std::size_t count) {
    if (count > entries_.capacity()) entries_.reserve(2 * count);
  }

  std::vector<Entry> entries_;
  std::size_t members_ = 0;  // there is always room for each of them
};

}  // namespace pawl
