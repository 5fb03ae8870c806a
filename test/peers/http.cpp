// SPDX-License-Identifier: MIT
// HTTP with programs that no one here wrote: nginx, ab, wrk and curl.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "net/stream.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/server.hpp"
#include "peers/real_program.hpp"
#include "support/temporary_directory.hpp"

using pawl::CloseReason;
using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;
using pawl::Server;

namespace {

constexpr std::size_t megabyte = 1024 * 1024;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// nginx, and a file of a megabyte at /body.
struct FileServer {
  FileServer(EventLoop& loop, const std::string& nginx_path)
      : body(noise(megabyte)), server(loop, with_body(nginx_path)) {}

  RealServer::Arguments with_body(const std::string& nginx_path) {
    write_whole(folder.file("body"), body);
    return nginx(nginx_path, folder.file("."));
  }

  TemporaryDirectory folder;
  std::string body;
  RealServer server;
};

/// Gets /body as often as it is told, over one connection.
class Client {
 public:
  Client(EventLoop& loop, const Endpoint& server, int requests)
      : connection(Connection::connect(loop, server)),
        requests_(requests),
        reader_(*connection, Framing::until("\r\n\r\n")) {
    reader_.on_message([this](Connection&, std::string_view message) { take(message); });
    connection->on_closed([this](Connection&, std::error_code code) {
      is_closed = true;
      error = code;
    });
    request();
  }

  std::unique_ptr<Connection> connection;
  std::vector<std::string> bodies;
  std::string statuses;
  std::error_code error;
  bool is_closed = false;

 private:
  void request() {
    --requests_;
    connection->write("GET /body HTTP/1.1\r\nHost: here\r\n");
    connection->write(requests_ == 0 ? "Connection: close\r\n\r\n" : "\r\n");
  }

  void take(std::string_view message) {
    is_body_next_ = !is_body_next_;
    if (is_body_next_) {
      statuses += std::string(message.substr(9, 3)) + " ";
      const std::string_view name = "Content-Length: ";
      const std::string head(message.substr(message.find(name) + name.size()));
      reader_.set_framing(Framing::exactly(std::stoul(head)));
      return;
    }
    bodies.emplace_back(message);
    reader_.set_framing(Framing::until("\r\n\r\n"));
    if (requests_ > 0) request();
  }

  int requests_;
  bool is_body_next_ = false;  // true exactly after a head
  MessageReader reader_;
};

/// The smallest server that HTTP's clients are content with: it answers each head with "hello".
class Greeter {
 public:
  explicit Greeter(EventLoop& loop)
      : server(loop, Endpoint::loopback(0), [this](Connection& peer) { welcome(peer); }) {}

  std::size_t readers() const { return readers_.size(); }

 private:
  void welcome(Connection& peer) {
    auto& reader = readers_[&peer];
    reader = std::make_unique<MessageReader>(peer, Framing::until("\r\n\r\n", 4096));
    reader->on_message([](Connection& self, std::string_view) {
      self.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello");
    });
    peer.on_closed([this](Connection& self, std::error_code) { readers_.erase(&self); });
  }

  std::unordered_map<Connection*, std::unique_ptr<MessageReader>> readers_;

 public:
  Server server;  // goes first, and its connections with it
};

/// ab counts what it was promised: as many bytes as the first answer had.
void check_ab(const Ended& ended, int requests) {
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 0);
  std::string squeezed;
  for (const char letter : ended.output) {
    if (letter != ' ') squeezed += letter;
  }
  CHECK(contains(squeezed, "Completerequests:" + std::to_string(requests) + "\n"));
  CHECK(contains(squeezed, "Failedrequests:0\n"));
  CHECK_FALSE(contains(squeezed, "Non-2xxresponses"));
}

void check_wrk(const Ended& ended) {
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "Requests/sec"));
  CHECK_FALSE(contains(ended.output, "Socket errors"));
  CHECK_FALSE(contains(ended.output, "Non-2xx"));
  CHECK_FALSE(contains(ended.output, " 0 requests in"));
}

}  // namespace

TEST_CASE("nginx's megabyte comes intact, again over the same connection, and it ends it cleanly") {
  const std::string path = real_program("nginx", "nginx-light");
  if (path.empty()) return;
  EventLoop loop;
  const FileServer files(loop, path);
  Client client(loop, files.server.endpoint(), 3);
  run_until(loop, [&] { return client.is_closed; });
  CHECK(client.statuses == "200 200 200 ");
  REQUIRE(client.bodies.size() == 3);
  for (const std::string& body : client.bodies) CHECK(difference(body, files.body).empty());
  CHECK(client.error == std::error_code());
  CHECK(client.connection->close_reason() == CloseReason::peer_ended);
}

