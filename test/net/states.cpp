// SPDX-License-Identifier: MIT
// The state tables: their page, and what an observer sees of them.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/net/connection_state.hpp"
#include "pawl/net/datagram_state.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/listener_state.hpp"
#include "pawl/net/resolver_query_state.hpp"
#include "support/faulty_system.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionState;
using pawl::Duration;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::LoopOptions;
using pawl::UniqueFd;

namespace {

template <typename Table>
std::string section(const Table& table) {
  return "\n## " + std::string(table.machine) + "\n\n" + table.to_markdown() + "\n```mermaid\n" +
         table.to_mermaid() + "```\n";
}

std::string page() {
  return "# States\n\n"
         "What connections, listeners, datagram sockets and a resolver's queries can be, what can "
         "happen to\n"
         "them, and what they are then; a dash can't happen. Printed from the tables in\n"
         "`include/pawl/net/*_state.hpp` by\n"
         "`test/net/states.cpp`, which fails when this page says anything else and writes it anew "
         "with\n"
         "`PAWL_WRITE_STATES=1`.\n" +
         section(pawl::connection_table) + section(pawl::listener_table) +
         section(pawl::datagram_table) + section(pawl::resolver_query_table);
}

/// Notes each step, as "connection: CONNECTING -connected-> RECEIVING".
class Steps final : public pawl::Observer {
 public:
  void on_transition(const pawl::Transition& step) override {
    const std::string event = std::string(step.from) + " -" + std::string(step.event) + "->";
    lines.push_back(event + " " + std::string(step.to));
    seen.insert(std::string(step.machine) + " " + event);
    labels.insert(std::string(step.label));
    objects.insert(step.object);
  }
  LoopOptions options(pawl::System* system = nullptr) {
    LoopOptions options;
    options.observer = this;
    options.system = system;
    return options;
  }

  std::vector<std::string> lines;
  std::set<std::string> seen;
  std::set<std::string> labels;
  std::set<const void*> objects;
};

/// What a table has arrows for: "connection CONNECTING -connected->". Not those of its last state,
/// which absorbs everything.
template <typename Table>
std::set<std::string> arrows(const Table& table) {
  std::set<std::string> all;
  for (std::size_t state = 0; state + 1 < table.states.size(); ++state) {
    for (std::size_t event = 0; event < table.events.size(); ++event) {
      if (table.cells[state][event].is_hole) continue;
      all.insert(std::string(table.machine) + " " + std::string(table.states[state]) + " -" +
                 std::string(table.events[event]) + "->");
    }
  }
  return all;
}

std::set<std::string> without(std::set<std::string> set, const std::set<std::string>& gone) {
  for (const std::string& each : gone) set.erase(each);
  return set;
}

}  // namespace

TEST_CASE("lib/net/STATES.md shows the state tables as they are in the code") {
  const std::string path = PAWL_SOURCE_ROOT "/lib/net/STATES.md";
  if (std::getenv("PAWL_WRITE_STATES") != nullptr) std::ofstream(path) << page();
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text == page());
}

TEST_CASE("An observer sees each step of a connection, with its peer's name") {
  Steps steps;
  EventLoop loop(steps.options());
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  connection->on_connected([](Connection& self) {
    self.write("a");
    self.write("b");
  });
  RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.received() == "ab"; });
  peer.end();
  run_until(loop, [&] { return record.closed == 1; });
  CHECK(steps.lines == std::vector<std::string>{
                           "CONNECTING -connected-> RECEIVING",
                           "RECEIVING -written-> SENDING",
                           "SENDING -written-> SENDING",
                           "SENDING -flushed-> RECEIVING",
                           "RECEIVING -peer ended-> RECEIVING",
                           "RECEIVING -closed-> DONE",
                       });
  CHECK(steps.labels == std::set<std::string>{listener.endpoint().to_string()});
  CHECK(steps.objects == std::set<const void*>{connection.get()});
}

