// SPDX-License-Identifier: MIT
// A datagram socket's life: user code, ends and states. How it receives is in datagram_input.cpp,
// how it sends in datagram_output.cpp, whom it is connected to in datagram_peer.cpp.
#include "pawl/net/datagram_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <utility>

#include "core/label.hpp"
#include "net/datagram_frame.hpp"
#include "net/datagram_queue.hpp"
#include "net/shared_socket.hpp"
#include "net/unix_socket_file.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

std::string count_of_datagrams(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " datagram" : " datagrams") + " unsent";
}

}  // namespace

std::string_view to_string(DatagramState state) { return datagram_table.name(state); }

std::string DatagramError::to_string() const {
  const bool is_of_output = is_lost || length > 0;
  const std::string operation =
      is_of_output ? "send of " + std::to_string(length) + " bytes to " : "receive from ";
  const std::string_view delay = is_of_output && !is_lost ? ", again in a while" : "";
  return operation + peer.to_string() + std::string(delay) + ": " + error.message();
}

DatagramSocket::DatagramSocket(EventLoop& loop, const Endpoint& local, DatagramOptions options,
                               Place place)
    : loop_(loop),
      options_(std::move(options)),
      place_(place),
      queue_(std::make_unique<DatagramQueue>()),
      kept_(std::make_unique<Kept>()) {
  options_.batch = std::clamp<std::size_t>(options_.batch, 1, DatagramQueue::longest_batch);
  enlist();
  try {
    open(local);
    if (const std::error_code error = loop.add_handler(fd_, interest_, *this, place)) {
      throw std::system_error(error, "DatagramSocket at " + local_.to_string() + ": watch");
    }
  } catch (...) {
    if (fd_ >= 0) loop.system().close(fd_);
    resign();
    throw;
  }
}

/// Has the loop make room for what an end needs.
void DatagramSocket::enlist() {
  LoopParts& parts = loop_.parts();
  parts.pass_end.enlist();
  try {
    parts.deferred.enlist();
  } catch (...) {
    parts.pass_end.resign(0);
    throw;
  }
}

void DatagramSocket::resign() {
  loop_.parts().pass_end.resign(flush_position_);
  loop_.parts().deferred.resign(deferred_position_);
}

DatagramSocket::~DatagramSocket() {
  if (frame_ != nullptr) frame_->is_destroyed = true;
  resign();
  queue_->clear(loop_.parts().scratch);
  if (fd_ >= 0) close_socket();
}

// User code

void DatagramSocket::on_datagram(Function<void(DatagramSocket&, const Datagram&)> callback) {
  set(on_datagram_, std::move(callback));
}

void DatagramSocket::on_error(Function<void(DatagramSocket&, const DatagramError&)> callback) {
  set(on_error_, std::move(callback));
}

void DatagramSocket::on_drained(Function<void(DatagramSocket&)> callback) {
  set(on_drained_, std::move(callback));
}

void DatagramSocket::on_closed(Function<void(DatagramSocket&, std::error_code)> callback) {
  set(on_closed_, std::move(callback));
}

template <typename Callback>
void DatagramSocket::set(Callback& member, Callback&& callback) {
  if (frame_ != nullptr && frame_->running == &member) frame_->running = nullptr;
  member = std::move(callback);
}

/// True exactly when a callback is due that doesn't wait for the descriptor.
bool DatagramSocket::has_news() const {
  if (!failures_.empty() || is_drained_) return true;
  if (state() == DatagramState::done) return !is_close_told_;
  return has_held() && !is_paused_;
}

void DatagramSocket::defer() noexcept {
  if (deferred_position_ != 0) return;
  deferred_position_ = loop_.parts().deferred.add<&DatagramSocket::on_deferred>(*this);
}

void DatagramSocket::on_deferred() {
  deferred_position_ = 0;
  in_frame([this] {
    if (!tell_failures() || !deliver_held()) return;
    if (std::exchange(is_drained_, false) && state() != DatagramState::done && !is_drain_due_) {
      if (!call(on_drained_)) return;
    }
    if (state() == DatagramState::done) tell_closed();
  });
}

