// SPDX-License-Identifier: MIT
#include "../../examples/http_request.hpp"

#include <catch2/catch.hpp>
#include <optional>
#include <random>
#include <string>
#include <string_view>

namespace {

HttpRequest parse(std::string_view text) {
  const std::optional<HttpRequest> request = request::take(text);
  REQUIRE(request);
  return *request;
}

/// 0 when it is fine so far.
int refusal(std::string_view text) {
  const std::optional<HttpRequest> request = request::take(text);
  return request ? request->refusal : 0;
}

const std::string get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

}  // namespace

TEST_CASE("A request is taken when its head is whole, and not before") {
  const std::string text = "\r\nGET /a?b=c&d=%20&e HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n";
  for (std::size_t size = 0; size < text.size(); ++size) {
    std::string_view part = std::string_view(text).substr(0, size);
    CHECK_FALSE(request::take(part));
  }
  const std::string two = text + get;
  std::string_view rest = two;
  const std::optional<HttpRequest> request = request::take(rest);
  REQUIRE(request);
  CHECK(request->refusal == 0);
  CHECK(request->method == "GET");
  CHECK(request->path == "/a");
  CHECK(request->parameter("b") == "c");
  CHECK(request->parameter("d") == "%20");
  CHECK(request->parameter("e") == "");
  CHECK_FALSE(request->parameter("f"));
  CHECK_FALSE(request->parameter(""));
  CHECK_FALSE(request->is_last);
  CHECK(rest == get);
}

TEST_CASE("Line ends without a carriage return and targets of proxies are understood") {
  CHECK(parse("HEAD / HTTP/1.1\nHost: x\n\n").method == "HEAD");
  CHECK(parse("GET http://x.y:80/a?b HTTP/1.1\r\nHost: x.y\r\n\r\n").path == "/a");
  CHECK(parse("GET HTTP://x.y HTTP/1.1\r\nHost: x.y\r\n\r\n").path == "/");
}