TEST_CASE("An observer sees what is written before a connection is connected") {
  Steps steps;
  EventLoop loop(steps.options());
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  connection->write("early");
  RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return peer.received() == "early"; });
  connection->abort();
  CHECK(steps.lines == std::vector<std::string>{
                           "CONNECTING -written-> CONNECTING",
                           "CONNECTING -connected to send-> SENDING",
                           "SENDING -flushed-> RECEIVING",
                           "RECEIVING -failed-> DONE",
                       });
}

TEST_CASE("An observer sees each step of a listener, with its address") {
  Steps steps;
  EventLoop loop(steps.options());
  Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  const std::string address = listener.local_endpoint().to_string();
  listener.pause();
  listener.resume();
  listener.close();
  CHECK(steps.lines == std::vector<std::string>{
                           "LISTENING -pause-> PAUSED",
                           "PAUSED -resume-> LISTENING",
                           "LISTENING -close-> DONE",
                       });
  CHECK(steps.labels == std::set<std::string>{address});
  CHECK(steps.objects == std::set<const void*>{&listener});
}

TEST_CASE("Each arrow of the connection's table is one that connections take") {
  Steps steps;
  EventLoop loop(steps.options());
  RawListener listener;
  const auto connect = [&] { return Connection::connect(loop, listener.endpoint()); };
  const std::string much(1024 * 1024, 'x');

  connect()->close();  // CONNECTING closed
  connect()->abort();  // CONNECTING failed
  {
    const auto connection = connect();
    connection->write("early");  // CONNECTING written, connected to send; SENDING flushed
    const UniqueFd first = listener.accept(loop);
    const UniqueFd second = listener.accept(loop);  // the closed and the aborted one were here too
    run_until(loop, [&] { return connection->state() == ConnectionState::receiving; });
    connection->write(much);  // RECEIVING written
    connection->write(much);  // SENDING written
    connection->abort();      // SENDING failed
  }
  {
    Link link(loop);
    link.peer.end();  // RECEIVING peer ended, closed
    run_until(loop, [&] { return link.is_closed(); });
  }
  {
    pawl::ConnectionOptions options;
    options.allow_half_open = true;
    Link link(loop, options, tight);
    link.peer.stop_reading();
    link.connection->write(much);
    link.peer.end();  // SENDING peer ended
    const auto is_peer_ended = [&] { return link.record.order == "eof"; };
    run_until(loop, is_peer_ended);
    CHECK(link.connection->state() == ConnectionState::sending);
    link.connection.reset();
  }
  {
    const auto connection = connect();  // CONNECTING connected
    run_until(loop, [&] { return connection->state() == ConnectionState::receiving; });
    connection->abort();  // RECEIVING failed
  }
  // What ends in good order has sent everything, so it is RECEIVING by then; the table allows for
  // the other order.
  CHECK(without(arrows(pawl::connection_table), steps.seen) ==
        std::set<std::string>{"connection SENDING -closed->"});
  CHECK(without(steps.seen, arrows(pawl::connection_table)).empty());
}

