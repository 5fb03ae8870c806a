// SPDX-License-Identifier: MIT
// The program that "But what's async anyway?" begins with: ask two servers again and again, where
// each reply says how long to wait before the next request, and never let one wait for the other.
//
// What a coroutine would keep in its frame stands here in the open: the line it is on is `state()`,
// its variables are members.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blocking_get.hpp"
#include "console.hpp"
#include "http_get.hpp"
#include "http_url.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/state_table.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: poller URL URL... [--count N] [--blocking] [--timeout SECONDS]

Asks each server again and again. The body of each reply is a number: the
seconds to wait before the next request. No server ever waits for another one.
A request that failed is one line on standard error, and is repeated after the
delay that the server asked for last (at first: a second).

Runs until --count, or until Ctrl-C, which ends it with exit code 130. Try it
with two of these:
  http_server --port 8001 --next 1 &
  http_server --port 8002 --next 0.3 &
  poller http://127.0.0.1:8001/next http://127.0.0.1:8002/next

  --count N          end after N requests to each; exit code 1 when one of them
                     failed
  --blocking         first a form that is broken: it sleeps and asks in a
                     callback, so each server waits for the others. Debug mode
                     is on, and names the callback's line on standard error.
                     With --count the right form follows, and how long each
                     took
  --timeout SECONDS  how long to be patient with a silent server, default 30)";

enum class PollerState : std::uint8_t { asking, waiting, done };
enum class PollerEvent : std::uint8_t { reply, time_is_up, enough };

constexpr pawl::StateTable<PollerState, PollerEvent, 3, 3> poller_table{
    "poller",
    {"ASKING", "WAITING", "DONE"},
    {"reply", "time is up", "enough"},
    {{
        // reply             time_is_up           enough
        {{PollerState::waiting, {}, PollerState::done}},
        {{{}, PollerState::asking, PollerState::done}},
        {{PollerState::done, PollerState::done, PollerState::done}},
    }}};
static_assert(poller_table.every_state_reaches(PollerState::done));
static_assert(poller_table.absorbs_all(PollerState::done));

struct Settings {
  std::uint64_t count = 0;  // 0: for ever
  pawl::Duration patience{};
};

/// What is heard from one server, whoever asks it.
class Conversation {
 public:
  Conversation(const pawl::EventLoop& loop, HttpUrl url, std::uint64_t count)
      : loop_(loop), url_(std::move(url)), count_(count), started_(loop.time()) {}

  const HttpUrl& url() const { return url_; }
  pawl::Duration time_before_next_request() const { return time_before_next_request_; }
  bool is_enough() const { return replies_ == count_; }
  bool has_failed() const { return has_failed_; }

  void begin_reply() { body_.clear(); }
  void keep(std::string_view bytes) {
    constexpr std::size_t longest_number = 64;
    body_ += bytes.substr(0, longest_number + 1 - std::min(body_.size(), longest_number + 1));
  }
  /// `failure` says why there is none.
  void end_reply(const std::string& failure, int status) {
    ++replies_;
    const std::string problem = failure.empty() ? read_delay(status) : failure;
    if (problem.empty()) {
      std::printf("%8.3f s  %s  next request in %s\n", seconds_since_start(), url_.text.c_str(),
                  as_text(time_before_next_request_).c_str());
    } else {
      has_failed_ = true;
      std::fprintf(stderr, "poller: %s\n", problem.c_str());
    }
  }

 private:
  /// Returns what is wrong with the reply, or nothing.
  std::string read_delay(int status) {
    if (status != 200) return url_.text + ": the reply is " + std::to_string(status) + ", not 200";
    const auto end = body_.find_last_not_of(" \t\r\n");
    const std::string number = body_.substr(0, end == std::string::npos ? 0 : end + 1);
    const auto delay = parse_seconds(number);
    if (!delay) return url_.text + ": the reply is " + quoted(body_) + ", not a number of seconds";
    time_before_next_request_ = *delay;
    return {};
  }

  double seconds_since_start() const {
    return std::chrono::duration<double>(loop_.time() - started_).count();
  }

  const pawl::EventLoop& loop_;
  const HttpUrl url_;
  const std::uint64_t count_;
  const pawl::TimePoint started_;
  pawl::Duration time_before_next_request_ = std::chrono::seconds(1);
  std::uint64_t replies_ = 0;
  bool has_failed_ = false;  // true exactly after a request that got no delay
  std::string body_;
};

/// One server, asked for ever.
class Poller {
 public:
  Poller(pawl::EventLoop& loop, HttpUrl url, const Settings& settings,
         pawl::Function<void()> on_enough)
      : loop_(loop),
        settings_(settings),
        on_enough_(std::move(on_enough)),
        conversation_(loop, std::move(url), settings.count) {}

