// SPDX-License-Identifier: MIT
#include "pawl/net/listener.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/net/listener_state.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::ListenerOptions;
using pawl::ListenerState;
using pawl::UniqueFd;

namespace {

constexpr int room_errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};

/// A listener that keeps what it accepts, and whose time the test moves.
struct TimedListener {
  explicit TimedListener(ListenerOptions options = {})
      : loop(options_on(system)),
        listener(
            loop, Endpoint::loopback(0),
            [this](UniqueFd socket, const Endpoint&) { accepted.push_back(std::move(socket)); },
            options) {
    listener.on_exhausted([this](std::error_code error) { told.push_back(error); });
  }
  /// One more that wants to be accepted. Nobody reads or writes on it.
  void knock() { clients.push_back(raw_connect(listener.local_endpoint())); }

  FaultyClock system;
  EventLoop loop;
  Listener listener;
  std::vector<UniqueFd> accepted;
  std::vector<UniqueFd> clients;
  std::vector<std::error_code> told;
};

/// What the constructor throws, in words; empty when it throws nothing.
std::string refusal(EventLoop& loop, const Endpoint& endpoint, ListenerOptions options = {}) {
  try {
    const Listener listener(
        loop, endpoint, [](UniqueFd, const Endpoint&) {}, options);
  } catch (const std::system_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("A listener hands over the socket of whoever comes, and says who it is") {
  EventLoop loop;
  UniqueFd accepted;
  Endpoint peer;
  Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd socket, const Endpoint& from) {
    accepted = std::move(socket);
    peer = from;
  });
  CHECK(listener.state() == ListenerState::listening);
  CHECK(listener.local_endpoint().port() != 0);
  RawPeer client(loop, raw_connect(listener.local_endpoint()));
  run_until(loop, [&] { return static_cast<bool>(accepted); });
  CHECK((::fcntl(accepted.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(accepted.get(), F_GETFD) & FD_CLOEXEC) != 0);
  const auto connection = Connection::adopt(loop, std::move(accepted));
  CHECK(connection->peer_endpoint() == peer);
  CHECK(connection->local_endpoint() == listener.local_endpoint());
  connection->write("hello");
  run_until(loop, [&] { return client.received() == "hello"; });
}

TEST_CASE("A socket that the callback doesn't keep is closed") {
  EventLoop loop;
  int calls = 0;
  const Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) { ++calls; });
  const RawPeer client(loop, raw_connect(listener.local_endpoint()));
  run_until(loop, [&] { return client.is_over(); });
  CHECK(calls == 1);
}

TEST_CASE("What keeps a listener from being made is thrown with operation and endpoint") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  const Endpoint there = Endpoint::parse("127.0.0.1:0");
  const std::string name = "Listener at 127.0.0.1:0: ";
  SECTION("socket") {
    system.fail(Call::socket, EMFILE);
    CHECK(refusal(loop, there) == name + "socket: Too many open files");
  }
  SECTION("bind") {
    system.fail(Call::bind, EACCES);
    CHECK(refusal(loop, there) == name + "bind: Permission denied");
  }
  SECTION("listen") {
    system.fail(Call::listen, EADDRINUSE);
    CHECK(refusal(loop, there) == name + "listen: Address already in use");
  }
  SECTION("the option") {
    ListenerOptions options;
    options.reuse_port = true;
    system.fail(Call::setsockopt, ENOPROTOOPT, 1, 2);
    CHECK(refusal(loop, there, options) == name + "SO_REUSEPORT: Protocol not available");
  }
  SECTION("an address of another machine") {
    CHECK(refusal(loop, Endpoint::parse("203.0.113.7:0")) ==
          "Listener at 203.0.113.7:0: bind: Cannot assign requested address");
  }
  SECTION("nowhere") {
    CHECK_THAT(refusal(loop, Endpoint()), Catch::StartsWith("Listener at -: socket: "));
  }
}

