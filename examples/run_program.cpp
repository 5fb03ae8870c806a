// SPDX-License-Identifier: MIT
// "Background processing of external programs": several at once beside the loop, each with a pipe
// for what it says, an end that is a callback, and a limit to its time.
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/async/future.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: run_program COMMAND... [--timeout SECONDS] [--input TEXT]

Runs all commands at once, each with the shell, and prints their output line by
line as it comes, with the number of the command. Then how each ended, in the
order of the commands, and how long it took. Exit code 1 when one of them
failed; Ctrl-C ends them all, and this with exit code 130. Try it with:
  run_program 'for i in 1 2 3; do echo $i; sleep 1; done' 'ls | wc -l'

  --timeout SECONDS  after which a command, with all that it has started, is
                     killed; default: never
  --input TEXT       what each command can read; nothing without it)";

/// What comes through a pipe, a line at a time; the last one may have no end. One that is longer
/// than longest_line comes in pieces, since nobody knows how long it is going to be.
///
/// Calls: `on_line` for each, then `on_end` once, with the error that ended it too early.
class Lines {
 public:
  using LineCallback = pawl::Function<void(std::string_view)>;

  Lines(pawl::EventLoop& loop, pawl::UniqueFd fd, LineCallback on_line,
        pawl::Function<void(std::error_code)> on_end)
      : loop_(loop), fd_(std::move(fd)), on_line_(std::move(on_line)), on_end_(std::move(on_end)) {
    const std::error_code error = loop.add_reader(fd_.get(), [this] { read(); });
    if (error) throw std::system_error(error, "a command's pipe");
  }
  ~Lines() { close(); }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

 private:
  static constexpr std::size_t longest_line = 64 * 1024;

  void read() {
    char buffer[16 * 1024];
    const pawl::SystemResult result = loop_.system().read(fd_.get(), buffer, sizeof buffer);
    if (result.would_block()) return;
    if (!result.ok() || result.bytes() == 0) return end(result.code());
    rest_.append(buffer, result.bytes());
    std::size_t begin = 0;
    for (auto at = rest_.find('\n'); at != std::string::npos; at = rest_.find('\n', begin)) {
      on_line_(std::string_view(rest_).substr(begin, at - begin));
      begin = at + 1;
    }
    rest_.erase(0, begin);
    if (rest_.size() < longest_line) return;
    on_line_(rest_);
    rest_.clear();
  }

  void end(std::error_code error) {
    if (!rest_.empty()) on_line_(rest_);
    close();
    on_end_(error);
  }

  void close() {
    if (fd_) loop_.remove_reader(fd_.get());
    fd_.reset();
  }

  pawl::EventLoop& loop_;
  pawl::UniqueFd fd_;
  LineCallback on_line_;
  pawl::Function<void(std::error_code)> on_end_;
  std::string rest_;
};

struct Settings {
  pawl::Duration timeout{};
  std::string input;
};

struct Ended {
  std::string command;
  pawl::ChildExit exit;
  pawl::Duration took{};
};

/// One command. It has ended when its process has and both its pipes have: their last lines may
/// come later than the news of its end.
class Command {
 public:
  Command(pawl::EventLoop& loop, std::string text, std::size_t number, const Settings& settings)
      : loop_(loop),
        text_(std::move(text)),
        prefix_("[" + std::to_string(number) + "] "),
        input_(settings.input),
        promise_(loop),
        started_(loop.time()),
        process_(loop, options(text_, settings),
                 [this](pawl::ChildProcess&, const pawl::ChildExit& exit) {
                   exit_ = exit;
                   took_ = loop_.time() - started_;
                   part_ended();
                 }),
        output_(
            loop, std::move(process_.standard_output()),
            [this](std::string_view line) { print(stdout, line); },
            [this](std::error_code error) { output_ended(error); }),
        errors_(
            loop, std::move(process_.standard_error()),
            [this](std::string_view line) { print(stderr, line); },
            [this](std::error_code error) { output_ended(error); }) {
    write_input();
  }
  ~Command() { stop_writing(); }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  pawl::Future<Ended> ended() const { return promise_.future(); }
  void kill() { process_.kill(SIGKILL); }

