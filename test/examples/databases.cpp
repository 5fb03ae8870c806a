// SPDX-License-Identifier: MIT
// redis_ping and pg_query against real servers, each on a Unix socket in a folder of its own.
// Skipped, and said so, where a server isn't installed or an example isn't built.
#include <pwd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"
#include "support/temporary_directory.hpp"

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The number behind `before`.
int number_behind(const std::string& text, const std::string& before) {
  const auto at = text.find(before);
  return at == std::string::npos ? -1 : std::stoi(text.substr(at + before.size()));
}

void skip(const char* what) { WARN("skipped: " << what); }

bool is_built(const std::string& name) { return std::filesystem::exists(example(name)); }

class RedisServer {
 public:
  explicit RedisServer(pawl::EventLoop& loop)
      : program_(loop, {"redis-server", "--port", "0", "--unixsocket", folder_.file("socket"),
                        "--save", "", "--dir", folder_.file("")}) {
    program_.wait_for("ready to accept connections");
  }

  std::string address() const { return "unix:" + folder_.file("socket"); }
  void end() {
    program_.signal(SIGTERM);
    program_.wait();
  }

  static bool is_installed(pawl::EventLoop& loop) {
    return run_shell(loop, "command -v redis-server").exit_code == 0;
  }

 private:
  TemporaryDirectory folder_;
  RunningProgram program_;
};

/// PostgreSQL's programs refuse to be run by root: then they are run by nobody.
class PostgresServer {
 public:
  explicit PostgresServer(pawl::EventLoop& loop)
      : program_(loop, {"sh", "-c", start_command(loop) + " 2>&1"}) {
    program_.wait_for("ready to accept connections");
  }
  /// Its processes have sessions of their own, and go when it ends in order.
  ~PostgresServer() {
    program_.signal(SIGINT);
    program_.wait();
  }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  std::string connection() const {
    return "host=" + folder_.file("") + " user=pawl dbname=postgres";
  }

  /// Debian's, the newest one; empty when there is none.
  static std::string programs() {
    std::string newest;
    std::error_code none;
    for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
      const std::string folder = (version.path() / "bin").string();
      if (std::filesystem::exists(folder + "/initdb") && folder > newest) newest = folder;
    }
    return newest;
  }

 private:
  std::string start_command(pawl::EventLoop& loop) {
    std::string as_user;
    if (::geteuid() == 0) {
      const passwd* nobody = ::getpwnam("nobody");
      REQUIRE(nobody != nullptr);
      REQUIRE(::chown(folder_.file("").c_str(), nobody->pw_uid, nobody->pw_gid) == 0);
      as_user = "setpriv --reuid=nobody --regid=" + std::to_string(nobody->pw_gid) +
                " --clear-groups --pdeathsig INT ";
    }
    const std::string data = folder_.file("data");
    const Ended made = run_shell(loop, as_user + programs() + "/initdb -D " + data +
                                           " -U pawl -A trust --no-sync --locale=C 2>&1");
    INFO(made.output);
    REQUIRE(made.exit_code == 0);
    return "exec " + as_user + programs() + "/postgres -D " + data +
           " -c listen_addresses= -c unix_socket_directories=" + folder_.file("") + " -c fsync=off";
  }

  TemporaryDirectory folder_;
  RunningProgram program_;
};

}  // namespace

TEST_CASE("redis_ping talks to Redis by hiredis's libev adapter while a timer of pawl's ticks") {
  pawl::EventLoop loop;
  if (!is_built("redis_ping")) return skip("no redis_ping; install libhiredis-dev");
  if (!RedisServer::is_installed(loop)) return skip("install redis-server");
  RedisServer server(loop);
  const std::string address = server.address();

  const Ended ended =
      run(loop, {example("redis_ping"), address, "--count", "5000", "--every", "0.001"});
  INFO(ended.output << ended.errors);
  CHECK(ended.exit_code == 0);
  CHECK(contains(ended.output, "5000 PONGs from " + address + ": min "));
  CHECK(number_behind(ended.output, "the timer ticked ") >= 5);

  RunningProgram endless(loop, {example("redis_ping"), address, "--count", "100000000"});
  endless.wait_for("connected to " + address + "\n");
  SECTION("Ctrl-C ends it with exit code 130") {
    endless.signal(SIGINT);
    CHECK(endless.wait() == 130);
    server.end();
  }
  SECTION("a server that goes away is one line and exit code 1") {
    server.end();
    CHECK(endless.wait() == 1);
    CHECK(lines_of(endless.errors()).size() == 1);
    CHECK(contains(endless.errors(), "redis_ping: " + address + ": "));
  }
  CHECK(lines_of(endless.output()).size() == 1);
}

