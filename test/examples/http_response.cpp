// SPDX-License-Identifier: MIT
#include "../../examples/http_response.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

using State = ResponseState;

namespace {

/// Everything that a reader can say about a reply.
struct Reading {
  State state;
  int status;
  std::string body;
  std::string behind;  // what wasn't taken
  std::string type;    // the header Content-Type
  std::string problem;

  friend bool operator==(const Reading& a, const Reading& b) {
    return std::tie(a.state, a.status, a.body, a.behind, a.type, a.problem) ==
           std::tie(b.state, b.status, b.body, b.behind, b.type, b.problem);
  }
};

/// Feeds the pieces in turn, and then the end, if it comes.
Reading read(const std::vector<std::string_view>& pieces, bool ends = false) {
  std::string body;
  HttpResponseReader reader([&](std::string_view bytes) { body += bytes; });
  std::string behind;
  for (const std::string_view piece : pieces) behind += reader.feed(piece);
  if (ends) reader.end();
  CHECK(reader.body_bytes() == body.size());
  return Reading{
      reader.state(),  reader.status(), body, behind, std::string(reader.header("content-type")),
      reader.problem()};
}

Reading read(std::string_view reply, bool ends = false) {
  return read(std::vector<std::string_view>{reply}, ends);
}

struct Example {
  std::string reply;
  State state;  // when all has come, but not the end
  int status;
  std::string body;
  std::string behind = {};
};

const std::vector<Example>& examples() {
  static const std::vector<Example> list{
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", State::done, 200, "hello"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP", State::done, 200, "hello", "HTTP"},
      {"HTTP/1.0 200 OK\nCONTENT-length:5\n\nhello", State::done, 200, "hello"},
      {"HTTP/1.1 200\r\ncontent-length: 5, 5\r\nContent-Length: 5 \r\n\r\nhello", State::done, 200,
       "hello"},
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", State::done, 404, ""},
      {"HTTP/1.1 204 No Content\r\nContent-Type: a\r\n\r\n", State::done, 204, ""},
      {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", State::done, 304, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", State::done, 200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Type: a/b\r\n\r\n"
       "5\r\nhello\r\n007 ; x=\"1\"\r\n, world\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nmore",
       State::done, 200, "hello, world0123456789", "more"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: "
       "3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
       State::done, 200, "x"},
      {"HTTP/1.1 200 OK\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n\r\nup to the end",
       State::body_until_close, 200, "up to the end"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
       State::done, 200, "ok"},
      {"SSH-2.0-OpenSSH_9.2p1\r\n", State::failed, 0, ""},
      {"HTTP/2 200\r\n", State::failed, 0, ""},
      {"HTTP/1.1 20 OK\r\n", State::failed, 0, ""},
      {"HTTP/1.1 099 No\r\n", State::failed, 0, ""},
      {"HTTP/1.1 2000 No\r\n", State::failed, 0, ""},
      {"HTTP/1.1 200 OK\r\nno colon here\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nnocolon\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\n: value\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\n folded: first\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", State::failed, 200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", State::failed,
       200, ""},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", State::failed, 200,
       "abc"},
  };
  return list;
}

}  // namespace

TEST_CASE("The reader finds the status, the body and the end of each kind of reply") {
  for (const Example& example : examples()) {
    INFO(example.reply);
    const Reading reading = read(example.reply);
    CHECK(reading.state == example.state);
    CHECK(reading.status == example.status);
    CHECK(reading.body == example.body);
    if (example.state != State::failed) CHECK(reading.behind == example.behind);
    CHECK(reading.problem.empty() == (example.state != State::failed));
  }
}

TEST_CASE("It makes no difference where a reply is split in two") {
  for (const Example& example : examples()) {
    INFO(example.reply);
    const std::string_view reply = example.reply;
    const Reading whole = read(reply);
    for (std::size_t split = 0; split <= reply.size(); ++split) {
      CHECK(read({reply.substr(0, split), reply.substr(split)}) == whole);
    }
  }
}

TEST_CASE("It makes no difference when a reply comes byte by byte") {
  for (const Example& example : examples()) {
    INFO(example.reply);
    std::vector<std::string_view> bytes;
    const std::string_view reply = example.reply;
    for (std::size_t i = 0; i < reply.size(); ++i) bytes.push_back(reply.substr(i, 1));
    CHECK(read(bytes) == read(reply));
  }
}

