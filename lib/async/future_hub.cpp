// SPDX-License-Identifier: MIT
#include "async/future_hub.hpp"

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "loop/loop_parts.hpp"
#include "pawl/async/task_base.hpp"

namespace pawl {
namespace {

/// The loop's part of the hub.
class HubService {
 public:
  explicit HubService(EventLoop& loop) : hub_(make(loop)) {
    loop.parts().describers.emplace_back(
        [&hub = hub_](TimePoint now) { return TaskBase::describe_all(hub, now); });
  }
  HubService(const HubService&) = delete;
  HubService& operator=(const HubService&) = delete;
  ~HubService() {
    hub_.loop().parts().describers.clear();
    hub_.close();
  }

  FutureHub& hub() const { return hub_; }

 private:
  static FutureHub& make(EventLoop& loop) {
    auto& describers = loop.parts().describers;
    describers.reserve(describers.size() + 1);
    return *new FutureHub(loop);
  }

  FutureHub& hub_;
};

}  // namespace

FutureHub::FutureHub(EventLoop& loop) : loop_(loop), is_debug_(loop.is_debug()) {}

FutureHub& FutureHub::of(EventLoop& loop) {
  return loop.parts().services.of<HubService>(loop).hub();
}

void FutureHub::close() noexcept {
  is_closed_ = true;
  ++live_;  // this function
  while (!tasks_.is_alone()) TaskBase::of_link(*tasks_.next).abandon();
  while (!closing_.is_alone()) {
    FutureCore& core = static_cast<FutureCore&>(*closing_.next);
    core.unlink();
    const FutureRef<FutureCore> keep(&core);
    core.on_loop_closed();
  }
  loop_.parts().retries.remove(retry_);
  drop_posted(posted_);
  drop_posted(unqueued_);
  try {
    say_reports();
  } catch (...) {  // the sink's; there is no run() left that it could leave
  }
  if (--live_ == 0) delete this;
}

void FutureHub::drop_posted(FutureLink& ring) noexcept {
  while (!ring.is_alone()) {
    FutureCore& core = static_cast<FutureCore&>(*ring.next);
    core.unlink();
    core.is_posted_ = false;
    drop_waiters(core);
    core.release();
  }
}

void FutureHub::post(FutureCore& core) noexcept {
  const bool is_first = unqueued_.is_alone();
  core.link_before(unqueued_);
  if (!is_first) return;  // behind those that are to be tried again
  try {
    queue_posted();
  } catch (const std::bad_alloc&) {
    loop_.parts().retries.add(retry_);
  } catch (const std::logic_error&) {  // on a wrong thread, in a destructor: debug mode has said so
    loop_.parts().retries.add(retry_);
    loop_.parts().mailbox->wake();
  }
}

void FutureHub::queue_posted() {
  while (!unqueued_.is_alone()) {
    FutureCore& core = static_cast<FutureCore&>(*unqueued_.next);
    loop_.call_soon(FutureCore::PostedWaiters(core), core.place());
    core.unlink();
    core.link_before(posted_);
  }
}

void FutureHub::throw_if_wrong_thread(const char* operation) const {
  loop_.parts().refuse_wrong_thread(operation);
}

void FutureHub::report_wrong_thread(const char* operation) const noexcept {
  if (!is_closed_) loop_.parts().tell_wrong_thread(operation);
}

void* FutureHub::allocate(std::size_t bytes, std::size_t alignment) {
  refuse_wrong_thread("what makes a future or waits for one was");
  const std::size_t size_class = (bytes - 1) / class_bytes;
  ++live_;
  try {
    if (alignment > alignof(std::max_align_t)) {
      return ::operator new(bytes, std::align_val_t(alignment));
    }
    if (size_class >= class_count) return ::operator new(bytes);
    if (free_[size_class] == nullptr) take_chunk(size_class);
  } catch (...) {
    --live_;
    throw;
  }
  Free* memory = free_[size_class];
  free_[size_class] = memory->next;
  return memory;
}

void FutureHub::take_chunk(std::size_t size_class) {
  const std::size_t bytes = (size_class + 1) * class_bytes;
  chunks_.reserve(chunks_.size() + 1);
  chunks_.emplace_back(new std::byte[chunk_bytes]);
  std::byte* chunk = chunks_.back().get();
  for (std::size_t at = chunk_bytes / bytes; at-- > 0;) {
    free_[size_class] = ::new (chunk + at * bytes) Free{free_[size_class]};
  }
}

void FutureHub::free(void* memory, std::size_t bytes, std::size_t alignment) noexcept {
  const std::size_t size_class = (bytes - 1) / class_bytes;
  if (alignment > alignof(std::max_align_t)) {
    ::operator delete(memory, std::align_val_t(alignment));
  } else if (size_class >= class_count) {
    ::operator delete(memory);
  } else {
    free_[size_class] = ::new (memory) Free{free_[size_class]};
  }
  if (--live_ == 0 && is_closed_) delete this;
}

void FutureHub::bury(FutureCore& core) noexcept {
  if (is_burying_) return core.link_before(dying_);
  is_burying_ = true;
  ++live_;
  bury_now(core);
  while (!dying_.is_alone()) {
    FutureCore& next = static_cast<FutureCore&>(*dying_.next);
    next.unlink();
    bury_now(next);
  }
  is_burying_ = false;
  if (--live_ == 0 && is_closed_) delete this;
}

void FutureHub::bury_now(FutureCore& core) noexcept {
  core.is_buried_ = true;
  const bool is_unseen = core.status_ == FutureStatus::failed && !core.is_looked_at_;
  if (is_debug_ && is_unseen) core.report_unseen();
  ++core.weak_references_;  // until its value is gone
  core.on_dispose();
  core.release_weakly();
}

void FutureHub::cancel(FutureCore& core) noexcept {
  core.retain();
  core.is_ending_ = true;
  core.unlink();
  core.link_before(cancelled_);
  if (is_cancelling_) return;
  is_cancelling_ = true;
  ++live_;
  while (!cancelled_.is_alone()) {
    FutureCore& next = static_cast<FutureCore&>(*cancelled_.next);
    next.unlink();
    next.on_cancel();
    next.is_ending_ = false;
    next.finish(FutureStatus::cancelled);
    next.release();
  }
  is_cancelling_ = false;
  if (--live_ == 0 && is_closed_) delete this;
}

void FutureHub::drop_waiters(FutureCore& core) noexcept {
  core.retain();
  core.link_before(dropped_);
  if (is_dropping_) return;
  is_dropping_ = true;
  ++live_;
  while (!dropped_.is_alone()) {
    FutureCore& next = static_cast<FutureCore&>(*dropped_.next);
    next.unlink();
    next.drop_waiters();
    next.release();
  }
  is_dropping_ = false;
  if (--live_ == 0 && is_closed_) delete this;
}

void FutureHub::report(std::string line) {
  if (is_closed_ && closing_.is_alone()) return;  // and with the loop whoever listened
  reports_.reserve(reports_.size() + 1);
  if (!is_closed_ && reports_.empty()) loop_.call_soon([this] { say_reports(); });
  reports_.push_back(std::move(line));
}

void FutureHub::say_reports() {
  const std::vector<std::string> reports = std::move(reports_);
  reports_.clear();
  for (const std::string& line : reports) {
    loop_.report(line);
    if (loop_.parts().is_forked_child()) return;  // the others are the parent's alone
  }
}

}  // namespace pawl
