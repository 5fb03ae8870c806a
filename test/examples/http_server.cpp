// SPDX-License-Identifier: MIT
// http_server, seen by clients that no one here wrote: curl and netcat.
#include <catch2/catch.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "running_program.hpp"

namespace {

/// What /bytes promises: lines of 16 bytes, each of which is its own offset.
std::string pattern(std::size_t bytes) {
  std::string text;
  for (std::size_t offset = 0; text.size() < bytes; offset += 16) {
    char line[32];
    std::snprintf(line, sizeof line, "%015zu\n", offset);
    text += line;
  }
  text.resize(bytes);
  return text;
}

bool has_clients() { return has_program("curl", "curl") && has_program("nc", "netcat-openbsd"); }

Ended curl(pawl::EventLoop& loop, std::vector<std::string> arguments) {
  const std::vector<std::string> always{"curl",         "--http1.1",  "--silent",
                                        "--show-error", "--max-time", "25"};
  arguments.insert(arguments.begin(), always.begin(), always.end());
  return run(loop, std::move(arguments));
}

/// What the server sends when a client writes `request` and then ends its side.
std::string converse(pawl::EventLoop& loop, const RunningServer& server,
                     const std::string& request) {
  RunningProgram nc(loop, {"nc", "-N", "127.0.0.1", server.port()});
  nc.type(request);
  nc.end_input();
  CHECK(nc.wait() == 0);
  return nc.output();
}

std::string first_line(const std::string& text) { return text.substr(0, text.find("\r\n")); }

}  // namespace

TEST_CASE("curl gets every byte of a body with a length, in chunks, and until the end") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  for (const std::string path : {"/bytes", "/chunked", "/close"}) {
    for (const int bytes : {0, 1, 15, 16, 17, 16 * 1024, 1'000'003}) {
      INFO(path << " " << bytes);
      const Ended ended = curl(loop, {server.address() + path + "?n=" + std::to_string(bytes)});
      CHECK(ended.exit_code == 0);
      CHECK((ended.output == pattern(static_cast<std::size_t>(bytes))));
      CHECK(ended.errors.empty());
    }
  }
}

TEST_CASE("curl uses one connection for two URLs") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended =
      curl(loop, {"--write-out", "%{http_code} %{size_download} %{num_connects}\n", "--output",
                  "/dev/null", "--output", "/dev/null", "--output", "/dev/null",
                  server.address() + "/hello", server.address() + "/chunked?n=70000",
                  server.address() + "/nowhere"});
  CHECK(ended.output == "200 16 1\n200 70000 0\n404 49 0\n");
}

TEST_CASE("The index lists every path, and curl gets an answer from each") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server", {"--next", "0.05"});
  const Ended index = curl(loop, {server.address()});
  for (const std::string path :
       {"/hello", "/slow?ms=20", "/bytes", "/chunked", "/close", "/next", "/drop"}) {
    INFO(path);
    CHECK(index.output.find(path.substr(0, path.find("20"))) != std::string::npos);
    const Ended ended = curl(loop, {server.address() + path});
    CHECK(ended.output.size() == (path == "/hello"        ? 16
                                  : path == "/slow?ms=20" ? 25
                                  : path == "/next"       ? 5
                                  : path == "/drop"       ? 500
                                                          : 1000));
    CHECK((ended.exit_code == 0) == (path != "/drop"));
  }
  CHECK(curl(loop, {server.address() + "/next"}).output == "0.05\n");
}

TEST_CASE("HEAD gets the headers of GET and no body, on every path") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  for (const std::string path :
       {"/", "/hello", "/slow?ms=1", "/bytes?n=7", "/chunked", "/nowhere"}) {
    INFO(path);
    const Ended get = curl(loop, {"--include", server.address() + path});
    const Ended head = curl(loop, {"--head", server.address() + path});
    CHECK(head.exit_code == 0);
    CHECK(head.output == get.output.substr(0, get.output.find("\r\n\r\n") + 4));
  }
}

