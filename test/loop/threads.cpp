// SPDX-License-Identifier: MIT
// What crosses threads: call_soon_threadsafe, stop and the mailbox. Runs under ThreadSanitizer too.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/later.hpp"
#include "support/sanitizers.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Mailbox;

namespace {

/// Counts its living instances, whichever thread makes or destroys them.
struct Counted {
  explicit Counted(std::atomic<int>& counter) : alive(&counter) { alive->fetch_add(1); }
  Counted(Counted&& other) noexcept : alive(other.alive) { alive->fetch_add(1); }
  Counted(const Counted& other) : alive(other.alive) { alive->fetch_add(1); }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { alive->fetch_sub(1); }
  std::atomic<int>* alive;
};

}  // namespace

TEST_CASE("Of what eight threads post nothing is lost, and each one's order is kept", "[threads]") {
  constexpr int thread_count = 8;
  constexpr int posts = has_thread_sanitizer ? 30'000 : 100'000;
  EventLoop loop;
  std::vector<int> next(thread_count, 0);
  int out_of_order = 0;
  int finished = 0;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < thread_count; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < posts; ++i) {
        loop.call_soon_threadsafe([&, t, i] {
          if (next[t]++ != i) ++out_of_order;
        });
      }
      loop.call_soon_threadsafe([&] {
        if (++finished == thread_count) loop.stop();
      });
    });
  }
  loop.run_forever();
  for (std::thread& thread : threads) thread.join();
  CHECK(out_of_order == 0);
  CHECK(next == std::vector<int>(thread_count, posts));
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A post ends the wait that the loop is in", "[threads]") {
  EventLoop loop;
  bool ran = false;
  const Later later([&] { loop.call_soon_threadsafe([&] { ran = true; }); });
  SECTION("of run_forever") {
    const Later stopper([&] { loop.call_soon_threadsafe([&] { loop.stop(); }); });
    loop.run_forever();
    if (!ran) loop.run_once(10s);
  }
  SECTION("of run_once without an end") {
    loop.call_later(1h, [] {});
    loop.run_once();
  }
  SECTION("of run_once with an end") { loop.run_once(10s); }
  CHECK(ran);
}

TEST_CASE("What was posted before run() keeps it going", "[threads]") {
  EventLoop loop;
  int ran = 0;
  std::thread([&] { loop.call_soon_threadsafe([&] { ++ran; }); }).join();
  loop.call_soon_threadsafe([&] { ++ran; });
  loop.run();
  CHECK(ran == 2);
}

TEST_CASE("A loop may be destroyed as soon as another thread has stopped it", "[threads]") {
  constexpr int rounds = has_thread_sanitizer ? 200 : 2'000;
  const bool by_post = GENERATE(true, false);
  const bool is_busy = GENERATE(true, false);  // else it has to be woken
  EventLoop threads_loop;                      // one thread stops them all
  const std::shared_ptr<pawl::Mailbox> orders = threads_loop.mailbox();
  std::thread thread([&] { threads_loop.run_forever(); });
  int ended = 0;
  for (; ended < rounds; ++ended) {
    std::optional<EventLoop> loop(std::in_place);
    if (is_busy) loop->call_every(1ns, [] {});
    orders->post([&loop, by_post] {
      EventLoop& target = *loop;
      if (by_post) {
        target.call_soon_threadsafe([&target] { target.stop(); });
      } else {
        target.stop();
      }
    });
    loop->run_forever();
    loop.reset();
  }
  orders->stop();
  thread.join();
  CHECK(ended == rounds);
}

TEST_CASE("Two loops may play ping-pong", "[threads]") {
  constexpr int rounds = has_thread_sanitizer ? 1'000 : 10'000;
  EventLoop loop;
  std::optional<EventLoop> other;
  std::promise<void> is_made;
  std::thread thread([&] {
    other.emplace();
    is_made.set_value();
    other->run_forever();
    other.reset();
  });
  is_made.get_future().wait();
  int count = 0;
  struct Game {
    EventLoop& here;
    EventLoop& there;
    int& count;
    void serve() {
      there.call_soon_threadsafe([this] { here.call_soon_threadsafe([this] { receive(); }); });
    }
    void receive() {
      if (++count < rounds) return serve();
      there.stop();
      here.stop();
    }
  };
  Game game{loop, *other, count};
  game.serve();
  loop.run_forever();
  thread.join();
  CHECK(count == rounds);
}

TEST_CASE("stop() from another thread ends run_forever(), at whatever moment it comes",
          "[threads]") {
  EventLoop loop;
  for (int i = 0; i < 300; ++i) {
    std::thread thread([&] { loop.stop(); });
    loop.run_forever();
    thread.join();
  }
  SUCCEED();
}

TEST_CASE("A mailbox takes nothing when its loop is gone", "[threads]") {
  std::shared_ptr<Mailbox> mailbox;
  std::atomic<int> alive{0};
  bool ran = false;
  {
    EventLoop loop;
    mailbox = loop.mailbox();
    CHECK(mailbox->post([&ran, counted = Counted(alive)] { ran = true; }));
  }
  CHECK(alive == 0);
  CHECK_FALSE(mailbox->post([&ran, counted = Counted(alive)] { ran = true; }));
  CHECK(alive == 0);
  mailbox->stop();
  mailbox->wake();
  std::thread([&] { CHECK_FALSE(mailbox->post([] {})); }).join();
  CHECK_FALSE(ran);
}

TEST_CASE("What was accepted and not run is freed with the loop, in its thread", "[threads]") {
  struct NotesThread {
    std::thread::id* id;
    ~NotesThread() { *id = std::this_thread::get_id(); }
  };
  std::thread::id freed_in;
  std::atomic<int> alive{0};
  std::shared_ptr<Mailbox> mailbox;
  {
    pawl::LoopOptions options;
    options.ready_budget = 10;
    EventLoop loop(options);
    mailbox = loop.mailbox();
    const auto post = [&] {
      std::shared_ptr<NotesThread> note(new NotesThread{&freed_in});
      mailbox->post([note = std::move(note), counted = Counted(alive)] {});
    };
    std::thread([&] {
      for (int i = 0; i < 25; ++i) post();
    }).join();
    SECTION("never looked at") { CHECK(alive == 25); }
    SECTION("left over by a pass") {
      loop.run_once(Duration::zero());
      CHECK(alive == 15);
      post();
    }
    freed_in = {};
  }
  CHECK(alive == 0);
  CHECK(freed_in == std::this_thread::get_id());
}

TEST_CASE("Threads may post while the loop is destroyed", "[threads]") {
  constexpr int loops = has_thread_sanitizer ? 20 : 100;
  std::atomic<int> alive{0};
  std::atomic<long> accepted{0};
  long ran = 0;
  for (int i = 0; i < loops; ++i) {
    std::vector<std::thread> threads;
    {
      EventLoop loop;
      for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&, mailbox = loop.mailbox()] {
          while (mailbox->post([&ran, counted = Counted(alive)] { ++ran; })) accepted.fetch_add(1);
        });
      }
      while (ran < 10 * (i + 1)) loop.run_once();
      loop.run_once(Duration::zero());
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(alive == 0);
  }
  CHECK(ran >= 10 * loops);
  CHECK(ran <= accepted);
}

TEST_CASE("A loop may run in another thread than the one that made it", "[threads]") {
  EventLoop loop;
  int ran = 0;
  loop.call_soon([&] { ++ran; });
  std::thread([&] {
    loop.call_later(1ms, [&] { ++ran; });
    loop.run();
  }).join();
  loop.call_soon([&] { ++ran; });
  loop.run();
  CHECK(ran == 3);
}
