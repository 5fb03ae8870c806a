// SPDX-License-Identifier: MIT
// Dials alone, without the connection that they are for: each allocation failing in turn.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "net/dialer.hpp"
#include "net/name_server.hpp"
#include "net/resolving.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/net/resolver.hpp"
#include "support/allocation_sweep.hpp"

using namespace std::chrono_literals;
using pawl::Dialer;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// A dial, and what came of it.
struct Dial {
  Dial(Trial& of, pawl::ConnectionOptions options)
      : trial(of), kept(std::make_shared<pawl::ConnectionOptions>(std::move(options))) {
    trial.insist([&] {
      dialer = std::make_unique<Dialer>(
          trial.loop(), kept,
          [this](std::error_code why, int fd, const Endpoint&) {
            ++calls;
            error = why;
            socket.reset(fd);
            dialer.reset();
          },
          pawl::Place::here());
    });
  }

  template <typename... Target>
  void begin(const Target&... target) {
    if (!trial.attempt([&] { dialer->dial(target...); })) dialer.reset();
  }
  bool is_over() const { return dialer == nullptr; }

  Trial& trial;
  std::shared_ptr<pawl::ConnectionOptions> kept;
  std::unique_ptr<Dialer> dialer;
  int calls = 0;
  std::error_code error;
  pawl::UniqueFd socket;
};

void check(Trial& trial, Dial& dial, bool is_to_succeed) {
  trial.run([&] { return dial.is_over(); });
  trial.run_dry();
  CHECK(dial.calls <= 1);
  CHECK(static_cast<bool>(dial.socket) == (dial.calls == 1 && !dial.error));
  if (!trial.has_failed()) {
    CHECK(dial.calls == 1);
    CHECK(static_cast<bool>(dial.error) != is_to_succeed);
  }
}

}  // namespace

TEST_CASE("A dial alone comes to one end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    RawListener listener;
    Dial dial(trial, {});
    dial.begin(listener.endpoint());
    check(trial, dial, true);
  });
}

TEST_CASE("A dial alone in vain comes to one end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Dial dial(trial, {});
    dial.begin(refusing_endpoint());
    check(trial, dial, false);
  });
}

TEST_CASE("A dial alone that nobody answers times out once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    const RawListener listener(0);
    const pawl::UniqueFd first = raw_connect(listener.endpoint());
    Dial dial(trial, {});
    dial.begin(listener.endpoint());
    check(trial, dial, false);
  });
}

TEST_CASE("A dial alone by name comes to one end, whichever allocation fails", "[threads]") {
  for (const char* name : {"host.test", "slow.test", "localhost", "no such name"}) {
    CAPTURE(name);
    each_allocation_fails([&](Trial& trial) {
      trial.set_patience(20ms);
      RawListener listener;
      Dial dial(trial, {});
      // 127.0.0.7 is refused: who listens is at 127.0.0.1.
      dial.begin(std::string(name), listener.endpoint().port());
      check(trial, dial, std::string(name) == "localhost");
      trial.system().end_waits();
      trial.end_loop();
      wait_for_resolver_threads();
    });
  }
}
