// SPDX-License-Identifier: MIT
#include "pawl/loop/libev_host.hpp"

#include <ev.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"
#include "support/allocation_counter.hpp"
#include "support/later.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::LibevHost;

namespace {

/// A libev program: its loop, and one timer of its own.
class Program {
 public:
  Program() : loop_(ev_loop_new(EVFLAG_NOENV)) {}
  ~Program() { ev_loop_destroy(loop_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  struct ev_loop* loop() {
    return loop_;
  }
  void run() { ev_run(loop_, 0); }

 private:
  struct ev_loop* loop_;
};

struct Pipe {
  Pipe() {
    int fds[2];
    REQUIRE(pawl::System::real().pipe(fds).ok());
    reader.reset(fds[0]);
    writer.reset(fds[1]);
  }
  pawl::UniqueFd reader;
  pawl::UniqueFd writer;
};

}  // namespace

TEST_CASE("A libev program runs a pawl loop's callbacks, timers and readers") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  Pipe pipe;
  std::string order;
  loop.add_reader(pipe.reader.get(), [&] {
    char byte;
    REQUIRE(::read(pipe.reader.get(), &byte, 1) == 1);
    order += byte;
    loop.remove_reader(pipe.reader.get());
  });
  loop.call_soon([&] { order += 's'; });
  loop.call_later(5ms, [&] { REQUIRE(::write(pipe.writer.get(), "r", 1) == 1); });
  program.run();  // returns: nothing is left on either side
  CHECK(order == "sr");
}

TEST_CASE("A hosted loop's timers aren't early") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  const auto start = loop.time();
  pawl::Duration waited{};
  loop.call_later(7ms, [&] { waited = loop.time() - start; });
  program.run();
  CHECK(waited >= 7ms);
}

TEST_CASE("Both sides' timers run in one thread, side by side") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  int ours = 0;
  int theirs = 0;
  pawl::TimerHandle tick;
  tick = loop.call_every(2ms, [&] {
    if (++ours == 5) tick.cancel();
  });
  struct ev_timer timer;
  ev_init(&timer, [](struct ev_loop* ev, struct ev_timer* watcher, int) {
    if (++*static_cast<int*>(watcher->data) == 5) ev_timer_stop(ev, watcher);
  });
  timer.data = &theirs;
  ev_timer_set(&timer, 0.002, 0.002);
  ev_timer_start(program.loop(), &timer);
  program.run();
  CHECK(ours == 5);
  CHECK(theirs == 5);
}

TEST_CASE("A post from another thread wakes a hosted loop") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  Pipe pipe;  // keeps both waiting
  loop.add_reader(pipe.reader.get(), [] {});
  const Later later(
      [&] { loop.call_soon_threadsafe([&] { loop.remove_reader(pipe.reader.get()); }); });
  program.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A hosted loop is told of what a host's callback changes") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  Pipe pipe;
  bool was_read = false;
  struct Context {
    EventLoop& loop;
    Pipe& pipe;
    bool& was_read;
  } context{loop, pipe, was_read};
  struct ev_timer timer;
  ev_init(&timer, [](struct ev_loop*, struct ev_timer* watcher, int) {
    Context& in = *static_cast<Context*>(watcher->data);
    in.loop.add_reader(in.pipe.reader.get(), [&in] {
      in.was_read = true;
      in.loop.remove_reader(in.pipe.reader.get());
    });
    REQUIRE(::write(in.pipe.writer.get(), "x", 1) == 1);
  });
  timer.data = &context;
  ev_timer_set(&timer, 0.002, 0.0);
  ev_timer_start(program.loop(), &timer);
  program.run();
  CHECK(was_read);
}

TEST_CASE("An exception from a hosted callback ends ev_run and is thrown when asked for") {
  Program program;
  EventLoop loop;
  LibevHost host(program.loop(), loop);
  loop.call_soon([] { throw std::runtime_error("from a callback"); });
  loop.call_later(1h, [] {});
  program.run();
  CHECK_THROWS_WITH(host.rethrow_exception(), "from a callback");
  CHECK_NOTHROW(host.rethrow_exception());
}