/// False when the socket was destroyed.
bool DatagramSocket::tell_failures() {
  // Those that come up meanwhile wait for the next pass.
  for (std::size_t left = failures_.size(); left > 0 && !failures_.empty(); --left) {
    const Failure failure = std::move(failures_.front());
    failures_.erase(failures_.begin());
    if (!call<const DatagramError&>(on_error_, DatagramError{failure.error, failure.peer,
                                                             failure.length, failure.is_lost})) {
      return false;
    }
  }
  return true;
}

void DatagramSocket::tell_closed() {
  if (is_close_told_ || !failures_.empty()) return;
  is_close_told_ = true;
  call(on_closed_, error_);
}

// Ends

void DatagramSocket::close() {
  if (!is_taking()) return;
  if (state() == DatagramState::open) return end(DatagramEvent::close, {}, "close");
  close_timer_ = loop_.call_later(  // first: it may fail
      options_.close_timeout, [this] { on_close_timeout(); }, place_);
  drop_held();
  step(DatagramEvent::close);
  needs_flush_ = true;
  request_flush();
  if (frame_ == nullptr) update_interest();
}

/// The kernel may have got room while the loop stood still.
void DatagramSocket::on_close_timeout() {
  try {
    flush(false);
  } catch (const std::bad_alloc&) {
    // It ends anyway.
  }
  end(DatagramEvent::failed, Errc::unsent_data, "close timeout");
}

void DatagramSocket::abort() { end(DatagramEvent::failed, Errc::aborted, "abort"); }

void DatagramSocket::end(DatagramEvent event, std::error_code error, const char* operation) {
  if (state() == DatagramState::done) return;
  ended_in_ = state();
  ended_by_ = operation;
  error_ = error;
  unsent_bytes_ = queue_->bytes();
  unsent_datagrams_ = queue_->size();
  step(event);
  queue_->clear(loop_.parts().scratch);
  drop_held();
  close_timer_.cancel();
  memory_retry_.cancel();
  send_retry_.cancel();
  close_socket();
  defer();
}

void DatagramSocket::close_socket() {
  loop_.parts().end_handler(fd_);
  if (loop_.parts().shares_with_children()) {
    end_datagrams_for_all_holders(loop_.system(), fd_, local_.is_unix());
  }
  loop_.system().close(std::exchange(fd_, -1));
  file_.reset();
}

// State

void DatagramSocket::step(DatagramEvent event) {
  Observer* observer = loop_.observer();
  if (observer == nullptr) {
    machine_.step(event, nullptr, this, {});
    return;
  }
  const std::string name = label_or_none([this] { return local_.to_string(); });
  machine_.step(event, observer, this, name);
}

void DatagramSocket::update_interest() {
  if (fd_ < 0) return;
  // What was queued since the last flush hasn't been refused by the kernel yet.
  const bool is_refused = !queue_->empty() && !needs_flush_ && !is_send_paused_;
  const Interest wanted = (wants_input() ? Interest::read : Interest::none) |
                          (is_refused ? Interest::write : Interest::none);
  if (wanted == interest_) return;
  interest_ = wanted;
  loop_.modify_handler(fd_, wanted);
}

std::size_t DatagramSocket::unsent_datagrams() const {
  return state() == DatagramState::done ? unsent_datagrams_ : queue_->size();
}

std::size_t DatagramSocket::buffered() const {
  return state() == DatagramState::done ? unsent_bytes_ : queue_->bytes();
}

std::string DatagramSocket::describe() const {
  std::string text = "datagram socket at " + local_.to_string();
  if (peer_.family() != Endpoint::Family::none) text += " to " + peer_.to_string();
  text += " " + std::string(to_string(state()));
  if (state() != DatagramState::done) return text + ", " + count_of_datagrams(queue_->size());
  text += ": " + std::string(ended_by_) + " in " + std::string(to_string(ended_in_)) + ": " +
          (error_ ? error_.message() : "in good order");
  if (unsent_datagrams_ > 0) text += ", " + count_of_datagrams(unsent_datagrams_);
  return text;
}

}  // namespace pawl
