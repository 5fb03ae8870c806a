// SPDX-License-Identifier: MIT
#include "async/future_hub.hpp"

#include <new>
#include <utility>

#include "loop/loop_parts.hpp"
#include "pawl/async/task_base.hpp"

namespace pawl {
namespace {

/// The loop's part of the hub.
class HubService {
 public:
  explicit HubService(EventLoop& loop) : hub_(*new FutureHub(loop)) {
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
  while (!posted_.is_alone()) {
    FutureCore& core = static_cast<FutureCore&>(*posted_.next);
    core.unlink();
    drop_waiters(core);
    core.release();
  }
  try {
    say_reports();
  } catch (...) {  // the sink's; there is no run() left that it could leave
  }
  if (--live_ == 0) delete this;
}

void* FutureHub::allocate(std::size_t bytes, std::size_t alignment) {
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

void FutureHub::cancel(FutureCore& core) {
  cancelled_.emplace_back(&core);
  if (is_cancelling_) return;
  is_cancelling_ = true;
  while (!cancelled_.empty()) {
    const FutureRef<FutureCore> next = std::move(cancelled_.front());
    cancelled_.pop_front();
    next->on_cancel();
    next->finish(FutureStatus::cancelled);
  }
  is_cancelling_ = false;
}

void FutureHub::drop_waiters(FutureCore& core) noexcept {
  dropped_.emplace_back(&core);
  if (is_dropping_) return;
  is_dropping_ = true;
  ++live_;
  while (!dropped_.empty()) {
    const FutureRef<FutureCore> next = std::move(dropped_.front());
    dropped_.pop_front();
    next->drop_waiters();
  }
  is_dropping_ = false;
  if (--live_ == 0 && is_closed_) delete this;
}

void FutureHub::report(std::string line) noexcept {
  if (is_closed_ && closing_.is_alone()) return;  // and with the loop whoever listened
  reports_.push_back(std::move(line));
  if (is_closed_) return;
  if (reports_.size() == 1) loop_.call_soon([this] { say_reports(); });
}

void FutureHub::say_reports() {
  const std::vector<std::string> reports = std::move(reports_);
  reports_.clear();
  for (const std::string& line : reports) loop_.report(line);
}

}  // namespace pawl