TEST_CASE("A reply that ends early has FAILED, unless its end is the connection's") {
  for (const Example& example : examples()) {
    const std::string_view reply = example.reply;
    for (std::size_t size = 0; size <= reply.size(); ++size) {
      INFO(reply.substr(0, size));
      const State before = read(reply.substr(0, size)).state;
      const Reading reading = read(reply.substr(0, size), true);
      const bool is_complete = before == State::done || before == State::body_until_close;
      CHECK(reading.state == (is_complete ? State::done : State::failed));
      CHECK(reading.problem.empty() == is_complete);
    }
  }
}

TEST_CASE("The reader says in words what was wrong") {
  const auto problem = [](std::string_view reply) { return read(reply, true).problem; };
  CHECK(problem("") == "the server ended the connection without a reply");
  CHECK(problem("HTTP/1.1 2") == "the reply ends in its first line: \"HTTP/1.1 2\"");
  CHECK(problem("HTTP/1.1 200 OK\r\n") == "the reply ends in its headers");
  CHECK(problem("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc") ==
        "the body ends after 3 of 9 bytes");
  CHECK(problem("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc") ==
        "the body ends after 3 bytes, before its last chunk was over");
  CHECK(problem("SSH-2.0-\x1b[2J\r\n") ==
        "not the beginning of an HTTP/1.1 reply: \"SSH-2.0-?[2J\"");
}

TEST_CASE("Headers are found in any case, and the first of two wins") {
  HttpResponseReader reader(nullptr);
  reader.feed("HTTP/1.1 200 OK\r\nX-Name:  a b \r\nx-name: c\r\nEmpty:\r\n\r\n");
  CHECK(reader.header("X-NAME") == "a b");
  CHECK(reader.header("empty").empty());
  CHECK(reader.header("nothing").empty());
}

TEST_CASE("Trailers don't become headers") {
  HttpResponseReader reader(nullptr);
  reader.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nLate: x\r\n\r\n");
  CHECK(reader.state() == State::done);
  CHECK(reader.header("late").empty());
}

TEST_CASE("A line and all headers together are bounded") {
  HttpResponseReader endless_line(nullptr);
  const std::string kilobyte(1024, 'a');
  for (int i = 0; i < 16; ++i) endless_line.feed(kilobyte);
  CHECK(endless_line.state() == State::status_line);
  endless_line.feed("a");
  CHECK(endless_line.state() == State::failed);
  CHECK(endless_line.problem() == "a line has more than 16384 bytes");

  HttpResponseReader endless_headers(nullptr);
  endless_headers.feed("HTTP/1.1 200 OK\r\n");
  const std::string header = "a: " + std::string(1021, 'b') + "\r\n";
  for (int i = 0; i < 64; ++i) endless_headers.feed(header);
  CHECK(endless_headers.state() == State::headers);
  endless_headers.feed(header);
  CHECK(endless_headers.problem() == "the headers have more than 65536 bytes");

  HttpResponseReader endless_interims(nullptr);
  for (int i = 0; i < 16; ++i) endless_interims.feed("HTTP/1.1 102 Processing\r\n\r\n");
  CHECK(endless_interims.state() == State::status_line);
  endless_interims.feed("HTTP/1.1 102 Processing\r\n\r\n");
  CHECK(endless_interims.problem() == "interim replies without an end");
}

TEST_CASE("The observer sees how a chunked reply goes from STATUS_LINE to DONE") {
  struct Recorder final : pawl::Observer {
    std::string path;
    void on_transition(const pawl::Transition& transition) override {
      CHECK(transition.machine == "response");
      CHECK(transition.label == "x");
      path += std::string(transition.event) + ">" + std::string(transition.to) + " ";
    }
  };
  Recorder recorder;
  HttpResponseReader reader(nullptr, &recorder, "x");
  reader.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
  CHECK(recorder.path ==
        "status>HEADERS chunked>CHUNK_SIZE chunk>CHUNK_DATA complete>CHUNK_END "
        "chunk ended>CHUNK_SIZE last chunk>TRAILERS trailers ended>DONE ");
}

TEST_CASE("No bytes whatsoever make the reader take an impossible step") {
  std::mt19937 random(20181013);
  for (int round = 0; round < 20'000; ++round) {
    std::string reply = examples()[random() % examples().size()].reply;
    for (auto changes = random() % 4; changes > 0; --changes) {
      const std::size_t position = random() % reply.size();
      switch (random() % 3) {
        case 0: reply[position] = static_cast<char>(random()); break;
        case 1: reply.erase(position, 1 + random() % 4); break;
        default: reply.insert(position, reply.substr(random() % reply.size(), random() % 8)); break;
      }
      if (reply.empty()) reply = "\r\n";
    }
    INFO(round);
    const Reading reading = read(reply, true);
    REQUIRE((reading.state == State::done || reading.state == State::failed));
    REQUIRE(reading.body.size() <= reply.size());
  }
}
