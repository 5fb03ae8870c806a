// SPDX-License-Identifier: MIT
// How datagram sockets end, and what a callback may do to them: anything.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "net/datagram_peer.hpp"
#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::Datagram;
using pawl::DatagramError;
using pawl::DatagramOptions;
using pawl::DatagramSocket;
using pawl::DatagramState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;

namespace {

/// A loop whose kernel takes no datagram until it is healed, and a socket on it.
struct Blocked {
  explicit Blocked(DatagramOptions options = {}) : loop(options_on(system)) {
    socket = std::make_unique<DatagramSocket>(loop, Endpoint::loopback(0), options);
    record = std::make_unique<DatagramRecorder>(*socket);
    system.fail(Call::sendmmsg, EAGAIN, FaultySystem::forever);
  }

  FaultyClock system;
  EventLoop loop;
  RawDatagrams peer;
  std::unique_ptr<DatagramSocket> socket;
  std::unique_ptr<DatagramRecorder> record;
};

}  // namespace

// ---- ends

TEST_CASE("Closing sends what is queued first, takes in nothing more, and is told once") {
  Blocked it;
  const Endpoint local = it.socket->local_endpoint();
  for (const std::string& each : numbers(3)) it.socket->send_to(each, it.peer.endpoint());
  passes(it.loop, 3);
  it.socket->close();
  it.socket->close();
  CHECK(it.socket->state() == DatagramState::closing);
  CHECK(it.socket->send_to("late", it.peer.endpoint()) == std::errc::bad_file_descriptor);
  CHECK(it.socket->connect(it.peer.endpoint()) == std::errc::bad_file_descriptor);
  it.peer.send("too late", local);
  passes(it.loop, 3);
  CHECK(it.record->order.empty());
  it.system.heal(Call::sendmmsg);
  spin_until(it.loop, [&] { return it.record->closed == 1; });
  CHECK_FALSE(it.record->error);
  CHECK(it.peer.receive_all() == numbers(3));
  CHECK(it.record->order == "closed");
  CHECK(it.socket->state() == DatagramState::done);
  CHECK(it.socket->unsent_datagrams() == 0);
  CHECK(it.socket->dropped_by_kernel() == 0);
  passes(it.loop, 3);
  CHECK(it.record->closed == 1);
  CHECK_FALSE(it.loop.run_once(pawl::Duration::zero()));
}

TEST_CASE("Closing an idle socket ends it at once, and is told from the loop") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  DatagramRecorder record(socket);
  const Endpoint local = socket.local_endpoint();
  socket.close();
  CHECK(record.closed == 0);
  const RawDatagrams next(local);
  loop.run();
  CHECK(record.order == "closed");
  CHECK_FALSE(record.error);
  CHECK(socket.local_endpoint() == local);
}

TEST_CASE("Closing gives up after its timeout, and counts what was left") {
  DatagramOptions options;
  options.close_timeout = 3s;
  Blocked it(options);
  it.socket->send_to("12345", it.peer.endpoint());
  it.socket->close();
  passes(it.loop, 3);
  it.system.advance(2999ms);
  passes(it.loop, 3);
  CHECK(it.record->closed == 0);
  it.system.advance(1ms);
  spin_until(it.loop, [&] { return it.record->closed == 1; });
  CHECK(it.record->error == Errc::unsent_data);
  CHECK(it.socket->error() == Errc::unsent_data);
  CHECK(it.socket->unsent_datagrams() == 1);
  CHECK(it.socket->buffered() == 5);
}

TEST_CASE("Aborting drops what is queued and is told once, after what was to be told before") {
  Blocked it;
  it.socket->send_to("fails", it.peer.endpoint());
  it.system.fail(Call::sendmmsg, EPERM);
  it.loop.call_soon([&] {  // the failure is known by now and not yet told
    it.socket->send_to("dropped", it.peer.endpoint());
    it.socket->abort();
    CHECK(it.record->order.empty());
  });
  passes(it.loop, 3);
  CHECK(it.record->order == "error closed");
  CHECK(it.record->closed == 1);
  CHECK(it.record->error == Errc::aborted);
  CHECK(it.socket->unsent_datagrams() == 1);
}

