// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/server.hpp"
#include "running_program.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

namespace {

/// The program, with the URLs of `paths` on `server`.
Ended fetch(pawl::EventLoop& loop, const RunningServer& server,
            const std::vector<std::string>& options, const std::vector<std::string>& paths) {
  std::vector<std::string> arguments{example("fetch")};
  arguments.insert(arguments.end(), options.begin(), options.end());
  for (const std::string& path : paths) arguments.push_back(server.address() + path);
  return run(loop, std::move(arguments));
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// "200  16 bytes  /hello": the line of a URL, without its time and with single spaces.
std::string result_of(const Ended& ended, const std::string& path) {
  for (const std::string& line : lines_of(ended.output)) {
    std::istringstream words(line);
    std::string status, bytes, unit, time, time_unit, url;
    words >> status >> bytes >> unit >> time >> time_unit >> url;
    const std::string end = url.size() >= path.size() ? url.substr(url.size() - path.size()) : "";
    if (end == path) return status + " " + bytes + " " + unit;
  }
  return "";
}

/// An address that nobody listens at.
std::string refusing_url() {
  const pawl::UniqueFd listener = bound_socket(SOCK_STREAM);
  const int port = ntohs(address_of(listener.get()).sin_port);
  return "http://127.0.0.1:" + std::to_string(port) + "/";
}

double last_number(const std::string& text, const std::string& before) {
  return std::stod(text.substr(text.rfind(before) + before.size()));
}

/// What --compare and the broken forms say in the end.
bool took_half_the_time(const Ended& ended) {
  const std::string said = "all at once took ";
  const double ratio = contains(ended.output, said) ? last_number(ended.output, said) : 0;
  return ratio > 0.3 && ratio < 0.75;
}

}  // namespace

TEST_CASE("fetch reads bodies with a length, in chunks and until the end, and says how big") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = fetch(loop, server, {},
                            {"/hello", "/bytes?n=0", "/bytes?n=1000000", "/chunked?n=0",
                             "/chunked?n=1000000", "/close?n=0", "/close?n=1000000"});
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(lines_of(ended.output).size() == 7);
  CHECK(result_of(ended, "/hello") == "200 16 bytes");
  for (const std::string kind : {"/bytes", "/chunked", "/close"}) {
    CHECK(result_of(ended, kind + "?n=0") == "200 0 bytes");
    CHECK(result_of(ended, kind + "?n=1000000") == "200 1000000 bytes");
  }
}

TEST_CASE("A reply of 404 is a reply") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = fetch(loop, server, {}, {"/nowhere"});
  CHECK(ended.exit_code == 0);
  CHECK(result_of(ended, "/nowhere") == "404 49 bytes");
}

TEST_CASE("What is refused or dropped is one line, and the others go on") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string refused = refusing_url();
  const Ended ended =
      run(loop,
          {example("fetch"), server.address() + "/drop", refused, server.address() + "/slow?ms=50",
           server.address() + "/drop?how=close", server.address() + "/hello"});
  CHECK(ended.exit_code == 1);
  CHECK(lines_of(ended.output).size() == 2);
  CHECK(result_of(ended, "/slow?ms=50") == "200 25 bytes");
  CHECK(result_of(ended, "/hello") == "200 16 bytes");
  CHECK(lines_of(ended.errors).size() == 3);
  const std::string peer = server.address().substr(7);
  CHECK(contains(ended.errors, "fetch: " + refused + ": connection to " +
                                   refused.substr(7, refused.size() - 8) +
                                   " DONE: connect in CONNECTING: Connection refused"));
  CHECK(contains(ended.errors, "is a server running there?"));
  CHECK(contains(ended.errors, "fetch: " + server.address() + "/drop: connection to " + peer +
                                   " DONE: recv in RECEIVING: Connection reset by peer, after 500 "
                                   "bytes of the body"));
  CHECK(contains(ended.errors, "fetch: " + server.address() + "/drop?how=close: connection to " +
                                   peer + " RECEIVING: the body ends after 500 of 1000 bytes"));
}

TEST_CASE("A server that says nothing ends with --timeout") {
  pawl::EventLoop loop;
  const pawl::UniqueFd silent = bound_socket(SOCK_STREAM);
  const int port = ntohs(address_of(silent.get()).sin_port);
  const Ended ended = run(loop, {example("fetch"), "--timeout", "0.05",
                                 "http://127.0.0.1:" + std::to_string(port) + "/"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.errors, "idle timeout in RECEIVING: timed out"));
  CHECK(lines_of(ended.errors).size() == 1);
}

TEST_CASE("A server that doesn't speak HTTP is one line, fit for a terminal") {
  pawl::EventLoop loop;
  pawl::Server server(loop, pawl::Endpoint::loopback(0),
                      [](pawl::Connection& peer) { peer.write("220 \x1b[31mftp\r\n"); });
  const Ended ended =
      run(loop, {example("fetch"), "http://" + server.local_endpoint().to_string() + "/"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.errors, "not the beginning of an HTTP/1.1 reply: \"220 ?[31mftp\""));
  CHECK(lines_of(ended.errors).size() == 1);
}

