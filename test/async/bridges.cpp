// SPDX-License-Identifier: MIT
// make_future, run_in_executor and run_child: futures for what tells its end by a callback.
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/async/gather.hpp"
#include "pawl/async/make_future.hpp"
#include "pawl/async/run_child.hpp"
#include "pawl/async/run_in_executor.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/wait_for.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/thread_pool.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/listener.hpp"

using namespace std::chrono_literals;
using pawl::Completion;
using pawl::Connection;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Future;
using pawl::make_future;
using pawl::run_until_complete;

namespace {

/// Something that is told of its cancellation.
struct Cancellable {
  int* cancels;
  void cancel() { ++*cancels; }
};

Future<std::unique_ptr<Connection>> connect(EventLoop& loop, const Endpoint& endpoint) {
  return make_future<std::unique_ptr<Connection>>(loop, [&](auto done) {
    auto connection = Connection::connect(loop, endpoint);
    connection->pause_reading();  // until somebody listens
    connection->on_connected([done](Connection&) { done({}); });
    connection->on_closed([done](Connection&, std::error_code error) { done(error); });
    return connection;
  });
}

/// A whole message: everything up to the peer's end.
Future<std::string> read_all(EventLoop& loop, Connection& connection) {
  return make_future<std::string>(loop, [&](Completion<std::string> done) {
    const auto text = std::make_shared<std::string>();
    connection.on_data([text](Connection&, std::string_view bytes) { *text += bytes; });
    connection.on_closed([text, done](Connection&, std::error_code error) { done(error, *text); });
    connection.resume_reading();
  });
}

pawl::ChildProcessOptions shell(const std::string& script) {
  pawl::ChildProcessOptions options;
  options.arguments = {"sh", "-c", script};
  return options;
}

}  // namespace

TEST_CASE("make_future gives what its completion was called with, once") {
  EventLoop loop;
  const auto future = make_future<int>(loop, [&](auto done) {
    return loop.call_soon([done] {
      done({}, 5);
      done({}, 6);
      done(Errc::aborted);
    });
  });
  CHECK_FALSE(future.done());
  CHECK(run_until_complete(loop, future) == 5);
  const auto failed = make_future<int>(loop, [](auto done) { done(Errc::timed_out, 1); });
  CHECK(failed.error() == Errc::timed_out);
  const auto nothing = make_future<void>(loop, [](auto done) { done({}); });
  CHECK_NOTHROW(nothing.result());
}

TEST_CASE("Cancelling a made future cancels and frees its operation, once") {
  EventLoop loop;
  int cancels = 0;
  std::vector<Completion<int>> kept;
  const auto future = make_future<int>(loop, [&](auto done) {
    kept.push_back(done);
    return Cancellable{&cancels};
  });
  future.cancel();
  future.cancel();
  CHECK(cancels == 1);
  kept[0]({}, 1);
  CHECK(future.cancelled());
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  const auto second =
      make_future<int>(loop, [&](auto done) { return loop.call_later(1h, [done, token] {}); });
  token.reset();
  CHECK_FALSE(watch.expired());
  second.cancel();
  CHECK(watch.expired());
  CHECK(loop.why_alive().empty());
}

TEST_CASE("An operation that is over isn't cancelled") {
  EventLoop loop;
  int cancels = 0;
  const auto future = make_future<int>(loop, [&](auto done) {
    loop.call_soon([done] { done({}, 1); });
    return Cancellable{&cancels};
  });
  loop.run();
  CHECK(future.result() == 1);
  CHECK_FALSE(future.cancel());
  CHECK(cancels == 0);
}

TEST_CASE("A completion that is dropped uncalled breaks its future") {
  EventLoop loop;
  const auto future = make_future<int>(loop, [](const auto&) {});
  CHECK(future.error() == Errc::broken_promise);
  const auto late = make_future<int>(loop, [&](auto done) { loop.call_soon([done] {}); });
  loop.run();
  CHECK(late.error() == Errc::broken_promise);
}

