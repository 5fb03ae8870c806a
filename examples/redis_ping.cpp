// SPDX-License-Identifier: MIT
// A library that knows libev, in a pawl program: hiredis's own adapter talks to Redis, LibevHost
// lets pawl's timers and signals run on the same thread, and not a line of glue is between them.
#include <ev.h>
#include <hiredis/adapters/libev.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "console.hpp"
#include "http_url.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/libev_host.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: redis_ping ADDRESS:PORT|unix:PATH [--count N] [--every SECONDS]

Sends PINGs to a Redis server, each when the reply to the last one is there, and
says how long they took, and how often a timer ticked beside them. Exit code 1
when the server is or goes away, 130 on Ctrl-C. Try it with:
  redis-server --port 7777 &
  redis_ping 127.0.0.1:7777

  --count N          default 100
  --every SECONDS    between two ticks of the timer, default 0.01)";

/// One asynchronous connection of hiredis's on a libev loop, and the PINGs on it.
///
/// Calls: `on_end` once, when all replies are there or `problem()` says why they aren't.
class Pinger {
 public:
  Pinger(struct ev_loop* host, const pawl::EventLoop& loop, const std::string& address,
         std::uint64_t count, pawl::Function<void()> on_end)
      : loop_(loop), address_(address), count_(count), on_end_(std::move(on_end)) {
    context_ = connect(address);
    if (context_ == nullptr) throw std::bad_alloc();
    context_->data = this;
    if (context_->err != 0) return;  // `begin` tells
    redisLibevAttach(host, context_);
    redisAsyncSetConnectCallback(context_, [](const redisAsyncContext* context, int status) {
      if (context->data != nullptr) of(context).on_connected(context, status);
    });
    redisAsyncSetDisconnectCallback(context_, [](const redisAsyncContext* context, int status) {
      if (context->data != nullptr) of(context).on_disconnected(context, status);
    });
  }
  ~Pinger() {
    if (context_ == nullptr) return;
    context_->data = nullptr;  // its last callbacks come from inside
    redisAsyncFree(context_);
  }
  Pinger(const Pinger&) = delete;
  Pinger& operator=(const Pinger&) = delete;

  /// A connection that failed at once has no event to tell it by.
  void begin() {
    if (context_->err != 0) end(context_->errstr);
  }

  const std::string& problem() const { return problem_; }
  const std::vector<pawl::Duration>& round_trips() const { return round_trips_; }

 private:
  static redisAsyncContext* connect(const std::string& address) {
    if (address.substr(0, 5) == "unix:") return redisAsyncConnectUnix(address.substr(5).c_str());
    const HostAndPort peer = HostAndPort::parse(address);
    return redisAsyncConnect(peer.host.c_str(), peer.port);
  }

  static Pinger& of(const redisAsyncContext* context) {
    return *static_cast<Pinger*>(context->data);
  }

  void on_connected(const redisAsyncContext* context, int status) {
    if (status == REDIS_OK) {
      std::printf("connected to %s\n", address_.c_str());
      return ping();
    }
    const std::string problem = context->errstr;
    context_ = nullptr;  // hiredis frees it
    end(problem);
  }

  void on_disconnected(const redisAsyncContext* context, int status) {
    context_ = nullptr;
    if (status != REDIS_OK) end(context->errstr);
  }

  void ping() {
    sent_ = loop_.time();
    const int status = redisAsyncCommand(
        context_,
        [](redisAsyncContext* context, void* reply, void*) {
          if (reply != nullptr) of(context).on_reply(*static_cast<redisReply*>(reply));
        },
        nullptr, "PING");
    if (status != REDIS_OK) end("the PING can't be sent");
  }

  void on_reply(const redisReply& reply) {
    const std::string text(reply.str == nullptr ? "" : reply.str);
    if (reply.type != REDIS_REPLY_STATUS || text != "PONG") {
      end("the reply to PING is " + quoted(text));
      return redisAsyncDisconnect(context_);
    }
    round_trips_.push_back(loop_.time() - sent_);
    if (round_trips_.size() < count_) return ping();
    end("");
    redisAsyncDisconnect(context_);
  }

  void end(const std::string& problem) {
    if (!on_end_) return;
    if (!problem.empty()) problem_ = address_ + ": " + problem;
    pawl::Function<void()> on_end = std::move(on_end_);
    on_end();
  }

  const pawl::EventLoop& loop_;
  const std::string address_;
  const std::uint64_t count_;
  pawl::Function<void()> on_end_;
  redisAsyncContext* context_ = nullptr;  // hiredis's, which frees it when the connection ends
  pawl::TimePoint sent_;
  std::vector<pawl::Duration> round_trips_;
  std::string problem_;
};

void print(const std::string& address, std::vector<pawl::Duration> times, int ticks) {
  std::sort(times.begin(), times.end());
  std::printf("%zu PONGs from %s: min %s, median %s, max %s; the timer ticked %d times\n",
              times.size(), address.c_str(), as_text(times.front()).c_str(),
              as_text(times[times.size() / 2]).c_str(), as_text(times.back()).c_str(), ticks);
}

int run(Options& words) {
  const std::uint64_t count = words.number("--count", 100, 1, 100'000'000);
  const pawl::Duration interval = words.seconds("--every", std::chrono::milliseconds(10));
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  const std::vector<std::string> addresses = words.rest();
  if (addresses.empty()) throw ShowHelp();
  if (addresses.size() > 1) throw std::invalid_argument("one server at a time");
  if (interval <= pawl::Duration::zero()) throw std::invalid_argument("--every has to be positive");

  using LibevLoop = std::unique_ptr<struct ev_loop, void (*)(struct ev_loop*)>;
  const LibevLoop libev(ev_loop_new(EVFLAG_NOENV), &ev_loop_destroy);
  if (libev == nullptr) throw std::runtime_error("libev can't make a loop");
  pawl::EventLoop loop(std::move(options));
  pawl::LibevHost host(libev.get(), loop);

  int ticks = 0;
  pawl::ScopedHandle ticker = loop.call_every(interval, [&] { ++ticks; });
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    loop.stop();  // which ends `ev_run` too
  });
  Pinger pinger(libev.get(), loop, addresses[0], count, [&] {
    ticker.cancel();  // now nothing of pawl's keeps `ev_run` from returning
    forget_interrupt(loop);
  });
  pinger.begin();
  ev_run(libev.get(), 0);
  host.rethrow_exception();

  if (interrupted_by != 0) return 128 + interrupted_by;
  if (!pinger.problem().empty()) throw std::runtime_error(pinger.problem());
  print(addresses[0], pinger.round_trips(), ticks);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("redis_ping", help, argc, argv, run); }