TEST_CASE("--trace shows a connection go from CONNECTING over SENDING and RECEIVING to DONE") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = fetch(loop, server, {"--trace"}, {"/hello", "/chunked?n=5"});
  CHECK(ended.exit_code == 0);
  for (const std::string number : {"[1]", "[2]"}) {
    std::string path;
    double last_time = 0;
    for (const std::string& line : lines_of(ended.output)) {
      if (!contains(line, number) || !contains(line, " connection ")) continue;
      CHECK(std::stod(line) >= last_time);
      last_time = std::stod(line);
      const auto arrow = line.find(" -> ");
      if (arrow != std::string::npos)
        path += line.substr(arrow + 4, line.find(' ', arrow + 4) - arrow - 4) + " ";
    }
    CHECK(path == "SENDING RECEIVING DONE ");
  }
  CHECK(contains(ended.output, "BODY_BY_LENGTH -> DONE"));
  CHECK(contains(ended.output, "CHUNK_SIZE -> TRAILERS"));
}

TEST_CASE("Two slow replies at once take about half the time of the same two in sequence") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = run_in_time(
      [&] {
        return fetch(loop, server, {"--compare"}, {"/slow?ms=300", "/slow?ms=300"});
      },
      took_half_the_time);
  CHECK(took_half_the_time(ended));
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "one after the other: "));
  CHECK(contains(ended.output, "all at once: "));
}

TEST_CASE("--blocking is as slow as one after the other, and debug mode names its line") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = run_in_time(
      [&] {
        return fetch(loop, server, {"--blocking"}, {"/slow?ms=300", "/slow?ms=300"});
      },
      took_half_the_time);
  INFO(ended.output << ended.errors);
  CHECK(took_half_the_time(ended));
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "blocked, one after the other: "));
  CHECK(contains(ended.output, "tried connect 2, send 2, recv "));
  CHECK(contains(ended.errors, "slow callback: call_soon callback registered at fetch.cpp:"));
}

TEST_CASE("--busy gets the same by asking thousands of times, and says how often") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended =
      fetch(loop, server, {"--busy"}, {"/slow?ms=300", "/chunked?n=1000000", "/close?n=100"});
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "asked again and again, one after the other: "));
  CHECK(last_number(ended.output, "send 3, recv ") > 1000);
  CHECK(contains(ended.errors, "slow callback: call_soon callback registered at fetch.cpp:"));
}

TEST_CASE("The broken forms fail as the right one does, and keep to --timeout") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  for (const std::string form : {"--blocking", "--busy"}) {
    const Ended ended =
        run(loop, {example("fetch"), form, server.address() + "/drop", refusing_url()});
    CHECK(ended.exit_code == 1);
    CHECK(contains(ended.errors, "/drop: recv: Connection reset by peer; the server dropped it"));
    CHECK(contains(ended.errors, "connect: Connection refused; is a server running there?"));
    const Ended late = fetch(loop, server, {form, "--timeout", "0.05"}, {"/slow?ms=30000"});
    CHECK(late.exit_code == 1);
    CHECK(contains(late.errors, "/slow?ms=30000: recv: Connection timed out; try again later"));
    RunningProgram endless(loop, {example("fetch"), form, server.address() + "/slow?ms=30000"});
    endless.wait_for("failed\n");  // the legend
    endless.signal(2);
    CHECK(endless.wait() == 130);
  }
  CHECK(fetch(loop, server, {"--busy", "--blocking"}, {"/"}).exit_code == 2);
  CHECK(fetch(loop, server, {"--busy", "--compare"}, {"/"}).exit_code == 2);
}

TEST_CASE("--svg draws the same rows as a well-formed picture") {
  if (!has_program("python3", "python3")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const TemporaryDirectory folder;
  const std::string path = folder.file("picture.svg");
  const auto count_of = [&](const std::string& part) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    int found = 0;
    const std::string all = text.str();
    for (auto at = all.find(part); at != std::string::npos; at = all.find(part, at + 1)) ++found;
    return found;
  };
  const auto is_well_formed = [&] {
    const std::string parse = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])";
    return run(loop, {"python3", "-c", parse, path}).exit_code == 0;
  };
  CHECK(fetch(loop, server, {"--svg", path}, {"/hello?<&\">", "/drop"}).exit_code == 1);
  CHECK(is_well_formed());
  CHECK(count_of("<title>waiting ") == 2);
  CHECK(count_of("stroke-width=\"2.5\"") == 4);  // a cross in the legend and one for /drop
  CHECK(count_of(">/hello?&lt;&amp;&quot;&gt;</text>") == 1);
  CHECK(fetch(loop, server, {"--compare", "--svg", path}, {"/hello", "/"}).exit_code == 0);
  CHECK(is_well_formed());
  CHECK(count_of(">/hello</text>") == 2);
  CHECK(count_of("one after the other: ") == 1);
  CHECK(count_of("all at once: ") == 1);
  CHECK(fetch(loop, server, {"--svg", "/no/such/folder"}, {"/hello"}).exit_code == 1);
}

