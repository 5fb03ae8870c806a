// SPDX-License-Identifier: MIT
// A kernel, or the filter of a container, that refuses calls that are newer than the oldest Linux:
// each thing that a loop is for is done all the same, or says in a clear error why it isn't.
#include <sys/syscall.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "pawl/core/function.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/resolver.hpp"
#include "pawl/net/server.hpp"
#include "support/forked.hpp"
#include "support/refused_call.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::DatagramSocket;
using pawl::Endpoint;
using pawl::EventLoop;

namespace {

/// What came of one thing, as an exit code. A sanitizer's is 1.
enum Outcome : int { right = 40, clear_error, silence, wrong, can_not_be_refused };

/// Runs until `outcome` is there.
Outcome run(EventLoop& loop, const Outcome& outcome) {
  const pawl::TimePoint give_up = loop.time() + 20s;
  while (outcome == silence && loop.time() < give_up) loop.run_once(100ms);
  return outcome;
}

Outcome converse() {
  EventLoop loop;
  Outcome outcome = silence;
  std::string answer;
  pawl::Server server(loop, Endpoint::loopback(0), [](Connection& self) {
    self.on_data([](Connection& each, std::string_view bytes) { each.write(bytes); });
  });
  server.on_failed([&](std::error_code) { outcome = clear_error; });
  server.on_exhausted([&](std::error_code) { outcome = clear_error; });
  const auto client = Connection::connect(loop, server.local_endpoint());
  client->write("hello");
  client->shutdown();
  client->on_data([&](Connection&, std::string_view bytes) { answer += bytes; });
  client->on_closed([&](Connection&, std::error_code error) {
    outcome = answer == "hello" && !error ? right : error ? clear_error : wrong;
  });
  return run(loop, outcome);
}

Outcome exchange_datagrams() {
  EventLoop loop;
  Outcome outcome = silence;
  int received = 0;
  DatagramSocket receiver(loop, Endpoint::loopback(0));
  DatagramSocket sender(loop, Endpoint::loopback(0));
  receiver.on_datagram([&](DatagramSocket&, const pawl::Datagram& datagram) {
    if (datagram.bytes != "hello") outcome = wrong;
    if (++received == 40 && outcome == silence) outcome = right;
  });
  for (DatagramSocket* each : {&receiver, &sender}) {
    each->on_error([&](DatagramSocket&, const pawl::DatagramError&) { outcome = clear_error; });
    each->on_closed([&](DatagramSocket&, std::error_code) { outcome = clear_error; });
  }
  for (int i = 0; i < 40; ++i) {
    if (sender.send_to("hello", receiver.local_endpoint())) return clear_error;
  }
  return run(loop, outcome);
}

Outcome start_a_program() {
  EventLoop loop;
  Outcome outcome = silence;
  pawl::ChildProcessOptions options;
  options.arguments = {"/bin/sh", "-c", "exit 7"};
  const pawl::ChildProcess child(loop, options, [&](auto&, const pawl::ChildExit& end) {
    outcome = end.ok() ? wrong : right;
  });
  return run(loop, outcome);
}

Outcome work_in_threads() {
  EventLoop loop;
  Outcome outcome = silence;
  loop.run_in_executor([] { return 5; },
                       [&](auto five) { outcome = five && five.get() == 5 ? right : wrong; });
  if (run(loop, outcome) != right) return outcome;
  pawl::LoopGroup group(3, [](EventLoop& each, std::size_t) { each.run_forever(); });
  return right;  // and its destructor joins them
}

Outcome look_a_name_up() {
  EventLoop loop;
  pawl::Resolver resolver(loop);
  Outcome outcome = silence;
  resolver.resolve("localhost", 80, [&](std::error_code error, const auto& endpoints) {
    outcome = error ? clear_error : endpoints.empty() ? wrong : right;
  });
  return run(loop, outcome);
}

struct Thing {
  const char* name;
  Outcome (*does)();
};
const Thing things[] = {{"a conversation", converse},
                        {"datagrams", exchange_datagrams},
                        {"a child", start_a_program},
                        {"threads", work_in_threads},
                        {"a name", look_a_name_up}};

struct Call {
  const char* name;
  long number;
};
const Call calls[] = {
    {"accept4", SYS_accept4},
    {"dup3", SYS_dup3},
    {"epoll_create1", SYS_epoll_create1},
    {"eventfd2", SYS_eventfd2},
    {"getrandom", SYS_getrandom},
#ifndef __clang__  // whose UndefinedBehaviorSanitizer looks at memory by a pipe
    {"pipe2", SYS_pipe2},
#endif
    {"recvmmsg", SYS_recvmmsg},
    {"sendmmsg", SYS_sendmmsg},
#ifdef SYS_epoll_pwait2
    {"epoll_pwait2", SYS_epoll_pwait2},
#endif
#ifdef SYS_pidfd_open
    {"pidfd_open", SYS_pidfd_open},
#endif
#ifdef SYS_clone3
    {"clone3", SYS_clone3},
#endif
#ifdef SYS_faccessat2
    {"faccessat2", SYS_faccessat2},
#endif
};

/// Done in a child, because what is refused stays refused.
int code_of(const Thing& thing, const Call& call, int error) {
  return exit_code_of_fork([&]() -> int {
    if (!refuse_call(call.number, error)) return can_not_be_refused;
    try {
      return thing.does();
    } catch (const std::system_error& refused) {
      return refused.code().value() == error ? clear_error : wrong;
    }
  });
}

}  // namespace

TEST_CASE("Where a newer call is refused all is done without it, or a clear error says so") {
  for (const Call& call : calls) {
    for (const int error : {ENOSYS, EPERM}) {
      for (const Thing& thing : things) {
        INFO(thing.name << " without " << call.name << ": "
                        << std::error_code(error, std::generic_category()).message());
        const int code = code_of(thing, call, error);
        if (code == can_not_be_refused) {
          WARN("skipped: this kernel takes no filter");
          return;
        }
        CHECK((code == right || code == clear_error));
        const std::string_view name = call.name;
        const bool has_another_way =
            name == "epoll_pwait2" || name == "pidfd_open" || (name == "clone3" && error == ENOSYS);
        if (has_another_way) CHECK(code == right);
      }
    }
  }
}