TEST_CASE("What can't be answered gets the status that says why") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const auto status = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--output", "/dev/null", "--write-out", "%{http_code}"});
    return curl(loop, std::move(arguments)).output;
  };
  CHECK(status({server.address() + "/nowhere"}) == "404");
  CHECK(status({"--data", "a=b", server.address() + "/"}) == "405");
  CHECK(status({"--request", "DELETE", server.address() + "/hello"}) == "405");
  CHECK(status({server.address() + "/bytes?n=many"}) == "400");
  CHECK(status({server.address() + "/bytes?n=1000000000001"}) == "400");
  CHECK(status({server.address() + "/slow?ms=-1"}) == "400");
  CHECK(status({"--header", "X: " + std::string(8200, 'a'), server.address() + "/"}) == "431");

  CHECK(first_line(converse(loop, server, "hello\r\n")) == "HTTP/1.1 400 Bad Request");
  CHECK(first_line(converse(loop, server, "GET / HTTP/1.1\r\n\r\n")) == "HTTP/1.1 400 Bad Request");
  CHECK(first_line(converse(loop, server, "PRI * HTTP/2.0\r\n\r\n")) ==
        "HTTP/1.1 505 HTTP Version Not Supported");
  CHECK(first_line(converse(loop, server, "GET /" + std::string(10'000, 'a'))) ==
        "HTTP/1.1 414 URI Too Long");
}

TEST_CASE("A head that comes too slowly is refused, however lively its client is") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server", {"--patience", "0.3"});
  for (const std::string drop : {"GET / HTTP/1.1\r\nX: ", "\r\n"}) {
    const auto slow = pawl::Connection::connect(
        loop, "127.0.0.1", static_cast<std::uint16_t>(std::stoi(server.port())));
    std::string answer;
    bool is_over = false;
    slow->on_connected([&](pawl::Connection& self) { self.write(drop); });
    slow->on_data([&](pawl::Connection&, std::string_view bytes) { answer += bytes; });
    slow->on_closed([&](pawl::Connection&, std::error_code) { is_over = true; });
    const pawl::ScopedHandle drip(loop.call_every(std::chrono::milliseconds(20), [&] {
      if (!is_over) slow->write(drop.size() == 2 ? drop : "x");
    }));
    server.wait_until([&] { return is_over; });
    CHECK(first_line(answer) == "HTTP/1.1 408 Request Timeout");
    CHECK(answer.find("Connection: close\r\n") != std::string::npos);
  }
  // Who says nothing between two requests is no slow one.
  RunningProgram nc(loop, {"nc", "127.0.0.1", server.port()});
  nc.type("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  nc.wait_for("Hello from pawl\n");
  bool is_later = false;
  const pawl::ScopedHandle later(
      loop.call_later(std::chrono::milliseconds(600), [&] { is_later = true; }));
  nc.wait_until([&] { return is_later; });
  nc.type("GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  nc.wait_for("1\n");
  CHECK(nc.output().find("408") == std::string::npos);
}

TEST_CASE("Requests that come at once are answered in order, a slow one before a quick one") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server", {"--next", "7"});
  const std::string slow = "GET /slow?ms=50 HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string hello = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string next = "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  const std::string output = converse(loop, server, slow + hello + next + hello);
  const auto at_last = output.find("Hello from pawl, at last\n");
  const auto at_hello = output.find("Hello from pawl\n");
  const auto at_next = output.find("7\n", at_hello);
  CHECK(at_last < at_hello);
  CHECK(at_hello < at_next);
  CHECK(at_next == output.size() - 2);  // what came behind "close" isn't answered
}

TEST_CASE("A thousand requests in one breath get a thousand answers") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  std::string requests;
  for (int i = 0; i < 1000; ++i) requests += "GET /bytes?n=500 HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string output = converse(loop, server, requests);
  std::size_t answers = 0;
  for (auto at = output.find("HTTP/1.1 200 OK"); at != std::string::npos; ++answers) {
    at = output.find("HTTP/1.1 200 OK", at + 1);
  }
  CHECK(answers == 1000);
}

TEST_CASE("An HTTP/1.0 client gets no chunks, and the end of the body is the connection's") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string output = converse(loop, server, "GET /chunked?n=100 HTTP/1.0\r\n\r\n");
  CHECK(output.find("Transfer-Encoding") == std::string::npos);
  CHECK(output.substr(output.find("\r\n\r\n") + 4) == pattern(100));
}

TEST_CASE("A client that doesn't read a terabyte disturbs nobody, and gets it when it does") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const auto client =
      pawl::Connection::connect(loop, pawl::Endpoint::parse(server.address().substr(7)));
  constexpr std::size_t wanted = 20'000'000;
  std::string came;
  client->on_data([&](pawl::Connection&, std::string_view bytes) { came += bytes; });
  client->write("GET /bytes?n=1000000000000 HTTP/1.1\r\nHost: x\r\n\r\n");
  client->pause_reading();
  CHECK(curl(loop, {server.address() + "/hello"}).output == "Hello from pawl\n");
  CHECK(came.empty());
  client->resume_reading();
  server.wait_until([&] { return came.size() > wanted; });
  client->abort();
  const auto body = came.find("\r\n\r\n") + 4;
  CHECK((came.substr(body) == pattern(came.size() - body)));
  CHECK(curl(loop, {server.address() + "/hello"}).output == "Hello from pawl\n");
}

TEST_CASE("--verbose prints a line for each request, whatever came of it") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server", {"--verbose"});
  curl(loop, {server.address() + "/hello?x", "--next", "--head", server.address() + "/nowhere"});
  converse(loop, server, "nonsense\r\n");
  server.wait_for(" 400 a request begins like GET / HTTP/1.1\n");
  const std::vector<std::string> lines = lines_of(server.output());
  REQUIRE(lines.size() == 4);
  CHECK(lines[1].substr(lines[1].find(' ')) == " 200 GET /hello");
  CHECK(lines[2].substr(lines[2].find(' ')) == " 404 HEAD /nowhere");
}

TEST_CASE("A client that leaves while its answer is due is forgotten") {
  if (!has_clients()) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  RunningProgram impatient(loop, {"curl", "--silent", server.address() + "/slow?ms=30000"});
  CHECK(curl(loop, {server.address() + "/hello"}).exit_code == 0);
  impatient.signal(15);
  impatient.wait();
  server.signal(2);
  CHECK(server.wait() == 0);
}