TEST_CASE("A socket that is destroyed with datagrams queued says and sends nothing") {
  Blocked it;
  it.socket->send_to("x", it.peer.endpoint());
  it.socket.reset();
  it.system.heal(Call::sendmmsg);
  passes(it.loop, 3);
  CHECK(it.record->order.empty());
  CHECK_FALSE(it.peer.receive());
  CHECK_FALSE(it.loop.run_once(pawl::Duration::zero()));
}

// ---- what callbacks may do

TEST_CASE("Whatever a callback does to its own socket or to another one is safe") {
  using Act = std::function<void(std::unique_ptr<DatagramSocket>&)>;
  const std::vector<std::pair<std::string, Act>> acts{
      {"destroy", [](auto& socket) { socket.reset(); }},
      {"close", [](auto& socket) { socket->close(); }},
      {"abort", [](auto& socket) { socket->abort(); }},
      {"send and close",
       [](auto& socket) {
         socket->send_to("bye", socket->local_endpoint());
         socket->close();
       }},
      {"send and destroy",
       [](auto& socket) {
         socket->send_to("bye", socket->local_endpoint());
         socket.reset();
       }},
      {"pause", [](auto& socket) { socket->pause_reading(); }},
      {"disconnect", [](auto& socket) { socket->connect(Endpoint()); }},
      {"unset",
       [](auto& socket) {
         socket->on_datagram({});
         socket->on_error({});
         socket->on_drained({});
         socket->on_closed({});
       }},
      {"throw", [](auto&) { throw Thrown(); }},
  };
  for (const auto& entry : acts) {
    const std::string& name = entry.first;
    const Act& act = entry.second;
    for (const char* where : {"datagram", "error", "drained", "closed"}) {
      for (const bool on_itself : {true, false}) {
        CAPTURE(name, where, on_itself);
        FaultySystem system;
        EventLoop loop(options_on(system));
        DatagramOptions options;
        options.batch = 4;
        auto socket = std::make_unique<DatagramSocket>(loop, Endpoint::loopback(0), options);
        auto sibling = std::make_unique<DatagramSocket>(loop, Endpoint::loopback(0), options);
        const std::string token = "captured by the callback, and too long to lie inside of it";
        bool is_done = false;
        bool is_late = false;
        const auto come = [&, token](const char* what) {
          if (socket == nullptr) is_late = true;
          if (std::string(what) == where && !std::exchange(is_done, true)) {
            act(on_itself ? socket : sibling);
          }
          if (token.size() != 58) is_late = true;  // ASan is louder
        };
        socket->on_datagram([=](DatagramSocket&, const Datagram&) { come("datagram"); });
        socket->on_error([=](DatagramSocket&, const DatagramError&) { come("error"); });
        socket->on_drained([=](DatagramSocket&) { come("drained"); });
        socket->on_closed([=](DatagramSocket&, std::error_code) { come("closed"); });
        for (int i = 0; i < 6; ++i) socket->send_to("x", socket->local_endpoint());
        for (int i = 0; i < 3; ++i) sibling->send_to("x", sibling->local_endpoint());
        system.fail(Call::sendmmsg, EPERM, 2);
        if (std::string(where) == "closed") {
          passes(loop, 5);
          socket->close();
        }
        int thrown = 0;
        for (int i = 0; i < 10; ++i) {
          try {
            pass(loop);
          } catch (const Thrown&) {
            ++thrown;
          }
        }
        CHECK(is_done);
        CHECK_FALSE(is_late);
        CHECK(thrown == (name == "throw" ? 1 : 0));
      }
    }
  }
}