TEST_CASE("The connection ends behind a request that says so, is old, or has a body") {
  CHECK_FALSE(parse(get).is_last);
  CHECK_FALSE(parse("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").is_last);
  CHECK(parse("GET / HTTP/1.0\r\n\r\n").is_last);
  CHECK(parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n").is_last);
  CHECK(parse("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").is_last);
  CHECK(parse("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").is_last);
}

TEST_CASE("Nonsense is refused as soon as it can be seen") {
  CHECK(refusal("\x16\x03\x01") == 400);  // TLS
  CHECK(refusal("hello\n") == 400);
  CHECK(refusal("GET /\r\n") == 400);
  CHECK(refusal("GET / HTTP/1.1 \r\n") == 400);
  CHECK(refusal("GET /\x01 HTTP/1.1\r\n") == 400);
  CHECK(refusal("GET /a b HTTP/1.1\r\n") == 400);
  CHECK(refusal("G\x1b[2J / HTTP/1.1\r\n") == 400);
  CHECK(refusal("PRI * HTTP/2.0\r\n") == 505);
  CHECK(refusal("GET / HTTP/1.1\r\n\r\n") == 400);
  CHECK(refusal("GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n") == 400);
  CHECK(refusal("GET / HTTP/1.1\r\nHost : x\r\n\r\n") == 400);
}

TEST_CASE("What another reader might take for a different request is refused") {
  const auto with = [](const std::string& lines) {
    return refusal("GET / HTTP/1.1\r\n" + lines + "\r\n");
  };
  using namespace std::string_literals;
  CHECK(with("Host: x\r\n") == 0);
  CHECK(with("Host: x\r\nX: a\tb \xff\r\n") == 0);
  // Control characters, a bare carriage return and NUL among them
  for (const std::string& text : {"a\rb"s, "a\0b"s, "a\x1b[2J"s, "a\x7f"s, "\x01"s}) {
    CHECK(with("Host: x\r\nX: " + text + "\r\n") == 400);
    CHECK(refusal("GET /" + text + " HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  }
  CHECK(refusal("\rGET / HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  // Names and folds
  CHECK(with("Host: x\r\n folded\r\n") == 400);
  CHECK(with(" X: first\r\nHost: x\r\n") == 400);
  CHECK(with("Host: x\r\nX : y\r\n") == 400);
  CHECK(with("Host: x\r\nX\t: y\r\n") == 400);
  CHECK(with("Host: x\r\n: y\r\n") == 400);
  CHECK(with("Host: x\r\n(X): y\r\n") == 400);
  // Host
  CHECK(with("") == 400);
  CHECK(with("Host: x\r\nHost: x\r\n") == 400);
  CHECK(with("Host: x\r\nhost: y\r\n") == 400);
  CHECK(with("Host: a b\r\n") == 400);
  CHECK(with("Host: a/b\r\n") == 400);
  CHECK(with("Host: x:y\r\n") == 400);
  CHECK(with("Host: x, y\r\n") == 400);
  for (const char* host : {"", "x:80", "x:", "[::1]", "[::1]:80", "127.0.0.1:8080"}) {
    CHECK(with("Host: " + std::string(host) + "\r\n") == 0);
  }
  // Lengths
  for (const char* length :
       {"", "+1", "-1", "1x", "0x1", "1 2", "1, 1", "1.0", "99999999999999999999999"}) {
    CHECK(with("Host: x\r\nContent-Length: " + std::string(length) + "\r\n") == 400);
  }
  CHECK(with("Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n") == 400);
  CHECK(with("Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n") == 0);
  // Codings
  const std::string chunked = "Host: x\r\nTransfer-Encoding: chunked\r\n";
  CHECK(with(chunked) == 0);
  CHECK(with(chunked + "Content-Length: 5\r\n") == 400);
  CHECK(with(chunked + "Transfer-Encoding: chunked\r\n") == 400);
  for (const char* coding :
       {"", "gzip", "chunked, gzip", "gzip, chunked", "xchunked", "chunked;a"}) {
    CHECK(with("Host: x\r\nTransfer-Encoding: " + std::string(coding) + "\r\n") == 400);
  }
  CHECK(refusal("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == 400);
  // The first line
  CHECK(refusal("G(T / HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET hello HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET / HTTP/11\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET / HTTP/1.1x\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET  / HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET  HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("POST  HTTP/1.1\r\nHost: x\r\n\r\n") == 400);
  CHECK(refusal("GET / HTTP/0.9\r\nHost: x\r\n\r\n") == 505);
  CHECK(refusal("GET / HTTP/1.2\r\nHost: x\r\n\r\n") == 0);
}

TEST_CASE("Only the word close closes a connection, not a word with close in it") {
  const auto is_last = [](const std::string& value) {
    return parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: " + value + "\r\n\r\n").is_last;
  };
  CHECK(is_last("close"));
  CHECK(is_last("keep-alive,\tClose "));
  CHECK_FALSE(is_last("disclose"));
  CHECK_FALSE(is_last("keep-alive"));
}

TEST_CASE("A head of more than 8 KiB is refused, one of less is not") {
  const std::string begin = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
  const std::string end = "\r\n\r\n";
  const std::string fits(8 * 1024 - begin.size() - end.size(), 'a');
  CHECK(parse(begin + fits + end).refusal == 0);
  CHECK(refusal(begin + fits + "aaa" + end) == 431);
  CHECK(refusal("GET /" + std::string(9000, 'a')) == 414);
}

TEST_CASE("No bytes whatsoever disturb the parser of requests") {
  std::mt19937 random(20181013);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + get;
    for (auto changes = random() % 8; changes > 0; --changes) {
      text[random() % text.size()] = static_cast<char>(random());
    }
    std::string_view rest = text;
    while (const std::optional<HttpRequest> request = request::take(rest)) {
      if (request->refusal != 0) break;
      request->parameter("b");
    }
  }
  SUCCEED();
}
