// SPDX-License-Identifier: MIT
// What all examples do alike.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/selector/selector.hpp"
#include "running_program.hpp"
#include "support/environment.hpp"
#include "support/sockets.hpp"

namespace {

const std::vector<std::string> programs{"http_server", "fetch",       "poller",     "echo_server",
                                        "echo_client", "resolve",     "take_turns", "say_after",
                                        "tiny",        "run_program", "udp_calls"};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Sends the signal, and measures how long the program takes to end.
int exit_code_after(RunningProgram& program, int signal) {
  const auto begin = std::chrono::steady_clock::now();
  program.signal(signal);
  const int exit_code = program.wait();
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
  CHECK_FALSE(program.has_processes());
  CHECK(program.errors().find("terminate") == std::string::npos);
  return exit_code;
}

}  // namespace

TEST_CASE("--help explains each program and its exit codes") {
  pawl::EventLoop loop;
  for (const std::string& name : programs) {
    const Ended ended = run(loop, {example(name), "--help"});
    CHECK(ended.exit_code == 0);
    CHECK(ended.errors.empty());
    CHECK(ended.output.find("usage: " + name + " ") == 0);
    CHECK(contains(ended.output, "--selector NAME    one of "));
    CHECK(contains(ended.output, "Ctrl-C"));
    for (const std::string& line : lines_of(ended.output)) CHECK(line.size() <= 80);
  }
}

TEST_CASE("A command line that makes no sense is one line and exit code 2") {
  pawl::EventLoop loop;
  const auto check = [&](std::vector<std::string> arguments, const std::string& complaint) {
    const std::string name = arguments[0];
    arguments[0] = example(name);
    const Ended ended = run(loop, std::move(arguments));
    INFO(ended.errors);
    CHECK(ended.exit_code == 2);
    CHECK(ended.output.empty());
    CHECK(lines_of(ended.errors).size() == 1);
    CHECK(ended.errors.find(name + ": ") == 0);
    CHECK(contains(ended.errors, complaint));
  };
  for (const std::string& name : programs) {
    check({name, "--nonsense"}, "unknown option --nonsense");
    check({name, "-x"}, "unknown option -x");
    check({name, "--selector"}, "--selector needs a value");
  }
  check({"http_server", "--selector", "kqueue"}, "unknown selector \"kqueue\"");
  check({"fetch", "--selector=kqueue", "http://127.0.0.1:1/"}, "unknown selector \"kqueue\"");
  check({"poller", "--selector", "kqueue", "http://127.0.0.1:1/"}, "unknown selector \"kqueue\"");
  check({"echo_client", "--selector", "kqueue", "127.0.0.1:1"}, "unknown selector \"kqueue\"");
  check({"http_server", "--port", "65536"}, "--port is a number from 0 to 65535, not \"65536\"");
  check({"http_server", "--host", "nowhere"}, "nowhere");
  check({"http_server", "--next", "soon"}, "--next is a number of seconds");
  check({"echo_server", "--port=x"}, "--port is a number");
  check({"echo_server", "7000"}, "what is \"7000\"?");
  check({"fetch", "--timeout", "-1", "http://127.0.0.1:1/"}, "--timeout is a number of seconds");
  check({"poller", "--count", "0", "http://127.0.0.1:1/"}, "--count is a number from 1");
  check({"echo_client", "127.0.0.1"}, "the port is missing");
  check({"resolve", "--selector", "kqueue", "localhost"}, "unknown selector \"kqueue\"");
  check({"resolve", "--backend", "magic", "localhost"}, "unknown backend \"magic\"; known: system");
  check({"resolve", "--family", "5", "localhost"}, "--family is 4 or 6, not \"5\"");
  check({"resolve", "--server", "somewhere", "localhost"}, "\"somewhere\"");
  check({"echo_client", "127.0.0.1:1", "127.0.0.1:2"}, "one server at a time");
}

TEST_CASE("What stands behind -- is no option") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("fetch"), "--", "--trace"});
  CHECK(ended.exit_code == 2);
  CHECK(contains(ended.errors, "\"--trace\": a URL here begins with http://"));
}