TEST_CASE("redis_ping says in one line why it can't reach a server") {
  pawl::EventLoop loop;
  if (!is_built("redis_ping")) return skip("no redis_ping; install libhiredis-dev");
  const Ended refused = run(loop, {example("redis_ping"), "127.0.0.1:1"});
  CHECK(refused.exit_code == 1);
  CHECK(refused.errors == "redis_ping: 127.0.0.1:1: Connection refused\n");
  const Ended missing = run(loop, {example("redis_ping"), "unix:/no/such/socket"});
  CHECK(missing.exit_code == 1);
  CHECK(missing.errors == "redis_ping: unix:/no/such/socket: No such file or directory\n");
  CHECK(run(loop, {example("redis_ping")}).exit_code == 2);
  CHECK(run(loop, {example("redis_ping"), "nowhere"}).exit_code == 2);
}

TEST_CASE("pg_query's loop goes on while PostgreSQL works on several queries at once") {
  pawl::EventLoop loop;
  if (!is_built("pg_query")) return skip("no pg_query; install libpq-dev");
  if (PostgresServer::programs().empty()) return skip("install postgresql");
  PostgresServer server(loop);
  const auto query = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {example("pg_query"), server.connection()});
    return run(loop, std::move(words));
  };

  const auto is_in_time = [](const Ended& ended) {  // of 25 ticks in half a second
    return number_behind(ended.output, "the loop's timer ticked ") >= 5;
  };
  const Ended slept = run_in_time([&] { return query({"--every", "0.02"}); }, is_in_time);
  INFO(slept.output << slept.errors);
  CHECK(is_in_time(slept));
  REQUIRE(slept.exit_code == 0);
  CHECK(lines_of(slept.output)[0] == "the server slept");

  const Ended both = query({"select 'late' from pg_sleep(0.3)", "select 1, 'two'", "", "--trace"});
  CHECK(both.exit_code == 0);
  CHECK(contains(both.output, "\nlate\n1\ttwo\n"));  // in the order of the queries
  CHECK(contains(both.output, "running task query1 step connect\n"));
  CHECK(contains(both.output, "running task query2 step receive\n"));
  CHECK(both.output.rfind("step receive\n") > both.output.find("running task query2"));

  const Ended many = query({"select count(*) from generate_series(1, 100000)",
                            "select repeat('x', 1000000)", "create temporary table t (n int)"});
  CHECK(contains(many.output, "100000\n" + std::string(1'000'000, 'x') + "\nCREATE TABLE\n"));
  const Ended wrong = query({"select nonsense"});
  CHECK(wrong.exit_code == 1);
  CHECK(contains(wrong.errors, "pg_query: ERROR:  column \"nonsense\" does not exist"));
  CHECK(lines_of(wrong.errors).size() == 1);
  CHECK(query({"copy (select 1) to stdout"}).exit_code == 1);

  RunningProgram endless(
      loop, {example("pg_query"), server.connection(), "select pg_sleep(1000)", "--trace"});
  endless.wait_for("step flush");
  endless.signal(SIGINT);
  CHECK(endless.wait() == 130);
}

TEST_CASE("pg_query says in one line why it can't reach a server") {
  pawl::EventLoop loop;
  if (!is_built("pg_query")) return skip("no pg_query; install libpq-dev");
  const Ended missing = run(loop, {example("pg_query"), "host=/no/such/folder"});
  CHECK(missing.exit_code == 1);
  CHECK(contains(missing.errors, "No such file or directory"));
  CHECK(lines_of(missing.errors).size() == 1);
  CHECK(run(loop, {example("pg_query"), "host=127.0.0.1 port=1"}).exit_code == 1);
  CHECK(run(loop, {example("pg_query")}).exit_code == 2);
}
