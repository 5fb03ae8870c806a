// SPDX-License-Identifier: MIT
#include "rows.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Stopwatch {
 public:
  /// Nanoseconds since construction for each of `operations`.
  double per(std::size_t operations) const {
    const std::chrono::duration<double, std::nano> passed = Clock::now() - start_;
    return passed.count() / static_cast<double>(operations);
  }

 private:
  Clock::time_point start_ = Clock::now();
};

/// What each row can rely on: a loop that has what the row needs, or nothing to measure.
using Prepare = std::function<bool(Loop&)>;

std::unique_ptr<Loop> make_loop(const Contender& contender, const Prepare& prepare,
                                std::string_view selector = "epoll", bool threads = false) {
  auto loop = contender.make(selector, threads);
  if (loop != nullptr && !prepare(*loop)) loop.reset();
  return loop;
}

/// The same numbers for every contender and in every round.
Delays random_delays(std::size_t count, Nanoseconds least, Nanoseconds most) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<std::int64_t> delay(least.count(), most.count());
  Delays delays(count);
  for (Nanoseconds& each : delays) each = Nanoseconds(delay(random));
  return delays;
}

Order random_order(std::size_t count) {
  Order order(count);
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(2));
  return order;
}

/// Bytes that malloc has handed out, its own headers included.
std::size_t allocated_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

void expect(bool correct, const Contender& contender, const char* what) {
  if (!correct) throw std::logic_error(contender.name + ": " + what);
}

std::string thousands(std::size_t count) {
  std::string text = std::to_string(count);
  for (auto i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3) {
    text.insert(static_cast<std::size_t>(i), ",");
  }
  return text;
}

/// Deadlines over a minute, added in a callback to a fresh loop; cancelled in random order; added
/// again, when the loop has touched the memory as its peers' users have touched their watchers.
Group timers(std::size_t count, std::size_t repetitions) {
  const std::string at = ", " + thousands(count) + " timers";
  const auto measure = [=](const Contender& contender) {
    const Delays delays = random_delays(count, seconds(10), seconds(70));
    const Order order = random_order(count);
    std::array<double, 4> sums{};
    for (std::size_t i = 0; i < repetitions; ++i) {
      const std::size_t before = allocated_bytes();
      const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_timers(count); });
      if (loop == nullptr) return std::vector<Figure>(sums.size());
      loop->in_callback([&] {
        const Stopwatch adding;
        loop->add_timers(delays);
        sums[0] += adding.per(count);
        sums[3] += static_cast<double>(allocated_bytes() - before) / static_cast<double>(count);
        const Stopwatch cancelling;
        loop->cancel_timers(order);
        sums[2] += cancelling.per(count);
        const Stopwatch adding_again;
        loop->add_timers(delays);
        sums[1] += adding_again.per(count);
      });
      expect(loop->ran() == 0, contender, "a timer ran that was cancelled or wasn't due");
    }
    std::vector<Figure> figures;
    for (const double sum : sums) figures.emplace_back(sum / static_cast<double>(repetitions));
    return figures;
  };
  return {{{"timer add, memory never touched" + at, "ns", {}},
           {"timer add" + at, "ns", {{0.75, "libev"}}},
           {"timer cancel, random order" + at, "ns", {{0.5, "libev"}}},
           {"memory of a timer" + at, "bytes", {{128, ""}}}},
          measure};
}

Group timers_from_now(std::size_t count) {
  const auto measure = [=](const Contender& contender) {
    const Delays delays = random_delays(count, seconds(10), seconds(70));
    const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_timers(count); });
    Figure figure;
    if (loop != nullptr) {
      loop->in_callback([&] {
        const Stopwatch adding;
        if (loop->add_timers_from_now(delays)) figure = adding.per(count);
      });
    }
    return std::vector{figure};
  };
  return {{{"timer add, fresh clock, " + thousands(count) + " timers", "ns", {}}}, measure};
}

Group timers_fire(std::size_t count) {
  const auto measure = [=](const Contender& contender) {
    const Delays delays = random_delays(count, milliseconds(1), milliseconds(100));
    const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_timers(count); });
    if (loop == nullptr) return std::vector<Figure>(1);
    loop->add_timers(delays);
    std::this_thread::sleep_for(milliseconds(110));
    const Stopwatch firing;
    loop->run_timers(count);
    const double figure = firing.per(count);
    expect(loop->ran() == count, contender, "a timer didn't run, or ran twice");
    return std::vector<Figure>{figure};
  };
  return {{{"timer fire, " + thousands(count) + " due at once", "ns", {{0.5, "libev"}}}}, measure};
}

