// SPDX-License-Identifier: MIT
// Traps: on_message may destroy the reader, the connection or both, or throw, in the middle of what
// came; the rest must neither be told then nor be lost, nor copied again for each message of it.
#include "pawl/net/message_reader.hpp"

#include <new>
#include <utility>

#include "net/connection_frame.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/message_parser.hpp"

namespace pawl {

struct MessageReader::State : std::enable_shared_from_this<MessageReader::State> {
  State(Connection& its_connection, Framing framing, Place its_place)
      : connection(&its_connection), parser(std::move(framing)), place(its_place) {}

  void take(std::string_view bytes);
  void take_all();
  void keep_rest();
  void finish();
  void end(std::error_code error);
  void give_back();
  void lose() noexcept;
  void take_back();
  void schedule();
  bool hold(bool holds);
  bool is_active() const {
    return connection != nullptr && !is_over && !is_paused && !connection->is_closing() &&
           connection->state() != ConnectionState::done;
  }
  template <typename... Arguments>
  void call(Function<void(Connection&, Arguments...)>& member, Arguments... arguments);
  template <typename Callback>
  void set(Callback& member, Callback&& callback) {
    if (running == &member) running = nullptr;
    member = std::move(callback);
  }

  Connection* connection;  // null when that or the reader is gone
  MessageParser parser;
  Place place;
  std::string kept;       // what came and wasn't told; the connection doesn't read meanwhile
  std::string_view rest;  // of that, or of what comes just now
  bool is_taking = false;
  bool is_holding = false;  // true exactly while `kept` keeps the connection from reading
  bool is_paused = false;
  bool is_over = false;           // true exactly after on_end
  const void* running = nullptr;  // the member whose callback runs; null when it was set anew
  ScopedHandle soon;              // for what doesn't wait for bytes
  Function<void(Connection&, std::string_view)> on_message;
  Function<void(Connection&, std::error_code)> on_end;
};

/// What the reader leaves in the connection's callbacks: it dies with them.
struct MessageReader::Attachment {
  explicit Attachment(std::shared_ptr<State> its_state) : state(std::move(its_state)) {}
  Attachment(Attachment&&) noexcept = default;
  Attachment& operator=(Attachment&&) = delete;
  ~Attachment() {
    if (state != nullptr) state->connection = nullptr;
  }