TEST_CASE("A port is for one listener, unless several ask to share it") {
  EventLoop loop;
  ListenerOptions sharing;
  sharing.reuse_port = true;
  int calls[2] = {0, 0};
  const auto count = [&](int index) {
    return [&, index](UniqueFd, const Endpoint&) { ++calls[index]; };
  };
  SECTION("one") {
    const Listener first(loop, Endpoint::loopback(0), count(0));
    const Endpoint there = first.local_endpoint();
    CHECK(refusal(loop, there) ==
          "Listener at " + there.to_string() + ": bind: Address already in use");
    CHECK_FALSE(refusal(loop, there, sharing).empty());
  }
  SECTION("several") {
    const Listener first(loop, Endpoint::loopback(0), count(0), sharing);
    const Listener second(loop, first.local_endpoint(), count(1), sharing);
    CHECK(second.local_endpoint() == first.local_endpoint());
    std::vector<UniqueFd> clients;
    for (int i = 0; i < 64; ++i) clients.push_back(raw_connect(first.local_endpoint()));
    run_until(loop, [&] { return calls[0] + calls[1] == 64; });
    CHECK(calls[0] > 0);  // the odds against it are 2 to the 64th
    CHECK(calls[1] > 0);
  }
}

TEST_CASE("A port can be listened at again as soon as its listener is gone") {
  EventLoop loop;
  Endpoint there;
  {
    const Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
    there = listener.local_endpoint();
    const RawPeer client(loop, raw_connect(there));
    run_until(loop, [&] { return client.is_over(); });  // our side is in TIME_WAIT
  }
  CHECK(refusal(loop, there).empty());
}

TEST_CASE("While a listener is paused the kernel's backlog holds whoever comes") {
  EventLoop loop;
  int calls = 0;
  Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) { ++calls; });
  listener.pause();
  CHECK(listener.state() == ListenerState::paused);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(raw_connect(listener.local_endpoint()));
  passes(loop);
  CHECK(calls == 0);
  listener.resume();
  CHECK(listener.state() == ListenerState::listening);
  run_until(loop, [&] { return calls == 5; });
}

TEST_CASE("A listener that is paused by its own callback accepts no other one") {
  EventLoop loop;
  int calls = 0;
  std::optional<Listener> listener;
  listener.emplace(loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) {
    ++calls;
    listener->pause();
  });
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(raw_connect(listener->local_endpoint()));
  for (int expected = 1; expected <= 5; ++expected) {
    run_until(loop, [&] { return calls == expected; });
    passes(loop);
    CHECK(calls == expected);
    listener->resume();
  }
}

TEST_CASE("A flood of connections is accepted in portions, and nobody is forgotten") {
  for (const std::size_t budget : {0U, 1U, 7U, 64U}) {
    CAPTURE(budget);
    ListenerOptions options;
    options.accept_budget = budget;
    TimedListener timed(options);
    for (int i = 0; i < 200; ++i) timed.knock();
    std::size_t most = 0;
    spin_until(timed.loop, [&, before = std::size_t{0}]() mutable {
      most = std::max(most, timed.accepted.size() - before);
      before = timed.accepted.size();
      return before == 200;
    });
    CHECK(most <= std::max<std::size_t>(budget, 1));
  }
}

TEST_CASE("The portions of a flood double from pass to pass, up to the budget") {
  ListenerOptions options;
  options.accept_budget = 16;
  TimedListener timed(options);
  passes(timed.loop, 2);
  for (int flood = 0; flood < 2; ++flood) {
    for (int i = 0; i < 50; ++i) timed.knock();
    std::vector<std::size_t> portions;
    spin_until(timed.loop, [&, before = timed.accepted.size()]() mutable {
      const std::size_t portion =
          timed.accepted.size() - std::exchange(before, timed.accepted.size());
      if (portion > 0) portions.push_back(portion);
      return timed.accepted.size() == 50;
    });
    CHECK(portions == std::vector<std::size_t>{1, 2, 4, 8, 16, 16, 3});
    timed.accepted.clear();
    passes(timed.loop, 2);
  }
}

TEST_CASE("A connection that comes alone costs one accept and no second look") {
  TimedListener timed;
  passes(timed.loop, 2);
  for (std::size_t i = 1; i <= 10; ++i) {
    timed.knock();
    spin_until(timed.loop, [&] { return timed.accepted.size() == i; });
    passes(timed.loop, 3);
  }
  CHECK(timed.system.count(Call::accept) == 10);
}

