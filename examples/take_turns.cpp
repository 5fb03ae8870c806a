// SPDX-License-Identifier: MIT
// The tasks of "Asyncio from scratch" and the iterators of "asyncio": functions that take turns on
// one thread. What `yield` and `await` would keep in a frame stands in the open: the line that a
// function is on is its step, its variables are members.
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "pawl/async/task.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "program.hpp"
#include "run_task.hpp"

namespace {

constexpr const char* help =
    R"(usage: take_turns [--sequence | --interleave] [--trace] [--describe] [--scale X]

Two tasks say who they are, twice and three times, and sleep for one and for two
seconds in between. A third task awaits the first, then the second:
  Task 1, Task 2, Task 1, Task 2, Task 2, done
Ctrl-C cancels them all and ends with exit code 130.

  --sequence         runs two lists of letters one after the other: A B C X Y Z
  --interleave       the same two take turns: A X B Y C Z
  --trace            each step that is run, and what the tasks give in the end
  --describe         where each task stands and what its variables are, in the
                     middle of each second
  --scale X          how long a second is, in seconds; default 1)";

/// Prints "running task NAME step STEP".
class StepPrinter final : public pawl::Observer {
 public:
  void on_step(const pawl::StepRun& run) override {
    std::printf("running %s\n", (std::string(run.machine) + " " + std::string(run.label) +
                                 " step " + std::string(run.step))
                                    .c_str());
  }
};

/// The document's `for _ in range(times): print(text); await sleep(pause)`. Gives how often.
class Turns final : public pawl::Task<int> {
 public:
  Turns(pawl::EventLoop& loop, const char* name, const char* text, int times, pawl::Duration pause)
      : Task(loop, name), text_(text), times_(times), pause_(pause) {}

  std::string variables() const {
    return "{turns: " + std::to_string(turns_) + ", times: " + std::to_string(times_) + "}";
  }

 private:
  enum class Step { print, slept };

  pawl::Next step() override {
    switch (at_) {
      case Step::print:
        std::printf("%s\n", text_);
        at_ = Step::slept;
        return pawl::Next::sleep(pause_);
      case Step::slept: ++turns_; at_ = Step::print;
    }
    return turns_ == times_ ? done(turns_) : pawl::Next::go_on();
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"print", "slept"};
    return names[static_cast<std::size_t>(at_)];
  }

  const char* text_;
  const int times_;
  const pawl::Duration pause_;
  int turns_ = 0;
  Step at_ = Step::print;
};

/// `await one; await two; print("done")`
class Main final : public pawl::Task<> {
 public:
  Main(pawl::EventLoop& loop, pawl::Duration second)
      : Task(loop, "main"),
        one_(loop, "task1", "Task 1", 2, second),
        two_(loop, "task2", "Task 2", 3, 2 * second) {}

  /// Where each stands: what a debugger would show of a coroutine's frame.
  void print_states() const {
    std::printf("  %s\n", describe().c_str());
    for (const Turns* task : {&one_, &two_}) {
      std::printf("  %s %s\n", task->describe().c_str(), task->variables().c_str());
    }
  }

  /// For when it is done.
  void print_results() const {
    for (const Turns* task : {&one_, &two_}) {
      std::printf("%s: done %s, result %d\n", task->name().c_str(), task->done() ? "true" : "false",
                  task->future().result());
    }
  }

 private:
  enum class Step { await_one, await_two, print };

  pawl::Next step() override {
    switch (at_) {
      case Step::await_one: at_ = Step::await_two; return pawl::Next::task(one_);
      case Step::await_two: at_ = Step::print; return pawl::Next::task(two_);
      case Step::print: std::printf("done\n");
    }
    return pawl::Next::done();
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"await one", "await two", "print"};
    return names[static_cast<std::size_t>(at_)];
  }

  Turns one_;
  Turns two_;
  Step at_ = Step::await_one;
};

int take_turns(pawl::EventLoop& loop, pawl::Duration second, bool traces, bool describes) {
  Main main(loop, second);
  pawl::ScopedHandle ticker;
  if (describes) {
    ticker = loop.call_later(second / 2, [&] {
      main.print_states();
      ticker = loop.call_every(second, [&] { main.print_states(); });
    });
  }
  const int exit_code = run_task(loop, main);
  if (traces && exit_code == 0) main.print_results();
  return exit_code;
}

/// An iterator of "asyncio": prints a letter, yields, prints the next. Its step is its letter.
class Letters final : public pawl::Task<> {
 public:
  Letters(pawl::EventLoop& loop, const char* name, std::string_view letters)
      : Task(loop, name), left_(letters) {}

 private:
  pawl::Next step() override {
    std::printf("%c\n", left_.front());
    left_.remove_prefix(1);
    return left_.empty() ? pawl::Next::done() : pawl::Next::yield();
  }
  std::string_view step_name() const override { return left_.substr(0, 1); }

  std::string_view left_;
};

int run_in_sequence(pawl::EventLoop& loop) {
  for (const auto& [name, letters] : {std::pair("abc", "ABC"), std::pair("xyz", "XYZ")}) {
    Letters task(loop, name, letters);
    if (const int exit_code = run_task(loop, task)) return exit_code;
  }
  return 0;
}

int run_interleaved(pawl::EventLoop& loop) {
  Letters abc(loop, "abc", "ABC");
  Letters xyz(loop, "xyz", "XYZ");
  if (const int exit_code = run_task(loop, abc)) return exit_code;
  return run_task(loop, xyz);
}

int run(Options& words) {
  const bool is_in_sequence = words.flag("--sequence");
  const bool is_interleaved = words.flag("--interleave");
  const bool traces = words.flag("--trace");
  const bool describes = words.flag("--describe");
  const pawl::Duration second = words.seconds("--scale", std::chrono::seconds(1));
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  words.expect_nothing_else();
  if (is_in_sequence && is_interleaved) {
    throw std::invalid_argument("--sequence and --interleave exclude each other");
  }
  if (describes && second < std::chrono::milliseconds(1)) {
    throw std::invalid_argument("--describe needs a --scale of 0.001 or more");
  }
  StepPrinter printer;
  if (traces) options.observer = &printer;
  pawl::EventLoop loop(std::move(options));
  if (is_in_sequence) return run_in_sequence(loop);
  if (is_interleaved) return run_interleaved(loop);
  return take_turns(loop, second, traces, describes);
}

}  // namespace

int main(int argc, char** argv) { return run_program("take_turns", help, argc, argv, run); }
