// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <utility>
#include <vector>

namespace pawl {

/// What higher floors keep with a loop: one object of each type, made when it is first asked for.
///
/// Owns:    the objects; the last made goes first.
/// Threads: the loop's.
class LoopServices {
 public:
  LoopServices() = default;
  LoopServices(const LoopServices&) = delete;
  LoopServices& operator=(const LoopServices&) = delete;
  ~LoopServices() { clear(); }

  /// The loop's `Service`, made with `arguments` when there is none yet.
  template <typename Service, typename... Arguments>
  Service& of(Arguments&... arguments) {
    for (const Slot& slot : slots_) {
      if (slot.tag == &tag<Service>) return *static_cast<Service*>(slot.service.get());
    }
    slots_.reserve(slots_.size() + 1);
    auto service = std::make_unique<Service>(arguments...);
    Service& made = *service;
    slots_.push_back(Slot{&tag<Service>, Erased(service.release(), [](void* erased) {
                            delete static_cast<Service*>(erased);
                          })});
    return made;
  }

  void clear() {
    while (!slots_.empty()) {
      const Slot last = std::move(slots_.back());
      slots_.pop_back();
    }
  }

 private:
  using Erased = std::unique_ptr<void, void (*)(void*)>;

  struct Slot {
    const char* tag;
    Erased service;
  };

  template <typename Service>
  static constexpr char tag = 0;  // whose address stands for the type

  std::vector<Slot> slots_;
};

}  // namespace pawl
