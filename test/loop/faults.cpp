// SPDX-License-Identifier: MIT
#include <fcntl.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/descriptor_limit.hpp"
#include "support/faulty_system.hpp"
#include "support/interrupter.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::TimePoint;

TEST_CASE("A loop that can't get a descriptor is a system error, and takes none with it") {
  const int first_free = pawl::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)).get();
  // UBSan needs a descriptor itself to look at an object whose type is new to it.
  CHECK(std::system_error(EMFILE, std::system_category()).code());
  EventLoop().run_once(Duration::zero());
  int refused = 0;
  bool is_made = false;
  for (int spare = 0; spare < 8 && !is_made; ++spare) {
    try {
      const DescriptorLimit limit(static_cast<rlim_t>(first_free + spare));
      EventLoop loop;
      loop.call_soon([&] { is_made = true; });
      loop.run();
    } catch (const std::system_error& error) {
      CHECK(error.code() == std::errc::too_many_files_open);
      ++refused;
    }
  }
  CHECK(refused >= 1);
  CHECK(is_made);
}

TEST_CASE("A loop that gets no wake-up says what is missing") {
  FaultySystem system;
  for (const int error : {EMFILE, ENFILE, ENOMEM}) {
    system.fail(Call::eventfd, error);
    try {
      EventLoop loop(options_on(system));
      FAIL("it was made");
    } catch (const std::system_error& thrown) {
      CHECK(thrown.code().value() == error);
      CHECK_THAT(thrown.what(), Catch::Contains("eventfd"));
    }
  }
  EventLoop loop(options_on(system));
  CHECK_FALSE(loop.run_once(Duration::zero()));
}

TEST_CASE("Interrupted a thousand times a second, a loop loses nothing and is never early",
          "[threads]") {
  const Interrupter interrupter;
  EventLoop loop;
  const SocketPair pair;
  int echoes = 0;
  loop.add_reader(pair.ours.get(), [&] {
    drain(pair.ours.get());
    ++echoes;
    loop.call_later(500us, [&] { write_byte(pair.theirs.get()); });
  });
  write_byte(pair.theirs.get());
  int early = 0;
  int timers = 0;
  const TimePoint start = loop.time();
  for (int i = 0; i < 300; ++i) {
    const TimePoint when = start + i * 333us;
    loop.call_at(when, [&, when] {
      ++timers;
      if (loop.time() < when) ++early;
    });
  }
  std::atomic<int> posted{0};
  std::atomic<bool> is_over{false};
  int received = 0;
  std::thread thread([&] {
    while (!is_over) {
      posted.fetch_add(1);
      loop.call_soon_threadsafe([&] { ++received; });
      std::this_thread::yield();
    }
  });
  int jobs = 0;
  for (int i = 0; i < 50; ++i) {
    loop.run_in_executor([] { return 1; }, [&](pawl::Outcome<int> one) { jobs += one.get(); });
  }
  // How long it takes until each has been interrupted often is the machine's affair.
  const long strikes_before = Interrupter::count();
  int ticks = 0;
  loop.call_every(1ms, [&] {
    ++ticks;
    const bool is_worn = Interrupter::count() - strikes_before > 20 && ticks > 10 && echoes > 10;
    const bool is_done = timers == 300 && jobs == 50;
    if ((is_worn && is_done) || loop.time() - start > 30s) loop.stop();
  });
  loop.run();
  is_over = true;
  thread.join();
  CHECK(early == 0);
  CHECK(timers == 300);
  CHECK(ticks > 10);
  CHECK(echoes > 10);
  CHECK(jobs == 50);
  while (received < posted) loop.run_once(Duration::zero());
  CHECK(received == posted);
  CHECK(Interrupter::count() - strikes_before > 20);
}

TEST_CASE("Interrupted a thousand times a second, run_once() waits for all of its timeout") {
  const Interrupter interrupter;
  EventLoop loop;
  const TimePoint start = loop.time();
  loop.run_once(10ms);
  CHECK(loop.time() - start >= 10ms);
}
