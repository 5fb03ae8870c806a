// SPDX-License-Identifier: MIT
// Datagram sockets, each allocation failing in turn.
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "pawl/net/datagram_socket.hpp"
#include "support/allocation_sweep.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramError;
using pawl::DatagramSocket;
using pawl::Endpoint;

namespace {

/// A socket, and all that it tells.
struct Station {
  explicit Station(Trial& of, pawl::DatagramOptions options = {},
                   const Endpoint& local = Endpoint::loopback(0))
      : trial(of) {
    trial.insist([&] { socket = std::make_unique<DatagramSocket>(trial.loop(), local, options); });
    trial.insist([&] {
      socket->on_datagram([this](DatagramSocket&, const Datagram& datagram) {
        const Spared spared;
        came.emplace_back(datagram.bytes);
      });
    });
    trial.insist([&] {
      socket->on_error(
          [this](DatagramSocket&, const DatagramError& error) { lost += error.is_lost ? 1 : 0; });
    });
    trial.insist([&] { socket->on_drained([this](DatagramSocket&) { ++drained; }); });
    trial.insist([&] {
      socket->on_closed([this](DatagramSocket&, std::error_code error) {
        ++closed;
        how = error;
      });
    });
  }

  Endpoint endpoint() const { return socket->local_endpoint(); }
  /// Sends, or not. Each datagram is of its own byte, so that foreign memory shows.
  void send(std::size_t bytes, char of, const Endpoint& to) {
    const std::string text(bytes, of);
    if (trial.attempt([&] { return socket->send_to(text, to); })) ++accepted;
  }
  bool is_whole() const {
    return std::all_of(came.begin(), came.end(), [](const std::string& each) {
      return each.find_first_not_of(each.substr(0, 1)) == std::string::npos;
    });
  }

  Trial& trial;
  std::unique_ptr<DatagramSocket> socket;
  std::vector<std::string> came;
  int accepted = 0;
  int lost = 0;
  int drained = 0;
  int closed = 0;
  std::error_code how;
};

}  // namespace

TEST_CASE("Datagrams arrive as they were sent, or are told as lost, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Station sender(trial);
    Station receiver(trial);
    for (int i = 0; i < 8; ++i) {
      sender.send(static_cast<std::size_t>(100 + 300 * i), static_cast<char>('a' + i),
                  receiver.endpoint());
    }
    trial.attempt([&] { sender.socket->close(); });
    trial.run([&] { return sender.closed == 1 || trial.has_failed(); });
    trial.run([&] {
      return static_cast<int>(receiver.came.size()) + sender.lost >= sender.accepted ||
             (sender.closed == 1 && sender.how);
    });
    CHECK(receiver.is_whole());
    CHECK(static_cast<int>(receiver.came.size()) <= sender.accepted);
    trial.attempt([&] { sender.socket->abort(); });
    trial.attempt([&] { receiver.socket->abort(); });
    trial.run([&] { return sender.closed == 1 && receiver.closed == 1; });
    trial.must([&] { sender.socket.reset(); });
  });
}

TEST_CASE("What the kernel takes later goes as it was sent, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Station sender(trial);
    Station receiver(trial);
    trial.system().fail(Call::sendmmsg, EAGAIN, 2);
    trial.system().fail(Call::sendmsg, EAGAIN, 2);
    for (int i = 0; i < 20; ++i) sender.send(1000, static_cast<char>('a' + i), receiver.endpoint());
    trial.run([&] { return sender.drained == 1 || trial.has_failed(); });
    for (int i = 0; i < 3; ++i) sender.send(500, static_cast<char>('A' + i), receiver.endpoint());
    trial.run([&] {
      return static_cast<int>(receiver.came.size()) + sender.lost >= sender.accepted ||
             sender.closed > 0;
    });
    CHECK(receiver.is_whole());
    trial.must([&] { sender.socket.reset(); });
    trial.must([&] { receiver.socket.reset(); });
  });
}

TEST_CASE("Connected datagram sockets echo, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Station server(trial);
    trial.insist([&] {
      server.socket->on_datagram([](DatagramSocket& self, const Datagram& datagram) {
        try {
          (void)self.send_to(datagram.bytes, datagram.from);
        } catch (const std::bad_alloc&) {
        }
      });
    });
    pawl::DatagramOptions options;
    options.peer = server.endpoint();
    Station client(trial, options);
    for (int i = 0; i < 3; ++i) {
      trial.attempt([&] { return client.socket->send("ping"); });
    }
    trial.run([&] { return client.came.size() == 3 || trial.has_failed(); });
    Station other(trial);
    trial.insist([&] { return client.socket->connect(other.endpoint()); });
    trial.attempt([&] { return client.socket->send("pong"); });
    trial.run([&] { return other.came.size() == 1 || trial.has_failed(); });
    trial.insist([&] { return client.socket->connect(Endpoint()); });
    trial.attempt([&] { (void)client.socket->describe(); });
    trial.must([&] { client.socket.reset(); });
    trial.must([&] { server.socket.reset(); });
  });
}

TEST_CASE("A paused datagram socket keeps what came, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Station sender(trial);
    Station receiver(trial);
    trial.insist([&] {
      receiver.socket->on_datagram([&](DatagramSocket& self, const Datagram& datagram) {
        {
          const Spared spared;
          receiver.came.emplace_back(datagram.bytes);
        }
        if (receiver.came.size() == 1) self.pause_reading();
      });
    });
    for (int i = 0; i < 5; ++i) sender.send(100, static_cast<char>('a' + i), receiver.endpoint());
    trial.run([&] { return !receiver.came.empty() || trial.has_failed(); });
    trial.insist([&] { receiver.socket->resume_reading(); });
    trial.run([&] {
      return static_cast<int>(receiver.came.size()) + sender.lost >= sender.accepted ||
             trial.has_failed();
    });
    CHECK(receiver.is_whole());
    CHECK(std::is_sorted(receiver.came.begin(), receiver.came.end()));
    trial.insist([&] { receiver.socket->abort(); });
    trial.run([&] { return receiver.closed == 1; });
  });
}

TEST_CASE("Errors of datagrams are told or not, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Station sender(trial);
    Station receiver(trial);
    trial.system().fail(Call::sendmmsg, EPERM, 1);
    for (int i = 0; i < 3; ++i) sender.send(10, 'x', receiver.endpoint());
    trial.run([&] {
      return static_cast<int>(receiver.came.size()) + sender.lost >= sender.accepted ||
             trial.has_failed();
    });
    trial.insist([&] { sender.socket->close(); });
    trial.run([&] { return sender.closed == 1; });
    CHECK(static_cast<int>(receiver.came.size()) <= sender.accepted);
  });
}
