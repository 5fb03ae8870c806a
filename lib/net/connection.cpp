// SPDX-License-Identifier: MIT
// A connection's life: becoming connected, user code, states and deadlines. What it reads is in
// connection_input.cpp, what it sends in connection_output.cpp, how it ends in connection_end.cpp.
//
// Traps: user code may destroy the connection, so nothing is touched after a call of it that said
// so; a callback may be replaced while it runs, so it runs outside of the member that holds it.
#include "pawl/net/connection.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "core/label.hpp"
#include "loop/loop_parts.hpp"
#include "net/connection_frame.hpp"
#include "net/dialer.hpp"
#include "net/output_cork.hpp"
#include "net/shared_socket.hpp"
#include "net/socket_address.hpp"
#include "net/socket_settings.hpp"
#include "pawl/net/server.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
std::string_view to_string(ConnectionState state) { return connection_table.name(state); }

// Making and becoming connected

Connection::Connection(EventLoop& loop, std::shared_ptr<const ConnectionOptions> options,
                       Place place)
    : loop_(loop),
      parts_(loop.parts()),
      options_(std::move(options)),
      allows_half_open_(options_->allow_half_open),
      has_idle_timeout_(options_->idle_timeout > Duration::zero()),
      cork_room_(static_cast<std::uint32_t>(
          std::min({Scratch::cork_bytes, std::max<std::size_t>(options_->high_water, 1) - 1,
                    options_->write_limit}))),
      place_(place) {
  unusual_.is_followed = parts_.observer != nullptr;
  parts_.deferred.enlist();
}

std::unique_ptr<Connection> Connection::make(EventLoop& loop, ConnectionOptions&& options,
                                             Place place) {
  return std::unique_ptr<Connection>(
      new Connection(loop, std::make_shared<const ConnectionOptions>(std::move(options)), place));
}

std::unique_ptr<Connection> Connection::connect(EventLoop& loop, std::string_view host,
                                                std::uint16_t port, ConnectionOptions options,
                                                Place place) {
  auto connection = make(loop, std::move(options), place);
  connection->rare().target = Dialer::name_of(host, port);
  connection->make_dialer();
  connection->dialer_->dial(host, port);
  return connection;
}

std::unique_ptr<Connection> Connection::connect(EventLoop& loop, const Endpoint& peer,
                                                ConnectionOptions options, Place place) {
  auto connection = make(loop, std::move(options), place);
  connection->peer_ = peer;
  connection->make_dialer();
  connection->dialer_->dial(peer);
  return connection;
}

std::unique_ptr<Connection> Connection::adopt(EventLoop& loop, UniqueFd socket,
                                              ConnectionOptions options, Place place) {
  auto connection = make(loop, std::move(options), place);
  Endpoint& peer = connection->peer_;
  SettingResult result = prepare_stream(loop.system(), socket.get(), peer);
  if (!result.error) {
    result = apply_settings(loop.system(), socket.get(), *connection->options_, peer.family());
  }
  if (!result.error) result = {connection->start(socket.release()), "adopt"};
  if (result.error) connection->end(result.error, result.phase);
  return connection;
}

void Connection::make_dialer() {
  dialer_ = std::make_unique<Dialer>(
      loop_, options_,
      [this](std::error_code error, int fd, const Endpoint& peer) { on_dialed(error, fd, peer); },
      place_);
}

void Connection::on_dialed(std::error_code error, int fd, const Endpoint& peer) {
  in_frame([&](Frame&) {
    if (!error) error = start_with(fd, peer);
    if (error == Errc::timed_out)
      return end(CloseReason::connect_timeout, error, dialer_->operation());
    if (error) return end(error, dialer_->operation());
    end_dial();
    if (rare_ != nullptr && !call(rare_->connected)) return;
    if (parts_.is_forked_child()) return;
    // With Fast Open the SYN waits for bytes (tcp(7), TCP_FASTOPEN_CONNECT), and who has none to
    // send would wait for a peer that knows of nothing: sending none lets it go.
    if (options_->fast_open && fd_ >= 0 && output_.empty()) loop_.system().send(fd_, "", 0);
  });
}

/// What it tried in vain is kept.
void Connection::end_dial() {
  if (dialer_ == nullptr) return;
  std::vector<DialAttempt> failures = dialer_->take_failures();
  try {
    if (!failures.empty()) rare().attempts = std::move(failures);
  } catch (const std::bad_alloc&) {
    // What is over already: to be connected is worth more than to tell of it.
  }
  dialer_.reset();
}

std::error_code Connection::start_with(int fd, const Endpoint& peer) {
  UniqueFd socket(fd);
  try {
    peer_ = peer;
  } catch (const std::bad_alloc&) {
    return std::make_error_code(std::errc::not_enough_memory);
  }
  return start(socket.release());
}

