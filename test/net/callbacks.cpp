// SPDX-License-Identifier: MIT
// What a callback may do: anything. Each act on a connection, from outside and from inside of each
// callback, on itself and on a sibling, in each state.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/connection_state.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"
#include "support/thrown.hpp"
#include "support/virtual_clock.hpp"

using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::EventLoop;
using pawl::UniqueFd;

namespace {

// ---- what there is: callbacks, states, and which comes in which

enum class Callback : std::uint8_t { connected, data, drained, eof, closed };
constexpr std::array<const char*, 5> callback_names{"on_connected", "on_data", "on_drained",
                                                    "on_eof", "on_closed"};
constexpr std::size_t state_count = pawl::connection_table.states.size();

using Occasion = std::pair<Callback, ConnectionState>;

/// True exactly when the callback comes in that state. A new state needs a column here.
constexpr bool comes[callback_names.size()][state_count] = {
    // CONNECTING SENDING RECEIVING DONE
    {false, true, true, false}, {false, true, true, false},  {false, true, true, true},
    {false, true, true, false}, {false, false, false, true},
};
static_assert(state_count == 4, "a new state needs a column above, and a stage below");

std::string name_of(const Occasion& occasion) {
  return std::string(callback_names[static_cast<std::size_t>(occasion.first)]) + " in " +
         std::string(to_string(occasion.second));
}

std::set<Occasion> all_occasions() {
  std::set<Occasion> all;
  for (std::size_t callback = 0; callback < callback_names.size(); ++callback) {
    for (std::size_t state = 0; state < state_count; ++state) {
      if (!comes[callback][state]) continue;
      all.emplace(static_cast<Callback>(callback), static_cast<ConnectionState>(state));
    }
  }
  return all;
}

ConnectionOptions options(bool is_half_open = false) {
  ConnectionOptions options;
  options.high_water = 20'000;
  options.low_water = 60'000;  // drained while there is still something to send
  options.write_limit = 1'000'000;
  options.allow_half_open = is_half_open;
  return options;
}

// ---- one connection under test, and its peer

/// A connection that is watched for what it must never do.
class Subject {
 public:
  explicit Subject(EventLoop& its_loop, bool is_half_open = false)
      : loop(its_loop), is_half_open_(is_half_open) {}
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  void dial(std::string_view early = {}) {
    connection = Connection::connect(loop, listener_.endpoint(), options(is_half_open_));
    attach();
    connection->write(early);
  }
  void meet() {
    if (peer == nullptr) peer = std::make_unique<RawPeer>(loop, listener_.accept(loop));
  }
  void run_until_in(ConnectionState state) {
    run_until(loop, [&] { return connection->state() == state; });
  }

  /// Sets all callbacks, each with captures of its own.
  void attach() {
    connection->on_connected(
        [this, token = token_of()](Connection&) { on(Callback::connected, token); });
    connection->on_data(
        [this, token = token_of()](Connection&, std::string_view) { on(Callback::data, token); });
    connection->on_drained(
        [this, token = token_of()](Connection&) { on(Callback::drained, token); });
    connection->on_eof([this, token = token_of()](Connection&) { on(Callback::eof, token); });
    connection->on_closed(
        [this, token = token_of()](Connection&, std::error_code) { on(Callback::closed, token); });
    is_attached_ = true;
  }
  void detach() {
    connection->on_connected({});
    connection->on_data({});
    connection->on_drained({});
    connection->on_eof({});
    connection->on_closed({});
    is_attached_ = false;
  }

  /// Does it once, inside of that callback.
  void do_inside(Callback callback, std::function<void()> action) {
    callback_ = callback;
    action_ = std::move(action);
  }

