// SPDX-License-Identifier: MIT
// One operation of one contender, for callgrind to count: see count.sh.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <random>
#include <thread>

#include "contender.hpp"

/// callgrind counts while this is on the stack.
extern "C" __attribute__((noinline)) void bench_measured(const std::function<void()>& work) {
  work();
}

namespace bench {
namespace {

/// For the operations that have to do with descriptors.
void measure_fds(const Contender& contender, const std::string& operation, std::size_t count) {
  Chain line(100);
  const auto made = contender.make("epoll", false);
  Loop& loop = *made;
  if (!loop.watch(line)) return;
  if (operation == "chain") {
    line.start(line.size(), count - line.size());
    bench_measured([&] { loop.run_chain(); });
  } else if (operation == "off-and-on") {
    bench_measured([&] {
      for (std::size_t i = 0; i < count / line.size(); ++i) loop.switch_off_and_on();
    });
  } else if (operation == "remove-and-add") {
    bench_measured([&] {
      for (std::size_t i = 0; i < count / line.size(); ++i) loop.remove_and_add();
    });
  }
}

void measure(const Contender& contender, const std::string& operation, std::size_t count) {
  const auto made = contender.make("epoll", false);
  Loop& loop = *made;
  std::mt19937_64 random(1);
  const bool fires = operation == "timer-fire";
  std::uniform_int_distribution<std::int64_t> delay(1, fires ? 50 : 60'000);
  Delays delays(count);
  for (Nanoseconds& each : delays) each = std::chrono::milliseconds(delay(random) + !fires * 1000);
  Order order(count);
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), random);

  if (operation == "timer-add" && loop.prepare_timers(count)) {
    loop.in_callback([&] { bench_measured([&] { loop.add_timers(delays); }); });
  } else if (operation == "timer-add-again" && loop.prepare_timers(count)) {
    loop.in_callback([&] {
      loop.add_timers(delays);
      loop.cancel_timers(order);
      bench_measured([&] { loop.add_timers(delays); });
    });
  } else if (operation == "timer-cancel" && loop.prepare_timers(count)) {
    loop.in_callback([&] {
      loop.add_timers(delays);
      bench_measured([&] { loop.cancel_timers(order); });
    });
  } else if (fires && loop.prepare_timers(count)) {
    loop.add_timers(delays);
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    bench_measured([&] { loop.run_timers(count); });
  } else if (operation == "idle-touch" && loop.prepare_idle(count)) {
    loop.in_callback([&] { bench_measured([&] { loop.touch_idle(order); }); });
  } else if (operation == "call-soon" && loop.prepare_soon(1000)) {
    loop.post_soon();
    loop.run_soon();
    bench_measured([&] {
      for (std::size_t i = 0; i < count / 1000; ++i) {
        loop.post_soon();
        loop.run_soon();
      }
    });
  }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: bench-count CONTENDER OPERATION COUNT\n", stderr);
    return 2;
  }
  try {
    for (const bench::Contender& contender : bench::contenders()) {
      if (contender.name != argv[1]) continue;
      const auto count = static_cast<std::size_t>(std::atol(argv[3]));
      bench::measure(contender, argv[2], count);
      bench::measure_fds(contender, argv[2], count);
      return 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench-count: %s\n", error.what());
    return 1;
  }
  return 3;  // no such contender here
}
