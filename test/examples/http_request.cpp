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

TEST_CASE("A head of more than 8 KiB is refused, one of less is not") {
  const std::string begin = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
  const std::string end = "\r\n\r\n";
  const std::string fits(8 * 1024 - begin.size() - end.size(), 'a');
  CHECK(parse(begin + fits + end).refusal == 0);
  CHECK(refusal(begin + fits + "aaa" + end) == 431);
  CHECK(refusal("GET /" + std::string(9000, 'a')) == 431);
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