TEST_CASE(
    "Without room for another connection a listener waits instead of spinning, and says so once") {
  for (const int error : room_errors) {
    CAPTURE(error);
    ListenerOptions options;
    options.retry_after = 50ms;
    TimedListener timed(options);
    timed.system.fail(Call::accept, error, FaultySystem::forever);
    timed.knock();
    timed.knock();
    spin_until(timed.loop, [&] { return !timed.told.empty(); });
    CHECK(timed.listener.state() == ListenerState::exhausted);
    CHECK(timed.told.front() == pawl::system_error_code(error));
    passes(timed.loop, 1000);
    CHECK(timed.system.count(Call::accept) == 1);
    for (int tries = 2; tries <= 20; ++tries) {
      timed.system.advance(50ms - 1ns);
      passes(timed.loop);
      CHECK(timed.system.count(Call::accept) == tries - 1);
      timed.system.advance(1ns);
      passes(timed.loop);
      CHECK(timed.system.count(Call::accept) == tries);
    }
    CHECK(timed.told.size() == 1);

    timed.system.heal(Call::accept);
    timed.system.advance(50ms);
    spin_until(timed.loop, [&] { return timed.accepted.size() == 2; });
    CHECK(timed.listener.state() == ListenerState::listening);
    CHECK(timed.told.size() == 1);

    // A new episode is told again.
    timed.system.fail(Call::accept, error);
    timed.knock();
    spin_until(timed.loop, [&] { return timed.told.size() == 2; });
    CHECK(timed.loop.next_deadline());
    timed.listener.close();
    passes(timed.loop);
    CHECK_FALSE(timed.loop.next_deadline());
  }
}

TEST_CASE("Connections that died in the backlog are skipped") {
  for (const int error : {ECONNABORTED, ECONNRESET, ETIMEDOUT, EPROTO, ENETDOWN, ENOPROTOOPT,
                          EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH}) {
    CAPTURE(error);
    TimedListener timed;
    timed.system.fail(Call::accept, error, 3);
    timed.knock();
    spin_until(timed.loop, [&] { return timed.accepted.size() == 1; });
    CHECK(timed.told.empty());
    CHECK(timed.listener.state() == ListenerState::listening);
  }
}

TEST_CASE("A connection that was reset in the backlog doesn't harm the one behind it") {
  TimedListener timed;
  RawPeer(timed.loop, raw_connect(timed.listener.local_endpoint())).reset();
  timed.knock();
  spin_until(timed.loop, [&] { return timed.accepted.size() == 2; });
}

TEST_CASE("A listener that is closed refuses whoever comes then") {
  EventLoop loop;
  int calls = 0;
  Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) { ++calls; });
  const Endpoint there = listener.local_endpoint();
  const RawPeer waiting(loop, raw_connect(there));
  listener.close();
  listener.close();
  CHECK(listener.state() == ListenerState::done);
  CHECK(listener.local_endpoint() == there);
  run_until(loop, [&] { return waiting.is_over(); });
  CHECK(waiting.error() == ECONNRESET);
  const auto connection = Connection::connect(loop, there);
  Recorder record(*connection);
  loop.run();
  CHECK(record.error == std::errc::connection_refused);
  CHECK(calls == 0);
}

TEST_CASE("A listener keeps the loop running until it is closed") {
  EventLoop loop;
  Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  CHECK(loop.run_once(pawl::Duration::zero()));
  listener.close();
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A listener may be reached over a Unix socket with an abstract name") {
  EventLoop loop;
  const Endpoint there =
      Endpoint::parse("unix:@pawl test " + std::to_string(::getpid()) + " listener");
  std::unique_ptr<Connection> accepted;
  Endpoint from = there;
  Listener listener(loop, there, [&](UniqueFd socket, const Endpoint& peer) {
    accepted = Connection::adopt(loop, std::move(socket));
    accepted->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
    from = peer;
  });
  CHECK(listener.local_endpoint() == there);
  const auto connection = Connection::connect(loop, there);
  Recorder record(*connection);
  const std::string sent = noise(1'000'000);
  connection->write(sent);
  run_until(loop, [&] { return record.data.size() == sent.size(); });
  CHECK(difference(record.data, sent) == "");
  CHECK(connection->peer_endpoint() == there);
  CHECK(from == Endpoint());
  CHECK(refusal(loop, there) ==
        "Listener at " + there.to_string() + ": bind: Address already in use");
}

TEST_CASE("An exception from a listener's callback leaves run(), and the others are served") {
  TimedListener timed;
  SECTION("on_accept") {
    int calls = 0;
    Listener thrower(timed.loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) {
      if (++calls <= 2) throw Thrown();
    });
    std::vector<UniqueFd> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(raw_connect(thrower.local_endpoint()));
    for (int i = 0; i < 2; ++i) {
      CHECK_THROWS_AS(spin_until(timed.loop, [] { return false; }), Thrown);
    }
    spin_until(timed.loop, [&] { return calls == 3; });
  }
  SECTION("on_exhausted") {
    timed.listener.on_exhausted([](std::error_code) { throw Thrown(); });
    timed.system.fail(Call::accept, EMFILE);
    timed.knock();
    CHECK_THROWS_AS(spin_until(timed.loop, [] { return false; }), Thrown);
    CHECK(timed.listener.state() == ListenerState::exhausted);
    timed.system.advance(1s);
    spin_until(timed.loop, [&] { return timed.accepted.size() == 1; });
  }
}