/// A pass is a thousand touches in a callback; only the touches are timed.
Group idle_timeouts(std::size_t count, std::size_t passes) {
  const auto measure = [=](const Contender& contender) {
    const Order order = random_order(count);
    const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_idle(count); });
    if (loop == nullptr) return std::vector<Figure>(1);
    const std::size_t touches = std::min<std::size_t>(count, 1000);
    double sum = 0;
    Order some(touches);
    for (std::size_t i = 0; i < passes; ++i) {
      std::copy_n(order.begin() + static_cast<std::ptrdiff_t>(i * touches % count), touches,
                  some.begin());
      loop->in_callback([&] {
        const Stopwatch touching;
        loop->touch_idle(some);
        sum += touching.per(touches);
      });
    }
    expect(loop->ran() == 0, contender, "an idle timeout ran that was touched");
    return std::vector<Figure>{sum / static_cast<double>(passes)};
  };
  return {{{"re-arm one of " + thousands(count) + " idle timeouts", "ns", {{1.0, "libev"}}}},
          measure};
}

Group soon(std::size_t batch, std::size_t batches) {
  const auto measure = [=](const Contender& contender) {
    const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_soon(batch); });
    if (loop == nullptr) return std::vector<Figure>(2);
    const auto run = [&](std::size_t times) {
      for (std::size_t i = 0; i < times; ++i) {
        loop->post_soon();
        loop->run_soon();
      }
    };
    run(10);
    const Stopwatch posting;
    run(batches);
    const double figure = posting.per(batches * batch);
    count_allocations(true);
    run(10);
    count_allocations(false);
    const double per_call = static_cast<double>(allocations()) / static_cast<double>(10 * batch);
    expect(loop->ran() == (batches + 20) * batch, contender, "a call was lost or made twice");
    return std::vector<Figure>{figure, per_call};
  };
  const std::string name = "call_soon, batches of " + thousands(batch);
  return {{{name, "ns", {{1.0, "libev"}, {0.35, "Asio"}}},
           {name + ", allocations", "a call", {{0, ""}}}},
          measure};
}

/// What the async floor adds, in terms of what a bare `call_soon` costs in the same round.
Group futures(std::size_t batch, std::size_t batches) {
  constexpr std::size_t links = 10;
  constexpr std::size_t steps = 100;
  constexpr std::size_t gathered = 100'000;
  const auto measure = [=](const Contender& contender) {
    std::vector<Figure> figures(3);
    const auto loop = make_loop(contender, [&](Loop& l) { return l.prepare_soon(batch); });
    if (loop == nullptr) return figures;
    const auto per = [](std::size_t operations, auto work) -> Figure {
      if (!work()) return std::nullopt;  // touches the memory too
      const Stopwatch working;
      work();
      return working.per(operations);
    };
    const Figure bare = per(batches * batch, [&] {
      for (std::size_t i = 0; i < batches; ++i) {
        loop->post_soon();
        loop->run_soon();
      }
      return true;
    });
    figures[0] = per(batch * links, [&] { return loop->run_then_chains(batch, links); });
    figures[1] = per(gathered, [&] { return loop->gather_ready(gathered); });
    figures[2] = per(batch * steps, [&] { return loop->run_task_steps(batch, steps); });
    if (!figures[0]) return figures;
    for (Figure& figure : figures) *figure /= *bare;
    expect(loop->ran() == 2 * (batches * batch + batch * links + gathered + batch * steps),
           contender, "a callback, a value or a step was lost or came twice");
    return figures;
  };
  return {{{"link of a then chain, " + thousands(batch) + " side by side", "x soon", {{3, ""}}},
           {"ready future in a gather of " + thousands(gathered), "x soon", {{3, ""}}},
           {"step of a task, " + thousands(batch) + " side by side", "x soon", {{2, ""}}}},
          measure};
}

Group jobs(std::size_t at_once, std::size_t count) {
  const auto measure = [=](const Contender& contender) {
    const auto loop = make_loop(
        contender, [](Loop& l) { return l.run_jobs(100, 10); }, "epoll", true);
    if (loop == nullptr) return std::vector<Figure>(1);
    const Stopwatch working;
    loop->run_jobs(count, at_once);
    const double figure = working.per(count);
    expect(loop->ran() == 100 + count, contender, "a job was lost or came back twice");
    return std::vector<Figure>{figure};
  };
  return {{{"run_in_executor round trip, " + std::to_string(at_once) + " at once",
            "ns",
            {{1.0, "libuv"}}}},
          measure};
}