TEST_CASE("The programs run on the selector that PAWL_SELECTOR names") {
  const char* wanted = std::getenv("PAWL_SELECTOR");
  if (wanted == nullptr) return;
  CHECK(pawl::EventLoop().selector().name() == wanted);
  pawl::EventLoop loop;
  const ScopedVariable unknown("PAWL_SELECTOR", "kqueue");
  const Ended refused = run(loop, {example("echo_server")});
  CHECK(refused.exit_code == 2);
  CHECK(contains(refused.errors, "unknown selector \"kqueue\""));
  const Ended chosen = run(loop, {example("fetch"), "--selector", wanted, "http://127.0.0.1:1/"});
  CHECK(chosen.exit_code == 1);  // what the program says wins
}

TEST_CASE("Ctrl-C ends a server with exit code 0, also while it serves") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  for (const std::string name : {"http_server", "echo_server"}) {
    for (const int signal : {SIGINT, SIGTERM}) {
      RunningServer idle(loop, name);
      CHECK(exit_code_after(idle, signal) == 0);
      RunningServer busy(loop, name);
      RunningProgram client(loop, {"nc", "127.0.0.1", busy.port()});
      client.type("GET /slow?ms=30000 HTTP/1.1\r\nHost: x\r\n\r\nGET /");
      if (name == "echo_server") client.wait_for("GET /");
      CHECK(exit_code_after(busy, signal) == 0);
    }
  }
}

TEST_CASE("Ctrl-C ends a client with exit code 130") {
  pawl::EventLoop loop;
  const pawl::UniqueFd silent = bound_socket(SOCK_STREAM);
  const std::string address =
      "127.0.0.1:" + std::to_string(ntohs(address_of(silent.get()).sin_port));
  RunningServer server(loop, "http_server", {"--next", "1000"});

  RunningProgram fetch(loop, {example("fetch"), server.address() + "/hello", "http://" + address});
  fetch.wait_for("/hello\n");
  CHECK(exit_code_after(fetch, SIGINT) == 130);
  CHECK(fetch.errors() == "fetch: interrupted, with 1 unfinished\n");

  RunningProgram compare(loop, {example("fetch"), "--compare", "--trace", "http://" + address});
  compare.wait_for("CONNECTING");
  CHECK(exit_code_after(compare, SIGINT) == 130);

  RunningProgram poller(loop, {example("poller"), server.address() + "/next"});
  poller.wait_for("next request in 1000.000 s\n");
  CHECK(exit_code_after(poller, SIGINT) == 130);

  RunningServer echo(loop, "echo_server");
  RunningProgram typed(loop, {example("echo_client"), echo.address(), "-"});
  typed.type("x");
  typed.wait_for("x");
  CHECK(exit_code_after(typed, SIGINT) == 130);

  RunningServer verbose(loop, "echo_server", {"--verbose"});
  RunningProgram client(loop, {example("echo_client"), verbose.address(), "--count", "1000000"});
  verbose.wait_for(" connected\n");
  CHECK(exit_code_after(client, SIGTERM) == 143);
}

TEST_CASE("A port that is taken is one line and exit code 1") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  for (const std::string name : {"http_server", "echo_server"}) {
    const Ended ended = run(loop, {example(name), "--port", server.port()});
    CHECK(ended.exit_code == 1);
    CHECK(contains(ended.errors, "Address already in use"));
    CHECK(contains(ended.errors, "127.0.0.1:" + server.port()));
    CHECK(lines_of(ended.errors).size() == 1);
  }
}

TEST_CASE("Output that can't be written is one line and exit code 1") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended =
      run_shell(loop, example("fetch") + " " + server.address() + "/hello >/dev/full");
  CHECK(ended.exit_code == 1);
  CHECK(ended.errors == "fetch: standard output can't be written\n");
}

TEST_CASE("A --help that can't be written is an error of each program") {
  pawl::EventLoop loop;
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(example(""))) {
    if (!entry.is_regular_file() || ::access(entry.path().c_str(), X_OK) != 0) continue;
    const std::string name = entry.path().filename().string();
    const Ended ended = run_shell(loop, example(name) + " --help >/dev/full");
    CHECK(ended.exit_code == 1);
    CHECK(ended.errors == name + ": standard output can't be written\n");
    ++count;
  }
  CHECK(count >= programs.size());
}
