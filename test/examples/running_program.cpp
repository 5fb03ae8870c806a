// SPDX-License-Identifier: MIT
#include "running_program.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "pawl/system/system.hpp"

namespace {

pawl::ChildProcessOptions piped(std::vector<std::string> arguments) {
  pawl::ChildProcessOptions options;
  options.arguments = std::move(arguments);
  options.standard_input = pawl::Stdio::pipe;
  options.standard_output = pawl::Stdio::pipe;
  options.standard_error = pawl::Stdio::pipe;
  options.new_process_group = true;
  return options;
}

std::vector<std::string> server_arguments(const std::string& name,
                                          const std::vector<std::string>& options) {
  std::vector<std::string> arguments{example(name), "--port", "0"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

}  // namespace

std::string example(const std::string& name) {
  const char* folder = std::getenv("PAWL_EXAMPLES");
  if (folder == nullptr) throw std::runtime_error("PAWL_EXAMPLES names the examples' folder");
  return std::string(folder) + "/" + name;
}

bool has_program(const std::string& program, const std::string& package) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  WARN("skipped: " << program << " (package " << package << ") isn't installed");
  return false;
}

RunningProgram::RunningProgram(pawl::EventLoop& loop, std::vector<std::string> arguments)
    : loop_(loop),
      name_(arguments[0]),
      process_(loop, piped(std::move(arguments)),
               [this](pawl::ChildProcess&, const pawl::ChildExit& exit) {
                 has_ended_ = true;
                 exit_ = exit;
               }),
      pid_(process_.pid()) {
  output_.fd = std::move(process_.standard_output());
  errors_.fd = std::move(process_.standard_error());
  for (Stream* stream : {&output_, &errors_}) {
    loop.add_reader(stream->fd.get(), [this, stream] { read(*stream); });
  }
}

RunningProgram::~RunningProgram() {
  ::kill(-pid_, SIGKILL);
  while (!has_ended_) loop_.run_once();
  for (Stream* stream : {&output_, &errors_}) {
    if (stream->fd) loop_.remove_reader(stream->fd.get());
  }
}

void RunningProgram::read(Stream& stream) {
  std::array<char, 64 * 1024> buffer;
  const pawl::SystemResult result =
      loop_.system().read(stream.fd.get(), buffer.data(), buffer.size());
  if (result.would_block()) return;
  if (result.ok() && result.bytes() > 0) {
    stream.text.append(buffer.data(), result.bytes());
    return;
  }
  loop_.remove_reader(stream.fd.get());
  stream.fd.reset();
}

void RunningProgram::type(std::string_view text) {
  const auto written =
      loop_.system().write(process_.standard_input().get(), text.data(), text.size());
  if (!written.ok() || written.bytes() != text.size()) throw std::runtime_error("can't type");
}

void RunningProgram::signal(int number) { ::kill(pid_, number); }

void RunningProgram::wait_until(const std::function<bool()>& condition) {
  const pawl::TimePoint deadline = loop_.time() + std::chrono::seconds(30);
  while (!condition()) {
    const pawl::Duration left = deadline - loop_.time();
    if (left <= pawl::Duration::zero()) {
      throw std::runtime_error(name_ + " takes too long; it said:\n" + output() + errors());
    }
    loop_.run_once(left);
  }
}

void RunningProgram::wait_for(std::string_view text) {
  wait_until(
      [&] { return output().find(text) != std::string::npos || (has_ended_ && !output_.fd); });
  if (output().find(text) != std::string::npos) return;
  throw std::runtime_error(name_ + " never said \"" + std::string(text) + "\" but:\n" + output() +
                           errors());
}

int RunningProgram::wait() {
  wait_until([this] { return has_ended_ && !output_.fd && !errors_.fd; });
  return exit_.signal != 0 ? 128 + exit_.signal : exit_.exit_code;
}

bool RunningProgram::has_processes() const { return ::kill(-pid_, 0) == 0 || errno != ESRCH; }

Ended run(pawl::EventLoop& loop, std::vector<std::string> arguments) {
  RunningProgram program(loop, std::move(arguments));
  program.end_input();
  const int exit_code = program.wait();
  return Ended{exit_code, program.output(), program.errors()};
}

Ended run_in_time(const std::function<Ended()>& run,
                  const std::function<bool(const Ended&)>& is_in_time) {
  Ended ended = run();
  for (int again = 0; again < 4 && !is_in_time(ended); ++again) ended = run();
  return ended;
}

Ended run_shell(pawl::EventLoop& loop, const std::string& command) {
  return run(loop, {"sh", "-c", command});
}

RunningServer::RunningServer(pawl::EventLoop& loop, const std::string& name,
                             const std::vector<std::string>& options)
    : RunningProgram(loop, server_arguments(name, options)) {
  const std::string beginning = "listening on ";
  wait_for("\n");
  const std::string line = output().substr(0, output().find('\n'));
  if (line.compare(0, beginning.size(), beginning) != 0) {
    throw std::runtime_error("the server said: " + line);
  }
  address_ = line.substr(beginning.size());
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}
