// SPDX-License-Identifier: MIT
// What connections cost: allocations, bytes, system calls.
#include <malloc.h>

#include <catch2/catch.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/net/server.hpp"
#include "support/allocation_counter.hpp"
#include "support/descriptor_limit.hpp"
#include "support/faulty_system.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Server;
using pawl::UniqueFd;

namespace {

void echo(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
}

/// What malloc has handed out, its own words included. 0 under a sanitizer.
std::size_t heap_bytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

/// Echoes of one message, counted.
struct PingPong {
  PingPong(EventLoop& its_loop, std::size_t size, ConnectionOptions options = {})
      : loop(its_loop), server(loop, Endpoint::loopback(0), echo), message(size, 'x') {
    client = Connection::connect(loop, server.local_endpoint(), options);
    client->on_data([this](Connection&, std::string_view bytes) { received += bytes.size(); });
  }
  void play(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      const std::size_t expected = received + message.size();
      client->write(std::string_view(message));
      run_until(loop, [&] { return received == expected; });
    }
  }

  EventLoop& loop;
  Server server;
  std::string message;
  std::unique_ptr<Connection> client;
  std::size_t received = 0;
};

}  // namespace

TEST_CASE("An echo in steady state allocates nothing") {
  EventLoop loop;
  ConnectionOptions options;
  std::size_t size = 64;
  SECTION("of 64 bytes") {}
  SECTION("of 64 bytes, with every timeout") {
    options.idle_timeout = std::chrono::hours(1);
    options.write_timeout = std::chrono::hours(1);
  }
  SECTION("of 10,000 bytes") { size = 10'000; }
  PingPong game(loop, size, options);
  game.play(20);
  const AllocationCounter counter;
  game.play(1000);
  CHECK(counter.count() == 0);
}

TEST_CASE("An echo costs one recv and one send on each side") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  PingPong game(loop, 64);
  game.play(10);
  const int recvs = system.count(Call::recv);
  const int sends = system.count(Call::send);
  game.play(100);
  CHECK(system.count(Call::recv) - recvs == 200);
  CHECK(system.count(Call::send) - sends == 200);
  CHECK(system.count(Call::sendmsg) == 0);
}

TEST_CASE("An idle connection that a server accepted costs at most 512 bytes of heap") {
  const DescriptorLimit limit;
  constexpr int count = 1000;
  constexpr int out_of_the_way = 3000;
  if (!limit.allows(out_of_the_way + count)) {
    WARN("this machine allows too few descriptors");
    return;
  }
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  std::vector<UniqueFd> clients;
  clients.reserve(count);
  const auto add_clients = [&](int number) {
    for (int i = 0; i < number; ++i) {
      // The loop's tables reach to the highest number; the clients' aren't to count.
      const int free_number = out_of_the_way + static_cast<int>(clients.size());
      clients.push_back(renumbered(raw_connect(server.local_endpoint()), free_number));
      run_until(loop, [&] { return server.connections() == clients.size(); });
    }
  };
  add_clients(1);
  const std::size_t before = heap_bytes();
  add_clients(count - 1);
  const std::size_t with_tables = heap_bytes() - before;
  clients.clear();
  run_until(loop, [&] { return server.connections() == 0; });
  // Again, now that the server's list and the loop's tables of descriptors are there.
  const std::size_t before_again = heap_bytes();
  const AllocationCounter counter;
  add_clients(count);
  const long allocations = counter.count();
  const std::size_t without_tables = heap_bytes() - before_again;
  std::cout << "an idle connection of a server: " << without_tables / count
            << " bytes of heap, with its share of the loop's tables " << with_tables / count << "; "
            << sizeof(Connection) << " bytes of them are itself\n";
  CHECK(without_tables / count <= 512);
  // Which grow by doubling. libev has its own beside ours, and what is put by for when there is no
  // memory.
  const bool is_libev = loop.selector().name().substr(0, 5) == "libev";
  CHECK(with_tables / count <= (is_libev ? 1024 : 768));
  CHECK(allocations <= 2 * count);
}

TEST_CASE("A connection that has sent and received holds no buffers while it is idle") {
  EventLoop loop;
  std::vector<std::unique_ptr<PingPong>> games;
  const auto add_game = [&] { games.push_back(std::make_unique<PingPong>(loop, 10)); };
  games.reserve(101);
  add_game();
  games[0]->play(1);
  for (int i = 0; i < 100; ++i) add_game();
  for (auto& game : games) game->play(1);
  const std::size_t before = heap_bytes();
  for (auto& game : games) {
    game->message.resize(60'000);
    game->message.shrink_to_fit();
  }
  const std::size_t of_messages = heap_bytes() - before;
  for (auto& game : games) game->play(1);
  // Sixty-four buffers are kept in the loop for all of them, and two read buffers' worth besides.
  CHECK(heap_bytes() - before <= of_messages + 66 * 66'000);
}
