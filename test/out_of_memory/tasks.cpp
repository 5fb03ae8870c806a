// SPDX-License-Identifier: MIT
// Tasks, each allocation failing in turn.
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "support/allocation_sweep.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Next;
using pawl::Task;

TEST_CASE("A task comes to its end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    const SocketPair pair;
    write_byte(pair.theirs.get());
    std::unique_ptr<Task<std::string>> task;
    int step = 0;
    int ended = 0;
    trial.insist([&] {
      task = pawl::make_task<std::string>(loop, "a task with a name", [&](auto& self) -> Next {
        switch (step++) {
          case 0: return Next::yield();
          case 1: return Next::sleep(1s);
          case 2: return Next::readable(pair.ours.get());
          case 3: return Next::writable(pair.ours.get());
          case 4: return Next::future(pawl::sleep(loop, 1s));
          case 5: return Next::go_on();
          default: return self.done(std::string(100, 'd'));
        }
      });
    });
    trial.attempt([&] { (void)task->describe(); });
    trial.attempt([&] { (void)loop.why_alive(); });
    const bool is_watched =
        trial.attempt([&] { task->future().add_done_callback([&] { ++ended; }); });
    trial.run([&] { return task->done() && (ended == 1 || !is_watched); });
    trial.run_dry();
    CHECK(ended == (is_watched ? 1 : 0));
    if (!trial.has_failed()) CHECK(task->future().result() == std::string(100, 'd'));
    trial.must([&] { task.reset(); });
  });
}

TEST_CASE(
    "Tasks that wait for each other end when they are cancelled, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    std::unique_ptr<Task<>> sleeper;
    std::unique_ptr<Task<>> waiter;
    trial.insist(
        [&] { sleeper = pawl::make_task(loop, "sleeper", [](auto&) { return Next::sleep(1h); }); });
    trial.insist([&] {
      waiter = pawl::make_task(loop, "waiter", [&](auto&) { return Next::task(*sleeper); });
    });
    trial.attempt([&] { loop.run_once(0s); });
    trial.attempt([&] { loop.run_once(0s); });
    trial.must([&] { waiter->cancel(); });
    trial.must([&] { sleeper->cancel(); });
    CHECK(waiter->done());
    CHECK(sleeper->done());
    trial.run_dry();
    CHECK_FALSE(loop.next_deadline());
    trial.must([&] { waiter.reset(); });
  });
}