 private:
  static pawl::ChildProcessOptions options(const std::string& text, const Settings& settings) {
    pawl::ChildProcessOptions options;
    options.arguments = {"sh", "-c", text};
    options.standard_input = settings.input.empty() ? pawl::Stdio::null : pawl::Stdio::pipe;
    options.standard_output = pawl::Stdio::pipe;
    options.standard_error = pawl::Stdio::pipe;
    options.timeout = settings.timeout;
    options.new_process_group = true;  // what a shell has started ends with it
    return options;
  }

  void print(std::FILE* file, std::string_view line) const {
    std::fputs(prefix_.c_str(), file);
    std::fwrite(line.data(), 1, line.size(), file);  // with its NULs, where printf would end
    std::fputc('\n', file);
  }

  /// As much as the pipe takes, the rest when it takes more; then its end.
  void write_input() {
    pawl::UniqueFd& pipe = process_.standard_input();
    if (!pipe) return;
    const pawl::SystemResult result =
        loop_.system().write(pipe.get(), input_.data(), input_.size());
    if (result.ok()) input_.erase(0, result.bytes());
    if (input_.empty() || (!result.ok() && !result.would_block())) return stop_writing();
    const std::error_code error = loop_.add_writer(pipe.get(), [this] { write_input(); });
    if (error) throw std::system_error(error, "a command's input");
  }

  void stop_writing() {
    pawl::UniqueFd& pipe = process_.standard_input();
    if (pipe) loop_.remove_writer(pipe.get());
    pipe.reset();
  }

  void output_ended(std::error_code error) {
    if (error) std::fprintf(stderr, "%sits output: %s\n", prefix_.c_str(), error.message().c_str());
    part_ended();
  }

  void part_ended() {
    if (--parts_left_ == 0) promise_.set_result(Ended{text_, exit_, took_});
  }

  pawl::EventLoop& loop_;
  const std::string text_;
  const std::string prefix_;
  std::string input_;  // what is left of it
  pawl::Promise<Ended> promise_;
  const pawl::TimePoint started_;
  int parts_left_ = 3;  // the process and its two pipes
  pawl::ChildExit exit_;
  pawl::Duration took_{};
  pawl::ChildProcess process_;
  Lines output_;
  Lines errors_;
};

/// Returns the exit code.
int print_endings(const std::vector<Ended>& all) {
  int exit_code = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Ended& ended = all[i];
    std::printf("[%zu] %s after %s: %s\n", i + 1, ended.exit.to_string().c_str(),
                as_text(ended.took).c_str(), shortened(ended.command, 40).c_str());
    if (!ended.exit.ok()) exit_code = 1;
  }
  return exit_code;
}

int run(Options& words) {
  Settings settings;
  settings.timeout = words.seconds("--timeout", {});
  settings.input = words.text("--input").value_or("");
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  const std::vector<std::string> texts = words.rest();
  if (texts.empty()) throw ShowHelp();

  pawl::EventLoop loop(std::move(options));
  // A command may end before it has read its input: that is an error of `write`, not our end. The
  // commands get the usual SIGPIPE back.
  const std::error_code no_signals = loop.add_signal_handler(SIGPIPE, [] {});
  if (no_signals) throw std::system_error(no_signals, "SIGPIPE");
  std::vector<std::unique_ptr<Command>> commands;
  std::vector<pawl::Future<Ended>> endings;
  for (const std::string& text : texts) {
    commands.push_back(std::make_unique<Command>(loop, text, commands.size() + 1, settings));
    endings.push_back(commands.back()->ended());
  }
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    for (const auto& command : commands) command->kill();
    // A pipe may be held open by what a command has left behind.
    loop.call_later(std::chrono::milliseconds(500), [&] { loop.stop(); });
  });
  const pawl::Future<std::vector<Ended>> all = pawl::gather(loop, endings);
  int exit_code = 0;
  all.add_done_callback([&] {
    exit_code = print_endings(all.result());
    loop.stop();
  });
  loop.run();
  return interrupted_by != 0 ? 128 + interrupted_by : exit_code;
}

}  // namespace

int main(int argc, char** argv) { return run_program("run_program", help, argc, argv, run); }
