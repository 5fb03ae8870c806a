// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <cstdint>
#include <new>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/frame_call.hpp"
#include "net/output_cork.hpp"
#include "pawl/net/connection.hpp"

// What every message passes through, inline.

namespace pawl {

/// None for a timeout of 0.
inline TimePoint deadline_after(TimePoint start, Duration timeout) {
  return timeout > Duration::zero() ? add_saturated(start, timeout) : TimePoint::max();
}

inline void Connection::step(ConnectionEvent event) {
  if (parts_.observer == nullptr) {
    machine_.step(event);
  } else {
    step_observed(event);
  }
}

inline bool Connection::wants_input() const {
  return !parts_.is_forked_child() && !unusual_.is_paused && !unusual_.has_peer_ended &&
         !is_unheard_ && state() != ConnectionState::done;
}

inline bool Connection::can_write() const {
  return state() != ConnectionState::done && unusual_.output_side == Output::open &&
         !unusual_.is_closing;
}

inline Interest Connection::wanted_interest() const {
  const bool has_output = !output_.empty() || unusual_.output_side == Output::finishing;
  const bool writes = has_output && !is_short_;
  return (wants_input() ? Interest::read : Interest::none) |
         (writes ? Interest::write : Interest::none);
}

inline void Connection::update_interest() {
  if (fd_ < 0) return;
  const Interest wanted = wanted_interest();
  if (wanted != interest_) change_interest(wanted);
  const bool has_no_deadline =
      state() == ConnectionState::receiving && !unusual_.is_closing && !has_idle_timeout_;
  if (!has_no_deadline) arm_timer();
}

/// Without memory for that it ends, instead of waiting for ever with what was to be done.
inline void Connection::request_flush() noexcept {
  if (frame_ != nullptr || flush_position_ != 0 || fd_ < 0) return;
  try {
    flush_position_ = parts_.pass_end.add<&Connection::on_pass_end>(*this);
  } catch (const std::bad_alloc&) {
    end(system_error_code(ENOMEM), "flush");
  }
}

inline void Connection::flush() {
  if (!output_.empty() || unusual_.output_side != Output::open || is_drain_due_) flush_output();
}

/// True exactly when nothing is to be done but to send what was written.
inline bool Connection::has_usual_output() const { return output_.is_corked() && !unusual_.any(); }

/// Sends that, and leaves the frame.
__attribute__((always_inline)) inline void Connection::flush_usual() {
  const std::string_view bytes = output_.corked();
  const std::int64_t sent = parts_.stream_calls.send(fd_, bytes.data(), bytes.size());
  if (__builtin_expect(sent != static_cast<std::int64_t>(bytes.size()), false)) {
    return leave_frame_after(sent);
  }
  last_output_ = parts_.pass_time;
  bytes_sent_ += bytes.size();
  output_.uncork(parts_.scratch);
  if (__builtin_expect(state() == ConnectionState::sending, true))
    machine_.step(ConnectionEvent::flushed);
  // Its interest is as usual too. Its timer was set when it became RECEIVING, and follows by
  // itself.
  frame_ = nullptr;
}

/// Does what takes memory to keep the output. Without it that is lost, and the connection fails for
/// it; what it sends is never something else.
template <typename Work>
inline void Connection::or_lose_output(Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    fail_output(ENOMEM);
  }
}

/// Runs `body`, which may call user code, and then what every wake-up ends with. The last step may
/// destroy the connection.
template <typename Body>
inline void Connection::in_frame(Body body) {
  Frame frame;
  frame_ = &frame;
  try {
    body(frame);
  } catch (...) {
    if (!frame.settle()) leave_by_exception();
    throw;
  }
  if (__builtin_expect(frame.has_news, false) && frame.settle()) return;
  if (!has_usual_output() || parts_.is_forked_child()) return leave_frame();
  flush_usual();
}

/// Calls user code from inside a frame. False when the connection was destroyed.
template <typename... Arguments>
bool Connection::call(Function<void(Connection&, Arguments...)>& member, Arguments... arguments) {
  if (parts_.is_forked_child()) return true;  // what follows is the parent's alone
  return call_in_frame(*this, *frame_, member, std::forward<Arguments>(arguments)...);
}

}  // namespace pawl