Group posts(std::size_t producers, std::size_t count) {
  const auto measure = [=](const Contender& contender) {
    const auto prepare = [](Loop& l) { return l.prepare_posts(); };
    const auto loop = make_loop(contender, prepare, "epoll", true);
    if (loop == nullptr) return std::vector<Figure>(1);
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < producers; ++i) {
      threads.emplace_back([&] {
        while (!go) std::this_thread::yield();
        loop->post_from_thread(count / producers);
      });
    }
    std::this_thread::sleep_for(milliseconds(1));
    const Stopwatch posting;
    go = true;
    loop->run_posts(count);
    const double figure = posting.per(count);
    for (std::thread& thread : threads) thread.join();
    expect(loop->ran() == count, contender, "a post was lost or run twice");
    return std::vector<Figure>{figure};
  };
  const std::string from = std::to_string(producers) + (producers == 1 ? " thread" : " threads");
  return {{{"post from " + from, "ns", {{1.0, "best peer"}}}}, measure};
}

Group chain(const std::string& selector, std::size_t active, std::size_t pairs, std::size_t writes,
            bool has_goal) {
  const auto measure = [=](const Contender& contender) {
    Chain line(pairs);
    const auto watch = [&](Loop& loop) { return loop.watch(line); };
    const auto loop = make_loop(contender, watch, selector);
    if (loop == nullptr) return std::vector<Figure>(1);
    line.start(active, writes / 10);
    loop->run_chain();
    line.start(active, writes);
    const Stopwatch running;
    loop->run_chain();
    const double figure = running.per(active + writes);
    expect(line.bytes() == active + writes, contender, "a byte of the chain was lost");
    return std::vector<Figure>{figure};
  };
  const std::string name =
      "chain, " + selector + ", " + thousands(active) + " active of " + thousands(pairs);
  std::vector<Goal> goals;
  if (has_goal) goals.push_back({1.0, "best peer"});
  return {{{name, "ns", goals}}, measure};
}

Group registration(const std::string& selector, std::size_t fds, std::size_t rounds) {
  const auto measure = [=](const Contender& contender) {
    Chain line(fds);
    const auto watch = [&](Loop& loop) { return loop.watch(line); };
    const auto loop = make_loop(contender, watch, selector);
    if (loop == nullptr) return std::vector<Figure>(3);
    std::vector<Figure> figures;
    for (const auto verb :
         {&Loop::switch_off_and_on, &Loop::remove_and_add, &Loop::replace_readers}) {
      if (!((*loop).*verb)()) {
        figures.emplace_back();
        continue;
      }
      const Stopwatch registering;
      for (std::size_t i = 0; i < rounds; ++i) ((*loop).*verb)();
      figures.emplace_back(registering.per(rounds * fds));
    }
    return figures;
  };
  const std::string each = ", " + selector + ", " + thousands(fds) + " fds";
  return {{{"interest off and on" + each, "ns", {{1.0, "libev"}}},
           {"remove and add" + each, "ns", {{1.0, "libev"}}},
           {"the same with callbacks" + each, "ns", {}}},
          measure};
}

}  // namespace

std::vector<Group> all_groups(bool quick) {
  const std::size_t few = quick ? 10 : 1;
  std::vector<Group> groups;
  groups.push_back(timers(100'000 / few, 5));
  groups.push_back(timers(1'000'000 / few, 1));
  groups.push_back(timers_from_now(1'000'000 / few));
  groups.push_back(timers_fire(1'000'000 / few));
  groups.push_back(idle_timeouts(10'000, 2'000 / few));
  groups.push_back(soon(1'000, 2'000 / few));
  groups.push_back(futures(1'000, 2'000 / few));
  groups.push_back(jobs(1, 50'000 / few));
  groups.push_back(jobs(100, 200'000 / few));
  groups.push_back(posts(1, 2'000'000 / few));
  groups.push_back(posts(2, 2'000'000 / few));
  for (const std::string selector : {"epoll", "poll", "select"}) {
    groups.push_back(chain(selector, 100, 1'000, 100'000 / few, true));
    groups.push_back(chain(selector, 1, 1'000, 4'000 / few, false));
    groups.push_back(chain(selector, 100, quick ? 2'000 : 8'000, 40'000 / few, false));
  }
  for (const std::string selector : {"epoll", "poll", "select"}) {
    groups.push_back(registration(selector, 1'000, 200 / few));
  }
  return groups;
}

}  // namespace bench
