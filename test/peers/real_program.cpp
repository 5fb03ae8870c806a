// SPDX-License-Identifier: MIT
#include "peers/real_program.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "net/stream.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;

std::string real_program(const std::string& name, const std::string& package) {
  const char* path = std::getenv("PATH");
  // Where servers are, which isn't everybody's PATH.
  std::istringstream folders(std::string(path != nullptr ? path : "/usr/bin") + ":/usr/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  WARN("skipped: " << name << " (package " << package << ") isn't installed");
  return "";
}

std::uint16_t free_port() { return ntohs(address_of(bound_socket(SOCK_STREAM).get()).sin_port); }

RealServer::RealServer(pawl::EventLoop& loop, const Arguments& arguments) {
  for (int tries = 0; tries < 5; ++tries) {
    port_ = free_port();
    program_ = std::make_unique<RunningProgram>(loop, arguments(port_));
    program_->end_input();
    if (becomes_ready(loop)) return;
  }
  throw std::runtime_error("the server doesn't start:\n" + program_->output() + program_->errors());
}

// False when the program ends instead, as it does when the port is taken.
bool RealServer::becomes_ready(pawl::EventLoop& loop) {
  bool is_ready = false;
  std::unique_ptr<pawl::Connection> probe;
  const auto dial = [&] {
    probe = pawl::Connection::connect(loop, endpoint());
    probe->on_connected([&](pawl::Connection&) { is_ready = true; });
  };
  const pawl::ScopedHandle again(loop.call_every(10ms, dial));
  program_->wait_until([&] { return is_ready || !program_->has_processes(); });
  return is_ready && program_->has_processes();
}

std::unique_ptr<pawl::Connection> connect_patiently(pawl::EventLoop& loop,
                                                    const pawl::Endpoint& server) {
  using pawl::ConnectionState;
  auto connection = pawl::Connection::connect(loop, server);
  run_until(loop, [&] {
    const ConnectionState state = connection->state();
    if (state == ConnectionState::done) connection = pawl::Connection::connect(loop, server);
    return state != ConnectionState::connecting && state != ConnectionState::done;
  });
  return connection;
}

RealServer::Arguments nginx(const std::string& path, const std::string& folder) {
  return [path, folder](std::uint16_t port) {
    std::ostringstream text;
    text << "daemon off;\nmaster_process off;\npid " << folder << "/nginx.pid;\n"
         << "error_log stderr;\nevents { worker_connections 512; }\n"
         << "http {\naccess_log off;\n";
    for (const char* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
      text << kind << "_temp_path " << folder << "/" << kind << ";\n";
    }
    text << "server { listen 127.0.0.1:" << port << "; root " << folder << "; }\n}\n";
    write_whole(folder + "/nginx.conf", text.str());
    return std::vector<std::string>{path, "-p",    folder, "-c", folder + "/nginx.conf",
                                    "-e", "stderr"};
  };
}

void write_whole(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text << std::flush;
  if (!file) throw std::runtime_error("can't write " + path);
}

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}
