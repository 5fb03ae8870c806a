// SPDX-License-Identifier: MIT
// What higher floors keep with a loop.
#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>
#include <string>

#include "loop/loop_parts.hpp"
#include "loop/loop_services.hpp"
#include "pawl/loop/event_loop.hpp"

using pawl::EventLoop;
using pawl::LoopServices;

namespace {

/// Says when it is made and when it goes.
template <char name>
struct Speaking {
  explicit Speaking(std::string& said_) : said(said_) { said += name; }
  ~Speaking() { said += std::string("~") + name; }
  std::string& said;
};

}  // namespace

TEST_CASE("A loop's services are made once each, and the last made goes first") {
  std::string said;
  {
    LoopServices services;
    auto& a = services.of<Speaking<'a'>>(said);
    auto& b = services.of<Speaking<'b'>>(said);
    CHECK(&services.of<Speaking<'a'>>(said) == &a);
    CHECK(&services.of<Speaking<'b'>>(said) == &b);
  }
  CHECK(said == "ab~b~a");
}

TEST_CASE("A service that can't be made leaves none behind") {
  struct Refusing {
    explicit Refusing(int& tries) {
      if (++tries == 1) throw std::runtime_error("not yet");
    }
  };
  LoopServices services;
  int tries = 0;
  CHECK_THROWS(services.of<Refusing>(tries));
  services.of<Refusing>(tries);
  services.of<Refusing>(tries);
  CHECK(tries == 2);
}

TEST_CASE("A service may use all of its loop while it is destroyed with it") {
  struct Busy {
    explicit Busy(EventLoop& loop_) : loop(loop_) {
      timer = loop.call_later(std::chrono::hours(1), [] {});
    }
    ~Busy() {
      timer.cancel();
      CHECK(timer.cancelled());
      CHECK(loop.why_alive().empty());
      CHECK(loop.mailbox()->post([] {}));
      loop.call_soon([] {});
    }
    EventLoop& loop;
    pawl::TimerHandle timer;
  };
  EventLoop loop;
  loop.parts().services.of<Busy>(loop);
}
