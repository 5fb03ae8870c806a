// SPDX-License-Identifier: MIT
// redis-server, and a client of its protocol made of a Connection and a MessageReader:
// https://redis.io/docs/reference/protocol-spec (RESP2).
#include <catch2/catch.hpp>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "net/stream.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/message_reader.hpp"
#include "peers/real_program.hpp"
#include "support/temporary_directory.hpp"

using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;

namespace {

/// One that keeps nothing, and that has a Unix socket too.
RealServer::Arguments redis(const std::string& path, const TemporaryDirectory& folder) {
  return [path, &folder](std::uint16_t port) {
    return std::vector<std::string>{path,
                                    "--port",
                                    std::to_string(port),
                                    "--bind",
                                    "127.0.0.1",
                                    "--save",
                                    "",
                                    "--dir",
                                    folder.file("."),
                                    "--loglevel",
                                    "warning",
                                    "--unixsocket",
                                    folder.file("socket")};
  };
}

/// Replies as text: "+PONG" as it came, a bulk string without its length.
class RedisClient {
 public:
  RedisClient(EventLoop& loop, const Endpoint& server)
      : connection(connect_patiently(loop, server)), reader_(*connection, line()) {
    reader_.on_message([this](Connection&, std::string_view message) { take(message); });
    reader_.on_end([this](Connection&, std::error_code code) {
      has_ended = true;
      error = code;
    });
  }

  void send(std::initializer_list<std::string_view> words) {
    std::string command = "*" + std::to_string(words.size()) + "\r\n";
    for (const std::string_view word : words) {
      command += "$" + std::to_string(word.size()) + "\r\n";
      command += word;
      command += "\r\n";
    }
    connection->write(std::move(command));
  }

  std::unique_ptr<Connection> connection;
  std::vector<std::string> replies;
  bool has_ended = false;
  std::error_code error;

 private:
  static Framing line() { return Framing::until("\r\n"); }

  void take(std::string_view message) {
    if (bulk_bytes_ >= 0) {
      replies.emplace_back(message.substr(0, static_cast<std::size_t>(bulk_bytes_)));
      bulk_bytes_ = -1;
      reader_.set_framing(line());
    } else if (message.front() == '$' && message != "$-1") {
      bulk_bytes_ = std::stol(std::string(message.substr(1)));
      const auto bytes = static_cast<std::size_t>(bulk_bytes_) + 2;  // and its "\r\n"
      reader_.set_framing(Framing::exactly(bytes, bytes));
    } else {
      replies.emplace_back(message);
    }
  }

  long bulk_bytes_ = -1;  // of the string that comes next
  MessageReader reader_;
};

}  // namespace

TEST_CASE("redis-server keeps a megabyte, gives it back and says goodbye") {
  const std::string path = real_program("redis-server", "redis-server");
  if (path.empty()) return;
  EventLoop loop;
  const TemporaryDirectory folder;
  const RealServer server(loop, redis(path, folder));
  Endpoint endpoint = server.endpoint();
  SECTION("over TCP") {}
  SECTION("over a Unix socket") { endpoint = Endpoint::parse("unix:" + folder.file("socket")); }
  RedisClient client(loop, endpoint);
  const std::string value = noise(1024 * 1024);  // any bytes, "\r\n" too
  client.send({"PING"});
  client.send({"SET", "key", value});
  client.send({"GET", "key"});
  client.send({"GET", "no such key"});
  client.send({"NONSENSE"});
  client.send({"QUIT"});
  run_until(loop, [&] { return client.has_ended; });
  CHECK(client.error == std::error_code());
  REQUIRE(client.replies.size() == 6);
  CHECK(client.replies[0] == "+PONG");
  CHECK(client.replies[1] == "+OK");
  CHECK(difference(client.replies[2], value).empty());
  CHECK(client.replies[3] == "$-1");
  CHECK(client.replies[4].substr(0, 4) == "-ERR");
  CHECK(client.replies[5] == "+OK");
}

TEST_CASE("redis-server answers ten thousand commands that were sent at once, in their order") {
  const std::string path = real_program("redis-server", "redis-server");
  if (path.empty()) return;
  EventLoop loop;
  const TemporaryDirectory folder;
  const RealServer server(loop, redis(path, folder));
  RedisClient client(loop, server.endpoint());
  constexpr std::size_t count = 10'000;
  for (std::size_t i = 0; i < count; ++i) client.send({"INCR", "counter"});
  run_until(loop, [&] { return client.replies.size() == count || client.has_ended; });
  REQUIRE(client.replies.size() == count);
  bool is_in_order = true;
  for (std::size_t i = 0; i < count; ++i) {
    is_in_order = is_in_order && client.replies[i] == ":" + std::to_string(i + 1);
  }
  CHECK(is_in_order);
}
