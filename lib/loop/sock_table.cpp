// SPDX-License-Identifier: MIT
// Traps: epoll forgets a descriptor that is closed without a word, so they are looked after; user
// code may start the next operation on the same descriptor, cancel any, or throw.
#include "loop/sock_table.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "loop/loop_parts.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr Duration between_checks = std::chrono::seconds(1);

}  // namespace

/// A descriptor with one operation that reads, one that writes, or both.
class SockTable::Watch final : public IoHandler {
 public:
  Watch(SockTable& its_table, EventLoop& its_loop, int its_fd)
      : loop(its_loop),
        fd(its_fd),
        table_(its_table),
        inode_(its_loop.system().inode(its_fd).value) {}

  void on_ready(Interest events) override { table_.on_ready(*this, events); }
  std::string describe() const override {
    std::string text;
    if (reader != nullptr) text += reader->name();
    if (reader != nullptr && writer != nullptr) text += " and ";
    if (writer != nullptr) text += writer->name();
    return text;
  }
  std::shared_ptr<SockOperation>& side(Interest which) {
    return which == Interest::read ? reader : writer;
  }
  /// True exactly when the number still stands for the same file.
  bool is_current() const {
    const SystemResult now = loop.system().inode(fd);
    return now.ok() && now.value == inode_;
  }

  EventLoop& loop;
  const int fd;
  std::shared_ptr<SockOperation> reader;
  std::shared_ptr<SockOperation> writer;
  Interest interest = Interest::none;  // what the loop was told
  bool is_registered = false;          // true exactly while the loop knows it

 private:
  SockTable& table_;
  const std::int64_t inode_;
};

/// An operation on its way to its callback. If that never comes, because the loop goes, the
/// callback is destroyed.
class SockTable::Delivery {
 public:
  explicit Delivery(std::shared_ptr<SockOperation> operation) : operation_(std::move(operation)) {}
  Delivery(Delivery&&) noexcept = default;
  Delivery& operator=(Delivery&&) = delete;
  ~Delivery() {
    if (operation_ == nullptr || operation_->phase != SockOperation::Phase::over) return;
    operation_->phase = SockOperation::Phase::told;
    operation_->drop();
  }
  void operator()() { tell(*operation_); }

 private:
  std::shared_ptr<SockOperation> operation_;
};

SockTable::Watch* SockTable::find(int fd) {
  const auto index = static_cast<std::size_t>(fd);
  return fd >= 0 && index < watches_.size() ? watches_[index].get() : nullptr;
}

/// What is known to be wrong before anything is tried.
std::error_code SockTable::refusal(SockOperation& operation) {
  EventLoop& loop = operation.loop();
  const SystemResult mode = loop.system().is_non_blocking(operation.fd());
  if (!mode.ok()) return mode.code();
  if (mode.value == 0) return std::make_error_code(std::errc::invalid_argument);
  Watch* watch = find(operation.fd());
  if (watch != nullptr && !watch->is_current()) {
    fail_all(*watch, system_error_code(EBADF));
    watch = nullptr;
  }
  if (watch == nullptr) {
    const bool is_taken = loop.selector().get_key(operation.fd()) != nullptr;
    return is_taken ? make_error_code(Errc::already_registered) : std::error_code();
  }
  const bool is_taken = watch->side(operation.side()) != nullptr;
  return is_taken ? make_error_code(Errc::already_registered) : std::error_code();
}

void SockTable::start(const std::shared_ptr<SockOperation>& operation) {
  if (is_closed_) return operation->drop();
  if (const std::error_code error = refusal(*operation)) return tell_later(operation, error);
  if (operation->side() == Interest::write && operation->attempt()) {
    return tell_later(operation, {});
  }
  const auto index = static_cast<std::size_t>(operation->fd());
  if (index >= watches_.size()) watches_.resize(std::max(index + 1, 2 * watches_.size()));
  std::shared_ptr<Watch>& watch = watches_[index];
  if (watch == nullptr) {
    watch = std::make_shared<Watch>(*this, operation->loop(), operation->fd());
    ++count_;
  }
  watch->side(operation->side()) = operation;
  if (operation->side() == Interest::write) return wait(operation);
  operation->soon =
      operation->loop().call_soon([this, operation] { begin(operation); }, operation->place());
}

/// The first try of one that reads.
void SockTable::begin(const std::shared_ptr<SockOperation>& operation) {
  if (!operation->attempt()) return wait(operation);
  leave(*operation);
  tell(*operation);
}

