// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Interest;
using pawl::LoopOptions;

namespace {

struct Oops : std::runtime_error {
  Oops() : std::runtime_error("oops") {}
};

const char* const all_kinds[] = {"call_soon", "timer",  "repeating timer", "call_soon_threadsafe",
                                 "reader",    "writer", "handler",         "signal",
                                 "done"};

/// One callback of some kind, and what has to be ready for it to be called.
class Scene final : public pawl::IoHandler {
 public:
  Scene(EventLoop& loop, std::string kind, pawl::Function<void()> callback)
      : loop_(loop), kind_(std::move(kind)), callback_(std::move(callback)) {}

  /// Registers the callback; `signal` is the one it stands for if it is a signal's.
  void set_up(int signal) {
    const auto call = [this] { callback_(); };
    const int fd = pair_.ours.get();
    write_byte(pair_.theirs.get());
    if (kind_ == "call_soon") loop_.call_soon(call);
    if (kind_ == "call_soon_threadsafe") loop_.call_soon_threadsafe(call);
    if (kind_ == "timer") loop_.call_later(Duration::zero(), call);
    if (kind_ == "repeating timer") timer_ = loop_.call_every(1ms, call);
    if (kind_ == "reader") loop_.add_reader(fd, call);
    if (kind_ == "writer") loop_.add_writer(fd, call);
    if (kind_ == "handler") loop_.add_handler(fd, Interest::read, *this);
    if (kind_ == "done") loop_.run_in_executor([] {}, [this](pawl::Outcome<void>) { callback_(); });
    if (kind_ != "signal") return;
    loop_.add_signal_handler(signal, call);
    ::raise(signal);
  }

  ~Scene() {
    timer_.cancel();
    loop_.remove_reader(pair_.ours.get());
    loop_.remove_writer(pair_.ours.get());
    loop_.remove_handler(pair_.ours.get());
  }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  bool is_called_again() const {
    return kind_ == "repeating timer" || kind_ == "reader" || kind_ == "writer" ||
           kind_ == "handler";
  }

 private:
  void on_ready(Interest) override { callback_(); }
  std::string describe() const override { return kind_; }

  EventLoop& loop_;
  std::string kind_;
  pawl::Function<void()> callback_;
  SocketPair pair_;
  pawl::Handle timer_;
};

}  // namespace

TEST_CASE("An exception leaves run(), and everything else is as it was", "[threads]") {
  const std::string kind = GENERATE(from_range(std::begin(all_kinds), std::end(all_kinds)));
  LoopOptions options;
  options.debug = GENERATE(false, true);
  options.slow_callback = 1h;
  INFO(kind << (options.debug ? ", debug" : ""));
  EventLoop loop(options);
  int thrower_calls = 0;
  Scene thrower(loop, kind, [&] {
    if (++thrower_calls == 1) throw Oops();
  });
  // Others of each kind, half of them before the one that throws and half of them behind it.
  std::vector<int> calls(2 * std::size(all_kinds));
  std::vector<std::unique_ptr<Scene>> others;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (i == std::size(all_kinds)) thrower.set_up(SIGUSR1);
    const char* other = all_kinds[i % std::size(all_kinds)];
    others.push_back(std::make_unique<Scene>(loop, other, [&calls, i] { ++calls[i]; }));
    others.back()->set_up(i < std::size(all_kinds) ? SIGHUP : SIGUSR2);
  }

  CHECK_THROWS_AS(loop.run_forever(), Oops);
  CHECK(thrower_calls == 1);
  CHECK_FALSE(loop.is_running());

  const auto is_done = [&] {
    if (thrower.is_called_again() && thrower_calls < 2) return false;
    for (const int each : calls) {
      if (each == 0) return false;
    }
    return true;
  };
  const pawl::TimePoint give_up = loop.time() + 10s;
  while (!is_done() && loop.time() < give_up) loop.run_once(1ms);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    INFO("another " << all_kinds[i % std::size(all_kinds)]);
    CHECK(calls[i] >= 1);
    if (!others[i]->is_called_again()) CHECK(calls[i] == 1);
  }
  CHECK(thrower_calls >= (thrower.is_called_again() ? 2 : 1));
}

