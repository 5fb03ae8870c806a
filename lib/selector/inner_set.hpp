// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "pawl/core/time.hpp"
#include "pawl/selector/selector.hpp"

namespace pawl {

/// What a selector's own interface to the kernel can't show: an epoll selector inside of it, whose
/// descriptor it watches for reading beside the others.
///
/// poll(2) repeats a hang-up for ever, and select(2) and libev show none, when nothing is waited
/// for. Where no epoll descriptor can be had, there is no such set.
class InnerSet {
 public:
  InnerSet() { make(); }

  /// False when there is none, and none can be made.
  bool is_there() { return selector_ != nullptr || make(); }

  /// Readable while something in the set has to be told; -1 when there is no set.
  int fileno() const { return fileno_; }
  Selector* selector() const { return selector_.get(); }

  /// Takes `fd` in, or changes it. Returns an errno.
  int watch(int fd, Interest interest) {
    const bool is_there = selector_->get_key(fd) != nullptr;
    return (is_there ? selector_->modify(fd, interest) : selector_->add(fd, interest)).value();
  }
  void forget(int fd) {
    if (selector_ != nullptr) selector_->remove(fd);
  }

  /// Before a wait. True exactly when something has to be told at once.
  bool flush() { return selector_ != nullptr && selector_->flush(); }
  /// After a wait: calls `report(fd, events)` for what has to be told, with `Interest::none` for a
  /// hang-up. Returns an errno.
  template <typename Report>
  int look(Report report) {
    const std::error_code error = selector_->select(Duration::zero(), ready_);
    try {
      for (const Ready& one : ready_) report(one.key.fd, one.events);
    } catch (const std::bad_alloc&) {  // nobody got them, so they are to be told again
      for (const Ready& one : ready_) selector_->modify(one.key.fd, one.key.interest);
      throw;
    }
    return error.value();
  }

 private:
  bool make();

  std::unique_ptr<Selector> selector_;
  std::vector<Ready> ready_;
  int fileno_ = -1;
};

}  // namespace pawl