void SockTable::wait(const std::shared_ptr<SockOperation>& operation) {
  Watch& watch = *find(operation->fd());
  const Interest wanted = watch.interest | operation->side();
  std::error_code error;
  if (watch.is_registered) {
    error = watch.loop.modify_handler(watch.fd, wanted);
  } else {
    error = watch.loop.add_handler(watch.fd, wanted, watch, operation->place());
  }
  if (error) {
    leave(*operation);
    return tell_later(operation, error);
  }
  watch.is_registered = true;
  watch.interest = wanted;
  watch_for_closed_ones(watch.loop, operation->place());
}

void SockTable::on_ready(Watch& ready, Interest events) {
  const std::shared_ptr<Watch> watch = watches_[static_cast<std::size_t>(ready.fd)];
  // select and poll go by numbers, and tell of a stranger that got this one.
  if (!watch->is_current()) return fail_all(*watch, system_error_code(EBADF));
  for (const Interest side : {Interest::read, Interest::write}) {
    const std::shared_ptr<SockOperation> operation = watch->side(side);
    const bool is_due = has(events, side) && has(watch->interest, side) && operation != nullptr;
    if (!is_due || !operation->attempt()) continue;
    leave(*operation);
    tell(*operation);
    if (find(watch->fd) != watch.get()) return;  // whoever waits there now wasn't meant
  }
}

/// It doesn't wait any more.
void SockTable::leave(SockOperation& operation) {
  Watch* watch = find(operation.fd());
  if (watch == nullptr || watch->side(operation.side()).get() != &operation) return;
  const std::shared_ptr<SockOperation> kept = std::exchange(watch->side(operation.side()), nullptr);
  watch->interest &= ~operation.side();
  settle(*watch);
}

void SockTable::settle(Watch& watch) {
  if (watch.reader != nullptr || watch.writer != nullptr) {
    if (watch.is_registered) watch.loop.modify_handler(watch.fd, watch.interest);
    return;
  }
  if (watch.is_registered) watch.loop.remove_handler(watch.fd);
  --count_;
  if (count_ == 0) {
    check_.cancel();
    is_checking_ = false;
  }
  watches_[static_cast<std::size_t>(watch.fd)].reset();
}

void SockTable::tell(SockOperation& operation) {
  operation.phase = SockOperation::Phase::told;
  operation.tell();
}

/// No error: it has one of its own, or none.
void SockTable::tell_later(const std::shared_ptr<SockOperation>& operation, std::error_code error) {
  if (error) operation->set_error(error);
  operation->phase = SockOperation::Phase::over;
  operation->soon = operation->loop().call_soon(Delivery(operation), operation->place());
}

void SockTable::cancel(SockOperation& operation) {
  const bool is_pending = operation.phase == SockOperation::Phase::waiting ||
                          operation.phase == SockOperation::Phase::over;
  if (!is_pending) return;
  const std::shared_ptr<SockOperation> kept = operation.shared_from_this();
  operation.phase = SockOperation::Phase::cancelled;
  operation.soon.cancel();
  if (!is_closed_) leave(operation);
  operation.drop();
}

void SockTable::clear() {
  is_closed_ = true;
  check_.cancel();
  for (const std::shared_ptr<Watch>& watch : watches_) {
    if (watch == nullptr) continue;
    for (const Interest side : {Interest::read, Interest::write}) {
      const std::shared_ptr<SockOperation> operation = std::exchange(watch->side(side), nullptr);
      if (operation == nullptr) continue;
      operation->phase = SockOperation::Phase::told;
      operation->drop();
    }
  }
}

// Closed descriptors

void SockTable::watch_for_closed_ones(EventLoop& loop, Place place) {
  if (is_checking_) return;
  is_checking_ = true;
  check_ = loop.call_later(
      between_checks, [this, &loop] { fail_closed_ones(loop); }, place);
}

void SockTable::fail_closed_ones(EventLoop& loop) {
  is_checking_ = false;
  for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
    Watch* watch = watches_[fd].get();
    if (watch != nullptr && !watch->is_current()) fail_all(*watch, system_error_code(EBADF));
  }
  if (count_ > 0) watch_for_closed_ones(loop, Place::here());
}

void SockTable::fail_all(Watch& watch, std::error_code error) {
  for (const std::shared_ptr<SockOperation>& operation :
       {std::shared_ptr<SockOperation>(watch.reader),
        std::shared_ptr<SockOperation>(watch.writer)}) {
    if (operation == nullptr) continue;
    leave(*operation);
    tell_later(operation, error);
  }
}

}  // namespace pawl