/// Without memory it has the socket, and is to be ended.
std::error_code Connection::start(int fd) try {
  fd_ = fd;
  connected_at_ = last_input_ = last_output_ = loop_.time();  // the pass may have begun long ago
  interest_ = Interest::read;
  parts_.scratch.read_buffer();  // is made
  if (const std::error_code error = loop_.add_handler(fd, interest_, *this, place_)) return error;
  step(output_.empty() ? ConnectionEvent::connected : ConnectionEvent::connected_to_send);
  arm_timer();
  if (state() != ConnectionState::done) return {};
  return std::make_error_code(std::errc::not_enough_memory);
} catch (const std::bad_alloc&) {
  return std::make_error_code(std::errc::not_enough_memory);
}

Connection::~Connection() {
  if (frame_ != nullptr) {
    frame_->is_destroyed = frame_->has_news = true;
    const bool is_running = on_data_ != nullptr && frame_->running == on_data_.get();
    if (is_running) frame_->keep(std::move(on_data_));
  }
  parts_.pass_end.remove(flush_position_);
  parts_.deferred.resign(deferred_position_);
  timer_.cancel();
  output_.clear(parts_.scratch);
  if (fd_ >= 0) end_socket(SocketEnd::reset);
}

// User code

void Connection::Frame::keep(std::unique_ptr<DataCallback> callback) {
  has_news = true;
  delete std::exchange(kept, callback.release());  // that one doesn't run any more
}

/// Frees what was kept, once none of it runs. True when the connection is destroyed, be it by that.
bool Connection::Frame::settle() {
  running = nullptr;
  while (kept != nullptr) delete std::exchange(kept, nullptr);
  return is_destroyed;
}

void Connection::on_connected(Function<void(Connection&)> callback) {
  set(rare().connected, std::move(callback));
}

void Connection::on_drained(Function<void(Connection&)> callback) {
  unusual_.is_followed = true;
  if (!output_.empty()) is_drain_due_ = true;
  set(rare().drained, std::move(callback));
}

void Connection::on_eof(Function<void(Connection&)> callback) {
  set(rare().eof, std::move(callback));
}

void Connection::on_fds(Function<void(Connection&, std::vector<UniqueFd>)> callback) {
  unusual_.has_special_input = true;
  set(rare().fds, std::move(callback));
}

void Connection::on_data(Function<void(Connection&, std::string_view)> callback) {
  if (!callback) callback = [](Connection&, std::string_view) {};
  const bool is_first = on_data_ == nullptr;
  swap_data_callback(std::make_unique<DataCallback>(std::move(callback)));
  is_unheard_ = false;
  if (is_first && fd_ >= 0) read_again();
}

/// It is as if none had been set.
void Connection::forget_data_callback() { swap_data_callback(nullptr); }

void Connection::swap_data_callback(std::unique_ptr<DataCallback> fresh) {
  std::swap(on_data_, fresh);
  const bool is_running = frame_ != nullptr && frame_->running == fresh.get();
  if (is_running && fresh != nullptr) frame_->keep(std::move(fresh));
}

void Connection::on_closed(Function<void(Connection&, std::error_code)> callback) {
  set(on_closed_, std::move(callback));
}

template <typename Callback>
void Connection::set(Callback& member, Callback&& callback) {
  if (frame_ != nullptr && frame_->running == &member) frame_->running = nullptr;
  member = std::move(callback);
}

Connection::Rare& Connection::rare() {
  if (rare_ == nullptr) rare_ = std::make_unique<Rare>();
  return *rare_;
}

void Connection::introduce(Function<void(Connection&)>& on_connection) {
  in_frame([&](Frame&) { on_connection(*this); });
}

/// A frame must not stay behind when there is no memory for what its end brings.
struct Connection::FrameEnd {
  Connection& connection;
  ~FrameEnd() { connection.frame_ = nullptr; }
};

/// What every wake-up ends with. The last step may destroy the connection.
void Connection::leave_frame() {
  {
    const FrameEnd at_the_end{*this};
    follow_peer();
    flush();
  }
  end_frame();
}

/// The same, when the kernel took part of the usual output.
void Connection::leave_frame_after(std::int64_t sent) {
  const SystemResult result = StreamCalls::result_of(sent);
  if (!parts_.stream_calls.are_kernels()) return leave_frame();
  {
    const FrameEnd at_the_end{*this};
    take_sent(result);
    if (unusual_.output_side == Output::failed) end_flush();
  }
  end_frame();
}

/// The same, when everything has been sent that could be.
void Connection::end_frame() {
  if (parts_.is_forked_child()) return;
  if (state() != ConnectionState::done) return update_interest();
  is_drained_ ? defer() : tell_closed();  // on_closed is the last
}

