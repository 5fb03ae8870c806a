// SPDX-License-Identifier: MIT
// The program of "But what's async anyway?": the next request's delay is what the last reply says.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"
#include "support/sockets.hpp"

namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("Each reply sets the delay before the next request to that server") {
  pawl::EventLoop loop;
  RunningServer quick(loop, "http_server", {"--next", "0"});
  RunningServer slow(loop, "http_server", {"--next", "0.05"});
  const Ended ended = run(loop, {example("poller"), "--count", "4", quick.address() + "/next",
                                 slow.address() + "/next"});
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(count(ended.output, quick.address() + "/next  next request in 0.000 ms\n") == 4);
  CHECK(count(ended.output, slow.address() + "/next  next request in 50.0 ms\n") == 4);
  const std::vector<std::string> lines = lines_of(ended.output);
  CHECK(lines.back().find(slow.address()) != std::string::npos);
  CHECK(std::stod(lines.back()) >= 0.149);  // three delays, rounded to milliseconds
}

TEST_CASE("A server that asks for a long delay doesn't delay the other one") {
  pawl::EventLoop loop;
  RunningServer quick(loop, "http_server", {"--next", "0"});
  RunningServer lazy(loop, "http_server", {"--next", "1000"});
  RunningProgram poller(loop,
                        {example("poller"), lazy.address() + "/next", quick.address() + "/next"});
  poller.wait_for(lazy.address());
  const std::size_t before = count(poller.output(), quick.address());
  poller.wait_until([&] { return count(poller.output(), quick.address()) >= before + 20; });
  CHECK(count(poller.output(), lazy.address()) == 1);
  poller.signal(2);
  CHECK(poller.wait() == 130);
}

TEST_CASE("A server that never answers doesn't delay the other one") {
  pawl::EventLoop loop;
  RunningServer quick(loop, "http_server", {"--next", "0.001"});
  const pawl::UniqueFd silent = bound_socket(SOCK_STREAM);
  const std::string port = std::to_string(ntohs(address_of(silent.get()).sin_port));
  RunningProgram poller(loop,
                        {example("poller"), "http://127.0.0.1:" + port, quick.address() + "/next"});
  poller.wait_until([&] { return count(poller.output(), quick.address()) >= 20; });
  CHECK(lines_of(poller.output()).size() == count(poller.output(), quick.address()));
  poller.signal(2);
  CHECK(poller.wait() == 130);
}

TEST_CASE("A request that got no delay is one line, and is repeated") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server", {"--next", "0.01"});
  const Ended ended = run(loop, {example("poller"), "--count", "2", server.address() + "/next",
                                 server.address() + "/hello", server.address() + "/nowhere",
                                 server.address() + "/bytes", server.address() + "/drop"});
  CHECK(ended.exit_code == 1);
  CHECK(lines_of(ended.output).size() == 2);
  CHECK(lines_of(ended.errors).size() == 8);
  CHECK(count(ended.errors, "the reply is \"Hello from pawl?\", not a number of seconds\n") == 2);
  CHECK(count(ended.errors, "the reply is 404, not 200\n") == 2);
  CHECK(count(ended.errors, "Connection reset by peer") == 2);
}

TEST_CASE("--blocking makes each server wait for the other, and debug mode names the line") {
  pawl::EventLoop loop;
  RunningServer quick(loop, "http_server", {"--next", "0"});
  RunningServer slow(loop, "http_server", {"--next", "0.2"});
  const Ended ended = run(loop, {example("poller"), "--blocking", "--count", "3",
                                 slow.address() + "/next", quick.address() + "/next"});
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 0);
  const std::vector<std::string> lines = lines_of(ended.output);
  REQUIRE(lines.size() == 16);
  const auto is_from = [&](std::size_t i, const RunningServer& server) {
    return lines[i].find(server.address() + "/next") != std::string::npos;
  };
  for (std::size_t i = 0; i < 3; ++i) {  // turn by turn, though one asks for no delay at all
    CHECK(is_from(1 + 2 * i, slow));
    CHECK(is_from(2 + 2 * i, quick));
  }
  CHECK(is_from(14, slow));  // in the right form the quick one is done long before
  CHECK(count(ended.errors, "slow callback: call_soon callback registered at poller.cpp:") >= 2);
}

TEST_CASE("Two servers that ask for the same delay take half the time when neither waits") {
  pawl::EventLoop loop;
  RunningServer one(loop, "http_server", {"--next", "0.2"});
  RunningServer two(loop, "http_server", {"--next", "0.2"});
  const auto is_in_time = [](const Ended& ended) {
    const auto at = ended.output.rfind(" of the time");
    const double share = at == std::string::npos ? 0 : std::stod(ended.output.substr(at - 4));
    return share > 0.25 && share < 0.8;
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("poller"), "--blocking", "--count", "3", one.address() + "/next",
                          two.address() + "/next"});
      },
      is_in_time);
  INFO(ended.output);
  CHECK(is_in_time(ended));
}

TEST_CASE("Ctrl-C ends the poller while it blocks, too") {
  pawl::EventLoop loop;
  RunningServer lazy(loop, "http_server", {"--next", "1000"});
  RunningProgram poller(loop, {example("poller"), "--blocking", lazy.address() + "/next"});
  poller.wait_for("next request in");
  poller.signal(2);
  CHECK(poller.wait() == 130);
}

TEST_CASE("Without a URL the poller shows how it is used") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("poller")});
  CHECK(ended.exit_code == 2);
  CHECK(ended.errors.find("usage: poller URL URL") == 0);
}