TEST_CASE("A callback that is replaced while it runs is the new one the next time") {
  EventLoop loop;
  DatagramSocket socket(loop, Endpoint::loopback(0));
  std::string order;
  socket.on_datagram([&, token = std::make_shared<int>(1)](DatagramSocket& self, const Datagram&) {
    self.on_datagram([&](DatagramSocket&, const Datagram&) { order += "second "; });
    order += "first ";
    CHECK(*token == 1);
  });
  socket.send_to("x", socket.local_endpoint());
  socket.send_to("x", socket.local_endpoint());
  run_until(loop, [&] { return order == "first second "; });
}

TEST_CASE("An exception from on_drained, on_error or on_closed leaves run(), and nothing is lost") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  DatagramSocket socket(loop, Endpoint::loopback(0));
  std::string order;
  const auto come = [&order](const char* word) {
    order += word;
    throw Thrown();
  };
  socket.on_error([&](DatagramSocket&, const DatagramError&) { come("error "); });
  socket.on_drained([&](DatagramSocket&) { come("drained "); });
  socket.on_closed([&](DatagramSocket&, std::error_code) { come("closed "); });
  system.fail(Call::sendmmsg, EPERM, 2);
  for (int i = 0; i < 3; ++i) socket.send_to("x", socket.local_endpoint());
  socket.pause_reading();
  int thrown = 0;
  for (int i = 0; i < 12; ++i) {
    if (i == 8) socket.close();
    try {
      pass(loop);
    } catch (const Thrown&) {
      ++thrown;
    }
  }
  CHECK(order == "error error drained closed ");
  CHECK(thrown == 4);
}

// ---- states

TEST_CASE("Each arrow of the datagram socket's table is one that sockets take") {
  class Steps final : public pawl::Observer {
   public:
    void on_transition(const pawl::Transition& step) override {
      seen.insert(std::string(step.from) + " -" + std::string(step.event) + "-> " +
                  std::string(step.to));
      labels.insert(std::string(step.label));
    }
    std::set<std::string> seen;
    std::set<std::string> labels;
  } steps;
  FaultySystem system;
  pawl::LoopOptions loop_options = options_on(system);
  loop_options.observer = &steps;
  EventLoop loop(loop_options);
  std::set<std::string> labels;
  const auto make = [&](bool is_sending) {
    DatagramOptions options;
    options.close_timeout = 1ms;
    auto socket = std::make_unique<DatagramSocket>(loop, Endpoint::loopback(0), options);
    labels.insert(socket->local_endpoint().to_string());
    if (is_sending) socket->send_to("x", socket->local_endpoint());
    return socket;
  };
  const auto is_done = [](const auto& socket) {
    return [&socket] { return socket->state() == DatagramState::done; };
  };
  make(false)->abort();  // OPEN failed
  make(false)->close();  // OPEN close
  make(true)->abort();   // OPEN queued, SENDING failed
  const auto flushed = make(true);
  flushed->send_to("y", flushed->local_endpoint());  // SENDING queued
  pass(loop);                                        // SENDING flushed
  const auto closing = make(true);
  closing->close();                   // SENDING close
  run_until(loop, is_done(closing));  // CLOSING flushed
  system.fail(Call::sendmmsg, EAGAIN, FaultySystem::forever);
  const auto late = make(true);
  late->close();
  run_until(loop, is_done(late));  // CLOSING failed

  std::set<std::string> arrows;
  const auto& table = pawl::datagram_table;
  for (std::size_t state = 0; state + 1 < table.states.size(); ++state) {
    for (std::size_t event = 0; event < table.events.size(); ++event) {
      if (table.cells[state][event].is_hole) continue;
      const auto next = static_cast<std::size_t>(table.cells[state][event].next);
      arrows.insert(std::string(table.states[state]) + " -" + std::string(table.events[event]) +
                    "-> " + std::string(table.states[next]));
    }
  }
  arrows.erase("CLOSING -close-> CLOSING");  // a second close() changes nothing, so it is no step
  CHECK(steps.seen == arrows);
  CHECK(steps.labels == labels);
}
