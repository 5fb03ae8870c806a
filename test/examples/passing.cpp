// SPDX-License-Identifier: MIT
// tcp_proxy and unix_fd_pass: what one side gets, the other gets.
#include <catch2/catch.hpp>
#include <csignal>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"
#include "support/temporary_directory.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("tcp_proxy passes a big body on, byte by byte the same") {
  if (!has_program("curl", "curl")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "http_server");
  RunningServer proxy(loop, "tcp_proxy", {"127.0.0.1:" + server.port()});
  const std::string path = "/bytes?n=5000000";
  const Ended ended =
      run_shell(loop, "curl -s http://" + proxy.address() + path + " | cksum; curl -s " +
                          server.address() + path + " | cksum");
  const std::vector<std::string> sums = lines_of(ended.output);
  REQUIRE(sums.size() == 2);
  CHECK(sums[0] == sums[1]);
  CHECK(contains(sums[0], " 5000000"));
}

TEST_CASE("tcp_proxy says which side failed, and serves the next client") {
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  RunningServer proxy(loop, "tcp_proxy", {"127.0.0.1:1"});
  const Ended ended = run(loop, {example("echo_client"), proxy.address(), "--timeout", "5"});
  CHECK(ended.exit_code == 1);
  proxy.wait_for("connect in CONNECTING: Connection refused");
  CHECK(run(loop, {example("echo_client"), proxy.address()}).exit_code == 1);
}

TEST_CASE("tcp_proxy's table shows a client, both states and the bytes") {
  if (!has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer server(loop, "echo_server");
  RunningServer proxy(loop, "tcp_proxy", {server.address(), "--table"});
  RunningProgram nc(loop, {"nc", "127.0.0.1", proxy.port()});
  nc.type("hello\n");
  nc.wait_for("hello");
  proxy.wait_for("RECEIVING   RECEIVING");
  proxy.signal(SIGINT);
  CHECK(proxy.wait() == 0);
}

TEST_CASE("unix_fd_pass shows the files of another process, and who that is") {
  pawl::EventLoop loop;
  const TemporaryDirectory folder;
  const std::string path = folder.file("socket");
  RunningProgram receiver(loop, {example("unix_fd_pass"), "--listen", path});
  receiver.wait_for("listening on unix:" + path);
  const std::string files = folder.file("1") + " " + folder.file("2");
  const Ended sender =
      run_shell(loop, "echo one >" + folder.file("1") + "; echo two >" + folder.file("2") + "; " +
                          example("unix_fd_pass") + " " + path + " " + files + "; echo $?");
  CHECK(sender.output == "2 files handed over\n0\n");
  receiver.wait_for("2 files from process ");
  receiver.wait_for("\"two?\"");
  CHECK(contains(receiver.output(), "\"one?\""));
  receiver.signal(SIGINT);
  CHECK(receiver.wait() == 0);
  CHECK(run_shell(loop, "ls " + path).exit_code != 0);
}

TEST_CASE("unix_fd_pass says what is wrong when nobody listens or a file isn't there") {
  pawl::EventLoop loop;
  const Ended nobody =
      run(loop, {example("unix_fd_pass"), "@pawl-nobody-listens-here", "/dev/null"});
  CHECK(nobody.exit_code == 1);
  CHECK(contains(nobody.errors, "connect in CONNECTING: Connection refused"));
  const Ended no_file = run(loop, {example("unix_fd_pass"), "@pawl-nobody", "/no/such/file"});
  CHECK(no_file.exit_code == 1);
  CHECK(contains(no_file.errors, "/no/such/file: No such file or directory"));
}
