// SPDX-License-Identifier: MIT
// Traps: epoll forgets a descriptor that is closed without a word, so they are looked after; user
// code may start the next operation on the same descriptor, cancel any, or throw; after a part has
// been sent, nothing may fail any more but the operation itself.
#include "loop/sock_table.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
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

/// An operation on its way to its first try, or to its callback. If that never comes, because the
/// loop goes, the callback is destroyed.
class SockTable::Delivery {
 public:
  Delivery(SockTable& table, std::shared_ptr<SockOperation> operation)
      : table_(table), operation_(std::move(operation)) {}
  Delivery(Delivery&&) noexcept = default;
  Delivery& operator=(Delivery&&) = delete;
  ~Delivery() {
    if (operation_ == nullptr || operation_->phase != SockOperation::Phase::over) return;
    operation_->phase = SockOperation::Phase::told;
    operation_->drop();
  }
  void operator()() {
    if (operation_->phase == SockOperation::Phase::over) return tell(*operation_);
    table_.begin(operation_);
  }

 private:
  SockTable& table_;
  std::shared_ptr<SockOperation> operation_;
};

ScopedHandle SockTable::make_delivery(const std::shared_ptr<SockOperation>& operation) {
  return operation->loop().call_soon(Delivery(*this, operation), operation->place());
}

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
  if (is_closed_ || operation->loop().parts().is_forked_child()) return operation->drop();
  ScopedHandle delivery = make_delivery(operation);  // first: nothing has happened if it fails
  std::error_code error = refusal(*operation);
  operation->soon = std::move(delivery);
  if (error) return finish(*operation, error);
  const bool is_writer = operation->side() == Interest::write;
  if (is_writer && try_once(*operation)) return finish(*operation, {});
  try {
    enter(operation);
    if (is_writer) error = wait(*operation);
  } catch (const std::bad_alloc&) {
    error = system_error_code(ENOMEM);
  }
  if (error) {
    leave(*operation);
    return finish(*operation, error);
  }
  if (is_writer) operation->soon.cancel();
}

/// Takes its descriptor.
void SockTable::enter(const std::shared_ptr<SockOperation>& operation) {
  const auto index = static_cast<std::size_t>(operation->fd());
  if (index >= watches_.size()) watches_.resize(std::max(index + 1, 2 * watches_.size()));
  std::shared_ptr<Watch>& watch = watches_[index];
  if (watch == nullptr) {
    watch = std::make_shared<Watch>(*this, operation->loop(), operation->fd());
    ++count_;
  }
  watch->side(operation->side()) = operation;
  watch_for_closed_ones(operation->loop(), operation->place());
}

/// True exactly when it is over.
bool SockTable::try_once(SockOperation& operation) {
  try {
    return operation.attempt();
  } catch (const std::bad_alloc&) {
    operation.set_error(system_error_code(ENOMEM));
    return true;
  }
}

/// The first try of one that reads.
void SockTable::begin(const std::shared_ptr<SockOperation>& operation) {
  if (!try_once(*operation)) {
    std::error_code error;
    try {
      error = wait(*operation);
    } catch (const std::bad_alloc&) {
      error = system_error_code(ENOMEM);
    }
    if (!error) return;
    operation->set_error(error);
  }
  leave(*operation);
  tell(*operation);
}

/// Has the loop watch for it.
std::error_code SockTable::wait(SockOperation& operation) {
  Watch& watch = *find(operation.fd());
  const Interest wanted = watch.interest | operation.side();
  const std::error_code error =
      watch.is_registered ? watch.loop.modify_handler(watch.fd, wanted)
                          : watch.loop.add_handler(watch.fd, wanted, watch, operation.place());
  if (error) return error;
  watch.is_registered = true;
  watch.interest = wanted;
  return {};
}

void SockTable::on_ready(Watch& ready, Interest events) {
  const std::shared_ptr<Watch> watch = watches_[static_cast<std::size_t>(ready.fd)];
  // select and poll go by numbers, and tell of a stranger that got this one.
  if (!watch->is_current()) return fail_all(*watch, system_error_code(EBADF));
  for (const Interest side : {Interest::read, Interest::write}) {
    const std::shared_ptr<SockOperation> operation = watch->side(side);
    const bool is_due = has(events, side) && has(watch->interest, side) && operation != nullptr;
    if (!is_due || !try_once(*operation)) continue;
    leave(*operation);
    tell(*operation);
    if (watch->loop.parts().is_forked_child()) return;
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

/// It is over, and is told so by the delivery that is on its way. No error: it has one of its own,
/// or none.
void SockTable::finish(SockOperation& operation, std::error_code error) {
  if (error) operation.set_error(error);
  operation.phase = SockOperation::Phase::over;
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
  check_ = loop.call_every(
      between_checks, [this] { fail_closed_ones(); }, place);
  is_checking_ = true;
}

void SockTable::fail_closed_ones() {
  for (std::size_t fd = 0; fd < watches_.size(); ++fd) {
    Watch* watch = watches_[fd].get();
    if (watch != nullptr && !watch->is_current()) fail_all(*watch, system_error_code(EBADF));
  }
}

void SockTable::fail_all(Watch& watch, std::error_code error) {
  const std::shared_ptr<SockOperation> operations[] = {watch.reader, watch.writer};
  ScopedHandle deliveries[2];
  for (std::size_t i = 0; i < 2; ++i) {  // first: it may fail
    if (operations[i] != nullptr) deliveries[i] = make_delivery(operations[i]);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (operations[i] == nullptr) continue;
    operations[i]->soon = std::move(deliveries[i]);  // while it isn't over: or the old one drops it
    leave(*operations[i]);
    finish(*operations[i], error);
  }
}

}  // namespace pawl
