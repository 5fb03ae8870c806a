// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>
#include <system_error>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/net/framing.hpp"

namespace pawl {

class Connection;

/// Reads messages from a connection.
///
/// Owns:     its callbacks and what it has of a message that isn't complete. It takes the
///           connection's `on_data` and `on_eof` over: set neither while it lives, and destroy one
///           reader before making the next. It may outlive
///           the connection. Destroying it, from its own callbacks too, gives what it hasn't told
///           back to the connection (`Connection::unread`), for whoever reads next, and ends a
///           pause.
/// Threads:  the loop's.
/// Promises: messages come one by one, in order, however the bytes were cut. None comes after the
///           connection was closed, aborted or destroyed.
/// Fails:    by `on_end`. How the connection itself fails is told by its `on_closed`.
class PAWL_API MessageReader {
 public:
  MessageReader(Connection& connection, Framing framing, Place place = Place::here());
  MessageReader(const MessageReader&) = delete;
  MessageReader& operator=(const MessageReader&) = delete;
  ~MessageReader();

  /// A message came. It is valid until the callback returns.
  void on_message(Function<void(Connection&, std::string_view)> callback);
  /// No more messages: comes once. No error: the peer ended between two messages.
  /// `Errc::unexpected_end`: it ended in the middle of one, `partial()` is what there is of it.
  /// `Errc::message_too_long`: the rest of the stream can't be read, and the connection is closed
  /// (`Connection::close`) after this callback.
  void on_end(Function<void(Connection&, std::error_code)> callback);

  /// How the next message is framed: in `on_message`, the one behind that which came. From outside,
  /// the one that hasn't come yet, wherever its bytes are.
  void set_framing(Framing framing);

  /// No `on_message` until `resume`, not even for messages that are here already; the connection
  /// doesn't read meanwhile (its `resume_reading` is the reader's to call).
  void pause();
  void resume();

  /// The beginning of a message that isn't complete, without its prefix.
  std::string_view partial() const;

 private:
  struct State;
  struct Attachment;

  std::shared_ptr<State> state_;  // shared with the call that may destroy this
};

}  // namespace pawl