TEST_CASE("Want of memory for what libev is to watch ends ev_run and is thrown when asked for") {
  Program program;
  EventLoop loop;
  LibevHost host(program.loop(), loop);
  const bool is_mirrored = loop.selector().fileno() < 0;  // descriptor by descriptor
  const Pipe pipe;
  std::vector<pawl::UniqueFd> readers;
  for (int i = 0; i < 100; ++i) readers.emplace_back(::dup(pipe.reader.get()));
  std::optional<OutOfMemory> shortage;
  loop.call_soon([&] {
    for (const pawl::UniqueFd& reader : readers) loop.add_reader(reader.get(), [] {});
    shortage.emplace(0);
  });
  loop.call_later(10ms, [&] {
    shortage.reset();
    loop.stop();
  });
  program.run();
  shortage.reset();
  bool has_thrown = false;
  try {
    host.rethrow_exception();
  } catch (const std::bad_alloc&) {
    has_thrown = true;
  }
  CHECK((has_thrown || !is_mirrored));
  for (const pawl::UniqueFd& reader : readers) loop.remove_reader(reader.get());
  int ticks = 0;
  loop.call_later(1ms, [&] { ++ticks; });
  if (has_thrown) program.run();
  program.run();
  CHECK(ticks == 1);
}

TEST_CASE("stop() ends ev_run") {
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  loop.call_later(1h, [] {});
  SECTION("from a callback") {
    loop.call_later(1ms, [&] { loop.stop(); });
  }
  SECTION("before it") { loop.stop(); }
  program.run();
  CHECK_FALSE(loop.why_alive().empty());
}

TEST_CASE("A descriptor that is closed under a hosted loop doesn't disturb the host") {
  const bool is_removed_first = GENERATE(true, false);
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  Pipe pipe;
  const int fd = pipe.reader.get();
  loop.add_reader(fd, [] {});
  loop.call_later(1ms, [&] {
    if (is_removed_first) loop.remove_reader(fd);
    pipe.reader.reset();
    loop.call_later(1ms, [&] { loop.remove_reader(fd); });
  });
  program.run();
  CHECK(loop.why_alive().empty());
}

TEST_CASE("A host that goes while its loop waits takes all of it out of the program") {
  Program program;
  EventLoop loop;
  const Pipe pipe;
  bool called = false;
  loop.add_reader(pipe.reader.get(), [&] { called = true; });
  loop.call_later(1h, [] {});
  {
    const LibevHost host(program.loop(), loop);
    struct ev_timer timer;
    ev_init(&timer, [](struct ev_loop* ev, struct ev_timer*, int) { ev_break(ev, EVBREAK_ALL); });
    ev_timer_set(&timer, 0.001, 0.0);
    ev_timer_start(program.loop(), &timer);
    program.run();
  }
  REQUIRE(::write(pipe.writer.get(), "x", 1) == 1);
  program.run();  // returns: it has nothing to wait for
  CHECK_FALSE(called);
  CHECK(loop.run_once(pawl::Duration::zero()));
  CHECK(called);
}

TEST_CASE("A host that is gone leaves both loops usable") {
  Program program;
  EventLoop loop;
  { const LibevHost host(program.loop(), loop); }
  bool ran = false;
  loop.call_soon([&] { ran = true; });
  program.run();  // nothing of ours is left in it
  CHECK_FALSE(ran);
  loop.run();
  CHECK(ran);
}

TEST_CASE("A hosted loop's handler that waits for nothing is told of a hang-up") {
  class Handler final : public pawl::IoHandler {
   public:
    Handler(EventLoop& its_loop, int its_fd) : loop(its_loop), fd(its_fd) {
      REQUIRE_FALSE(loop.add_handler(fd, pawl::Interest::read, *this));
      REQUIRE_FALSE(loop.modify_handler(fd, pawl::Interest::none));
    }
    void on_ready(pawl::Interest events) override {
      is_told = events == pawl::Interest::none;
      loop.remove_handler(fd);
    }
    std::string describe() const override { return "handler"; }

    EventLoop& loop;
    int fd;
    bool is_told = false;
  };
  Program program;
  EventLoop loop;
  const LibevHost host(program.loop(), loop);
  Pipe pipe;
  const Handler handler(loop, pipe.reader.get());
  loop.call_later(5ms, [&] { pipe.writer.reset(); });
  program.run();  // returns: nothing is left
  CHECK(handler.is_told);
}
