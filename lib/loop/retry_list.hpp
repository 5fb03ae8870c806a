// SPDX-License-Identifier: MIT
#pragma once

#include <new>

namespace pawl {

/// Who had no memory to post something that must not be lost: it is tried again before each poll.
///
/// Adding takes no memory, so it is for ends and destructors. While there is somebody in it the
/// loop stays alive, and waits a few milliseconds at most.
///
/// Threads: the loop's.
class RetryList {
  struct Link {
    Link* next = this;
    Link* previous = this;
  };

 public:
  /// Derived by who may have to try again. Destroying it takes it out.
  class Entry : private Link {
   public:
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   protected:
    virtual ~Entry() { leave(); }

   private:
    friend class RetryList;

    /// Tries again: posts what runs user code, and runs none itself. When it throws
    /// `std::bad_alloc` it is called again in a later pass.
    virtual void retry() = 0;

    void leave() {
      next->previous = previous;
      previous->next = next;
      next = previous = this;
    }
  };

  RetryList() = default;
  ~RetryList() {
    while (!empty()) static_cast<Entry&>(*all_.next).leave();
  }
  RetryList(const RetryList&) = delete;
  RetryList& operator=(const RetryList&) = delete;

  bool empty() const { return all_.next == &all_; }

  /// Once is enough: again, it does nothing.
  void add(Entry& entry) {
    Link& link = entry;
    if (link.next != &link) return;
    link.next = &all_;
    link.previous = all_.previous;
    link.previous->next = all_.previous = &link;
  }

  void remove(Entry& entry) { entry.leave(); }

  /// Has all try, first come, first served, as far as memory reaches.
  void run() {
    while (!empty()) {
      Entry& first = static_cast<Entry&>(*all_.next);
      try {
        first.retry();
      } catch (const std::bad_alloc&) {
        return;
      }
      first.leave();
    }
  }

 private:
  Link all_;
};

}  // namespace pawl