  /// Brings the connection, if there still is one, to its end, and checks that this was told as it
  /// should have been.
  void finish() {
    if (connection != nullptr) {
      connection->resume_reading();
      if (connection->state() != ConnectionState::done) meet();
    }
    passes(loop, 3);
    if (peer != nullptr) {
      if (!peer->is_over()) peer->start_reading();
      peer->end();
    }
    for (int i = 0; i < 1000 && !is_over(); ++i) {
      if (i > 3 && is_half_open_) connection->close();
      loop.run_once(std::chrono::milliseconds(1));
    }
    CHECK(is_over());
    passes(loop, 3);
    CHECK(misbehaved.empty());
    if (connection != nullptr && is_attached_) CHECK(closed_ == 1);
    if (connection == nullptr) CHECK(closed_ <= 1);
  }

  EventLoop& loop;
  std::unique_ptr<Connection> connection;
  std::unique_ptr<RawPeer> peer;
  std::set<Occasion> seen;
  std::string misbehaved;

 private:
  static std::shared_ptr<int> token_of() { return std::make_shared<int>(7); }

  void on(Callback callback, const std::shared_ptr<int>& token) {
    if (connection == nullptr) {
      misbehaved += std::string(callback_names[static_cast<std::size_t>(callback)]) +
                    " after it was destroyed. ";
      return;
    }
    seen.emplace(callback, connection->state());
    if (closed_ > 0) misbehaved += name_of({callback, connection->state()}) + " after on_closed. ";
    if (callback == Callback::closed) ++closed_;
    if (callback == callback_ && action_) {
      const std::function<void()> action = std::exchange(action_, nullptr);
      action();
    }
    if (*token != 7) misbehaved += "captures freed too early. ";  // ASan is louder
  }

  bool is_over() const {
    if (connection == nullptr) return true;
    return connection->state() == ConnectionState::done && (closed_ > 0 || !is_attached_);
  }

