// SPDX-License-Identifier: MIT
// take_turns, say_after and tiny: what "Asyncio from scratch", "asyncio" and "Tiny-asyncio" print.
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <string>
#include <vector>

#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// "0.67 of the time", for each of them.
std::vector<double> shares_of(const std::string& output) {
  std::vector<double> shares;
  for (auto at = output.find(" of the time"); at != std::string::npos;
       at = output.find(" of the time", at + 1)) {
    shares.push_back(std::stod(output.substr(at - 4, 4)));
  }
  return shares;
}

}  // namespace

TEST_CASE("Two tasks that sleep for one and for two seconds take turns as their document shows") {
  pawl::EventLoop loop;
  const pawl::TimePoint begin = loop.time();
  const Ended ended = run(loop, {example("take_turns"), "--scale", "0.1"});
  CHECK(loop.time() - begin >= std::chrono::milliseconds(600));  // three times two seconds
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(ended.output == "Task 1\nTask 2\nTask 1\nTask 2\nTask 2\ndone\n");
}

TEST_CASE("Two iterators run in sequence, or interleaved") {
  pawl::EventLoop loop;
  CHECK(run(loop, {example("take_turns"), "--sequence"}).output == "A\nB\nC\nX\nY\nZ\n");
  CHECK(run(loop, {example("take_turns"), "--interleave"}).output == "A\nX\nB\nY\nC\nZ\n");
  CHECK(run(loop, {example("take_turns"), "--interleave", "--sequence"}).exit_code == 2);
}

TEST_CASE("--trace shows each step of each task, and what they give") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("take_turns"), "--trace", "--scale", "0.01"});
  CHECK(ended.exit_code == 0);
  CHECK(count(ended.output, "running task task1 step print\nTask 1\n") == 2);
  CHECK(count(ended.output, "running task task1 step slept\n") == 2);
  CHECK(count(ended.output, "running task task2 step print\nTask 2\n") == 3);
  CHECK(count(ended.output, "running task task2 step slept\n") == 3);
  CHECK(count(ended.output, "running task main step ") == 3);
  const std::string end =
      "running task main step print\ndone\n"
      "task1: done true, result 2\ntask2: done true, result 3\n";
  CHECK(ended.output.substr(ended.output.size() - end.size()) == end);
  const Ended letters = run(loop, {example("take_turns"), "--interleave", "--trace"});
  CHECK(contains(letters.output,
                 "running task abc step A\nA\nrunning task xyz step X\nX\n"
                 "running task abc step B\nB\n"));
}

TEST_CASE("--describe shows the step and the variables of each task") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("take_turns"), "--describe", "--scale", "0.2"});
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "  task main, step await two, AWAITING task task1 for "));
  CHECK(contains(ended.output, "  task task1, step slept, SLEEPING for "));
  CHECK(contains(ended.output, " {turns: 1, times: 2}\n"));
  CHECK(contains(ended.output, " {turns: 2, times: 3}\n"));
}

TEST_CASE("What takes three seconds in sequence takes two as tasks") {
  pawl::EventLoop loop;
  const auto is_in_time = [](const Ended& one) {
    const std::vector<double> shares = shares_of(one.output);
    return shares.size() == 1 && shares[0] > 0.4 && shares[0] < 0.9;
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("say_after"), "--scale", "0.2"});
      },
      is_in_time);
  INFO(ended.output);
  CHECK(is_in_time(ended));
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(count(ended.output, "  hello\n") == 2);
  CHECK(count(ended.output, "  world\n") == 2);
}

TEST_CASE("Tasks that block the thread take three seconds again, and debug mode names their line") {
  pawl::EventLoop loop;
  const auto is_in_time = [](const Ended& one) {
    const std::vector<double> shares = shares_of(one.output);
    return shares.size() == 2 && shares[1] > 0.8 && shares[1] > shares[0];
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("say_after"), "--blocking", "--scale", "0.2"});
      },
      is_in_time);
  INFO(ended.output << ended.errors);
  CHECK(is_in_time(ended));
  CHECK(ended.exit_code == 0);
  CHECK(count(ended.errors, "slow callback: ") >= 2);
  CHECK(contains(ended.errors, "registered at say_after.cpp:"));
}

TEST_CASE("tiny gathers replies in the order of its arguments, whichever came first") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string slow = server.address() + "/slow?ms=300";
  const std::string quick = server.address() + "/hello";
  const auto is_in_time = [](const Ended& one) {
    const std::string ticked = "the periodic task ticked ";
    const auto at = one.output.find(ticked);
    return at != std::string::npos && std::stoi(one.output.substr(at + ticked.size())) >= 2;
  };
  const Ended ended = run_in_time(
      [&] {
        return run(loop, {example("tiny"), slow, quick, "--every", "0.02"});
      },
      is_in_time);
  INFO(ended.output << ended.errors);
  CHECK(is_in_time(ended));
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "gathered, in the order of the arguments:\n  " + slow +
                                   "  HTTP/1.1 200 OK, 25 bytes\n  " + quick +
                                   "  HTTP/1.1 200 OK, 16 bytes\n"));
  CHECK(ended.output.find("slept") < ended.output.find("done: " + quick));
  CHECK(ended.output.find("done: " + quick) < ended.output.find("done: " + slow));
}

TEST_CASE("tiny fails with one line when a connection fails, and receives more than one read") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended big = run(loop, {example("tiny"), server.address() + "/bytes?n=1000000"});
  CHECK(contains(big.output, "HTTP/1.1 200 OK, 1000000 bytes\n"));
  const Ended refused =
      run(loop, {example("tiny"), server.address() + "/hello", "http://127.0.0.1:1/"});
  CHECK(refused.exit_code == 1);
  CHECK(contains(refused.errors, "Connection refused"));
  CHECK(lines_of(refused.errors).size() == 1);
  CHECK(run(loop, {example("tiny"), "http://localhost:1/"}).exit_code == 2);
}

TEST_CASE("Ctrl-C cancels a task at whichever step it stands") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::vector<std::pair<std::vector<std::string>, std::string>> programs{
      {{"take_turns", "--scale", "1000"}, "Task 2\n"},
      {{"say_after", "--scale", "1000"}, "in sequence\n"},
      {{"tiny", server.address() + "/slow?ms=30000"}, "slept\n"},
  };
  for (auto [arguments, said] : programs) {
    arguments[0] = example(arguments[0]);
    RunningProgram program(loop, arguments);
    program.wait_for(said);
    program.signal(SIGINT);
    CHECK(program.wait() == 130);
    CHECK(program.errors().empty());
  }
}
