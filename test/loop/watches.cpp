// SPDX-License-Identifier: MIT
// Readers, writers and I/O handlers.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"
#include "support/descriptor_limit.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Interest;
using pawl::IoHandler;
using pawl::UniqueFd;

namespace {

/// Notes what it is told, and does what a test wants.
class TestHandler final : public IoHandler {
 public:
  explicit TestHandler(pawl::Function<void(Interest)> action = [](Interest) {})
      : action_(std::move(action)) {}

  void on_ready(Interest events) override {
    ++calls_;
    last_ = events;
    action_(events);
  }
  std::string describe() const override { return "test handler"; }

  int calls() const { return calls_; }
  Interest last() const { return last_; }

 private:
  pawl::Function<void(Interest)> action_;
  int calls_ = 0;
  Interest last_ = Interest::none;
};

UniqueFd readable_eventfd() {
  UniqueFd fd(pawl::System::real().eventfd().fd());
  const std::uint64_t one = 1;
  pawl::System::real().write(fd.get(), &one, sizeof one);
  return fd;
}

void pass(EventLoop& loop) { loop.run_once(Duration::zero()); }

}  // namespace

TEST_CASE("A reader is called while there is something to read") {
  EventLoop loop;
  const Pipe pipe;
  int calls = 0;
  REQUIRE_FALSE(loop.add_reader(pipe.reader.get(), [&] { ++calls; }));
  pass(loop);
  CHECK(calls == 0);
  write_byte(pipe.writer.get());
  pass(loop);
  pass(loop);
  CHECK(calls == 2);
  drain(pipe.reader.get());
  pass(loop);
  CHECK(calls == 2);
  CHECK(loop.remove_reader(pipe.reader.get()));
  write_byte(pipe.writer.get());
  pass(loop);
  CHECK(calls == 2);
}

TEST_CASE("A writer is called while there is room to write") {
  EventLoop loop;
  const SocketPair pair;
  int calls = 0;
  REQUIRE_FALSE(loop.add_writer(pair.ours.get(), [&] { ++calls; }));
  pass(loop);
  pass(loop);
  CHECK(calls == 2);
  fill(pair.ours.get());
  pass(loop);
  CHECK(calls == 2);
  drain(pair.theirs.get());
  pass(loop);
  CHECK(calls == 3);
  CHECK(loop.remove_writer(pair.ours.get()));
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A descriptor may have both a reader and a writer, and the reader goes first") {
  EventLoop loop;
  const SocketPair pair;
  std::string order;
  REQUIRE_FALSE(loop.add_writer(pair.ours.get(), [&] { order += 'w'; }));
  REQUIRE_FALSE(loop.add_reader(pair.ours.get(), [&] { order += 'r'; }));
  pass(loop);
  CHECK(order == "w");
  write_byte(pair.theirs.get());
  pass(loop);
  CHECK(order == "wrw");
  CHECK(loop.remove_writer(pair.ours.get()));
  pass(loop);
  CHECK(order == "wrwr");
  CHECK(loop.remove_reader(pair.ours.get()));
  pass(loop);
  CHECK(order == "wrwr");
}

TEST_CASE("What isn't watched any more doesn't wake the loop") {
  EventLoop loop;
  const SocketPair pair;
  fill(pair.ours.get());
  write_byte(pair.theirs.get());
  TestHandler handler;
  loop.add_reader(pair.ours.get(), [] {});
  loop.add_writer(pair.ours.get(), [] {});
  pass(loop);
  CHECK(loop.remove_reader(pair.ours.get()));
  SECTION("one side of a descriptor") {}
  SECTION("both sides") { CHECK(loop.remove_writer(pair.ours.get())); }
  SECTION("a handler that waits for nothing") {
    CHECK(loop.remove_writer(pair.ours.get()));
    loop.add_handler(pair.ours.get(), Interest::read, handler);
    pass(loop);
    loop.modify_handler(pair.ours.get(), Interest::none);
  }
  const pawl::TimePoint start = loop.time();
  loop.run_once(5ms);
  CHECK(loop.time() - start >= 5ms);
}

