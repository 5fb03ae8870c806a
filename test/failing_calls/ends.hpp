// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <system_error>

#include "pawl/net/connection.hpp"
#include "pawl/net/server.hpp"
#include "support/call_sweep.hpp"

/// What came of one end of a stream.
struct StreamEnd {
  void watch(pawl::Connection& connection) {
    connection.on_data([this](pawl::Connection&, std::string_view bytes) { data += bytes; });
    connection.on_closed([this](pawl::Connection&, std::error_code with) {
      ++closed;
      error = with;
    });
  }
  bool is_well() const { return closed == 1 && !error; }

  std::string data;
  std::error_code error;
  int closed = 0;
};

/// More than a socket's buffers take, and never twice the same.
inline std::string long_text(std::size_t bytes) {
  std::string text;
  text.reserve(bytes + 8);
  for (std::size_t i = 0; text.size() < bytes; ++i) text += std::to_string(i) + " ";
  text.resize(bytes);
  return text;
}

/// Timeouts that the trial's clock reaches soon.
inline pawl::ConnectionOptions patient_options() {
  pawl::ConnectionOptions options;
  options.connect_timeout = std::chrono::seconds(5);
  options.idle_timeout = std::chrono::seconds(5);
  options.write_timeout = std::chrono::seconds(5);
  options.close_timeout = std::chrono::seconds(5);
  return options;
}

/// A server on the kernel itself, which sends back what comes.
struct EchoPeer {
  explicit EchoPeer(CallTrial& trial, const pawl::Endpoint& where = pawl::Endpoint::loopback(0))
      : server(trial.peers(), where, [this](pawl::Connection& connection) {
          ++accepted;
          connection.on_data([this](pawl::Connection& self, std::string_view bytes) {
            received += bytes.size();
            self.write(bytes);
          });
          connection.on_closed([this](pawl::Connection&, std::error_code with) {
            ++closed;
            error = with;
          });
        }) {}
  bool is_quiet() const { return closed == accepted; }

  int accepted = 0;
  int closed = 0;
  std::size_t received = 0;
  std::error_code error;
  pawl::Server server;
};