TEST_CASE("Anything may be done to a listener in any state, from outside and from its callbacks") {
  const auto enter = [](TimedListener& timed, ListenerState state) {
    const bool is_draining = state == ListenerState::draining || state == ListenerState::held;
    if (is_draining) timed.knock();
    if (is_draining) timed.listener.close(1h);
    if (state == ListenerState::paused || state == ListenerState::held) timed.listener.pause();
    if (state == ListenerState::done) timed.listener.close();
    if (state != ListenerState::exhausted) return;
    timed.system.fail(Call::accept, EMFILE);
    timed.knock();
    spin_until(timed.loop, [&] { return timed.listener.state() == state; });
  };
  const struct {
    const char* name;
    void (*perform)(Listener&);
  } acts[] = {
      {"pause", [](Listener& listener) { listener.pause(); }},
      {"resume", [](Listener& listener) { listener.resume(); }},
      {"close", [](Listener& listener) { listener.close(); }},
      {"close with grace", [](Listener& listener) { listener.close(1h); }},
      {"on_exhausted", [](Listener& listener) { listener.on_exhausted({}); }},
      {"on_failed", [](Listener& listener) { listener.on_failed({}); }},
  };
  for (std::size_t i = 0; i < pawl::listener_table.states.size(); ++i) {
    const auto state = static_cast<ListenerState>(i);
    for (const auto& act : acts) {
      INFO(act.name << " in " << to_string(state));
      for (const bool is_from_callback : {false, true}) {
        TimedListener timed;
        enter(timed, state);
        REQUIRE(timed.listener.state() == state);
        const auto perform = [&] {
          act.perform(timed.listener);
          act.perform(timed.listener);
        };
        if (is_from_callback) {
          timed.loop.call_soon(perform);
        } else {
          perform();
        }
        passes(timed.loop);
        const ListenerState now = timed.listener.state();
        CHECK((state != ListenerState::done || now == ListenerState::done));
        if (now == ListenerState::done) continue;
        if (now == ListenerState::draining || now == ListenerState::held) {
          timed.listener.resume();
          spin_until(timed.loop, [&] { return timed.listener.state() == ListenerState::done; });
          CHECK(timed.accepted.size() == timed.clients.size());
          continue;
        }
        // It still serves.
        timed.listener.resume();
        timed.system.advance(1s);
        const std::size_t waiting = timed.clients.size();
        timed.knock();
        spin_until(timed.loop, [&] { return timed.accepted.size() == waiting + 1; });
      }
    }
  }
}

TEST_CASE(
    "A listener may be closed or destroyed by its own callbacks, with others in the backlog") {
  const bool destroys = GENERATE(false, true);
  const bool throws_too = GENERATE(false, true);
  CAPTURE(destroys, throws_too);
  FaultyClock system;
  EventLoop loop(options_on(system));
  std::unique_ptr<Listener> listener;
  int calls = 0;
  bool lived_on = false;
  const auto token = std::make_shared<int>(7);
  const auto end_it = [&, captured = std::weak_ptr<int>(token), own = std::make_shared<int>(7)] {
    ++calls;
    if (destroys) {
      listener.reset();
    } else {
      listener->close();
    }
    lived_on = *own == 7 && !captured.expired();  // ASan sees it if not
    if (throws_too) throw Thrown();
  };
  SECTION("on_accept") {
    listener = std::make_unique<Listener>(loop, Endpoint::loopback(0),
                                          [end_it](UniqueFd, const Endpoint&) { end_it(); });
  }
  SECTION("on_exhausted") {
    listener =
        std::make_unique<Listener>(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
    listener->on_exhausted([end_it](std::error_code) { end_it(); });
    system.fail(Call::accept, EMFILE);
  }
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(raw_connect(listener->local_endpoint()));
  try {
    spin_until(loop, [&] { return calls > 0; });
  } catch (const Thrown&) {
  }
  system.advance(1s);
  passes(loop);
  CHECK(calls == 1);
  CHECK(lived_on);
}
