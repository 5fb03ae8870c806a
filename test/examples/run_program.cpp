// SPDX-License-Identifier: MIT
// Programs that run beside the loop: their lines, their ends, and their timeouts.
#include <catch2/catch.hpp>
#include <csignal>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("run_program prints what each command says line by line, and how each ended") {
  pawl::EventLoop loop;
  const Ended ended = run(loop, {example("run_program"), "echo a; printf b; echo c >&2; exit 3",
                                 "true", "kill -TERM $$", "no_such_program"});
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.output, "[1] a\n"));
  CHECK(contains(ended.output, "[1] b\n"));  // a last line without its end
  CHECK(contains(ended.errors, "[1] c\n"));
  CHECK(contains(ended.errors, "[4] "));
  const std::vector<std::string> lines = lines_of(ended.output);
  REQUIRE(lines.size() == 6);
  CHECK(contains(lines[2], "[1] exit code 3 after "));
  CHECK(contains(lines[3], "[2] exit code 0 after "));
  CHECK(contains(lines[4], "[3] killed by signal 15 after "));
  CHECK(contains(lines[5], "[4] exit code 127 after "));
}

TEST_CASE("Commands run at once: each waits for what the other one says") {
  pawl::EventLoop loop;
  const std::string make = "d=$(mktemp -d); mkfifo $d/f $d/g; ";
  const std::string both = "(" + example("run_program") +
                           " \"echo hello >$d/f; cat $d/g\" \"cat $d/f; echo world >$d/g\")";
  const Ended ended = run_shell(loop, make + both + "; rm -r $d");
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "[2] hello\n"));
  CHECK(contains(ended.output, "[1] world\n"));
}

TEST_CASE("A line is printed when it comes, not when its command ends") {
  pawl::EventLoop loop;
  RunningProgram program(loop, {example("run_program"), "echo first; sleep 1000", "echo second"});
  program.wait_for("[1] first\n");
  program.wait_for("[2] second\n");
  program.signal(SIGINT);
  CHECK(program.wait() == 130);
  CHECK(contains(program.output(), "[1] killed by signal 9 after "));
}

TEST_CASE("--timeout kills a command with all that it has started") {
  pawl::EventLoop loop;
  const Ended ended =
      run(loop, {example("run_program"), "--timeout", "0.1", "sleep 1000 & sleep 1000; echo no"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.output, "[1] timed out, killed by signal 9 after "));
  CHECK_FALSE(contains(ended.output, "[1] no"));
}

TEST_CASE("--input goes through a pipe to each command, to one that doesn't read it too") {
  pawl::EventLoop loop;
  const std::string text(100'000, 'x');  // more than a pipe takes at once
  const Ended ended = run(loop, {example("run_program"), "wc -c", "sleep 0.1; cat | tail -c 3",
                                 "exit 0", "--input", text});
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "[1] 100000\n"));
  CHECK(contains(ended.output, "[2] xxx\n"));
  CHECK(contains(ended.output, "[3] exit code 0 after "));
}

TEST_CASE("A line goes through run_program with its NULs, and a very long one in pieces") {
  pawl::EventLoop loop;
  using namespace std::string_literals;
  const Ended ended = run(loop, {example("run_program"), "printf 'a\\000b\\n'"});
  CHECK(contains(ended.output, "[1] a\0b\n"s));
  const Ended longer = run(loop, {example("run_program"), "head -c 200000 /dev/zero | tr '\\0' x"});
  CHECK(longer.exit_code == 0);
  std::size_t letters = 0;
  for (const std::string& line : lines_of(longer.output)) {
    CHECK(line.size() < 100'000);
    if (line.substr(0, 5) == "[1] x") letters += line.size() - 4;
  }
  CHECK(letters == 200'000);
}

TEST_CASE("--timeout and Ctrl-C reach what a command has left behind") {
  pawl::EventLoop loop;
  const std::string command = "sleep 1000 & exit 0";
  const Ended ended = run(loop, {example("run_program"), "--timeout", "0.3", command});
  CHECK(ended.exit_code == 0);  // the command itself was in time
  CHECK(contains(ended.output, "[1] exit code 0 after "));

  RunningProgram program(loop, {example("run_program"), "echo begun; " + command});
  program.wait_for("[1] begun\n");
  program.signal(SIGINT);
  CHECK(program.wait() == 130);
}
