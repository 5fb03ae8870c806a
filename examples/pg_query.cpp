// SPDX-License-Identifier: MIT
// "Database queries are I/O operations": libpq's non-blocking calls, with a descriptor that the
// loop watches. Each query is a task that stands at a named step; a timer ticks beside them.
#include <libpq-fe.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/task.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "program.hpp"
#include "run_task.hpp"

namespace {

constexpr const char* help =
    R"(usage: pg_query CONNECTION [QUERY...] [--every SECONDS] [--trace]

Sends each query to a PostgreSQL server on a connection of its own, all at once,
and prints the rows of each, in the order of the queries; then how long that
took, and how often a timer ticked meanwhile. Without a query the server sleeps
for half a second. Exit code 1 when the server refuses one, 130 on Ctrl-C.
CONNECTION is what psql takes, with an address or a Unix socket: looking a name
up would block.
  pg_query 'host=/run/postgresql dbname=postgres' 'select pg_sleep(1)'

  --every SECONDS    between two ticks of the timer, default 0.05
  --trace            each step that is run)";

using Rows = std::vector<std::string>;

/// Prints "running task NAME step STEP".
class StepPrinter final : public pawl::Observer {
 public:
  void on_step(const pawl::StepRun& run) override {
    std::printf("running task %s step %s\n", std::string(run.label).c_str(),
                std::string(run.step).c_str());
  }
};

/// Connects, asks, and gives the rows: a line each, with tabs between the columns.
class Query final : public pawl::Task<Rows> {
 public:
  Query(pawl::EventLoop& loop, const std::string& name, std::string connection, std::string text)
      : Task(loop, name), connect_to_(std::move(connection)), text_(std::move(text)) {}
  ~Query() override { cancel(); }  // its descriptor is libpq's, which closes it right afterwards

 private:
  using Connection = std::unique_ptr<PGconn, void (*)(PGconn*)>;
  using Result = std::unique_ptr<PGresult, void (*)(PGresult*)>;
  enum class Step { start, connect, send, flush, receive };

  pawl::Next step() override {
    switch (at_) {
      case Step::start: return start();
      case Step::connect: return connect();
      case Step::send: return send();
      case Step::flush: return flush();
      case Step::receive: return receive();
    }
    return pawl::Next::done();
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"start", "connect", "send", "flush", "receive"};
    return names[static_cast<std::size_t>(at_)];
  }

  pawl::Next start() {
    connection_.reset(PQconnectStart(connect_to_.c_str()));
    if (connection_ == nullptr) throw std::bad_alloc();
    if (PQstatus(connection_.get()) == CONNECTION_BAD) fail();
    at_ = Step::connect;
    return pawl::Next::writable(fd());  // as if PQconnectPoll had said so, its manual says
  }

  /// Each call may go on to another descriptor, when the server has several addresses.
  pawl::Next connect() {
    switch (PQconnectPoll(connection_.get())) {
      case PGRES_POLLING_READING: return pawl::Next::readable(fd());
      case PGRES_POLLING_WRITING: return pawl::Next::writable(fd());
      case PGRES_POLLING_OK: at_ = Step::send; return pawl::Next::go_on();
      default: fail();
    }
  }

  pawl::Next send() {
    if (PQsetnonblocking(connection_.get(), 1) != 0) fail();
    if (PQsendQuery(connection_.get(), text_.c_str()) != 1) fail();
    at_ = Step::flush;
    return pawl::Next::go_on();
  }

  /// A server answers when it has the whole query, so there is nothing to read before.
  pawl::Next flush() {
    const int left = PQflush(connection_.get());
    if (left < 0) fail();
    if (left > 0) return pawl::Next::writable(fd());
    at_ = Step::receive;
    return pawl::Next::readable(fd());
  }

  pawl::Next receive() {
    if (PQconsumeInput(connection_.get()) != 1) fail();
    while (PQisBusy(connection_.get()) == 0) {
      const Result result(PQgetResult(connection_.get()), &PQclear);
      if (result == nullptr) return done(std::move(rows_));
      keep(*result);
    }
    return pawl::Next::readable(fd());
  }

  void keep(const PGresult& result) {
    const ExecStatusType status = PQresultStatus(&result);
    if (status == PGRES_COMMAND_OK) rows_.emplace_back(PQcmdStatus(const_cast<PGresult*>(&result)));
    if (status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) return;
    if (status != PGRES_TUPLES_OK) fail();
    for (int row = 0; row < PQntuples(&result); ++row) {
      std::string line;
      for (int column = 0; column < PQnfields(&result); ++column) {
        line += (column == 0 ? "" : "\t") + std::string(PQgetvalue(&result, row, column));
      }
      rows_.push_back(std::move(line));
    }
  }

  /// libpq's text ends with a newline and may have several lines.
  [[noreturn]] void fail() const {
    std::string text = PQerrorMessage(connection_.get());
    text.erase(text.find_last_not_of('\n') + 1);
    for (char& c : text) c = c == '\n' || c == '\t' ? ' ' : c;
    throw std::runtime_error(text.empty() ? "a reply that isn't rows, such as COPY's" : text);
  }

  int fd() const { return PQsocket(connection_.get()); }

  const std::string connect_to_;
  const std::string text_;
  Connection connection_{nullptr, &PQfinish};
  Rows rows_;
  Step at_ = Step::start;
};

int run(Options& words) {
  const pawl::Duration interval = words.seconds("--every", std::chrono::milliseconds(50));
  const bool traces = words.flag("--trace");
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  std::vector<std::string> queries = words.rest();
  if (queries.empty()) throw ShowHelp();
  const std::string connection = queries[0];
  queries.erase(queries.begin());
  if (queries.empty()) queries = {"select 'the server slept' from pg_sleep(0.5)"};
  if (interval <= pawl::Duration::zero()) throw std::invalid_argument("--every has to be positive");

  StepPrinter printer;
  if (traces) options.observer = &printer;
  pawl::EventLoop loop(std::move(options));
  int ticks = 0;
  const pawl::ScopedHandle ticker = loop.call_every(interval, [&] { ++ticks; });
  std::vector<std::unique_ptr<Query>> tasks;
  std::vector<pawl::Future<Rows>> futures;
  for (const std::string& query : queries) {
    const std::string name = "query" + std::to_string(tasks.size() + 1);
    tasks.push_back(std::make_unique<Query>(loop, name, connection, query));
    futures.push_back(tasks.back()->future());
  }
  const pawl::TimePoint started = loop.time();
  const pawl::Future<std::vector<Rows>> all = pawl::gather(loop, futures);
  if (const int exit_code = run_future(loop, all)) return exit_code;
  for (const Rows& rows : all.result()) {
    for (const std::string& row : rows) std::printf("%s\n", row.c_str());
  }
  std::printf("took %s; the loop's timer ticked %d times meanwhile\n",
              as_text(loop.time() - started).c_str(), ticks);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("pg_query", help, argc, argv, run); }