/// What was written leaves before the loop polls: others may read until then.
void Connection::leave_by_exception() {
  frame_ = nullptr;
  if (parts_.is_forked_child()) return;
  or_lose_output([this] {
    output_.leave_read_buffer(parts_.scratch);
    follow_peer();
    request_flush();
  });
  if (state() == ConnectionState::done || is_drained_) defer();
  if (unusual_.output_side == Output::failed) end_failed_output();
}

void Connection::tell_closed() {
  if (is_close_told_) return;
  is_close_told_ = true;
  parts_.deferred.remove(std::exchange(deferred_position_, 0));
  Frame frame;
  frame_ = &frame;
  Function<void(Connection&, std::error_code)> callback = std::move(on_closed_);
  struct Farewell {
    Connection& connection;
    Frame& frame;
    ~Farewell() {
      if (frame.is_destroyed) return;
      connection.frame_ = nullptr;
      if (connection.server_ != nullptr) connection.server_->forget(connection);
    }
  };
  const Farewell at_the_end{*this, frame};
  if (callback) callback(*this, error_);
}

void Connection::defer() noexcept {
  if (deferred_position_ != 0) return;
  deferred_position_ = parts_.deferred.add<&Connection::on_deferred>(*this);
}

void Connection::on_deferred() {
  deferred_position_ = 0;
  in_frame([this](Frame&) {
    if (rare_ != nullptr && !deliver_unread()) return;
    if (!std::exchange(is_drained_, false)) return;
    if (rare_ != nullptr && !unusual_.is_congested) call(rare_->drained);  // else it comes later
  });
}

// State

void Connection::step_observed(ConnectionEvent event) {
  const std::string name = label_or_none([this] { return peer_name(); });
  machine_.step(event, parts_.observer, this, name);
}

void Connection::change_interest(Interest wanted) {
  const bool has_blocked = has(wanted & ~interest_, Interest::write);
  if (has_blocked) last_output_ = loop_.time();
  interest_ = wanted;
  unusual_.waits_otherwise = wanted != Interest::read;
  loop_.modify_handler(fd_, wanted);
}

/// When the state that it is in has lasted too long.
TimePoint Connection::deadline() const {
  if (unusual_.is_closing) return closing_deadline();
  switch (state()) {
    case ConnectionState::sending: {
      // What the kernel hasn't refused yet is about to be sent.
      const bool is_refused = has(interest_, Interest::write) || is_short_;
      if (!is_refused && unusual_.output_side != Output::failed) break;
      return deadline_after(last_output_, options_->write_timeout);
    }
    case ConnectionState::receiving: {
      const bool is_peers_turn = !unusual_.is_paused && !is_unheard_ && !unusual_.has_peer_ended;
      if (!is_peers_turn) break;
      return deadline_after(std::max({last_input_, last_output_, peers_turn_}),
                            options_->idle_timeout);
    }
    default: break;
  }
  return TimePoint::max();
}

/// Sees to it that the timer fires at the deadline at the latest. When it is early, because there
/// was activity meanwhile, it only looks again.
void Connection::arm_timer() {
  const TimePoint when = deadline();
  if (when == TimePoint::max() || (has_timer_ && timer_.when() <= when)) return;
  set_timer(when);
}

/// Without memory for its timer it might wait for ever: it ends.
void Connection::set_timer(TimePoint when) try {
  const TimerHandle fresh = loop_.call_at(
      when, [this] { on_timer(); }, place_);
  timer_.cancel();
  timer_ = fresh;
  has_timer_ = true;
} catch (const std::bad_alloc&) {
  end(system_error_code(ENOMEM), "timer");
}

/// The loop may have stood still, and then it hasn't heard yet of all that the peer did: before
/// that is judged, what the kernel has for us and takes from us is looked at.
void Connection::on_timer() {
  has_timer_ = false;
  const bool has_to_look = is_short_ || unusual_.is_closing;
  if (!has_to_look && deadline() > loop_.pass_time()) return arm_timer();
  in_frame([this](Frame& frame) {
    // Whatever comes out of the look, the usual way of a message doesn't set it.
    if (has_idle_timeout_) set_timer(add_saturated(loop_.pass_time(), options_->idle_timeout));
    const std::uint64_t before = bytes_received_ + bytes_sent_;
    look_again();
    if (frame.is_destroyed) return;
    follow_peer();
    judge(bytes_received_ + bytes_sent_ != before);
  });
}

void Connection::look_again() {
  if (fd_ < 0) return;
  if (output_.empty()) {
    is_short_ = false;
  } else {
    offer_output();
  }
  if (wants_input()) read_input();
}

void Connection::judge(bool has_moved) {
  if (state() == ConnectionState::done) return;
  if (unusual_.is_closing) return judge_closing(has_moved);
  if (deadline() > loop_.pass_time()) return arm_timer();
  const bool is_idle = state() == ConnectionState::receiving;
  end_by_timer(is_idle ? CloseReason::idle_timeout : CloseReason::write_timeout);
}

}  // namespace pawl