TEST_CASE("--compare draws a row for each URL in each picture, the failed ones too") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = run(loop, {"env", "LC_ALL=C", example("fetch"), "--compare",
                                 server.address() + "/slow?ms=50", server.address() + "/drop"});
  CHECK(ended.exit_code == 1);
  CHECK(lines_of(ended.errors).size() == 2);
  int slow_rows = 0;
  int dropped_rows = 0;
  for (const std::string& line : lines_of(ended.output)) {
    if (line.compare(0, 11, "/slow?ms=50") == 0 && contains(line, "--")) ++slow_rows;
    if (line.compare(0, 5, "/drop") == 0 && contains(line, "x")) ++dropped_rows;
  }
  CHECK(slow_rows == 2);
  CHECK(dropped_rows == 2);
}

TEST_CASE("fetch gets files from the server that comes with Python") {
  if (!has_program("python3", "python3")) return;
  pawl::EventLoop loop;
  RunningProgram server(loop, {"python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"});
  server.wait_for("Serving HTTP on 127.0.0.1 port ");
  server.wait_for("\n");
  const std::string port = std::to_string(static_cast<int>(last_number(server.output(), " port ")));
  const std::string address = "http://127.0.0.1:" + port;
  const Ended ended = run(loop, {example("fetch"), address + "/", address + "/no_such_file"});
  CHECK(ended.exit_code == 0);
  CHECK(ended.errors.empty());
  CHECK(contains(ended.output, "200 "));
  CHECK(contains(ended.output, "404 "));
}

TEST_CASE("--output keeps the body") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string path =
      (std::filesystem::temp_directory_path() / ("pawl_fetch_test_" + server.port())).string();
  const Ended ended = fetch(loop, server, {"--output", path}, {"/chunked?n=100000"});
  CHECK(ended.exit_code == 0);
  std::ifstream file(path);
  std::stringstream kept;
  kept << file.rdbuf();
  std::remove(path.c_str());
  CHECK(kept.str().size() == 100'000);
  CHECK(kept.str().substr(99'984) == "000000000099984\n");
  CHECK(fetch(loop, server, {"--output", "/no/such/folder"}, {"/hello"}).exit_code == 1);
  CHECK(fetch(loop, server, {"--output", "/dev/full"}, {"/hello"}).exit_code == 1);
  CHECK(fetch(loop, server, {"--output", path}, {"/hello", "/"}).exit_code == 2);
}

TEST_CASE("On a terminal fetch draws its rows again and again in the same place") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const std::string command = example("fetch") + " " + server.address() + "/slow?ms=300 " +
                              server.address() + "/hello " + refusing_url();
  const Ended ended = run(loop, {"env", "TERM=xterm", "script", "--quiet", "--return", "--command",
                                 command, "/dev/null"});
  CHECK(ended.exit_code == 1);
  CHECK(contains(ended.output, "RECEIVING "));
  CHECK(contains(ended.output, "\x1b[3A"));
  CHECK(contains(ended.output, "fetch: http://127.0.0.1:"));
  const std::string end = ended.output.substr(ended.output.rfind("\x1b[3A"));
  CHECK(contains(end, "200                 25 bytes"));
  CHECK(contains(end, "failed               0 bytes"));
}

TEST_CASE("A URL that makes no sense is one line and exit code 2") {
  pawl::EventLoop loop;
  for (const std::string url :
       {"", "hello", "ftp://x/", "https://x/", "http://", "http://:80/", "http://x:0/",
        "http://x:99999/", "http://x:y/", "http://[::1/", "http://[::1]x/", "http://::1/",
        "http://a@b/", "http://a b/", "http://\xc3\xa4/", "http://x/\n"}) {
    INFO(url);
    const Ended ended = run(loop, {example("fetch"), url});
    CHECK(ended.exit_code == 2);
    CHECK(lines_of(ended.errors).size() == 1);
    CHECK(ended.output.empty());
  }
  const Ended ended = run(loop, {example("fetch"), "https://x/"});
  CHECK(contains(ended.errors, "https isn't supported yet"));
}

TEST_CASE("A query without a path, a fragment and a name are understood") {
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  const Ended ended = run(loop, {example("fetch"), server.address() + "?x=1", server.address(),
                                 "http://localhost:" + server.port() + "/hello#there"});
  CHECK(ended.exit_code == 0);
  CHECK(lines_of(ended.output).size() == 3);
  CHECK(result_of(ended, "/hello#there") == "200 16 bytes");
}
