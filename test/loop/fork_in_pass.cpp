// SPDX-License-Identifier: MIT
// A callback that forks: in the child its pass ends with it, whatever it was.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>

#include "loop/children.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "support/fork_case.hpp"
#include "support/forked.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Duration;
using pawl::EventLoop;
using pawl::Interest;
using Case = ForkCase;
using Order = ForkOrder;

namespace {

/// One without pidfd_open(2), where processes are looked at from time to time.
struct OldKernel : VirtualClock {
  pawl::SystemResult pidfd_open(int) override { return {-1, ENOSYS}; }
  /// Waits until they have ended, and lets so much time pass that a loop looks at each.
  template <typename... Processes>
  void let_end(const Processes&... processes) {
    siginfo_t info{};
    for (const int pid : {processes.pid()...}) {
      while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) < 0) {
      }
    }
    advance(1s);
  }
};

}  // namespace

TEST_CASE("A call_soon callback that forks is the last that runs in the child") {
  Case that;
  for (const char each : {'a', 'b', 'c'}) {
    that.loop.call_soon([&that, each] { that.order.add(each); });
  }
  that.check("abc");
}

TEST_CASE("A timer that forks is the last that runs in the child") {
  Case that;
  for (const char each : {'a', 'b', 'c'}) {
    that.loop.call_at(that.loop.time(), [&that, each] { that.order.add(each); });
  }
  that.loop.call_at(that.loop.time(),
                    [&that] { that.loop.call_soon([&that] { that.order.add('d'); }); });
  that.check("abcd");
}

TEST_CASE("A repeating timer that forks is the last that runs in the child") {
  Case that;
  pawl::TimerHandle handle;
  handle = that.loop.call_every(1ns, [&] {
    that.order.add('a');
    if (that.order.text().size() == 3) handle.cancel();
  });
  that.check("aaa");
}

TEST_CASE("A callback of call_soon_threadsafe that forks is the last that runs in the child") {
  Case that;
  for (const char each : {'a', 'b', 'c'}) {
    that.loop.call_soon_threadsafe([&that, each] { that.order.add(each); });
  }
  that.check("abc");
}

TEST_CASE("A signal's callback that forks is the last that runs in the child") {
  Case that;
  for (const int signal : {SIGUSR1, SIGUSR2}) {
    that.loop.add_signal_handler(signal, [&that, signal] {
      that.order.add('s');
      that.loop.remove_signal_handler(signal);
    });
  }
  ::raise(SIGUSR1);
  ::raise(SIGUSR2);
  that.check("ss");
}

TEST_CASE("A reader that forks is the last that runs in the child") {
  Case that;
  const SocketPair pairs[3];
  for (const SocketPair& pair : pairs) {
    write_byte(pair.theirs.get());
    const int fd = pair.ours.get();
    that.loop.add_reader(fd, [&that, fd] {
      that.order.add('r');
      that.loop.remove_reader(fd);
      drain(fd);
    });
  }
  that.check("rrr");
}

TEST_CASE("Reader and writer of one descriptor are two callbacks, of which one forks") {
  Case that;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  const int fd = pair.ours.get();
  that.loop.add_reader(fd, [&] {
    that.order.add('r');
    that.loop.remove_reader(fd);
  });
  that.loop.add_writer(fd, [&] {
    that.order.add('w');
    that.loop.remove_writer(fd);
  });
  that.check("rw");
}

TEST_CASE("An I/O handler that forks is the last that is told in the child") {
  struct Handler final : pawl::IoHandler {
    Handler(Case& its_case, int its_fd) : that(its_case), fd(its_fd) {
      that.loop.add_handler(fd, Interest::read, *this);
    }
    void on_ready(Interest) override {
      that.order.add('h');
      that.loop.remove_handler(fd);
      drain(fd);
    }
    std::string describe() const override { return "test handler"; }
    Case& that;
    int fd;
  };
  Case that;
  const SocketPair pairs[2];
  for (const SocketPair& pair : pairs) write_byte(pair.theirs.get());
  Handler first(that, pairs[0].ours.get());
  Handler second(that, pairs[1].ours.get());
  that.check("hh");
}

TEST_CASE("Each kind of callback that forks ends the whole pass in the child") {
  // One of each is due in the same pass; the one that comes first in it forks.
  Case that;
  const SocketPair pair;
  write_byte(pair.theirs.get());
  that.loop.add_reader(pair.ours.get(), [&] {
    that.order.add('r');
    that.loop.remove_reader(pair.ours.get());
  });
  that.loop.add_signal_handler(SIGUSR1, [&] {
    that.order.add('s');
    that.loop.remove_signal_handler(SIGUSR1);
  });
  ::raise(SIGUSR1);
  that.loop.call_at(that.loop.time(), [&] { that.order.add('t'); });
  that.loop.call_soon_threadsafe([&] { that.order.add('l'); });
  that.loop.call_soon([&] { that.order.add('c'); });
  that.check("rstlc");
}

TEST_CASE("A job's callback that forks is the last that runs in the child") {
  Case that;
  for (const char each : {'a', 'b'}) {
    that.loop.run_in_executor([] {}, [&that, each](pawl::Outcome<void>) { that.order.add(each); });
  }
  const int code = that.order.run();
  CHECK(that.order.text().size() == 2);
  CHECK(code == (that.stops ? ForkInCallback::returned : ForkInCallback::threw_logic_error));
}