TEST_CASE("What a starter throws is its future's error") {
  EventLoop loop;
  const auto future = make_future<int>(loop, [](const auto&) {
    throw std::system_error(std::make_error_code(std::errc::io_error));
  });
  CHECK(future.error() == std::errc::io_error);
  const auto neither = make_future<int>(loop, [](auto done) { done({}); });
  CHECK_THROWS_AS(neither.result(), std::logic_error);
}

TEST_CASE("A starter may be done before it returns the very value") {
  EventLoop loop;
  const auto future = make_future<std::unique_ptr<int>>(loop, [](auto done) {
    done({});
    return std::make_unique<int>(4);
  });
  CHECK(*future.result() == 4);
}

TEST_CASE("A future for a connect gives the connection, and another its whole message") {
  EventLoop loop;
  std::unique_ptr<Connection> accepted;
  pawl::Listener listener(loop, Endpoint::loopback(0), [&](pawl::UniqueFd fd, const Endpoint&) {
    accepted = Connection::adopt(loop, std::move(fd));
    accepted->write("a whole message");
    accepted->close();
  });
  const auto text =
      connect(loop, listener.local_endpoint()).then([&](std::unique_ptr<Connection> connection) {
        Connection& open = *connection;
        return read_all(loop, open).then([kept = std::move(connection)](const std::string& all) {
          return all + " from port " + std::to_string(kept->peer_endpoint().port());
        });
      });
  CHECK(run_until_complete(loop, text) ==
        "a whole message from port " + std::to_string(listener.local_endpoint().port()));
}

TEST_CASE("A future for a connect fails with its error, and is cancelled with its connection") {
  EventLoop loop;
  Endpoint nobody = Endpoint::loopback(0);
  {
    const pawl::Listener gone(loop, Endpoint::loopback(0), [](pawl::UniqueFd, const Endpoint&) {});
    nobody = gone.local_endpoint();
  }
  const auto refused = connect(loop, nobody);
  loop.run();
  CHECK(refused.error() == std::errc::connection_refused);
  const pawl::Listener listener(loop, Endpoint::loopback(0),
                                [](pawl::UniqueFd, const Endpoint&) {});
  const auto watched = loop.selector().size();
  const auto cancelled = connect(loop, listener.local_endpoint());
  cancelled.cancel();
  CHECK(loop.selector().size() == watched);
  const auto timed_out = pawl::wait_for(connect(loop, listener.local_endpoint()), 1h);
  timed_out.cancel();
  CHECK(loop.selector().size() == watched);
}

TEST_CASE("A connection that nobody takes out of its future is closed with that") {
  EventLoop loop;
  const pawl::Listener listener(loop, Endpoint::loopback(0),
                                [](pawl::UniqueFd, const Endpoint&) {});
  const auto watched = loop.selector().size();
  {
    const auto future = connect(loop, listener.local_endpoint());
    while (!future.done()) loop.run_once();
    CHECK(loop.selector().size() == watched + 1);
  }
  CHECK(loop.selector().size() == watched);
}

TEST_CASE("A future for work in a thread gives what the work returned or threw", "[threads]") {
  EventLoop loop;
  const auto here = std::this_thread::get_id();
  const auto number =
      pawl::run_in_executor(loop, [here] { return std::this_thread::get_id() == here ? 0 : 7; });
  const auto failed =
      pawl::run_in_executor(loop, []() -> std::string { throw std::runtime_error("work"); });
  const auto nothing = pawl::run_in_executor(loop, [] {});
  CHECK(run_until_complete(loop, number) == 7);
  CHECK_THROWS_WITH(run_until_complete(loop, failed), "work");
  CHECK_NOTHROW(run_until_complete(loop, nothing));
}

