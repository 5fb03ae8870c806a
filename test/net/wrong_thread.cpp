// SPDX-License-Identifier: MIT
// In debug mode a destructor on another thread than the running loop's is reported; it can't be
// refused, and doesn't end the program.
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// Makes something of a loop, and gives its owner.
using Make = std::shared_ptr<void> (*)(EventLoop& loop, const Endpoint& server);

struct Thing {
  const char* name;
  Make make;
};

const Thing things[] = {
    {"a connection",
     [](EventLoop& loop, const Endpoint& server) -> std::shared_ptr<void> {
       return Connection::connect(loop, server);
     }},
    {"a listener",
     [](EventLoop& loop, const Endpoint&) -> std::shared_ptr<void> {
       return std::make_shared<pawl::Listener>(loop, Endpoint::loopback(0),
                                               [](pawl::UniqueFd, const Endpoint&) {});
     }},
    {"a server",
     [](EventLoop& loop, const Endpoint&) -> std::shared_ptr<void> {
       return std::make_shared<pawl::Server>(loop, Endpoint::loopback(0), [](Connection&) {});
     }},
    {"a datagram socket",
     [](EventLoop& loop, const Endpoint&) -> std::shared_ptr<void> {
       return std::make_shared<pawl::DatagramSocket>(loop, Endpoint::loopback(0));
     }},
};

}  // namespace

TEST_CASE("In debug mode the end of something on a wrong thread is reported, and is an end",
          "[threads]") {
  for (const Thing& thing : things) {
    for (const int passes : {0, 3}) {  // a connection is on its way, or there
      INFO(thing.name << " after " << passes << " passes");
      pawl::LoopOptions options;
      options.debug = true;
      options.slow_callback = 1h;
      EventLoop loop(options);
      std::vector<std::string> lines;
      loop.set_report_sink([&](std::string_view line) { lines.emplace_back(line); });
      const pawl::Server server(loop, Endpoint::loopback(0), [](Connection&) {});
      const std::size_t before = loop.selector().size();
      std::shared_ptr<void> owner = thing.make(loop, server.local_endpoint());
      for (int i = 0; i < passes; ++i) loop.run_once(0s);
      const std::size_t accepted = server.connections();
      loop.call_soon([&] {
        std::thread([&] { owner.reset(); }).join();
        loop.stop();
      });
      loop.run_forever();
      REQUIRE_FALSE(lines.empty());
      CHECK(lines[0].find("not the loop's") != std::string::npos);
      CHECK(loop.selector().size() <= before + accepted + 1);
      loop.run_once(0s);
    }
  }
}
