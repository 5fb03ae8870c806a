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

  /// Calls `(object.*function)()` before the loop polls, unless it is removed before.
  template <auto function, typename Object>
  Position add(Object& object) {
    entries_.push_back(Entry{&object, [](void* it) { (static_cast<Object*>(it)->*function)(); }});
    return static_cast<Position>(entries_.size());
  }

  void remove(Position position) {
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

  std::vector<Entry> entries_;
};

}  // namespace pawl