TEST_CASE("A new reader takes the place of the old one, which is freed at once") {
  EventLoop loop;
  const Pipe pipe;
  write_byte(pipe.writer.get());
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  int old_calls = 0;
  int new_calls = 0;
  loop.add_reader(pipe.reader.get(), [&old_calls, token = std::move(token)] { ++old_calls; });
  CHECK_FALSE(watch.expired());
  REQUIRE_FALSE(loop.add_reader(pipe.reader.get(), [&] { ++new_calls; }));
  CHECK(watch.expired());
  pass(loop);
  CHECK(old_calls == 0);
  CHECK(new_calls == 1);
}

TEST_CASE("A reader may remove itself, and is freed when it returns") {
  EventLoop loop;
  const Pipe pipe;
  write_byte(pipe.writer.get());
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  int calls = 0;
  bool lived_on = false;
  loop.add_reader(pipe.reader.get(), [&, token = std::move(token)] {
    ++calls;
    CHECK(loop.remove_reader(pipe.reader.get()));
    CHECK_FALSE(loop.remove_reader(pipe.reader.get()));
    lived_on = !watch.expired() && *token == 7;
  });
  loop.run();
  CHECK(calls == 1);
  CHECK(lived_on);
  CHECK(watch.expired());
}

TEST_CASE("A reader may put another one into its own place") {
  EventLoop loop;
  const Pipe pipe;
  write_byte(pipe.writer.get());
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  std::string order;
  bool lived_on = false;
  loop.add_reader(pipe.reader.get(), [&, token = std::move(token)] {
    order += 'a';
    loop.add_reader(pipe.reader.get(), [&] { order += 'b'; });
    lived_on = *token == 7;
  });
  pass(loop);
  CHECK(order == "a");
  CHECK(lived_on);
  CHECK(watch.expired());
  pass(loop);
  CHECK(order == "ab");
}

TEST_CASE("A reader may remove and add itself again") {
  EventLoop loop;
  const Pipe pipe;
  write_byte(pipe.writer.get());
  std::string order;
  loop.add_reader(pipe.reader.get(), [&] {
    order += 'a';
    loop.remove_reader(pipe.reader.get());
    loop.add_reader(pipe.reader.get(), [&] { order += 'b'; });
  });
  pass(loop);
  CHECK(order == "a");
  pass(loop);
  CHECK(order == "ab");
}

TEST_CASE("A writer that its descriptor's reader removes isn't called") {
  EventLoop loop;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  std::string order;
  loop.add_writer(pair.ours.get(), [&] { order += 'w'; });
  SECTION("the writer alone") {
    loop.add_reader(pair.ours.get(), [&] {
      order += 'r';
      CHECK(loop.remove_writer(pair.ours.get()));
    });
  }
  SECTION("both") {
    loop.add_reader(pair.ours.get(), [&] {
      order += 'r';
      CHECK(loop.remove_writer(pair.ours.get()));
      CHECK(loop.remove_reader(pair.ours.get()));
    });
  }
  SECTION("both, and registers a new writer") {
    loop.add_reader(pair.ours.get(), [&] {
      order += 'r';
      CHECK(loop.remove_writer(pair.ours.get()));
      CHECK(loop.remove_reader(pair.ours.get()));
      loop.add_writer(pair.ours.get(), [] {});
    });
  }
  pass(loop);
  CHECK(order == "r");
}

TEST_CASE(
    "An event that was collected for a descriptor that was closed and used again is dropped") {
  EventLoop loop;
  UniqueFd fds[2] = {readable_eventfd(), readable_eventfd()};
  const Pipe fresh;
  int first_calls = 0;
  int fresh_calls = 0;
  // Whichever is called first closes the other and puts a pipe with nothing in it under its number.
  const auto replace_other = [&](std::size_t other) {
    ++first_calls;
    const int number = fds[other].get();
    CHECK(loop.remove_reader(number));
    fds[other].reset();
    fds[other] = renumbered(UniqueFd(::dup(fresh.reader.get())), number);
    REQUIRE_FALSE(loop.add_reader(number, [&] { ++fresh_calls; }));
  };
  loop.add_reader(fds[0].get(), [&] { replace_other(1); });
  loop.add_reader(fds[1].get(), [&] { replace_other(0); });
  pass(loop);
  CHECK(first_calls == 1);
  CHECK(fresh_calls == 0);
  CHECK(loop.remove_reader(fds[0].get()));
  CHECK(loop.remove_reader(fds[1].get()));
}