TEST_CASE("nginx's megabyte comes intact to fifty at once") {
  const std::string path = real_program("nginx", "nginx-light");
  if (path.empty()) return;
  EventLoop loop;
  const FileServer files(loop, path);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 50; ++i) {
    clients.push_back(std::make_unique<Client>(loop, files.server.endpoint(), 1));
  }
  for (const auto& client : clients) {
    run_until(loop, [&] { return client->is_closed; });
    CHECK(client->statuses == "200 ");
    REQUIRE(client->bodies.size() == 1);
    CHECK((client->bodies[0] == files.body));
    CHECK(client->error == std::error_code());
  }
}

TEST_CASE("fetch keeps nginx's megabyte as it is, and gets fifty at once") {
  const std::string path = real_program("nginx", "nginx-light");
  if (path.empty()) return;
  EventLoop loop;
  const FileServer files(loop, path);
  const std::string url = files.server.url() + "/body";
  const std::string copy = files.folder.file("copy");
  const Ended one = run(loop, {example("fetch"), url, "--output", copy});
  INFO(one.output << one.errors);
  CHECK(one.exit_code == 0);
  CHECK(difference(read_whole(copy), files.body).empty());

  std::vector<std::string> arguments(51, url);
  arguments[0] = example("fetch");
  const Ended fifty = run(loop, std::move(arguments));
  INFO(fifty.output << fifty.errors);
  CHECK(fifty.exit_code == 0);
  int whole = 0;
  for (const std::string& line : lines_of(fifty.output)) {
    whole += contains(line, "200 ") && contains(line, "1048576 bytes") ? 1 : 0;
  }
  CHECK(whole == 50);
}

TEST_CASE("fetch tells nginx's 404 from a page") {
  const std::string path = real_program("nginx", "nginx-light");
  if (path.empty()) return;
  EventLoop loop;
  const FileServer files(loop, path);
  const Ended ended = run(loop, {example("fetch"), files.server.url() + "/missing"});
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "404 "));
}

TEST_CASE("ab finds no failed request in http_server, with keep-alive and without") {
  const std::string ab = real_program("ab", "apache2-utils");
  if (ab.empty()) return;
  EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string url = server.address() + "/bytes?n=1000";
  check_ab(run(loop, {ab, "-q", "-k", "-n", "3000", "-c", "50", url}), 3000);
  check_ab(run(loop, {ab, "-q", "-n", "1000", "-c", "50", url}), 1000);
}

TEST_CASE("ab finds no failed request in a Server, with keep-alive and without") {
  const std::string ab = real_program("ab", "apache2-utils");
  if (ab.empty()) return;
  EventLoop loop;
  Greeter greeter(loop);
  const std::string url = "http://" + greeter.server.local_endpoint().to_string() + "/";
  check_ab(run(loop, {ab, "-q", "-k", "-n", "3000", "-c", "50", url}), 3000);
  run_until(loop, [&] { return greeter.server.connections() == 0; });
  CHECK(greeter.readers() == 0);
}

TEST_CASE("wrk finds no failed request in http_server and in a Server") {
  const std::string wrk = real_program("wrk", "wrk");
  if (wrk.empty()) return;
  EventLoop loop;
  SECTION("http_server") {
    RunningServer server(loop, "http_server");
    check_wrk(run(loop, {wrk, "-t1", "-c64", "-d1s", server.address() + "/bytes?n=100"}));
  }
  SECTION("Server") {
    Greeter greeter(loop);
    const std::string url = "http://" + greeter.server.local_endpoint().to_string() + "/";
    check_wrk(run(loop, {wrk, "-t1", "-c64", "-d1s", url}));
    run_until(loop, [&] { return greeter.server.connections() == 0; });
  }
}

TEST_CASE("curl gets nginx's megabyte through tcp_proxy, forty at once") {
  const std::string path = real_program("nginx", "nginx-light");
  const std::string curl = real_program("curl", "curl");
  if (path.empty() || curl.empty()) return;
  EventLoop loop;
  const FileServer files(loop, path);
  RunningProgram proxy(loop, {example("tcp_proxy"), files.server.endpoint().to_string()});
  proxy.wait_for("\n");
  const std::string line = lines_of(proxy.output())[0];
  const std::string address = line.substr(line.rfind(' ') + 1);
  const Ended ended = run(loop, {curl, "--silent", "--show-error", "--max-time", "25", "--parallel",
                                 "--parallel-immediate", "--parallel-max", "40", "--output",
                                 files.folder.file("copy#1"), "--write-out", "%{http_code}\n",
                                 "http://" + address + "/body?[1-40]"});
  INFO(ended.errors);
  CHECK(ended.exit_code == 0);
  CHECK(lines_of(ended.output) == std::vector<std::string>(40, "200"));
  for (int i = 1; i <= 40; ++i) {
    CHECK((read_whole(files.folder.file("copy" + std::to_string(i))) == files.body));
  }
}
