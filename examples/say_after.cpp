// SPDX-License-Identifier: MIT
// What awaiting is, and what a task is: "hello" after one second and "world" after two take three
// seconds when each is awaited before the next begins, and two when both are tasks. A task that
// blocks the thread instead of sleeping makes it three again.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "console.hpp"
#include "pawl/async/task.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "program.hpp"
#include "run_task.hpp"

namespace {

constexpr const char* help =
    R"(usage: say_after [--blocking] [--scale X]

Says "hello" after one second and "world" after two: first one after the other,
which takes three seconds, then as two tasks, which takes two. Ctrl-C ends it
with exit code 130.

  --blocking         and a third time, as two tasks that block the thread:
                     three seconds again. Debug mode is on for that one, and
                     names on standard error the line that began each
  --scale X          how long a second is, in seconds; default 1)";

/// When the run began that is shown.
struct Watch {
  const pawl::EventLoop& loop;
  pawl::TimePoint started = loop.time();

  pawl::Duration elapsed() const { return loop.time() - started; }
};

/// `await sleep(delay); print(what)`
class SayAfter : public pawl::Task<> {
 public:
  SayAfter(const Watch& watch, pawl::EventLoop& loop, pawl::Duration delay, const char* what,
           pawl::Place place = pawl::Place::here())
      : Task(loop, what, place), watch_(watch), delay_(delay), what_(what) {}

 protected:
  /// How the wait is made, and the only difference between the right and the broken form.
  virtual pawl::Next sleep(pawl::Duration delay) { return pawl::Next::sleep(delay); }

 private:
  enum class Step { sleep, say };

  pawl::Next step() override {
    if (at_ == Step::sleep) {
      at_ = Step::say;
      return sleep(delay_);
    }
    std::printf("%10s  %s\n", as_text(watch_.elapsed()).c_str(), what_);
    return pawl::Next::done();
  }
  std::string_view step_name() const override { return at_ == Step::sleep ? "sleep" : "say"; }

  const Watch& watch_;
  const pawl::Duration delay_;
  const char* const what_;
  Step at_ = Step::sleep;
};

/// Broken: nobody else on the loop can do anything meanwhile.
class BlockAndSay final : public SayAfter {
 public:
  using SayAfter::SayAfter;

 private:
  pawl::Next sleep(pawl::Duration delay) override {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(delay);
    const timespec time{seconds.count(), (delay - seconds).count()};
    ::nanosleep(&time, nullptr);  // a Ctrl-C ends it
    return pawl::Next::go_on();
  }
};

/// `await say_after(1, "hello"); await say_after(2, "world")`
class InSequence final : public pawl::Task<> {
 public:
  InSequence(const Watch& watch, pawl::EventLoop& loop, pawl::Duration second)
      : Task(loop, "in sequence"), watch_(watch), second_(second) {}

 private:
  enum class Step { hello, world, end };

  pawl::Next step() override {
    switch (at_) {
      case Step::hello: at_ = Step::world; return await(second_, "hello");
      case Step::world: at_ = Step::end; return await(2 * second_, "world");
      case Step::end: break;
    }
    return pawl::Next::done();
  }
  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"hello", "world", "end"};
    return names[static_cast<std::size_t>(at_)];
  }
  pawl::Next await(pawl::Duration delay, const char* what) {
    callee_ = std::make_unique<SayAfter>(watch_, loop(), delay, what, pawl::Place::here());
    return pawl::Next::task(*callee_);
  }

  const Watch& watch_;
  const pawl::Duration second_;
  std::unique_ptr<SayAfter> callee_;
  Step at_ = Step::hello;
};

/// `t0 = create_task(...); t1 = create_task(...); await t0; await t1`
template <typename Say>
class AsTasks final : public pawl::Task<> {
 public:
  AsTasks(const Watch& watch, pawl::EventLoop& loop, pawl::Duration second)
      : Task(loop, "as tasks"),
        hello_(watch, loop, second, "hello"),
        world_(watch, loop, 2 * second, "world") {}

 private:
  enum class Step { await_hello, await_world, end };

  pawl::Next step() override {
    switch (at_) {
      case Step::await_hello: at_ = Step::await_world; return pawl::Next::task(hello_);
      case Step::await_world: at_ = Step::end; return pawl::Next::task(world_);
      case Step::end: break;
    }
    return pawl::Next::done();
  }
  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"await hello", "await world", "end"};
    return names[static_cast<std::size_t>(at_)];
  }

  Say hello_;
  Say world_;
  Step at_ = Step::await_hello;
};

struct Run {
  int exit_code;
  pawl::Duration took;
};

/// A loop of its own for each, so that only the broken one has debug mode.
template <typename Main>
Run run_and_time(const char* title, const std::string& selector, pawl::Duration second,
                 bool is_debug = false) {
  pawl::LoopOptions options;
  options.selector = selector;
  options.debug = is_debug;
  options.slow_callback = std::min(options.slow_callback, second / 2);
  pawl::EventLoop loop(std::move(options));
  std::printf("%s\n", title);
  const Watch watch{loop};
  Main main(watch, loop, second);
  return {run_task(loop, main), watch.elapsed()};
}

void print_share(const Run& run, const Run& whole) {
  std::printf("took %s, %.2f of the time in sequence\n", as_text(run.took).c_str(),
              static_cast<double>(run.took.count()) / static_cast<double>(whole.took.count()));
}

int run(Options& words) {
  const bool blocks = words.flag("--blocking");
  const pawl::Duration second = words.seconds("--scale", std::chrono::seconds(1));
  const std::string selector = words.text("--selector").value_or("");
  words.expect_nothing_else();

  const Run in_sequence = run_and_time<InSequence>("in sequence", selector, second);
  if (in_sequence.exit_code != 0) return in_sequence.exit_code;
  std::printf("took %s\n", as_text(in_sequence.took).c_str());

  const Run tasks = run_and_time<AsTasks<SayAfter>>("as tasks", selector, second);
  if (tasks.exit_code != 0) return tasks.exit_code;
  print_share(tasks, in_sequence);
  if (!blocks) return 0;

  const char* title = "as tasks that block the thread";
  const Run broken = run_and_time<AsTasks<BlockAndSay>>(title, selector, second, true);
  if (broken.exit_code != 0) return broken.exit_code;
  print_share(broken, in_sequence);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("say_after", help, argc, argv, run); }
