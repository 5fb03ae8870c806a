// SPDX-License-Identifier: MIT
// The loop floor, each of its allocations failing in turn.
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/idle_timer.hpp"
#include "pawl/loop/mailbox.hpp"
#include "support/allocation_sweep.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::EventLoop;
using pawl::IdleTimer;
using pawl::Interest;

namespace {

/// Too big for the inside of a `Function`.
struct Big {
  std::array<char, 100> bytes{};
};

/// Counts what it is told of its descriptor, and drains it.
struct CountingHandler final : pawl::IoHandler {
  explicit CountingHandler(int handled) : fd(handled) {}
  void on_ready(Interest) override {
    ++calls;
    drain(fd);
  }
  std::string describe() const override { return "counting handler"; }

  int fd;
  int calls = 0;
};

bool has_default_disposition(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler == SIG_DFL;
}

}  // namespace

TEST_CASE("A loop is made, or leaves nothing behind, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    int ran = 0;
    const bool was_made = trial.attempt([&] {
      EventLoop loop(options_on(trial.system()));
      loop.call_soon([&] { ++ran; });
      loop.run();
    });
    CHECK((was_made ? ran == 1 : trial.has_failed()));
  });
}

TEST_CASE("What call_soon accepted runs once and in order, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    std::vector<int> accepted;
    std::vector<int> ran;
    ran.reserve(1000);
    for (int i = 0; i < 300; ++i) {
      if (trial.attempt([&] { loop.call_soon([&, i] { ran.push_back(i); }); })) {
        accepted.push_back(i);
      }
      if (i % 50 != 0) continue;
      if (trial.attempt([&] { loop.call_soon([&, i, big = Big()] { ran.push_back(i); }); })) {
        accepted.push_back(i);
      }
    }
    trial.run_dry();
    CHECK(ran == accepted);
  });
}

TEST_CASE("Callbacks that post in their pass lose none, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    int accepted = 0;
    int ran = 0;
    const auto post_many = [&] {
      for (int i = 0; i < 100; ++i) {
        pawl::Handle handle = loop.call_soon([&] { ++ran; });
        ++accepted;
        if (i % 3 != 0) continue;
        handle.cancel();
        --accepted;
      }
    };
    for (int i = 0; i < 3; ++i) {
      if (trial.attempt([&] { loop.call_soon(post_many); })) trial.attempt(post_many);
      trial.run_dry();
    }
    CHECK(ran == accepted);
  });
}

TEST_CASE("Timers that were accepted fire once and in order, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    const pawl::TimePoint start = loop.time();
    std::vector<pawl::Duration> fired;
    fired.reserve(1000);
    std::size_t accepted = 0;
    for (int i = 0; i < 600; ++i) {
      const pawl::Duration delay = i % 7 * 1ms + i % 2 * 1us + i / 100 * 100ms;
      const auto fire = [&, delay] { fired.push_back(delay); };
      const bool is_even = i % 2 == 0;
      if (trial.attempt([&] {
            is_even ? loop.call_later(delay, fire) : loop.call_at(start + delay, fire);
          })) {
        ++accepted;
      }
    }
    trial.run_dry();
    CHECK(fired.size() == accepted);
    CHECK(std::is_sorted(fired.begin(), fired.end()));
  });
}

TEST_CASE("A repeating timer goes on until it is cancelled, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    std::array<int, 3> ticks{};
    int timers = 0;
    for (int& ticks_of_one : ticks) {
      pawl::TimerHandle timer;
      if (trial.attempt(
              [&] { timer = loop.call_every(1ms, [&, big = Big()] { ++ticks_of_one; }); })) {
        ++timers;
      }
      trial.attempt([&] { loop.call_later(10500us, [timer]() mutable { timer.cancel(); }); });
    }
    trial.run([&] { return ticks[0] + ticks[1] + ticks[2] >= 10 * timers; });
    if (!trial.has_failed()) {
      trial.run_dry();
      CHECK(ticks == std::array<int, 3>{10, 10, 10});
    }
  });
}

