// SPDX-License-Identifier: MIT
// chat: a room of netcats, and one that doesn't read.
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "running_program.hpp"

TEST_CASE("What one says in a line, all others in the room read") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "chat");
  RunningProgram ann(loop, {"nc", "127.0.0.1", server.port()});
  ann.wait_for("your name?\n");
  ann.type("ann\n");
  ann.wait_for("* with you: nobody\n");
  RunningProgram bob(loop, {"nc", "127.0.0.1", server.port()});
  bob.type("bob\r\nhello ");
  ann.wait_for("* bob is here\n");
  bob.wait_for("* with you: ann\n");
  bob.type("ann\n");
  ann.wait_for("bob: hello ann\n");
  ann.type("hello bob\n");
  bob.wait_for("ann: hello bob\n");
  CHECK(ann.output().find("ann: hello bob") == std::string::npos);
  bob.type("\x1b[2J\n");  // would clear the others' screens
  ann.wait_for("bob: ?[2J\n");
  bob.signal(SIGKILL);
  ann.wait_for("* bob left\n");
  server.signal(SIGINT);
  CHECK(server.wait() == 0);
}

TEST_CASE("A client that reads nothing is dropped at the limit, and the others go on") {
  pawl::EventLoop loop;
  RunningServer server(loop, "chat", {"--limit", "1000000"});
  const pawl::Endpoint there = pawl::Endpoint::parse(server.address());
  const auto slow = pawl::Connection::connect(loop, there);
  slow->write("slow\n");
  slow->pause_reading();
  const auto talker = pawl::Connection::connect(loop, there);
  talker->write("talker\n");
  const auto listener = pawl::Connection::connect(loop, there);
  std::string heard;
  std::size_t lines_heard = 0;
  const std::string lines = [] {
    std::string text;
    for (int i = 0; i < 100; ++i) text += std::string(999, 'x') + "\n";
    return text;
  }();
  // The next hundred lines go when the last ones were heard: the listener is never slow.
  listener->on_data([&](pawl::Connection&, std::string_view bytes) {
    for (const char c : bytes) {
      if (c != '\n') {
        heard += c;
        continue;
      }
      const bool is_line = heard.compare(0, 9, "talker: x") == 0;
      const bool begins = heard.find("* with you:") == 0;
      const bool has_dropped = heard == "* slow was too slow";
      heard.clear();
      if (has_dropped) return loop.stop();
      if (begins || (is_line && ++lines_heard % 100 == 0)) talker->write(lines);
    }
  });
  listener->write("listener\n");
  loop.run_for(std::chrono::seconds(30));
  CHECK(lines_heard > 1000);  // what the kernel's buffers hold beside the limit
  server.wait_for("too many unsent bytes");
}

TEST_CASE("A line that is too long ends its client alone, with a word") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "chat");
  RunningProgram ann(loop, {"nc", "127.0.0.1", server.port()});
  ann.type("ann\n");
  ann.wait_for("nobody");
  const Ended shouter = run_shell(
      loop, "(echo bob; head -c 5000 /dev/zero | tr '\\0' x) | nc -N 127.0.0.1 " + server.port());
  CHECK(shouter.output.find("that line was too long") != std::string::npos);
  ann.wait_for("* bob left\n");
}
