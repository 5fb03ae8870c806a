// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"

/// The path of an example program, which runs on the selector that PAWL_SELECTOR names.
std::string example(const std::string& name);

/// True where `program` is in PATH; else the test is skipped, and says which package brings it.
bool has_program(const std::string& program, const std::string& package);

/// A program beside the test, in a process group of its own. Everything that waits fails, by an
/// exception that shows what the program said, when it takes longer than half a minute.
class RunningProgram {
 public:
  RunningProgram(pawl::EventLoop& loop, std::vector<std::string> arguments);
  /// Kills what is left of the group.
  ~RunningProgram();
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  /// What it has written so far.
  const std::string& output() const { return output_.text; }
  const std::string& errors() const { return errors_.text; }
  /// For what a pipe takes at once.
  void type(std::string_view text);
  void end_input() { process_.standard_input().reset(); }
  /// To the program alone.
  void signal(int number);

  /// Runs the loop until `condition` is true.
  void wait_until(const std::function<bool()>& condition);
  /// Runs the loop until `text` stands in the output.
  void wait_for(std::string_view text);
  /// Runs the loop until it has ended and all its output has come. Returns the exit code, or
  /// 128 + the signal that killed it.
  int wait();
  /// True exactly while any process of its group exists.
  bool has_processes() const;

 private:
  struct Stream {
    pawl::UniqueFd fd;
    std::string text;
  };

  void read(Stream& stream);

  pawl::EventLoop& loop_;
  std::string name_;
  bool has_ended_ = false;
  pawl::ChildExit exit_;
  pawl::ChildProcess process_;
  int pid_;
  Stream output_;
  Stream errors_;
};

/// How a program ended that ran from beginning to end.
struct Ended {
  int exit_code;
  std::string output;
  std::string errors;
};

/// Runs it without any input.
Ended run(pawl::EventLoop& loop, std::vector<std::string> arguments);
/// The first of five runs whose times are right, or else the last one: the machine may stand still
/// in one run, but hardly in each.
Ended run_in_time(const std::function<Ended()>& run,
                  const std::function<bool(const Ended&)>& is_in_time);
/// As an argument of `sh -c`.
Ended run_shell(pawl::EventLoop& loop, const std::string& command);

/// A server among the examples that has said where it listens.
class RunningServer : public RunningProgram {
 public:
  RunningServer(pawl::EventLoop& loop, const std::string& name,
                const std::vector<std::string>& options = {});

  /// "http://127.0.0.1:8080", or "127.0.0.1:7000"
  const std::string& address() const { return address_; }
  /// "8080"
  std::string port() const { return address_.substr(address_.rfind(':') + 1); }

 private:
  std::string address_;
};

/// The lines of a text, without their ends.
std::vector<std::string> lines_of(const std::string& text);