TEST_CASE("A handler gets no event that was collected for its descriptor's former owner") {
  EventLoop loop;
  UniqueFd fds[2] = {readable_eventfd(), readable_eventfd()};
  const Pipe fresh;
  TestHandler fresh_handler;
  std::unique_ptr<TestHandler> handlers[2];
  int calls = 0;
  const auto replace_other = [&](std::size_t other) {
    ++calls;
    const int number = fds[other].get();
    CHECK(loop.remove_handler(number));
    handlers[other].reset();
    fds[other] = renumbered(UniqueFd(::dup(fresh.reader.get())), number);
    REQUIRE_FALSE(loop.add_handler(number, Interest::read, fresh_handler));
  };
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    handlers[i] = std::make_unique<TestHandler>([&, i](Interest) { replace_other(1 - i); });
    REQUIRE_FALSE(loop.add_handler(fds[i].get(), Interest::read, *handlers[i]));
  }
  pass(loop);
  CHECK(calls == 1);
  CHECK(fresh_handler.calls() == 0);
  loop.remove_handler(fds[0].get());
  loop.remove_handler(fds[1].get());
}

TEST_CASE("One callback may close every other one of 2,000 ready descriptors") {
  const DescriptorLimit limit;
  if (!limit.allows(2100)) {
    WARN("this machine allows too few descriptors");
    return;
  }
  EventLoop loop;
  std::vector<UniqueFd> fds;
  std::vector<int> calls(2000);
  bool has_closed = false;
  int unclosed = 0;
  for (std::size_t i = 0; i < 2000; ++i) {
    fds.push_back(readable_eventfd());
    const auto on_readable = [&, i] {
      ++calls[i];
      drain(fds[i].get());
      if (std::exchange(has_closed, true)) return;
      for (std::size_t other = (i + 1) % 2; other < fds.size(); other += 2) {
        if (!loop.remove_reader(fds[other].get())) ++unclosed;
        fds[other].reset();
      }
    };
    REQUIRE_FALSE(loop.add_reader(fds[i].get(), on_readable));
  }
  for (int i = 0; i < 20; ++i) pass(loop);  // a backend may bring the events in portions
  CHECK(unclosed == 0);
  int called_once = 0;
  int called_though_closed = 0;
  for (std::size_t i = 0; i < 2000; ++i) {
    if (fds[i]) {
      called_once += calls[i] == 1 ? 1 : 0;
      loop.remove_reader(fds[i].get());
    } else {
      called_though_closed += calls[i];
    }
  }
  CHECK(called_once == 1000);
  CHECK(called_though_closed == 0);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A pipe's reader is called when the writer is gone") {
  EventLoop loop;
  Pipe pipe;
  write_byte(pipe.writer.get());
  pipe.writer.reset();
  std::size_t bytes = 0;
  bool has_ended = false;
  loop.add_reader(pipe.reader.get(), [&] {
    char byte;
    const pawl::SystemResult result = pawl::System::real().read(pipe.reader.get(), &byte, 1);
    bytes += result.bytes();
    if (!result.ok() || result.value > 0) return;
    has_ended = true;
    loop.remove_reader(pipe.reader.get());
  });
  loop.run();
  CHECK(bytes == 1);
  CHECK(has_ended);
}

TEST_CASE("A pipe's writer is called when the reader is gone") {
  EventLoop loop;
  Pipe pipe;
  fill(pipe.writer.get());
  pipe.reader.reset();
  bool called = false;
  loop.add_writer(pipe.writer.get(), [&] {
    called = true;
    loop.remove_writer(pipe.writer.get());
  });
  loop.run();
  CHECK(called);
}

TEST_CASE("An error without anything to read wakes a reader and a writer") {
  EventLoop loop;
  const UniqueFd fd = refused_udp_socket();
  int error = 0;
  bool called = false;
  const auto look = [&] {
    called = true;
    unsigned bytes = sizeof error;
    pawl::System::real().getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
    loop.remove_reader(fd.get());
    loop.remove_writer(fd.get());
  };
  SECTION("a reader") { loop.add_reader(fd.get(), look); }
  SECTION("a writer") { loop.add_writer(fd.get(), look); }
  loop.run();
  CHECK(called);
  CHECK(error == ECONNREFUSED);
}

