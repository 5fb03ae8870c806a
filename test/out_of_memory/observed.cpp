// SPDX-License-Identifier: MIT
// What is done under observation, each allocation failing in turn: names are made for the observer
// then, and lines of them. An end is an end without its name too.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "out_of_memory/link.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "support/environment.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::DatagramSocket;
using pawl::Endpoint;

namespace {

/// As `each_allocation_fails`, with PAWL_TRACE=1, whose lines go nowhere.
void each_allocation_fails_traced(const std::function<void(Trial&)>& scenario) {
  const ScopedVariable traced("PAWL_TRACE", "1");
  each_allocation_fails([&](Trial& trial) {
    trial.loop().set_report_sink([](std::string_view) {});
    scenario(trial);
  });
}

/// An address whose text doesn't fit into a string without an allocation.
Endpoint long_loopback() { return Endpoint::parse("127.200.200.200:0"); }

}  // namespace

TEST_CASE("Observed connections come to their ends, whichever allocation fails") {
  each_allocation_fails_traced([](Trial& trial) {
    CountingServer server(trial, echo, {}, long_loopback());
    for (const bool is_aborted : {false, true}) {
      Client client(trial);
      client.dial(server.endpoint());
      client.attach([=](Connection& self) {
        self.write("hello");
        is_aborted ? self.abort() : self.shutdown();
      });
      trial.run([&] { return client.is_over() && server.is_quiet(); });
      if (!trial.has_failed() && !is_aborted) CHECK(client.story.data == "hello");
    }
    trial.must([&] { server.server.reset(); });
  });
}

TEST_CASE("An observed datagram socket and a listener end once, whichever allocation fails") {
  each_allocation_fails_traced([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    std::unique_ptr<DatagramSocket> socket;
    std::unique_ptr<pawl::Listener> listener;
    int closed = 0;
    trial.insist([&] { socket = std::make_unique<DatagramSocket>(loop, long_loopback()); });
    trial.insist([&] { socket->on_closed([&](DatagramSocket&, std::error_code) { ++closed; }); });
    trial.insist([&] {
      listener = std::make_unique<pawl::Listener>(loop, long_loopback(),
                                                  [](pawl::UniqueFd, const Endpoint&) {});
    });
    trial.must([&] { listener->pause(); });
    trial.must([&] { listener->resume(); });
    trial.must([&] { socket->close(); });
    trial.run([&] { return closed == 1; });
    trial.must([&] { listener->close(); });
    trial.must([&] { listener.reset(); });
  });
}

TEST_CASE("An observed task comes to its end, whichever allocation fails") {
  each_allocation_fails_traced([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    std::unique_ptr<pawl::Task<int>> task;
    int step = 0;
    trial.insist([&] {
      task = pawl::make_task<int>(loop, "a task with a name that is long", [&](auto& self) {
        return ++step < 4 ? pawl::Next::yield() : self.done(step);
      });
    });
    trial.run([&] { return task->done(); });
    if (!task->future().error()) CHECK(task->future().result() == 4);
    trial.insist([&] {
      task = pawl::make_task<int>(loop, "another task with a name that is long",
                                  [&](auto&) { return pawl::Next::future(pawl::sleep(loop, 1h)); });
    });
    trial.attempt([&] { loop.run_once(0s); });
    trial.must([&] { task->cancel(); });
    CHECK(task->done());
    trial.must([&] { task.reset(); });
  });
}
