// SPDX-License-Identifier: MIT
// echo_server and echo_client, with each other and with the real netcat.
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "running_program.hpp"
#include "support/sockets.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("netcat gets back each line that it sends") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  RunningProgram nc(loop, {"nc", "-N", "127.0.0.1", server.port()});
  nc.type("one\n");
  nc.wait_for("one\n");
  nc.type("two\n");
  nc.wait_for("one\ntwo\n");
  nc.end_input();
  CHECK(nc.wait() == 0);
  CHECK(nc.output() == "one\ntwo\n");
}

TEST_CASE("netcat gets back eight megabytes as they were") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  const Ended ended = run_shell(
      loop, "seq 1 1200000 | nc -N 127.0.0.1 " + server.port() + " | cksum; seq 1 1200000 | cksum");
  const std::vector<std::string> sums = lines_of(ended.output);
  REQUIRE(sums.size() == 2);
  CHECK(sums[0] == sums[1]);
}

TEST_CASE("A client that doesn't read isn't read any more, and loses nothing") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  const auto client = pawl::Connection::connect(loop, pawl::Endpoint::parse(server.address()));
  constexpr std::size_t total = 32'000'000;
  std::size_t came = 0;
  bool is_right = true;
  const auto byte_at = [](std::size_t i) { return static_cast<char>(i % 251); };
  std::size_t written = 0;
  const auto write_more = [&] {
    std::string piece;
    while (written < total && !client->is_congested()) {
      piece.clear();
      for (int i = 0; i < 16'000; ++i) piece += byte_at(written++);
      client->write(std::move(piece));
    }
  };
  client->on_data([&](pawl::Connection&, std::string_view bytes) {
    for (const char byte : bytes) is_right &= byte == byte_at(came++);
  });
  client->on_drained([&](pawl::Connection&) { write_more(); });
  client->pause_reading();
  write_more();
  // Another one's round trips, while the first one's bytes fill every buffer on the way.
  CHECK(run(loop, {example("echo_client"), server.address(), "--count", "50"}).exit_code == 0);
  CHECK(written < total);
  client->resume_reading();
  server.wait_until([&] { return came == total; });
  CHECK(is_right);
  client->abort();
}

TEST_CASE("echo_client counts round trips of any size") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  for (const std::string size : {"1", "64", "1000000"}) {
    const Ended ended =
        run(loop, {example("echo_client"), server.address(), "--count", "5", "--size", size});
    CHECK(ended.exit_code == 0);
    CHECK(ended.output.find("5 round trips of " + size + " bytes with " + server.address() +
                            ": min ") == 0);
    CHECK(contains(ended.output, " ms, median "));
  }
}

TEST_CASE("echo_client with - sends what is typed and prints what comes, until the end of input") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server", {"--verbose"});
  RunningProgram client(loop, {example("echo_client"), server.address(), "-"});
  client.type("hello");
  client.wait_for("hello");
  client.type(" again\n");
  client.wait_for("hello again\n");
  client.end_input();
  CHECK(client.wait() == 0);
  server.wait_for("gone after 12 bytes\n");
}

TEST_CASE("echo_client with - sends a file and prints it as it was") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  const Ended ended =
      run_shell(loop, "file=$(mktemp); seq 1 200000 >$file; " + example("echo_client") + " " +
                          server.address() + " - <$file | cksum; cksum <$file; rm $file");
  const std::vector<std::string> sums = lines_of(ended.output);
  REQUIRE(sums.size() == 2);
  CHECK(sums[0] == sums[1]);
}

TEST_CASE("An echo that differs is one line that says where, and exit code 1") {
  pawl::EventLoop loop;
  int messages = 0;
  pawl::Server liar(loop, pawl::Endpoint::loopback(0), [&](pawl::Connection& peer) {
    peer.on_data([&](pawl::Connection& self, std::string_view bytes) {
      std::string echo(bytes);
      if (++messages == 3) echo[5] = '\x07';
      self.write(echo);
    });
  });
  const Ended ended = run(loop, {example("echo_client"), liar.local_endpoint().to_string()});
  CHECK(ended.exit_code == 1);
  CHECK(ended.output.empty());
  CHECK(contains(ended.errors, "message 3 came back different at byte 5: \"?e 3"));
  CHECK(lines_of(ended.errors).size() == 1);
}

TEST_CASE("A server that leaves early is one line that says when, and exit code 1") {
  pawl::EventLoop loop;
  pawl::Server server(loop, pawl::Endpoint::loopback(0), [](pawl::Connection& peer) {
    peer.on_data([](pawl::Connection& self, std::string_view) { self.close(); });
  });
  const std::string address = server.local_endpoint().to_string();
  Ended ended = run(loop, {example("echo_client"), address});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.errors, "the server ended it, after 0 of 100 messages\n"));

  RunningProgram typed(loop, {example("echo_client"), address, "-"});
  typed.type("x");
  CHECK(typed.wait() == 1);
  CHECK(typed.errors() == "echo_client: the server ended the connection\n");
}

TEST_CASE("Nobody there, nothing said and no such place are one line each, and exit code 1") {
  pawl::EventLoop loop;
  pawl::UniqueFd listener = bound_socket(SOCK_STREAM);
  const std::string address =
      "127.0.0.1:" + std::to_string(ntohs(address_of(listener.get()).sin_port));
  Ended ended = run(loop, {example("echo_client"), address, "--timeout", "0.05"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.errors, "timed out"));
  listener.reset();
  for (const std::string mode : {"--count=3", "-"}) {
    ended = run(loop, {example("echo_client"), address, mode});
    CHECK(ended.exit_code == 1);
    CHECK(contains(ended.errors, "connection to " + address +
                                     " DONE: connect in CONNECTING: Connection refused"));
    CHECK(lines_of(ended.errors).size() == 1);
  }
}