TEST_CASE("on_exit that forks is the last that runs in the child") {
  Case that;
  const auto on_exit = [&](pawl::ChildProcess&, const pawl::ChildExit&) { that.order.add('x'); };
  pawl::ChildProcessOptions options;
  options.arguments = {"true"};
  pawl::ChildProcess first(that.loop, options, on_exit);
  pawl::ChildProcess second(that.loop, options, on_exit);
  that.check("xx");
}

TEST_CASE("on_exit that forks is the last in the child where processes have no descriptors") {
  OldKernel system;
  Case that(options_on(system));
  std::string ends;
  const auto on_exit = [&](pawl::ChildProcess&, const pawl::ChildExit& end) {
    that.order.add('x');
    ends += end.to_string() + ";";
  };
  const pawl::ChildProcess first(that.loop, shell("exit 1"), on_exit);
  const pawl::ChildProcess second(that.loop, shell("exit 1"), on_exit);
  system.let_end(first, second);
  that.check("xx");
  CHECK(ends == "exit code 1;exit code 1;");
}

TEST_CASE("A reader that forks isn't followed by on_exit in the child") {
  // To whom the kernel says that the process isn't its own.
  OldKernel system;
  Case that(options_on(system));
  const SocketPair pair;
  write_byte(pair.theirs.get());
  that.loop.add_reader(pair.ours.get(), [&] {
    that.order.add('r');
    that.loop.remove_reader(pair.ours.get());
  });
  const auto on_exit = [&](pawl::ChildProcess&, const pawl::ChildExit&) { that.order.add('x'); };
  const pawl::ChildProcess process(that.loop, shell("exit 0"), on_exit);
  system.let_end(process);
  that.check("rx");
}

TEST_CASE("Every way of running ends in the child as run() does") {
  const bool stops = GENERATE(false, true);
  const int way = GENERATE(0, 1, 2, 3);
  EventLoop loop;
  Order order;
  order.loop = &loop;
  order.stop_in_child(stops);
  loop.call_soon([&] {
    order.add('a');
    loop.call_soon([&] {
      order.add('b');
      loop.stop();
    });
  });
  const int code = order.run([&] {
    switch (way) {
      case 0: return loop.run_forever();
      case 1: return loop.run_for(1h);
      case 2:
        if (loop.run_once()) loop.run_once();
        return;
      default:
        if (loop.run_once(1h)) loop.run_once(Duration::zero());
        return;
    }
  });
  CHECK(order.text() == "ab");
  CHECK(code == (stops ? ForkInCallback::returned : ForkInCallback::threw_logic_error));
}

TEST_CASE("A loop that stopped in the child can't be run again there") {
  EventLoop loop;
  ForkInCallback fork;
  loop.call_soon([&] {
    if (fork.fork()) loop.stop();
  });
  loop.call_soon([] {});
  const int code = fork.child_code(
      [&] {
        loop.run();
        if (fork.is_child()) loop.run();
      },
      [] { return 0; });
  CHECK(code == ForkInCallback::threw_logic_error);
}

TEST_CASE("An exception that leaves the callback in the child leaves run() there") {
  EventLoop loop;
  ForkInCallback fork;
  bool went_on = false;
  loop.call_soon([&] {
    if (fork.fork()) throw std::runtime_error("in the child");
  });
  loop.call_soon([&] { went_on = true; });
  const int code = fork.child_code([&] { loop.run(); }, [&] { return went_on ? 1 : 0; });
  CHECK(code == ForkInCallback::threw_else);
  CHECK(went_on);
}

TEST_CASE("An exception handler in the child doesn't make the pass go on") {
  EventLoop loop;
  loop.set_exception_handler([](std::exception_ptr) {});
  ForkInCallback fork;
  bool went_on = false;
  loop.call_soon([&] {
    if (fork.fork()) throw std::runtime_error("in the child");
  });
  loop.call_soon([&] { went_on = true; });
  const int code = fork.child_code([&] { loop.run(); }, [&] { return went_on ? 1 : 0; });
  CHECK(code == ForkInCallback::threw_logic_error);
  CHECK(went_on);
}

TEST_CASE("A loop within a callback of another one ends both in the child") {
  EventLoop outer;
  EventLoop inner;
  ForkInCallback fork;
  std::string order;
  inner.call_soon([&] {
    order += 'i';
    if (fork.fork()) inner.stop();
  });
  inner.call_soon([&] { order += 'j'; });
  outer.call_soon([&] {
    inner.run();
    order += 'o';
  });
  outer.call_soon([&] { order += 'p'; });
  const int code = fork.child_code([&] { outer.run(); }, [&] { return order == "io" ? 0 : 1; });
  CHECK(code == ForkInCallback::threw_logic_error);
  CHECK(order == "ijop");
}

TEST_CASE("A child of a child ends its pass too") {
  EventLoop loop;
  std::string order;
  ForkInCallback fork;
  loop.call_soon([&] {
    order += 'a';
    if (fork.fork() && ::fork() == 0) {
      loop.stop();
      order += 'c';
    }
  });
  loop.call_soon([&] { order += 'b'; });
  const int code =
      fork.child_code([&] { loop.run(); }, [&] { return order == "a" || order == "ac" ? 0 : 1; });
  CHECK(code == ForkInCallback::threw_logic_error);
  CHECK(order == "ab");
}