TEST_CASE("Readers and writers that were accepted are called, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    const std::vector<SocketPair> pairs(40);
    std::vector<int> reads(pairs.size());
    std::vector<int> writes(pairs.size());
    std::vector<bool> is_read(pairs.size());
    std::vector<bool> is_written(pairs.size());
    const auto add = [&](std::size_t i) {
      const int fd = pairs[i].ours.get();
      is_read[i] = trial.attempt([&] {
        return loop.add_reader(fd, [&, i, fd, big = Big()] {
          ++reads[i];
          drain(fd);
        });
      });
      is_written[i] = trial.attempt([&] {
        return loop.add_writer(fd, [&, i, fd] {
          ++writes[i];
          loop.remove_writer(fd);
        });
      });
      write_byte(pairs[i].theirs.get());
    };
    for (std::size_t i = 0; i < pairs.size(); ++i) add(i);
    trial.run([&] {
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        if ((is_read[i] && reads[i] == 0) || (is_written[i] && writes[i] == 0)) return false;
      }
      return true;
    });
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      bool was_there = false;
      trial.must([&] { was_there = loop.remove_reader(pairs[i].ours.get()); });
      CHECK(was_there == is_read[i]);
      CHECK(reads[i] == (is_read[i] ? 1 : 0));
      CHECK(writes[i] == (is_written[i] ? 1 : 0));
    }
  });
}

TEST_CASE("A descriptor that couldn't be added for want of memory can be added then") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    const SocketPair pair;
    CountingHandler handler(pair.ours.get());
    trial.insist([&] { return loop.add_handler(handler.fd, Interest::read, handler); });
    write_byte(pair.theirs.get());
    trial.run([&] { return handler.calls == 1; });
    trial.insist([&] { return loop.modify_handler(handler.fd, Interest::none); });
    write_byte(pair.theirs.get());
    trial.attempt([&] { loop.run_once(0s); });
    trial.attempt([&] { loop.run_once(0s); });
    CHECK(handler.calls == 1);
    trial.insist([&] { return loop.modify_handler(handler.fd, Interest::read | Interest::write); });
    trial.run([&] { return handler.calls >= 2; });
    trial.must([&] { loop.remove_handler(handler.fd); });
  });
}

TEST_CASE("A hang-up reaches who waits for nothing, once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    std::vector<SocketPair> pairs(4);
    std::vector<std::unique_ptr<CountingHandler>> handlers;
    for (const SocketPair& pair : pairs) {
      handlers.push_back(std::make_unique<CountingHandler>(pair.ours.get()));
      trial.insist(
          [&] { return loop.add_handler(pair.ours.get(), Interest::none, *handlers.back()); });
    }
    trial.attempt([&] { loop.run_once(0s); });
    // In the pass of the hang-up the loop takes memory for much else.
    std::size_t accepted = 0;
    std::size_t ran = 0;
    const auto note = [&] { ++ran; };
    for (int i = 0; i < 600; ++i) {
      if (trial.attempt([&] { loop.call_later(0s, note); })) ++accepted;
      if (trial.attempt([&] { loop.call_soon_threadsafe(note); })) ++accepted;
    }
    for (SocketPair& pair : pairs) pair.theirs.reset();
    const auto all_told = [&] {
      return std::all_of(handlers.begin(), handlers.end(),
                         [](const auto& handler) { return handler->calls > 0; });
    };
    trial.run([&] { return all_told() && ran == accepted; });
    for (const auto& handler : handlers) {
      CHECK(handler->calls == 1);
      trial.must([&] { loop.remove_handler(handler->fd); });
    }
  });
}

TEST_CASE("Signals reach who watches them, and leave as they came, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    int first = 0;
    int second = 0;
    const auto watch_first = [&] {
      return loop.add_signal_handler(SIGUSR1, [&, big = Big()] { ++first; });
    };
    trial.insist(watch_first);
    trial.insist([&] { return loop.add_signal_handler(SIGUSR2, [&] { ++second; }); });
    trial.attempt(watch_first);  // replaces it, or doesn't
    ::raise(SIGUSR1);
    ::raise(SIGUSR2);
    trial.run([&] { return first == 1 && second == 1; });
    trial.must([&] { loop.remove_signal_handler(SIGUSR1); });
    CHECK(has_default_disposition(SIGUSR1));
    CHECK_FALSE(has_default_disposition(SIGUSR2));
    ::raise(SIGUSR2);
    trial.run([&] { return second == 2; });
  });
  CHECK(has_default_disposition(SIGUSR2));
}