TEST_CASE("A regular file is always ready") {
  EventLoop loop;
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  int calls = 0;
  REQUIRE_FALSE(loop.add_reader(file.get(), [&] {
    if (++calls == 3) loop.remove_reader(file.get());
  }));
  loop.run();
  CHECK(calls == 3);
}

TEST_CASE("A descriptor that isn't open can't be watched") {
  EventLoop loop;
  Pipe pipe;
  const int closed = pipe.reader.get();
  pipe.reader.reset();
  TestHandler handler;
  for (const int fd : {-1, -1000, 1'000'000'000, closed}) {
    CHECK(loop.add_reader(fd, [] {}) == std::errc::bad_file_descriptor);
    CHECK(loop.add_writer(fd, [] {}) == std::errc::bad_file_descriptor);
    CHECK(loop.add_handler(fd, Interest::read, handler) == std::errc::bad_file_descriptor);
    CHECK(loop.add_handler(fd, Interest::none, handler) == std::errc::bad_file_descriptor);
    CHECK(loop.modify_handler(fd, Interest::read) == Errc::not_registered);
    CHECK_FALSE(loop.remove_reader(fd));
    CHECK_FALSE(loop.remove_writer(fd));
    CHECK_FALSE(loop.remove_handler(fd));
  }
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A callback that couldn't be registered is freed at once") {
  EventLoop loop;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  CHECK(loop.add_reader(-1, [token = std::move(token)] {}));
  CHECK(watch.expired());
}

TEST_CASE("A descriptor belongs to a handler or to callbacks, never to both") {
  EventLoop loop;
  const SocketPair pair;
  TestHandler handler;
  TestHandler other;
  REQUIRE_FALSE(loop.add_handler(pair.ours.get(), Interest::none, handler));
  CHECK(loop.add_reader(pair.ours.get(), [] {}) == Errc::already_registered);
  CHECK(loop.add_writer(pair.ours.get(), [] {}) == Errc::already_registered);
  CHECK(loop.add_handler(pair.ours.get(), Interest::read, other) == Errc::already_registered);
  CHECK_FALSE(loop.remove_reader(pair.ours.get()));
  CHECK(loop.remove_handler(pair.ours.get()));
  REQUIRE_FALSE(loop.add_writer(pair.ours.get(), [] {}));
  CHECK(loop.add_handler(pair.ours.get(), Interest::read, handler) == Errc::already_registered);
  CHECK(loop.modify_handler(pair.ours.get(), Interest::read) == Errc::not_registered);
  CHECK_FALSE(loop.remove_handler(pair.ours.get()));
  CHECK(loop.remove_writer(pair.ours.get()));
}

TEST_CASE("A handler is told what it asked for and nothing else") {
  EventLoop loop;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  TestHandler handler;
  REQUIRE_FALSE(loop.add_handler(pair.ours.get(), Interest::none, handler));
  pass(loop);
  CHECK(handler.calls() == 0);
  for (const Interest interest : {Interest::read, Interest::write, Interest::read_write}) {
    const int before = handler.calls();
    CHECK_FALSE(loop.modify_handler(pair.ours.get(), interest));
    pass(loop);
    CHECK(handler.calls() == before + 1);
    CHECK(handler.last() == interest);
  }
  CHECK_FALSE(loop.modify_handler(pair.ours.get(), Interest::none));
  pass(loop);
  CHECK(handler.calls() == 3);
  CHECK(loop.remove_handler(pair.ours.get()));
}

TEST_CASE("A handler that waits for nothing is told of a hang-up, once after each change") {
  EventLoop loop;
  SocketPair pair;
  write_byte(pair.theirs.get());
  TestHandler handler;
  REQUIRE_FALSE(loop.add_handler(pair.ours.get(), Interest::none, handler));
  pass(loop);
  CHECK(handler.calls() == 0);
  pair.theirs.reset();
  loop.run_once();
  CHECK(handler.calls() == 1);
  CHECK(handler.last() == Interest::none);
  const pawl::TimePoint start = loop.time();
  loop.run_once(5ms);
  CHECK(loop.time() - start >= 5ms);
  CHECK(handler.calls() == 1);

  CHECK_FALSE(loop.modify_handler(pair.ours.get(), Interest::read));
  pass(loop);
  CHECK(handler.last() == Interest::read);
  CHECK_FALSE(loop.modify_handler(pair.ours.get(), Interest::none));
  for (int i = 0; i < 3; ++i) pass(loop);
  CHECK(handler.calls() == 3);
  CHECK(handler.last() == Interest::none);
  CHECK(loop.remove_handler(pair.ours.get()));
}

TEST_CASE("A handler that another one turned on in the same pass isn't told of nothing") {
  EventLoop loop;
  SocketPair pairs[2];
  std::vector<std::pair<std::size_t, Interest>> told;
  const auto turn_other_on = [&](std::size_t self, Interest events) {
    told.emplace_back(self, events);
    loop.modify_handler(pairs[1 - self].ours.get(), Interest::read);
  };
  TestHandler handlers[2] = {TestHandler([&](Interest events) { turn_other_on(0, events); }),
                             TestHandler([&](Interest events) { turn_other_on(1, events); })};
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    loop.add_handler(pairs[i].ours.get(), Interest::none, handlers[i]);
    pairs[i].theirs.reset();
  }
  pass(loop);
  REQUIRE(told.size() == 1);
  CHECK(told[0].second == Interest::none);
  const std::size_t other = 1 - told[0].first;
  pass(loop);
  REQUIRE(told.size() == 2);
  CHECK(told[1] == std::pair(other, Interest::read));
  for (const SocketPair& pair : pairs) loop.remove_handler(pair.ours.get());
}