  std::shared_ptr<State> state;
};

MessageReader::MessageReader(Connection& connection, Framing framing, Place place)
    : state_(std::make_shared<State>(connection, std::move(framing), place)) {
  connection.on_data([kept = Attachment(state_)](Connection&, std::string_view bytes) {
    const std::shared_ptr<State> state = kept.state;
    state->take(bytes);
  });
  connection.on_eof([kept = Attachment(state_)](Connection&) {
    const std::shared_ptr<State> state = kept.state;
    state->finish();
  });
  state_->schedule();
}

MessageReader::~MessageReader() {
  state_->soon.cancel();
  Connection* connection = state_->connection;
  if (connection == nullptr) return;
  try {
    state_->give_back();
  } catch (const std::bad_alloc&) {  // what can't be given back is lost, and so is the stream
    state_->lose();
  }
  state_->connection = nullptr;
  connection->forget_data_callback();  // what comes is the next one's
  connection->on_eof({});
}

void MessageReader::on_message(Function<void(Connection&, std::string_view)> callback) {
  state_->set(state_->on_message, std::move(callback));
}

void MessageReader::on_end(Function<void(Connection&, std::error_code)> callback) {
  state_->set(state_->on_end, std::move(callback));
}

void MessageReader::set_framing(Framing framing) {
  if (state_->is_over) return;
  if (!state_->is_taking) state_->take_back();
  state_->parser.set_framing(std::move(framing));
  state_->schedule();
}

void MessageReader::pause() {
  state_->is_paused = true;
  if (state_->connection != nullptr) state_->connection->pause_reading();
}

void MessageReader::resume() {
  if (!std::exchange(state_->is_paused, false)) return;
  try {
    state_->schedule();
  } catch (...) {  // out of memory
    state_->is_paused = true;
    throw;
  }
  if (state_->connection != nullptr && !state_->is_holding) state_->connection->resume_reading();
}

std::string_view MessageReader::partial() const { return state_->parser.partial(); }

/// Calls user code. What it sets anew stays.
template <typename... Arguments>
void MessageReader::State::call(Function<void(Connection&, Arguments...)>& member,
                                Arguments... arguments) {
  if (!member || connection->loop().parts().is_forked_child()) return;
  struct Return {
    State& state;
    Function<void(Connection&, Arguments...)>& member;
    Function<void(Connection&, Arguments...)> callback;
    ~Return() {
      if (std::exchange(state.running, nullptr) == &member) member = std::move(callback);
    }
  };
  running = &member;
  Return call{*this, member, std::move(member)};
  call.callback(*connection, arguments...);
}

void MessageReader::State::take(std::string_view bytes) {
  if (rest.empty()) {
    rest = bytes;
  } else if (!bytes.empty()) {  // somebody resumed the connection
    kept = std::string(rest).append(bytes);
    rest = kept;
  }
  struct AtTheEnd {
    State& state;
    ~AtTheEnd() {
      try {
        state.keep_rest();
      } catch (const std::bad_alloc&) {
        state.lose();
      }
    }
  };
  is_taking = true;
  const AtTheEnd at_the_end{*this};
  take_all();
}

void MessageReader::State::take_all() {
  while (is_active() && (!rest.empty() || parser.is_due())) {
    switch (parser.next(rest)) {
      case MessageParser::Status::message: call(on_message, parser.message()); break;
      case MessageParser::Status::failed: return end(parser.error());
      default: return;
    }
  }
}

/// What isn't told now, because of a pause or an exception, is for later.
void MessageReader::State::keep_rest() {
  is_taking = false;
  const bool is_wanted = connection != nullptr && !is_over && !connection->is_closing();
  if (!is_wanted || rest.empty()) {
    rest = {};
    kept.clear();
    if (hold(false) && is_wanted && !is_paused) connection->resume_reading();
    return;
  }
  const bool is_here = rest.data() >= kept.data() && rest.data() <= kept.data() + kept.size();
  if (kept.empty() || !is_here) {
    kept.assign(rest);
    rest = kept;
  }
  hold(true);
  connection->pause_reading();
  schedule();
}

/// There is no memory for what came: the connection ends with that.
void MessageReader::State::lose() noexcept {
  rest = {};
  kept.clear();
  is_taking = false;
  if (connection == nullptr || connection->state() == ConnectionState::done) return;
  hold(false);
  connection->end(std::make_error_code(std::errc::not_enough_memory), "keep a message");
}

void MessageReader::State::finish() {
  do {  // a message that needs no bytes, and what somebody's resume overtook
    is_paused = false;
    take({});
  } while (is_paused && !rest.empty());
  if (connection == nullptr || is_over) return;
  const MessageParser::Status status = parser.finish();
  if (status == MessageParser::Status::message) call(on_message, parser.message());
  if (connection != nullptr) end(parser.error());
}

void MessageReader::State::end(std::error_code error) {
  is_over = true;
  call(on_end, error);
  if (connection != nullptr && error == Errc::message_too_long) connection->close();
}

/// What is here and wasn't told goes back to the connection.
void MessageReader::State::give_back() {
  const std::string begun = parser.take_back();
  if (connection == nullptr || is_over) return;
  connection->unread(rest);
  connection->unread(begun);
  if (hold(false) || is_paused) connection->resume_reading();
  rest = {};
}

/// What has begun is to be read anew, in another framing.
void MessageReader::State::take_back() {
  std::string begun = parser.take_back();
  if (begun.empty()) return;
  kept = begun.append(rest);
  rest = kept;
  hold(true);
  if (connection != nullptr) connection->pause_reading();
}

/// While it does, the connection's end waits too. Returns whether it did before.
bool MessageReader::State::hold(bool holds) {
  const bool did_hold = std::exchange(is_holding, holds);
  if (connection == nullptr || did_hold == holds) return did_hold;
  connection->is_input_held_ = holds;
  if (!holds) connection->request_flush();  // which sees to an end that has waited
  return did_hold;
}

/// Sees to it that what doesn't wait for bytes comes without any.
void MessageReader::State::schedule() {
  const bool is_due = !rest.empty() || parser.is_due();
  if (!is_due || is_taking || is_paused || connection == nullptr) return;
  soon = connection->loop().call_soon(
      [state = shared_from_this()] {
        const std::shared_ptr<State> held = state;
        held->take({});
      },
      place);
}

}  // namespace pawl
