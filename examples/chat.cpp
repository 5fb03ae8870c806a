// SPDX-License-Identifier: MIT
// Many clients, and one slow one among them: what it doesn't read is kept for it up to a limit, and
// then it is dropped. The others never notice.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "console.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/server.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: chat [--port N] [--limit BYTES]

A room: what one says in a line, all others read. The first line of a client is
its name. The first line that the server prints says where it is:
  listening on 127.0.0.1:7000
Try it with: nc 127.0.0.1 7000

  --port N           0, the default, is a free one
  --limit BYTES      a client that leaves more than this unread is dropped,
                     default 65536)";

constexpr std::size_t longest_line = 1000;  // bytes

class Room {
 public:
  /// The connection is the server's, and tells when it goes.
  void enter(pawl::Connection& connection) {
    const auto guest = guests_.emplace(guests_.end(), connection);
    connection.write("your name?\n");
    guest->reader.on_message([this, guest](pawl::Connection&, std::string_view line) {
      guest->name.empty() ? introduce(*guest, line) : say(*guest, line);
    });
    connection.on_closed([this, guest](pawl::Connection& self, std::error_code error) {
      const std::string name = guest->name;
      guests_.erase(guest);
      if (!name.empty()) leave(name, self, error);
    });
  }

 private:
  struct Guest {
    explicit Guest(pawl::Connection& with)
        : connection(with), reader(with, pawl::Framing::lines(longest_line)) {
      reader.on_end([](pawl::Connection& self, std::error_code error) {
        if (error == pawl::Errc::message_too_long) self.write("that line was too long\n");
      });
    }
    pawl::Connection& connection;
    pawl::MessageReader reader;
    std::string name;  // empty until the first line
  };

  /// Fit for the others' terminals, which obey control characters.
  static std::string printable(std::string_view line) {
    std::string text(line);
    for (char& c : text) c = (c >= 0 && c < ' ') || c == '\x7f' ? '?' : c;
    return text;
  }

  void introduce(Guest& guest, std::string_view line) {
    if (line.empty()) return guest.connection.write("your name?\n");
    guest.name = printable(line.substr(0, 20));
    tell_others(guest, "* " + guest.name + " is here\n");
    std::string others;
    for (const Guest& each : guests_) {
      if (&each != &guest && !each.name.empty()) others += " " + each.name;
    }
    guest.connection.write("* with you:" + (others.empty() ? " nobody" : others) + "\n");
  }

  void say(Guest& guest, std::string_view line) {
    tell_others(guest, guest.name + ": " + printable(line) + "\n");
  }

  void tell_others(const Guest& from, const std::string& text) {
    for (Guest& each : guests_) {
      if (&each != &from && !each.name.empty()) each.connection.write(text);
    }
  }

  void leave(const std::string& name, const pawl::Connection& connection, std::error_code error) {
    const bool was_slow = error == pawl::Errc::write_limit;
    const std::string text = "* " + name + (was_slow ? " was too slow" : " left") + "\n";
    for (Guest& each : guests_) {
      if (!each.name.empty()) each.connection.write(text);
    }
    std::printf("%s\n", connection.describe().c_str());
  }

  std::list<Guest> guests_;
};

int run(Options& words) {
  const auto port = static_cast<std::uint16_t>(words.number("--port", 0, 0, 65535));
  const auto limit = static_cast<std::size_t>(words.number("--limit", 65536, 1000, 1 << 30));
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  words.expect_nothing_else();

  pawl::EventLoop loop(std::move(loop_options));
  pawl::ServerOptions options;
  options.connection.write_limit = limit;
  options.connection.write_timeout = {};  // the limit is what ends a slow one
  Room room;
  pawl::Server server(
      loop, pawl::Endpoint::loopback(port),
      [&](pawl::Connection& connection) { room.enter(connection); }, options);
  run_until_interrupt(loop, server);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("chat", help, argc, argv, run); }