TEST_CASE("A handler that another one turned off in the same pass isn't called") {
  EventLoop loop;
  const UniqueFd fds[2] = {readable_eventfd(), readable_eventfd()};
  int calls = 0;
  const auto turn_other_off = [&](std::size_t other) {
    ++calls;
    loop.modify_handler(fds[other].get(), Interest::none);
  };
  TestHandler handlers[2] = {TestHandler([&](Interest) { turn_other_off(1); }),
                             TestHandler([&](Interest) { turn_other_off(0); })};
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    loop.add_handler(fds[i].get(), Interest::read, handlers[i]);
  }
  pass(loop);
  CHECK(calls == 1);
  for (const UniqueFd& fd : fds) loop.remove_handler(fd.get());
}

TEST_CASE("A handler may destroy itself in its own on_ready") {
  EventLoop loop;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  std::unique_ptr<TestHandler> handler;
  int calls = 0;
  handler = std::make_unique<TestHandler>([&](Interest) {
    ++calls;
    loop.remove_handler(pair.ours.get());
    handler.reset();
  });
  REQUIRE_FALSE(loop.add_handler(pair.ours.get(), Interest::read_write, *handler));
  loop.run();
  CHECK(calls == 1);
  CHECK(handler == nullptr);
}

TEST_CASE("Watching grows to the highest descriptor, also from inside a callback") {
  const DescriptorLimit limit;
  if (!limit.allows(1500)) {
    WARN("this machine allows too few descriptors");
    return;
  }
  EventLoop loop;
  const Pipe pipe;
  write_byte(pipe.writer.get());
  const UniqueFd high = renumbered(readable_eventfd(), 1499);
  std::string order;
  loop.add_reader(pipe.reader.get(), [&] {
    order += 'l';
    REQUIRE_FALSE(loop.add_reader(high.get(), [&] {
      order += 'h';
      loop.remove_reader(high.get());
    }));
    loop.remove_reader(pipe.reader.get());
  });
  loop.run();
  CHECK(order == "lh");
}

TEST_CASE("The callbacks of a loop that is destroyed are freed with it") {
  const SocketPair pair;
  auto token = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = token;
  {
    EventLoop loop;
    loop.add_reader(pair.ours.get(), [token] {});
    loop.add_writer(pair.ours.get(), [token] {});
    loop.add_writer(pair.theirs.get(), [token] {});
    token.reset();
  }
  CHECK(watch.expired());
}

TEST_CASE("Two loops may watch the same descriptor") {
  EventLoop first;
  EventLoop second;
  const Pipe pipe;
  int calls = 0;
  REQUIRE_FALSE(first.add_reader(pipe.reader.get(), [&] { ++calls; }));
  REQUIRE_FALSE(second.add_reader(pipe.reader.get(), [&] { ++calls; }));
  write_byte(pipe.writer.get());
  pass(first);
  pass(second);
  CHECK(calls == 2);
}