TEST_CASE("A stop() of a run that an exception left doesn't end the next one", "[threads]") {
  const std::string kind = GENERATE(from_range(std::begin(all_kinds), std::end(all_kinds)));
  const std::string who = GENERATE("itself", "one before it", "a thread", "a post");
  INFO(kind << ", stopped by " << who);
  EventLoop loop;
  int thrower_calls = 0;
  bool is_asked = who != "one before it";
  Scene stopper(loop, "handler", [&] {
    if (who != "one before it" || thrower_calls > 0) return;
    loop.stop();
    is_asked = true;
  });
  Scene thrower(loop, kind, [&] {
    if (!is_asked || ++thrower_calls > 1) return;
    if (who == "itself") loop.stop();
    if (who == "a thread") std::thread([&] { loop.stop(); }).join();
    if (who == "a post") loop.call_soon_threadsafe([&] { loop.stop(); });
    throw Oops();
  });
  if (who == "one before it") stopper.set_up(SIGUSR2);
  thrower.set_up(SIGUSR1);
  const pawl::TimePoint give_up = loop.time() + 10s;
  while (thrower_calls == 0 && loop.time() < give_up) {
    try {
      loop.run_forever();  // which the stopper may end before the thrower comes
    } catch (const Oops&) {
    }
  }
  CHECK(thrower_calls == 1);
  if (who == "a post") loop.run_forever();  // that letter is the next run's, and stops it
  bool is_through = false;
  loop.call_later(2ms, [&] {
    is_through = true;
    loop.stop();
  });
  const std::string next = GENERATE("run", "run_forever", "run_for");
  if (next == "run") loop.run();
  if (next == "run_forever") loop.run_forever();
  if (next == "run_for") loop.run_for(1h);
  CHECK(is_through);
}

TEST_CASE("The deadline of a run_for() that an exception left doesn't end the next run") {
  EventLoop loop;
  loop.call_soon([] { throw Oops(); });
  CHECK_THROWS_AS(loop.run_for(5ms), Oops);
  bool is_through = false;
  loop.call_later(10ms, [&] {
    is_through = true;
    loop.stop();
  });
  loop.run_forever();
  CHECK(is_through);
}

TEST_CASE("A hang-up that an exception cut off in its pass is told in the next one") {
  EventLoop loop;
  SocketPair pairs[3];
  int told[3] = {};
  bool has_thrown = false;
  struct Waiting final : pawl::IoHandler {
    explicit Waiting(pawl::Function<void()> with) : call(std::move(with)) {}
    void on_ready(Interest) override { call(); }
    std::string describe() const override { return "waiting"; }
    pawl::Function<void()> call;
  };
  std::vector<std::unique_ptr<Waiting>> handlers;
  for (int i = 0; i < 3; ++i) {
    handlers.push_back(std::make_unique<Waiting>([&, i] {
      ++told[i];
      if (!std::exchange(has_thrown, true)) throw Oops();
    }));
    REQUIRE_FALSE(loop.add_handler(pairs[i].ours.get(), Interest::none, *handlers.back()));
  }
  loop.run_once(Duration::zero());
  for (SocketPair& pair : pairs) pair.theirs.reset();
  SECTION("by one of them") {
    CHECK_THROWS_AS(loop.run_once(), Oops);
    CHECK(told[0] + told[1] + told[2] == 1);
  }
  SECTION("by a reader before them") {
    const SocketPair other;
    write_byte(other.theirs.get());
    loop.add_reader(other.ours.get(), [&] {
      loop.remove_reader(other.ours.get());
      if (!std::exchange(has_thrown, true)) throw Oops();
    });
    CHECK_THROWS_AS(loop.run_once(), Oops);
  }
  for (int i = 0; i < 4; ++i) loop.run_once(Duration::zero());
  CHECK(told[0] == 1);
  CHECK(told[1] == 1);
  CHECK(told[2] == 1);
  for (const SocketPair& pair : pairs) loop.remove_handler(pair.ours.get());
}