  RawListener listener_{8, {4096, 16384}};  // its own: an aborted dial stays in the backlog
  bool is_half_open_;
  bool is_attached_ = false;
  int closed_ = 0;
  Callback callback_ = Callback::closed;
  std::function<void()> action_;
};

// ---- where a connection may stand

struct Stage {
  const char* name;
  ConnectionState state;
  bool is_fleeting;  // true exactly when the next pass may end it
  bool is_half_open;
  void (*enter)(Subject&);
};

UniqueFd opened(const char* path) { return UniqueFd(::open(path, O_RDONLY | O_CLOEXEC)); }
UniqueFd zeros() { return opened("/dev/zero"); }
UniqueFd nothing() { return opened("/dev/null"); }

void meet(Subject& subject) {
  subject.dial();
  subject.meet();
  subject.run_until_in(ConnectionState::receiving);
}

void meet_and_block(Subject& subject) {
  meet(subject);
  subject.peer->stop_reading();
  subject.connection->write(std::string(100'000, 'x'));
  subject.run_until_in(ConnectionState::sending);
  passes(subject.loop, 3);
}

void let_peer_end(Subject& subject) {
  subject.peer->end();
  run_until(subject.loop, [&] {
    return subject.seen.count({Callback::eof, subject.connection->state()}) == 1;
  });
}

const Stage stages[] = {
    {"dialing", ConnectionState::connecting, true, false, [](Subject& s) { s.dial(); }},
    {"dialing with bytes", ConnectionState::connecting, true, false,
     [](Subject& s) { s.dial("early"); }},
    {"dialing and closed", ConnectionState::connecting, true, false,
     [](Subject& s) {
       s.dial("early");
       s.connection->close();
     }},
    {"sending", ConnectionState::sending, false, false, [](Subject& s) { meet_and_block(s); }},
    {"sending and closed", ConnectionState::sending, false, false,
     [](Subject& s) {
       meet_and_block(s);
       s.connection->close();
     }},
    {"sending to a peer that has ended", ConnectionState::sending, false, true,
     [](Subject& s) {
       meet_and_block(s);
       let_peer_end(s);
     }},
    {"about to send", ConnectionState::sending, true, false,
     [](Subject& s) {
       meet(s);
       s.connection->write("on its way");
     }},
    {"receiving", ConnectionState::receiving, false, false, [](Subject& s) { meet(s); }},
    {"receiving and paused", ConnectionState::receiving, false, false,
     [](Subject& s) {
       meet(s);
       s.connection->pause_reading();
     }},
    {"receiving and shut down", ConnectionState::receiving, false, false,
     [](Subject& s) {
       meet(s);
       s.connection->shutdown();
     }},
    {"receiving and closed", ConnectionState::receiving, false, false,
     [](Subject& s) {
       meet(s);
       s.connection->close();
     }},
    {"half-open", ConnectionState::receiving, false, true,
     [](Subject& s) {
       meet(s);
       let_peer_end(s);
     }},
    {"receiving, with bytes given back", ConnectionState::receiving, true, false,
     [](Subject& s) {
       meet(s);
       s.connection->unread("given back");
     }},
    {"receiving and paused, with bytes given back", ConnectionState::receiving, false, false,
     [](Subject& s) {
       meet(s);
       s.connection->pause_reading();
       s.connection->unread("given back");
     }},
    {"sending a file", ConnectionState::sending, false, false,
     [](Subject& s) {
       meet(s);
       s.peer->stop_reading();
       s.connection->write_file(zeros(), 0, 100'000);
       passes(s.loop, 3);
     }},
    {"about to send a file that ends too early", ConnectionState::sending, true, false,
     [](Subject& s) {
       meet(s);
       s.connection->write_file(nothing(), 0, 10);
     }},
    {"done and not told", ConnectionState::done, true, false,
     [](Subject& s) {
       meet(s);
       s.connection->abort();
     }},
    {"done", ConnectionState::done, false, false,
     [](Subject& s) {
       meet(s);
       s.connection->abort();
       passes(s.loop, 3);
     }},
};

// ---- what may be done to it

struct Act {
  const char* name;
  void (*perform)(Subject&);
};

void release(Subject& subject) {
  try {
    const Connection::Released released = subject.connection->release();
    CHECK(subject.connection->state() == ConnectionState::done);
  } catch (const std::logic_error&) {
    CHECK(subject.connection->buffered() > 0);  // of a file
  }
}

const Act acts[] = {
    {"nothing", [](Subject&) {}},
    {"destroy", [](Subject& s) { s.connection.reset(); }},
    {"close", [](Subject& s) { s.connection->close(); }},
    {"abort", [](Subject& s) { s.connection->abort(); }},
    {"shutdown", [](Subject& s) { s.connection->shutdown(); }},
    {"pause", [](Subject& s) { s.connection->pause_reading(); }},
    {"resume", [](Subject& s) { s.connection->resume_reading(); }},
    {"write a little", [](Subject& s) { s.connection->write("a little"); }},
    {"write much", [](Subject& s) { s.connection->write(std::string(100'000, 'x')); }},
    {"write too much", [](Subject& s) { s.connection->write(std::string(1'000'001, 'x')); }},
    {"write a file", [](Subject& s) { s.connection->write_file(zeros(), 0, 100'000); }},
    {"write a file that ends too early",
     [](Subject& s) { s.connection->write_file(nothing(), 0, 10); }},
    {"give bytes back", [](Subject& s) { s.connection->unread("given back"); }},
    {"release", release},
    {"give bytes back, write and release",
     [](Subject& s) {
       s.connection->unread("given back");
       s.connection->write("a little");
       release(s);
     }},
    {"release, destroy",
     [](Subject& s) {
       release(s);
       s.connection.reset();
     }},
    {"replace the callbacks", [](Subject& s) { s.attach(); }},
    {"unset the callbacks", [](Subject& s) { s.detach(); }},
    {"write, close, abort, destroy",
     [](Subject& s) {
       s.connection->write("a little");
       s.connection->close();
       s.connection->abort();
       s.connection.reset();
     }},
};

// ---- how to make a callback come

struct Provocation {
  Occasion occasion;
  void (*prepare)(Subject&);
  void (*provoke)(Subject&);  // again and again, until it has come
};

const Provocation provocations[] = {
    {{Callback::connected, ConnectionState::receiving},
     [](Subject& s) { s.dial(); },
     [](Subject& s) { s.meet(); }},
    {{Callback::connected, ConnectionState::sending},
     [](Subject& s) { s.dial("early"); },
     [](Subject& s) { s.meet(); }},
    {{Callback::data, ConnectionState::receiving}, meet, [](Subject& s) { s.peer->send("x"); }},
    {{Callback::data, ConnectionState::sending},
     meet_and_block,
     [](Subject& s) { s.peer->send("x"); }},
    {{Callback::drained, ConnectionState::receiving},
     meet,
     [](Subject& s) { s.connection->write("x"); }},
    {{Callback::drained, ConnectionState::sending},
     [](Subject& s) {
       meet(s);
       s.peer->stop_reading();
       s.connection->write(std::string(100'000, 'x'));
     },
     [](Subject& s) { s.peer->read(10'000); }},
    {{Callback::drained, ConnectionState::done},  // when the end comes in the same pass
     meet,
     [](Subject& s) {
       s.peer->end();
       s.connection->write("x");
     }},
    {{Callback::eof, ConnectionState::receiving}, meet, [](Subject& s) { s.peer->end(); }},
    {{Callback::eof, ConnectionState::sending}, meet_and_block, [](Subject& s) { s.peer->end(); }},
    {{Callback::closed, ConnectionState::done}, meet, [](Subject& s) { s.peer->end(); }},
};

/// A scope that leaves as many descriptors open as it found.
class SameDescriptors {
 public:
  SameDescriptors() = default;
  ~SameDescriptors() { CHECK(open_fds().size() == before_); }
  SameDescriptors(const SameDescriptors&) = delete;
  SameDescriptors& operator=(const SameDescriptors&) = delete;

 private:
  std::size_t before_ = open_fds().size();
};

/// One act inside of one callback, on the connection itself or on a sibling.
class Inside {
 public:
  explicit Inside(const Provocation& provocation) : self(loop), provocation_(provocation) {}

  void run(const std::function<void()>& act) {
    bool has_happened = false;
    provocation_.prepare(self);
    self.do_inside(provocation_.occasion.first, [&] {
      CHECK(self.connection->state() == provocation_.occasion.second);
      has_happened = true;
      act();
    });
    for (int i = 0; i < 1000 && !has_happened; ++i) {
      try {
        provocation_.provoke(self);
        loop.run_once(std::chrono::milliseconds(1));
      } catch (const Thrown&) {
        has_thrown = true;
      }
    }
    CHECK(has_happened);
  }

  TightSystem system;
  EventLoop loop{options_on(system)};
  Subject self;
  bool has_thrown = false;  // what `act` threw has left the loop

 private:
  const Provocation& provocation_;
};

}  // namespace

TEST_CASE("Each state has a stage, and each callback is provoked in each state that it comes in") {
  for (std::size_t state = 0; state < state_count; ++state) {
    CAPTURE(pawl::connection_table.states[state]);
    CHECK(std::any_of(std::begin(stages), std::end(stages), [=](const Stage& stage) {
      return static_cast<std::size_t>(stage.state) == state;
    }));
  }
  std::set<Occasion> provoked;
  for (const Provocation& provocation : provocations) provoked.insert(provocation.occasion);
  CHECK(provoked == all_occasions());
}

TEST_CASE("Anything may be done to a connection in any state, once and again") {
  std::set<Occasion> seen;
  for (const Stage& stage : stages) {
    for (const Act& act : acts) {
      for (const int times : {1, 2}) {
        INFO(act.name << ", " << times << " times, while it is " << stage.name);
        const SameDescriptors around;
        TightSystem system;
        EventLoop loop(options_on(system));
        Subject subject(loop, stage.is_half_open);
        stage.enter(subject);
        CHECK(subject.connection->state() == stage.state);
        for (int i = 0; i < times && subject.connection != nullptr; ++i) act.perform(subject);
        subject.finish();
        seen.insert(subject.seen.begin(), subject.seen.end());
      }
    }
  }
  for (const Occasion& occasion : seen) {
    CAPTURE(name_of(occasion));
    CHECK(all_occasions().count(occasion) == 1);
  }
}

TEST_CASE("A callback may do anything to its own connection") {
  for (const Provocation& provocation : provocations) {
    for (const Act& act : acts) {
      INFO(act.name << ", inside of " << name_of(provocation.occasion));
      const SameDescriptors around;
      Inside inside(provocation);
      inside.run([&] { act.perform(inside.self); });
      inside.self.finish();
    }
  }
}

TEST_CASE("A callback may do anything to another connection") {
  for (const Provocation& provocation : provocations) {
    for (const Stage& stage : stages) {
      for (const Act& act : acts) {
        INFO(act.name << " the sibling, which is " << stage.name << ", inside of "
                      << name_of(provocation.occasion));
        const SameDescriptors around;
        Inside inside(provocation);
        Subject sibling(inside.loop, stage.is_half_open);
        const bool is_made_inside = stage.state == ConnectionState::connecting;
        if (!is_made_inside) stage.enter(sibling);
        inside.run([&] {
          if (is_made_inside) stage.enter(sibling);
          act.perform(sibling);
        });
        inside.self.finish();
        sibling.finish();
      }
    }
  }
}

TEST_CASE(
    "An exception that leaves a callback leaves run(), and the connection goes on to its end") {
  for (const Provocation& provocation : provocations) {
    for (const Act& act : acts) {
      INFO(act.name << " and throw, inside of " << name_of(provocation.occasion));
      const SameDescriptors around;
      Inside inside(provocation);
      inside.run([&] {
        act.perform(inside.self);
        throw Thrown();
      });
      CHECK(inside.has_thrown);
      inside.self.finish();
    }
  }
}

TEST_CASE("With an exception handler the loop goes on, and so does the connection") {
  for (const Provocation& provocation : provocations) {
    INFO(name_of(provocation.occasion));
    Inside inside(provocation);
    int handled = 0;
    inside.loop.set_exception_handler([&](const std::exception_ptr&) { ++handled; });
    inside.run([] { throw Thrown(); });
    inside.self.finish();
    CHECK(handled == 1);
  }
}

TEST_CASE("A callback that sets another one stays set itself") {
  EventLoop loop;
  Link link(loop);
  int calls = 0;
  link.connection->on_data([&](Connection& self, std::string_view) {
    ++calls;
    self.on_drained([](Connection&) {});
    self.on_eof([](Connection&) {});
    self.on_connected({});
    self.on_closed({});
  });
  for (int i = 1; i <= 3; ++i) {
    link.peer.send("x");
    run_until(loop, [&] { return calls == i; });
  }
}

TEST_CASE("A callback may replace itself, more than once, and lives until it returns") {
  EventLoop loop;
  Link link(loop);
  std::string order;
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  bool lived_on = false;
  link.connection->on_data([&, token = std::move(token)](Connection& self, std::string_view) {
    order += 'a';
    self.on_data([&](Connection&, std::string_view) { order += '-'; });
    self.on_data([&](Connection&, std::string_view) { order += 'b'; });
    lived_on = !watch.expired() && *token == 7;
  });
  link.peer.send("x");
  run_until(loop, [&] { return order == "a"; });
  CHECK(lived_on);
  CHECK(watch.expired());
  link.peer.send("x");
  run_until(loop, [&] { return order == "ab"; });
}

TEST_CASE("A callback that isn't on_data may replace itself, too") {
  EventLoop loop;
  Link link(loop);
  std::string order;
  link.connection->on_drained([&](Connection& self) {
    order += 'a';
    self.on_drained([&](Connection&) { order += 'b'; });
  });
  for (const char* expected : {"a", "ab", "abb"}) {
    link.connection->write("x");
    run_until(loop, [&] { return order == expected; });
  }
}

TEST_CASE("A callback may unset itself, and what comes then goes nowhere") {
  EventLoop loop;
  Link link(loop);
  int calls = 0;
  link.connection->on_data([&](Connection& self, std::string_view) {
    ++calls;
    self.on_data({});
  });
  link.peer.send("x");
  run_until(loop, [&] { return calls == 1; });
  link.peer.send("unheard");
  run_until(loop, [&] { return link.connection->bytes_received() == 8; });
  CHECK(calls == 1);
}

TEST_CASE("The captures of a connection's callbacks are freed with it") {
  EventLoop loop;
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  Link link(loop);
  link.connection->on_connected([token](Connection&) {});
  link.connection->on_data([token](Connection&, std::string_view) {});
  link.connection->on_drained([token](Connection&) {});
  link.connection->on_eof([token](Connection&) {});
  link.connection->on_closed([token](Connection&, std::error_code) {});
  token.reset();
  CHECK_FALSE(watch.expired());
  SECTION("from outside") {
    link.connection.reset();
    CHECK(watch.expired());
  }
  SECTION("from a callback, which lives until it returns") {
    bool were_freed = false;
    link.connection->on_eof([&](Connection&) {
      link.connection.reset();
      were_freed = watch.expired();
    });
    link.peer.end();
    run_until(loop, [&] { return link.connection == nullptr; });
    CHECK(were_freed);
  }
}

TEST_CASE("A connection that is destroyed by the first of much that came is not read any further") {
  EventLoop loop;
  Link link(loop);
  bool is_longer_way = false;
  SECTION("the usual way") {}
  SECTION("with a callback that makes the way longer") { is_longer_way = true; }
  if (is_longer_way) link.connection->on_drained([](Connection&) {});
  link.connection->pause_reading();
  link.peer.send(noise(150'000));
  passes(loop);
  int calls = 0;
  link.connection->on_data([&](Connection&, std::string_view) {
    ++calls;
    link.connection.reset();
  });
  link.connection->resume_reading();
  run_until(loop, [&] { return calls > 0; });
  passes(loop);
  CHECK(calls == 1);
}

TEST_CASE("A connection that owns itself through its callback may let go of itself") {
  EventLoop loop;
  TcpPair pair;
  std::shared_ptr<Connection> connection = Connection::adopt(loop, std::move(pair.ours));
  const std::weak_ptr<Connection> watch = connection;
  Connection* raw = connection.get();
  raw->on_closed([connection = std::move(connection)](Connection& self, std::error_code) mutable {
    connection.reset();
    static_cast<void>(self);
  });
  pair.theirs.reset();
  loop.run();
  CHECK(watch.expired());
}

TEST_CASE("A new connection under a number that was closed in the same pass gets no old event") {
  EventLoop loop;
  TcpPair pairs[2];
  TcpPair fresh;
  const int numbers[2] = {pairs[0].ours.get(), pairs[1].ours.get()};
  std::unique_ptr<Connection> connections[2];
  Recorder of_fresh;
  int calls = 0;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    connections[i] = Connection::adopt(loop, std::move(pairs[i].ours));
    // Whichever is called first puts a connection with nothing to read into the other's place.
    connections[i]->on_data([&, other = 1 - i](Connection&, std::string_view) {
      ++calls;
      connections[other].reset();
      UniqueFd socket = renumbered(std::move(fresh.ours), numbers[other]);
      connections[other] = Connection::adopt(loop, std::move(socket));
      of_fresh.attach(*connections[other]);
    });
    write_byte(pairs[i].theirs.get());
  }
  passes(loop);
  CHECK(calls == 1);
  CHECK(of_fresh.order.empty());
  write_byte(fresh.theirs.get());
  run_until(loop, [&] { return of_fresh.data == "x"; });
}
