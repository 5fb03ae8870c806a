// SPDX-License-Identifier: MIT
// echo_udp and udp_calls: lost datagrams, and calls that overlap.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Milliseconds by mode, out of "sequential  400.9 ms  response for request0, ...".
std::map<std::string, double> times_of(const std::string& output) {
  std::map<std::string, double> times;
  for (const std::string& line : lines_of(output)) {
    std::istringstream words(line);
    std::string mode;
    std::string unit;
    double time = 0;
    words >> mode >> time >> unit;
    times[mode] = unit == "s" ? time * 1000 : time;
  }
  return times;
}

}  // namespace

TEST_CASE("Calls by UDP that overlap take as long as one, in each of the three ways") {
  pawl::EventLoop loop;
  const std::array<const char*, 3> overlapping{"together", "threads", "loop"};
  const auto is_in_time = [&](const Ended& one) {
    auto times = times_of(one.output);
    return std::all_of(overlapping.begin(), overlapping.end(),
                       [&](const char* mode) { return times[mode] < 0.67 * times["sequential"]; });
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("udp_calls"), "--delay", "0.3", "--calls", "3"});
      },
      is_in_time);
  INFO(ended.output << ended.errors);
  CHECK(is_in_time(ended));
  REQUIRE(ended.exit_code == 0);
  auto times = times_of(ended.output);
  REQUIRE(times.size() == 4);
  CHECK(times["sequential"] >= 900);
  for (const char* mode : overlapping) {
    CAPTURE(mode);
    CHECK(times[mode] >= 300);
  }
  for (const std::string& line : lines_of(ended.output)) {
    CHECK(contains(line, "response for request"));
  }
}

TEST_CASE("udp_calls makes one mode alone when it is asked for, and refuses an unknown one") {
  pawl::EventLoop loop;
  const Ended one = run(loop, {example("udp_calls"), "--mode", "loop", "--delay", "0.01"});
  CHECK(lines_of(one.output).size() == 1);
  CHECK(contains(one.output, "response for request0, response for request1"));
  const Ended none = run(loop, {example("udp_calls"), "--mode", "coroutines"});
  CHECK(none.exit_code == 2);
  CHECK(contains(none.errors, "no mode is called \"coroutines\""));
}

TEST_CASE("A socket that calls share needs a lock: without it answers go astray and calls hang") {
  pawl::EventLoop loop;
  const auto is_in_time = [](const Ended& one) {
    auto times = times_of(one.output);
    return times["shared"] < times["shared-unlocked"];
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("udp_calls"), "--mode", "shared,shared-unlocked", "--delay",
                          "0.2", "--timeout", "2"});
      },
      is_in_time);
  INFO(ended.output << ended.errors);
  CHECK(is_in_time(ended));
  REQUIRE(ended.exit_code == 0);
  auto times = times_of(ended.output);
  const std::vector<std::string> lines = lines_of(ended.output);
  REQUIRE(lines.size() == 2);
  CHECK(contains(lines[0], "  no answer to request0, response for request"));
  CHECK(times["shared-unlocked"] >= 2000);  // a call waited in vain
  CHECK(contains(lines[1], "  response for request0, response for request1"));
  CHECK_FALSE(contains(lines[1], " to request"));
  CHECK(times["shared"] >= 400);  // one after the other
}

TEST_CASE("A datagram that was lost is sent again until its echo comes") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_udp", {"--serve", "--lose", "5"});
  const Ended ended =
      run(loop, {example("echo_udp"), server.address(), "--count", "40", "--patience", "0.01"});
  INFO(ended.errors);
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "40 datagrams of 64 bytes, "));
  CHECK_FALSE(contains(ended.output, " 0 sent again"));
  server.signal(SIGINT);
  CHECK(server.wait() == 0);
}

TEST_CASE("Where nobody answers, echo_udp gives up and says what the network said") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("echo_udp"), "127.0.0.1:1", "--patience", "0.001"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.errors, "no answer from 127.0.0.1:1 after 10 tries"));
  CHECK(contains(ended.errors, "Connection refused"));
}

TEST_CASE("echo_udp's server is understood by socat") {
  if (!has_program("socat", "socat")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_udp", {"--serve"});
  const Ended ended = run_shell(loop, "printf hello | socat -t 0.3 - UDP4:" + server.address());
  CHECK(ended.output == "hello");
}
