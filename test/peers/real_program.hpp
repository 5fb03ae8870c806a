// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "examples/running_program.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"

/// The path of a program of the system's, or "", which says in the test's output that the test is
/// skipped, and what to install.
std::string real_program(const std::string& name, const std::string& package);

/// A port of 127.0.0.1 that nobody has: for programs that can't be told to choose one. It is free
/// until someone else takes it.
std::uint16_t free_port();

/// A server that no one here wrote, which takes connections. It goes at the end of the scope.
class RealServer {
 public:
  using Arguments = std::function<std::vector<std::string>(std::uint16_t port)>;

  /// Starts what `arguments` says, again on another port when the first was taken meanwhile.
  RealServer(pawl::EventLoop& loop, const Arguments& arguments);

  std::uint16_t port() const { return port_; }
  pawl::Endpoint endpoint() const { return pawl::Endpoint::loopback(port_); }
  /// "http://127.0.0.1:8080"
  std::string url() const { return "http://" + endpoint().to_string(); }

 private:
  bool becomes_ready(pawl::EventLoop& loop);

  std::uint16_t port_ = 0;
  std::unique_ptr<RunningProgram> program_;
};

/// A connection to a program that may not listen yet, when it does.
std::unique_ptr<pawl::Connection> connect_patiently(pawl::EventLoop& loop,
                                                    const pawl::Endpoint& server);

/// nginx with the files of a folder; `folder` gets its configuration and what it writes.
RealServer::Arguments nginx(const std::string& path, const std::string& folder);

void write_whole(const std::string& path, const std::string& text);
std::string read_whole(const std::string& path);