TEST_CASE("What a callback that throws captured is freed") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  const auto fail = [token] { throw Oops(); };
  pawl::Handle handle;
  SECTION("call_soon") { handle = loop.call_soon(fail); }
  SECTION("a timer") { handle = loop.call_later(Duration::zero(), fail); }
  SECTION("call_soon_threadsafe") { loop.call_soon_threadsafe(fail); }
  SECTION("done") {
    loop.run_in_executor([] {}, [fail](pawl::Outcome<void>) { fail(); });
  }
  SECTION("a repeating timer that cancelled itself") {
    handle = loop.call_every(1ms, [&handle, fail] {
      handle.cancel();
      fail();
    });
  }
  token.reset();
  // `fail` itself holds the last one.
  const long others = watch.use_count();
  CHECK_THROWS_AS(loop.run(), Oops);
  CHECK(watch.use_count() == others - 1);
  loop.run();
}

TEST_CASE("An exception handler gets what leaves callbacks, and the loop goes on", "[threads]") {
  const std::string kind = GENERATE(from_range(std::begin(all_kinds), std::end(all_kinds)));
  LoopOptions options;
  options.debug = GENERATE(false, true);
  options.slow_callback = 1h;
  INFO(kind);
  EventLoop loop(options);
  int handled = 0;
  loop.set_exception_handler([&](std::exception_ptr exception) {
    CHECK_THROWS_AS(std::rethrow_exception(exception), Oops);
    if (++handled == 1) loop.call_later(2ms, [&] { loop.stop(); });
  });
  Scene thrower(loop, kind, [] { throw Oops(); });
  thrower.set_up(SIGUSR1);
  loop.run_forever();
  CHECK(handled >= (thrower.is_called_again() ? 2 : 1));
}

TEST_CASE("Without an exception handler again, exceptions leave run() again") {
  EventLoop loop;
  int handled = 0;
  loop.set_exception_handler([&](std::exception_ptr) { ++handled; });
  loop.call_soon([] { throw Oops(); });
  loop.run();
  loop.set_exception_handler({});
  loop.call_soon([] { throw Oops(); });
  CHECK_THROWS_AS(loop.run(), Oops);
  CHECK(handled == 1);
}

TEST_CASE("What an exception handler throws leaves run()") {
  EventLoop loop;
  loop.set_exception_handler([](std::exception_ptr) { throw std::domain_error("worse"); });
  bool ran = false;
  loop.call_soon([] { throw Oops(); });
  loop.call_soon([&] { ran = true; });
  CHECK_THROWS_AS(loop.run(), std::domain_error);
  CHECK_FALSE(ran);
  loop.run();
  CHECK(ran);
}

TEST_CASE("An exception handler may put another one into its place, or none") {
  EventLoop loop;
  std::string order;
  auto token = std::make_shared<int>(7);
  loop.set_exception_handler([&loop, &order, token = std::move(token)](std::exception_ptr) {
    loop.set_exception_handler([&order](std::exception_ptr) { order += 'b'; });
    order += *token == 7 ? 'a' : '?';
  });
  for (int i = 0; i < 3; ++i) loop.call_soon([] { throw Oops(); });
  loop.run();
  CHECK(order == "abb");
}

TEST_CASE("Anything that is thrown will do") {
  EventLoop loop;
  loop.call_soon([] { throw 42; });
  CHECK_THROWS_AS(loop.run(), int);
}

TEST_CASE("Each of many callbacks that throw costs one run()") {
  EventLoop loop;
  for (int i = 0; i < 100; ++i) {
    loop.call_soon([] { throw Oops(); });
    loop.call_later(Duration::zero(), [] { throw Oops(); });
    loop.call_soon_threadsafe([] { throw Oops(); });
  }
  int thrown = 0;
  for (bool again = true; again;) {
    try {
      loop.run();
      again = false;
    } catch (const Oops&) {
      ++thrown;
    }
  }
  CHECK(thrown == 300);
}
