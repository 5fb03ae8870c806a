// SPDX-License-Identifier: MIT
#pragma once

#include <netdb.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/socket_address.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"
#include "support/faulty_system.hpp"
#include "support/virtual_clock.hpp"

/// The kernel, with a table of faults and a clock that stands still until a test moves it.
class FaultyClock final : public FaultySystem {
 public:
  pawl::TimePoint now() override { return now_; }
  void advance(pawl::Duration span) { now_ += span; }

 private:
  pawl::TimePoint now_{pawl::Duration(std::chrono::hours(1))};
};

/// The kernel, but for names: it knows one answer to all questions.
class OneAnswer : public FaultySystem {
 public:
  OneAnswer() = default;
  /// Success.
  explicit OneAnswer(std::vector<pawl::Endpoint> endpoints) : endpoints_(std::move(endpoints)) {}
  /// One of getaddrinfo's EAI_ codes, and an errno for EAI_SYSTEM.
  explicit OneAnswer(int code, int error = 0) : code_(code), error_(error) {}

  pawl::SystemResult getaddrinfo(const char* node, const char*, const addrinfo*,
                                 addrinfo** results) override {
    asked = node;
    ++questions;
    if (code_ != 0) return {code_, error_};
    *results = nullptr;
    for (auto endpoint = endpoints_.rbegin(); endpoint != endpoints_.rend(); ++endpoint) {
      auto node_of_list = std::make_unique<Node>(*endpoint, *results);
      *results = &node_of_list.release()->entry;
    }
    return {0, 0};
  }

  void freeaddrinfo(addrinfo* results) override {
    while (results != nullptr) {
      const std::unique_ptr<Node> node(reinterpret_cast<Node*>(results));
      results = results->ai_next;
    }
  }

  std::atomic<int> questions{0};
  std::string asked;  // the last name; read it when the answer has come

 private:
  struct Node {
    Node(const pawl::Endpoint& endpoint, addrinfo* next) : address(endpoint) {
      entry.ai_family = address.family();
      entry.ai_addr = address.get();
      entry.ai_addrlen = address.bytes();
      entry.ai_next = next;
    }
    addrinfo entry{};  // first, so that it finds its node
    pawl::SocketAddress address;
  };

  std::vector<pawl::Endpoint> endpoints_;
  int code_ = 0;
  int error_ = 0;
};