TEST_CASE("Two loops that watch one signal both hear of it, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    int count = 0;
    const auto watch = [&](EventLoop& loop) {
      trial.insist([&] { return loop.add_signal_handler(SIGUSR1, [&] { ++count; }); });
    };
    EventLoop other(options_on(trial.system()));
    watch(trial.loop());
    watch(other);
    ::raise(SIGUSR1);
    trial.run([&] { return count >= 1; });
    trial.run(other, [&] { return count >= 2; });
    CHECK(count == 2);
    trial.must([&] { other.remove_signal_handler(SIGUSR1); });
    CHECK_FALSE(has_default_disposition(SIGUSR1));
  });
  CHECK(has_default_disposition(SIGUSR1));
}

TEST_CASE("What was posted runs once and in order, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    const auto mailbox = loop.mailbox();
    std::vector<int> accepted;
    std::vector<int> ran;
    ran.reserve(1000);
    for (int i = 0; i < 50; ++i) {
      const auto letter = [&, i] { ran.push_back(i); };
      if (trial.attempt([&] { loop.call_soon_threadsafe(letter); })) accepted.push_back(i);
      if (trial.attempt([&] { mailbox->post([letter, big = Big()] { letter(); }); })) {
        accepted.push_back(i);
      }
    }
    trial.run_dry();
    CHECK(ran == accepted);
    trial.attempt([&] { loop.call_soon_threadsafe([big = Big()] {}); });  // left behind
  });
}

TEST_CASE("An idle timer that was started fires once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    int fired = 0;
    std::unique_ptr<IdleTimer> timer;
    trial.insist(
        [&] { timer = std::make_unique<IdleTimer>(loop, 1s, [&, big = Big()] { ++fired; }); });
    trial.insist([&] { timer->start(); });
    CHECK(timer->is_running());
    trial.attempt([&] { loop.call_later(500ms, [&] { timer->touch(); }); });
    trial.run([&] { return fired == 1; });
    CHECK_FALSE(timer->is_running());
    trial.run_dry();
    CHECK(fired == 1);
    trial.insist([&] { timer->start(); });
    trial.must([&] { timer.reset(); });
  });
}

TEST_CASE("Debug mode and why_alive() cost no callback, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::LoopOptions options = options_on(trial.system());
    options.debug = true;
    options.slow_callback = 0s;
    EventLoop loop(options);
    int lines = 0;
    trial.insist([&] { loop.set_report_sink([&](std::string_view) { ++lines; }); });
    const SocketPair pair;
    int ran = 0;
    int accepted = 0;
    const auto accept = [&](auto work) {
      if (trial.attempt(work)) ++accepted;
    };
    accept([&] { loop.call_soon([&] { ++ran; }); });
    accept([&] { loop.call_later(1ms, [&] { ++ran; }); });
    accept([&] { loop.call_soon_threadsafe([&] { ++ran; }); });
    accept([&] {
      return loop.add_writer(pair.ours.get(), [&] {
        ++ran;
        loop.remove_writer(pair.ours.get());
      });
    });
    trial.attempt([&] { (void)loop.why_alive(); });
    trial.run_dry(loop);
    CHECK(ran == accepted);
    if (!trial.has_failed()) CHECK(lines >= 4);
  });
}

TEST_CASE("An exception handler gets what leaves a callback, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    EventLoop& loop = trial.loop();
    int handled = 0;
    trial.insist(
        [&] { loop.set_exception_handler([&, big = Big()](std::exception_ptr) { ++handled; }); });
    int thrown = 0;
    for (int i = 0; i < 3; ++i) {
      trial.attempt([&] {
        loop.call_soon([&] {
          ++thrown;
          throw 1;
        });
      });
    }
    trial.run_dry();
    CHECK(handled == thrown);
  });
}