  void ask() {
    conversation_.begin_reply();
    get_ = std::make_unique<HttpGet>(
        loop_, conversation_.url(), settings_.patience,
        [this](std::string_view bytes) { conversation_.keep(bytes); },
        [this](HttpGet& get) { on_reply(get); });
    get_->ask();
  }

  bool has_failed() const { return conversation_.has_failed(); }

 private:
  void step(PollerEvent event) {
    machine_.step(event, loop_.observer(), this, conversation_.url().text);
  }

  void on_reply(const HttpGet& get) {
    conversation_.end_reply(get.failure(), get.response().status());
    if (conversation_.is_enough()) {
      step(PollerEvent::enough);
      return on_enough_();
    }
    step(PollerEvent::reply);
    timer_ = loop_.call_later(conversation_.time_before_next_request(), [this] {
      step(PollerEvent::time_is_up);
      ask();
    });
  }

  pawl::EventLoop& loop_;
  const Settings& settings_;
  pawl::Function<void()> on_enough_;
  Conversation conversation_;
  pawl::StateMachine<poller_table> machine_{PollerState::asking};
  std::unique_ptr<HttpGet> get_;
  pawl::ScopedHandle timer_;
};

/// The document's first form, a turn at a time: `time.sleep(delay); http.request("GET", addr)`. No
/// other server is heard meanwhile.
class BlockingPoller {
 public:
  BlockingPoller(pawl::EventLoop& loop, HttpUrl url, const Settings& settings)
      : loop_(loop), settings_(settings), conversation_(loop, std::move(url), settings.count) {}

  void ask_after(pawl::Duration delay) {
    loop_.call_soon([this, delay] { send_to_server(delay); });
  }

 private:
  void send_to_server(pawl::Duration delay) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(delay);
    const timespec time{seconds.count(), (delay - seconds).count()};
    ::nanosleep(&time, nullptr);
    conversation_.begin_reply();
    BlockingGet get(conversation_.url(), Waiting::blocked, settings_.patience,
                    [this](std::string_view bytes) { conversation_.keep(bytes); });
    TimelineRow nobody_looks_at;
    get.run(nobody_looks_at, [] { return pawl::Duration(); });
    conversation_.end_reply(get.failure(), get.response().status());
    if (!conversation_.is_enough()) ask_after(conversation_.time_before_next_request());
  }

  pawl::EventLoop& loop_;
  const Settings& settings_;
  Conversation conversation_;
};

pawl::Duration run_blocking(pawl::EventLoop& loop, const std::vector<HttpUrl>& urls,
                            const Settings& settings) {
  std::printf("in callbacks that block\n");
  const pawl::TimePoint started = loop.time();
  std::vector<std::unique_ptr<BlockingPoller>> pollers;
  for (const HttpUrl& url : urls) {
    pollers.push_back(std::make_unique<BlockingPoller>(loop, url, settings));
    pollers.back()->ask_after({});
  }
  loop.run();
  const pawl::Duration took = loop.time() - started;
  std::printf("took %s\nin callbacks that don't\n", as_text(took).c_str());
  return took;
}

int run_polling(pawl::EventLoop& loop, const std::vector<HttpUrl>& urls, const Settings& settings) {
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    loop.stop();
  });
  std::vector<std::unique_ptr<Poller>> pollers;
  std::size_t busy = urls.size();
  for (const HttpUrl& url : urls) {
    pollers.push_back(std::make_unique<Poller>(loop, url, settings, [&] {
      if (--busy == 0) forget_interrupt(loop);  // then nothing keeps the loop
    }));
  }
  for (const auto& poller : pollers) poller->ask();
  loop.run();
  if (interrupted_by != 0) return 128 + interrupted_by;
  for (const auto& poller : pollers) {
    if (poller->has_failed()) return 1;
  }
  return 0;
}

int run(Options& words) {
  Settings settings;
  settings.count = words.number("--count", 0, 1, 1'000'000'000);
  settings.patience = words.seconds("--timeout", std::chrono::seconds(30));
  const bool blocks = words.flag("--blocking");
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  loop_options.debug = blocks;
  std::vector<HttpUrl> urls;
  for (const std::string& word : words.rest()) urls.push_back(HttpUrl::parse(word));
  if (urls.empty()) throw ShowHelp();

  pawl::EventLoop loop(std::move(loop_options));
  pawl::Duration blocked{};
  if (blocks) blocked = run_blocking(loop, urls, settings);  // a Ctrl-C ends the program itself
  const pawl::TimePoint started = loop.time();
  const int exit_code = run_polling(loop, urls, settings);
  if (blocks && exit_code == 0) {
    const pawl::Duration took = loop.time() - started;
    std::printf("took %s, %.2f of the time\n", as_text(took).c_str(),
                static_cast<double>(took.count()) / static_cast<double>(blocked.count()));
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return run_program("poller", help, argc, argv, run); }