namespace {

constexpr auto drop = [](UniqueFd, const Endpoint&) {};

/// One that has somebody to accept.
struct Knocked {
  explicit Knocked(EventLoop& loop, pawl::ListenerOptions options = {})
      : listener(loop, Endpoint::loopback(0), drop, options),
        client(raw_connect(listener.local_endpoint())) {}
  Listener listener;
  UniqueFd client;
};

/// Takes the arrows of DRAINING and HELD, and those to them.
void drain_listeners(EventLoop& loop, FaultySystem& system) {
  pawl::ListenerOptions options;
  options.retry_after = 1ms;
  Knocked first(loop, options);
  first.listener.close(1h);  // LISTENING drain
  first.listener.resume();   // DRAINING resume
  first.listener.pause();    // DRAINING pause
  first.listener.pause();    // HELD pause
  first.listener.resume();   // HELD resume
  system.fail(Call::accept, EMFILE);
  run_until(loop, [&] { return first.listener.state() == pawl::ListenerState::done; });
  // … DRAINING no room, HELD retry, DRAINING close
  options.accept_budget = 1;
  options.retry_after = 0ms;
  Knocked busy(loop, options);
  std::vector<UniqueFd> more;
  for (int i = 0; i < 5; ++i) more.push_back(raw_connect(busy.listener.local_endpoint()));
  busy.listener.on_exhausted([&](std::error_code) { busy.listener.resume(); });
  system.fail(Call::accept, EMFILE);
  busy.listener.close(1h);
  run_until(loop, [&] { return busy.listener.state() == pawl::ListenerState::done; });
  // … DRAINING retry
  Knocked second(loop);
  second.listener.pause();
  second.listener.close(1h);  // PAUSED drain
  second.listener.pause();
  second.listener.close();  // HELD close
  Knocked third(loop);
  system.fail(Call::accept, EMFILE);
  run_until(loop, [&] { return third.listener.state() == pawl::ListenerState::exhausted; });
  third.listener.close(1h);  // EXHAUSTED drain
  system.fail(Call::accept, EINVAL);
  run_until(loop, [&] { return third.listener.state() == pawl::ListenerState::done; });
  // … DRAINING failed
}

/// Takes the arrows of sockets that another holder shuts down.
void fail_listeners(EventLoop& loop, FaultySystem& system) {
  const auto fail = [&](void (*prepare)(Listener&)) {
    UniqueFd socket(::dup(bound_socket(SOCK_STREAM).get()));
    const UniqueFd other(::dup(socket.get()));
    Listener listener(loop, std::move(socket), drop);
    const UniqueFd client = raw_connect(listener.local_endpoint());
    prepare(listener);
    if (listener.state() == pawl::ListenerState::listening) system.fail(Call::accept, EMFILE);
    passes(loop);
    ::shutdown(other.get(), SHUT_RDWR);
    run_until(loop, [&] { return listener.state() == pawl::ListenerState::done; });
  };
  fail([](Listener& listener) { listener.pause(); });  // PAUSED failed
  fail([](Listener&) {});                              // EXHAUSTED failed
  fail([](Listener& listener) {
    listener.close(1h);
    listener.pause();  // HELD failed
  });
  const UniqueFd other(::dup(bound_socket(SOCK_STREAM).get()));
  Listener listener(loop, UniqueFd(::dup(other.get())), drop);
  ::shutdown(other.get(), SHUT_RDWR);  // LISTENING failed
  run_until(loop, [&] { return listener.state() == pawl::ListenerState::done; });
}

}  // namespace

TEST_CASE("Each arrow of the listener's table is one that listeners take") {
  Steps steps;
  FaultySystem system;
  EventLoop loop(steps.options(&system));
  const auto ignore = [](UniqueFd, const Endpoint&) {};
  pawl::ListenerOptions options;
  options.retry_after = 1ms;

  Listener listener(loop, Endpoint::loopback(0), ignore, options);
  const auto exhaust = [&](Listener& exhausted) {
    system.fail(Call::accept, EMFILE, FaultySystem::forever);
    const UniqueFd client = raw_connect(exhausted.local_endpoint());
    run_until(loop, [&] { return exhausted.state() == pawl::ListenerState::exhausted; });
    system.heal(Call::accept);
  };
  listener.resume();  // LISTENING resume
  exhaust(listener);  // LISTENING no room
  run_until(loop, [&] { return listener.state() == pawl::ListenerState::listening; });  // … retry
  exhaust(listener);
  listener.resume();  // EXHAUSTED resume
  listener.pause();   // EXHAUSTED pause
  listener.pause();   // PAUSED pause
  listener.resume();  // PAUSED resume
  exhaust(listener);
  listener.close();  // EXHAUSTED close
  Listener second(loop, Endpoint::loopback(0), ignore);
  second.pause();                                         // LISTENING pause
  second.close();                                         // PAUSED close
  Listener(loop, Endpoint::loopback(0), ignore).close();  // LISTENING close
  drain_listeners(loop, system);
  fail_listeners(loop, system);
  CHECK(without(arrows(pawl::listener_table), steps.seen).empty());
  CHECK(without(steps.seen, arrows(pawl::listener_table)).empty());
}