TEST_CASE("A thousand futures for work in threads are gathered in order", "[threads]") {
  EventLoop loop;
  std::vector<Future<int>> futures;
  for (int i = 0; i < 1000; ++i) {
    futures.push_back(pawl::run_in_executor(loop, [i] { return i; }));
  }
  const auto values = run_until_complete(loop, pawl::gather(loop, std::move(futures)));
  bool in_order = values.size() == 1000;
  for (int i = 0; i < 1000; ++i) in_order = in_order && values[static_cast<std::size_t>(i)] == i;
  CHECK(in_order);
}

TEST_CASE("Cancelling a future for work that hasn't begun keeps it from running", "[threads]") {
  std::promise<void> gate;
  bool ran = false;
  {
    EventLoop loop;
    pawl::ThreadPool pool(1);
    const auto busy =
        pawl::run_in_executor(loop, pool, [opened = gate.get_future().share()] { opened.wait(); });
    auto token = std::make_shared<int>(0);
    const std::weak_ptr<int> watch = token;
    const auto queued =
        pawl::run_in_executor(loop, pool, [&ran, token = std::move(token)] { ran = true; });
    queued.cancel();
    CHECK(watch.expired());
    gate.set_value();
    loop.run();
    CHECK(busy.done());
  }
  CHECK_FALSE(ran);
}

TEST_CASE("Work that runs while its future is cancelled and dropped is dropped too", "[threads]") {
  EventLoop loop;
  std::promise<void> begun;
  std::promise<void> gate;
  {
    const auto future = pawl::run_in_executor(loop, [&begun, opened = gate.get_future().share()] {
      begun.set_value();
      opened.wait();
      return std::string(100, 'x');
    });
    begun.get_future().wait();
    future.cancel();
  }
  gate.set_value();
  loop.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A future for work whose pool goes before it begins fails, and the loop ends",
          "[threads]") {
  EventLoop loop;
  std::promise<void> gate;
  const auto token = std::make_shared<int>(1);
  auto pool = std::make_unique<pawl::ThreadPool>(1);
  std::promise<void> begun;
  pool->post([&begun, opened = gate.get_future().share()] {
    begun.set_value();
    opened.wait();
  });
  begun.get_future().wait();
  const auto number = pawl::run_in_executor(loop, *pool, [token] { return *token; });
  pawl::run_in_executor(loop, *pool, [token] {});  // that nobody looks at
  std::thread opener([&, &pool = *pool] {
    while (pool.size() > 0) std::this_thread::yield();  // until it takes no more jobs
    gate.set_value();
  });
  pool.reset();
  opener.join();
  loop.run();
  CHECK(number.error() == std::errc::operation_canceled);
  CHECK(token.use_count() == 1);
}

TEST_CASE("What moving the result of work throws fails the future", "[threads]") {
  struct Heavy {
    explicit Heavy(int* moves_left) : left(moves_left) {}
    Heavy(Heavy&& other) : left(other.left) {
      if (--*left == 0) throw std::runtime_error("too heavy");
    }
    int* left;
  };
  for (int moves = 1; moves < 10; ++moves) {
    EventLoop loop;
    int left = moves;
    const auto future = pawl::run_in_executor(loop, [&] { return Heavy(&left); });
    loop.run();
    REQUIRE(future.done());
    if (left <= 0) CHECK_THROWS_WITH(future.result(), "too heavy");
  }
}

TEST_CASE("A future for a child tells how it ended") {
  EventLoop loop;
  CHECK(run_until_complete(loop, pawl::run_child(loop, shell("exit 3"))).exit_code == 3);
  pawl::ChildProcessOptions missing;
  missing.arguments = {"/no/such/program"};
  CHECK(pawl::run_child(loop, missing).error() == std::errc::no_such_file_or_directory);
}

TEST_CASE("Cancelling a future for a child kills the child, and the loop reaps it") {
  EventLoop loop;
  const auto child = pawl::run_child(loop, shell("exec sleep 1000"));
  const auto limited = pawl::wait_for(child, 1ms);
  loop.run();  // returns when the child is reaped
  CHECK(limited.error() == Errc::timed_out);
  CHECK(child.cancelled());
}
