// SPDX-License-Identifier: MIT
// Files handed from one process to another: what goes through a Unix socket is the open file
// itself, with its position and its rights, so the receiver needs none of its own. It also sees who
// sends.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: unix_fd_pass --listen PATH
       unix_fd_pass PATH FILE...

The first waits at a Unix socket and prints the beginning of each file that is
handed to it, and who handed it over. The second opens the files and hands them
over, all in one message. PATH is a file's path, or @NAME for a name without a
file. The first line that a waiting one prints says where it is:
  listening on unix:/tmp/files)";

std::string beginning_of(const pawl::UniqueFd& file) {
  std::array<char, 64> buffer;
  const ssize_t got = ::pread(file.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) return std::system_category().message(errno);
  return quoted(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
}

void on_sender(pawl::Connection& connection) {
  const auto sender = connection.peer_credentials();
  connection.on_data({});  // the bytes that the files come with say nothing
  connection.on_fds([sender](pawl::Connection& self, std::vector<pawl::UniqueFd> files) {
    const std::string from = !sender ? "somebody"
                                     : "process " + std::to_string(sender->process) + " of user " +
                                           std::to_string(sender->user);
    std::printf("%zu file%s from %s\n", files.size(), files.size() == 1 ? "" : "s", from.c_str());
    for (const pawl::UniqueFd& file : files) {
      std::printf("  fd %d: %s\n", file.get(), beginning_of(file).c_str());
    }
    self.write("thanks\n");
  });
}

int listen(pawl::EventLoop& loop, const std::string& path) {
  pawl::Server server(loop, pawl::Endpoint::parse("unix:" + path), on_sender);
  run_until_interrupt(loop, server);
  return 0;
}

std::vector<pawl::UniqueFd> open_all(const std::vector<std::string>& names) {
  std::vector<pawl::UniqueFd> files;
  for (const std::string& name : names) {
    files.emplace_back(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
    if (!files.back()) throw std::system_error(errno, std::system_category(), name);
  }
  return files;
}

int send(pawl::EventLoop& loop, const std::string& path, const std::vector<std::string>& names) {
  const auto connection = pawl::Connection::connect(loop, pawl::Endpoint::parse("unix:" + path));
  connection->write_fds("files", open_all(names));
  bool is_received = false;
  connection->on_data([&](pawl::Connection& self, std::string_view) {
    is_received = true;
    self.close();
  });
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = 128 + signal;
    connection->abort();
  });
  connection->on_closed([&](pawl::Connection&, std::error_code) { forget_interrupt(loop); });
  loop.run();
  if (interrupted_by != 0) return interrupted_by;
  if (!is_received) throw std::runtime_error(connection->describe());
  std::printf("%zu file%s handed over\n", names.size(), names.size() == 1 ? "" : "s");
  return 0;
}

int run(Options& words) {
  const auto listens_at = words.text("--listen");
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  std::vector<std::string> arguments = words.rest();
  if (!listens_at && arguments.empty()) throw ShowHelp();
  if (listens_at && !arguments.empty()) throw std::invalid_argument("--listen takes no files");
  if (arguments.size() == 1) throw std::invalid_argument("which files?");

  pawl::EventLoop loop(std::move(loop_options));
  if (listens_at) return listen(loop, *listens_at);
  const std::string path = arguments[0];
  arguments.erase(arguments.begin());
  return send(loop, path, arguments);
}

}  // namespace

int main(int argc, char** argv) { return run_program("unix_fd_pass", help, argc, argv, run); }
