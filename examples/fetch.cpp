// SPDX-License-Identifier: MIT
// Many URLs, one thread, no waiting in line: each request is a connection that goes from CONNECTING
// to DONE, and whichever can go on, goes on. --trace shows each step, --compare what it is good
// for.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "blocking_get.hpp"
#include "console.hpp"
#include "http_get.hpp"
#include "http_url.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/observer.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "program.hpp"
#include "timeline.hpp"
#include "timeline_svg.hpp"

namespace {

constexpr const char* help =
    R"(usage: fetch URL... [--trace] [--compare | --blocking | --busy] [--svg FILE]
             [--output FILE] [--timeout SECONDS]

Gets all URLs at once over HTTP/1.1, and prints for each its status, its bytes
and its time; on a terminal it shows meanwhile how far each is. A reply such as
404 is a reply. What is refused or dropped is one line on standard error and
makes the exit code 1; the others go on. Ctrl-C ends it with exit code 130.

  --trace            every step of every state machine, and when it was made
  --compare          gets them one after the other, then all at once, and draws
                     both
  --blocking         the same, but first in a form that is broken: a callback of
                     the loop that blocks until the reply is there. Debug mode
                     is on, and names its line on standard error
  --busy             the same for sockets that don't block and are asked again
                     and again: shows how often, and what that costs
  --svg FILE         draws how it went, or the comparison, as a picture
  --output FILE      keeps the body (of one URL)
  --timeout SECONDS  how long to be patient with a silent server, default 30)";

struct Settings {
  bool traces = false;
  bool compares = false;
  std::optional<Waiting> broken;  // the form to compare with
  pawl::Duration patience{};
  std::string output;
  std::string svg;
};

// ---- What the state machines say

/// Sees every transition: prints it, and notes in a row of the picture what it means.
class TransitionLog final : public pawl::Observer {
 public:
  explicit TransitionLog(bool prints) : prints_(prints) {}

  /// Counts the time from here.
  void restart() { started_ = std::chrono::steady_clock::now(); }
  pawl::Duration now() const { return std::chrono::steady_clock::now() - started_; }

  /// From now on the machines of `get` are number `number`, and belong to `row`.
  void follow(const HttpGet& get, std::size_t number, TimelineRow& row) {
    followed_[&get.connection()] = followed_[&get.response()] = Followed{number, &row};
    row.marks = {{Phase::connecting, now()}};
    if (prints_) say(number, get.url().text);
  }

  void on_transition(const pawl::Transition& transition) override {
    const auto found = followed_.find(transition.object);
    if (found == followed_.end()) return;
    const auto [number, row] = found->second;
    if (prints_) say(number, describe(transition));
    if (transition.to == "SENDING") mark(*row, Phase::sending);
    if (transition.to == "RECEIVING") mark(*row, Phase::waiting);
    if (transition.from == "STATUS_LINE") mark(*row, Phase::receiving);
  }

 private:
  struct Followed {
    std::size_t number;
    TimelineRow* row;
  };

  /// Phases only go forward, whatever comes twice.
  void mark(TimelineRow& row, Phase phase) const {
    if (row.marks.back().phase < phase) row.marks.push_back({phase, now()});
  }

  static std::string describe(const pawl::Transition& transition) {
    std::string step(transition.from);
    if (transition.from != transition.to) step += " -> " + std::string(transition.to);
    return padded(std::string(transition.machine), 10) + "  " + padded(step, 30) + "  " +
           std::string(transition.event);
  }

  void say(std::size_t number, const std::string& what) const {
    std::printf("%10.3f ms  [%zu]  %s\n", std::chrono::duration<double, std::milli>(now()).count(),
                number, what.c_str());
  }

  bool prints_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::map<const void*, Followed> followed_;
};

// ---- Getting them

/// What all parts of one run of this program share.
struct Job {
  const Settings& settings;
  const std::vector<HttpUrl>& urls;
  pawl::EventLoop& loop;
  TransitionLog& log;
  TimelineStyle style;
  int interrupted_by = 0;               // a signal
  std::vector<TimelinePanel> panels{};  // what is to be drawn
};

/// A row for each URL, named by what isn't the same for all.
std::vector<TimelineRow> rows_for(const std::vector<HttpUrl>& urls) {
  std::vector<TimelineRow> rows;
  const std::string& first = urls[0].authority;
  const bool is_one_server = std::all_of(urls.begin(), urls.end(),
                                         [&](const auto& url) { return url.authority == first; });
  for (const HttpUrl& url : urls) {
    rows.emplace_back();
    rows.back().label = is_one_server ? url.target : url.authority + url.target;
  }
  return rows;
}

/// Gets all URLs, so many at a time.
class Batch {
 public:
  explicit Batch(const Job& job) : job_(job), rows_(rows_for(job.urls)) {}

  void on_each(pawl::Function<void(const HttpGet&)> callback) { on_each_ = std::move(callback); }
  void on_body(pawl::Function<void(std::string_view)> callback) { on_body_ = std::move(callback); }

  /// Begins with the first ones; each that is done lets the next one begin. The loop is stopped
  /// when all are done.
  void start(std::size_t at_once) {
    job_.log.restart();
    while (gets_.size() < at_once && gets_.size() < rows_.size()) start_next();
  }

  /// Those that have begun, in the order of the URLs.
  const std::vector<std::unique_ptr<HttpGet>>& gets() const { return gets_; }
  const std::vector<TimelineRow>& rows() const { return rows_; }
  std::size_t unfinished() const { return rows_.size() - done_; }
  bool has_failed() const { return has_failed_; }
  pawl::Duration elapsed() const { return elapsed_; }

 private:
  void start_next() {
    const std::size_t index = gets_.size();
    gets_.push_back(std::make_unique<HttpGet>(
        job_.loop, job_.urls[index], job_.settings.patience,
        [this](std::string_view bytes) {
          if (on_body_) on_body_(bytes);
        },
        [this, index](HttpGet& get) { on_done(get, rows_[index]); }));
    job_.log.follow(*gets_.back(), index + 1, rows_[index]);
    gets_.back()->ask();
  }

  void on_done(const HttpGet& get, TimelineRow& row) {
    ++done_;
    row.end = elapsed_ = job_.log.now();
    row.has_failed = !get.failure().empty();
    has_failed_ |= row.has_failed;
    if (on_each_) on_each_(get);
    if (gets_.size() < rows_.size()) start_next();
    if (unfinished() == 0) job_.loop.stop();
  }

  const Job& job_;
  pawl::Function<void(const HttpGet&)> on_each_;
  pawl::Function<void(std::string_view)> on_body_;
  std::vector<std::unique_ptr<HttpGet>> gets_;
  std::vector<TimelineRow> rows_;
  std::size_t done_ = 0;
  bool has_failed_ = false;  // true exactly when one of them has
  pawl::Duration elapsed_{};
};

// ---- Saying how it went

/// "200            1048576 bytes    12.3 ms  "
std::string summary(const HttpGet& get) {
  std::string state(to_string(get.connection().state()));
  if (get.is_done()) state = std::to_string(get.response().status());
  if (!get.failure().empty()) state = "failed";
  return padded(state, 10) + right_aligned(std::to_string(get.response().body_bytes()), 12) +
         " bytes" + right_aligned(as_text(get.elapsed()), 11) + "  ";
}

void print_failure(const HttpGet& get) {
  if (!get.failure().empty()) std::fprintf(stderr, "fetch: %s\n", get.failure().c_str());
}

/// A row for each URL on the terminal, drawn again and again in the same place.
class Progress {
 public:
  Progress(pawl::EventLoop& loop, const Batch& batch) : batch_(batch) {
    timer_ = loop.call_every(std::chrono::milliseconds(50), [this] { draw(); });
  }

  void draw() {
    const std::size_t columns = console_size().columns;
    std::string text = drawn_ == 0 ? "" : "\r\x1b[" + std::to_string(drawn_) + "A";
    for (const auto& get : batch_.gets()) {
      const std::string line = summary(*get) + bar(*get) + "  ";
      const std::string url = get->url().authority + get->url().target;
      text += line + shortened(url, columns - std::min(columns, line.size()));
      text += "\x1b[K\n";
    }
    drawn_ = batch_.gets().size();
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  void finish() {
    timer_.cancel();
    draw();
  }

 private:
  static std::string bar(const HttpGet& get) {
    constexpr std::size_t width = 12;
    const auto length = get.response().body_length();
    double share = get.is_done() && get.failure().empty() ? 1 : 0;
    if (length && *length > 0) {
      share = static_cast<double>(get.response().body_bytes()) / static_cast<double>(*length);
    }
    const auto full = static_cast<std::size_t>(share * static_cast<double>(width));
    return "[" + padded(std::string(full, '#'), width) + "]";
  }

  const Batch& batch_;
  std::size_t drawn_ = 0;  // rows
  pawl::ScopedHandle timer_;
};

// ---- The program's two ways

class Output {
 public:
  explicit Output(const std::string& path) : file_(std::fopen(path.c_str(), "wb")), path_(path) {
    if (file_ == nullptr) fail();
  }
  ~Output() {
    if (file_ != nullptr) std::fclose(file_);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void write(std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail();
  }
  void close() {
    if (std::fclose(std::exchange(file_, nullptr)) != 0) fail();
  }

 private:
  [[noreturn]] void fail() const { throw std::system_error(errno, std::system_category(), path_); }

  std::FILE* file_;
  std::string path_;
};

/// Not while a broken form runs: nobody would listen, so a Ctrl-C then ends the program itself.
void interrupt_with(Job& job) {
  on_interrupt(job.loop, [&job](int signal) {
    job.interrupted_by = signal;
    job.loop.stop();
  });
}

/// Exit codes: 0, 1 when one has failed, 130 for Ctrl-C.
int exit_code(const Job& job, const Batch& batch) {
  if (batch.unfinished() == 0) return batch.has_failed() ? 1 : 0;
  std::fprintf(stderr, "fetch: interrupted, with %zu unfinished\n", batch.unfinished());
  return 128 + job.interrupted_by;
}

int fetch_all(Job& job) {
  Batch batch(job);
  std::unique_ptr<Output> output;
  if (!job.settings.output.empty()) {
    output = std::make_unique<Output>(job.settings.output);
    batch.on_body([&](std::string_view bytes) { output->write(bytes); });
  }
  std::unique_ptr<Progress> progress;
  if (is_terminal() && !job.settings.traces && job.urls.size() < console_size().rows) {
    progress = std::make_unique<Progress>(job.loop, batch);
  }
  batch.on_each([&](const HttpGet& get) {
    if (progress != nullptr) return;
    if (get.failure().empty()) std::printf("%s%s\n", summary(get).c_str(), get.url().text.c_str());
    print_failure(get);
  });
  batch.start(job.urls.size());
  job.loop.run();
  if (progress != nullptr) {
    progress->finish();
    for (const auto& get : batch.gets()) print_failure(*get);
  }
  if (output != nullptr) output->close();
  job.panels.push_back({"all at once", batch.rows(), batch.elapsed()});
  if (batch.unfinished() == 0) {
    forget_interrupt(job.loop);
    job.loop.run();  // until all connections are DONE
  }
  return exit_code(job, batch);
}

/// Draws on an axis that is as long as the longest one so far.
void draw(Job& job, TimelinePanel panel) {
  pawl::Duration end = panel.elapsed;
  for (const TimelinePanel& earlier : job.panels) end = std::max(end, earlier.elapsed);
  const Timeline timeline(job.style, end, console_size().columns);
  std::printf("%s: %s\n\n%s\n", panel.title.c_str(), as_text(panel.elapsed).c_str(),
              timeline.draw(panel.rows).c_str());
  job.panels.push_back(std::move(panel));
}

/// Gets all, so many at a time, and draws it. False when it was interrupted.
bool run_and_draw(Job& job, const char* title, std::size_t at_once, Batch& batch) {
  batch.on_each([](const HttpGet& get) { print_failure(get); });
  batch.start(at_once);
  job.loop.run();
  if (batch.unfinished() > 0) return false;
  draw(job, {title, batch.rows(), batch.elapsed()});
  return true;
}

void print_share(const Job& job) {
  std::printf("all at once took %.2f of the time\n",
              static_cast<double>(job.panels[1].elapsed.count()) /
                  static_cast<double>(job.panels[0].elapsed.count()));
}

int compare(Job& job) {
  std::printf("%s\n", job.style.legend().c_str());
  Batch in_sequence(job);
  Batch together(job);
  if (!run_and_draw(job, "one after the other", 1, in_sequence)) return exit_code(job, in_sequence);
  if (!run_and_draw(job, "all at once", job.urls.size(), together)) return exit_code(job, together);
  print_share(job);
  return std::max(exit_code(job, in_sequence), exit_code(job, together));
}

// ---- How not to do it

/// What this process has cost so far.
pawl::Duration processor_time() {
  return std::chrono::nanoseconds(std::clock() * (1'000'000'000 / CLOCKS_PER_SEC));
}

/// Gets all URLs in callbacks that each keep the loop until a reply is complete: nothing else can
/// happen meanwhile, no timer and no other URL. False when one has failed.
bool run_broken(Job& job, Waiting waiting) {
  std::vector<TimelineRow> rows = rows_for(job.urls);
  BlockingGet::Tries tries;
  bool is_good = true;
  job.log.restart();
  const pawl::Duration cost_before = processor_time();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    job.loop.call_soon([&, i] {
      BlockingGet get(job.urls[i], waiting, job.settings.patience, [](std::string_view) {});
      get.run(rows[i], [&] { return job.log.now(); });
      tries += get.tries();
      if (get.failure().empty()) return;
      is_good = false;
      std::fprintf(stderr, "fetch: %s\n", get.failure().c_str());
    });
  }
  job.loop.run();
  const pawl::Duration cost = processor_time() - cost_before;
  const char* title = waiting == Waiting::busy ? "asked again and again, one after the other"
                                               : "blocked, one after the other";
  draw(job, {title, rows, job.log.now()});
  std::printf("tried connect %llu, send %llu, recv %llu times; %s of processor time\n\n",
              static_cast<unsigned long long>(tries.connect),
              static_cast<unsigned long long>(tries.send),
              static_cast<unsigned long long>(tries.receive), as_text(cost).c_str());
  return is_good;
}

int compare_with_broken(Job& job, Waiting waiting) {
  std::printf("%s\n", job.style.legend().c_str());
  const bool is_good = run_broken(job, waiting);
  interrupt_with(job);
  Batch together(job);
  const pawl::Duration cost_before = processor_time();
  if (!run_and_draw(job, "all at once", job.urls.size(), together)) return exit_code(job, together);
  std::printf("%s of processor time\n\n", as_text(processor_time() - cost_before).c_str());
  print_share(job);
  return std::max(is_good ? 0 : 1, exit_code(job, together));
}

int fetch(Job& job) {
  if (job.settings.broken) return compare_with_broken(job, *job.settings.broken);
  interrupt_with(job);
  return job.settings.compares ? compare(job) : fetch_all(job);
}

Settings read_settings(Options& words) {
  Settings settings;
  settings.traces = words.flag("--trace");
  settings.compares = words.flag("--compare");
  if (words.flag("--blocking")) settings.broken = Waiting::blocked;
  const bool is_busy = words.flag("--busy");
  if (is_busy && settings.broken) throw std::invalid_argument("--blocking or --busy, not both");
  if (is_busy) settings.broken = Waiting::busy;
  settings.output = words.text("--output").value_or("");
  settings.svg = words.text("--svg").value_or("");
  settings.patience = words.seconds("--timeout", std::chrono::seconds(30));
  return settings;
}

int run(Options& words) {
  const Settings settings = read_settings(words);
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  std::vector<HttpUrl> urls;
  for (const std::string& word : words.rest()) urls.push_back(HttpUrl::parse(word));
  if (urls.empty()) throw ShowHelp();
  const bool draws = settings.compares || settings.broken;
  if (settings.compares && settings.broken) {
    throw std::invalid_argument("--compare is without --blocking and --busy");
  }
  if (!settings.output.empty() && (urls.size() > 1 || draws)) {
    throw std::invalid_argument("--output is for one URL, and for no comparison");
  }

  TransitionLog log(settings.traces);
  if (settings.traces || draws || !settings.svg.empty()) options.observer = &log;
  options.debug = settings.broken.has_value();
  std::unique_ptr<Output> svg;  // a file that can't be written is told before anything is fetched
  if (!settings.svg.empty()) svg = std::make_unique<Output>(settings.svg);
  pawl::EventLoop loop(std::move(options));
  Job job{settings, urls, loop, log,
          speaks_utf8() ? TimelineStyle::utf8() : TimelineStyle::ascii()};
  const int exit_code = fetch(job);
  if (svg != nullptr) {
    svg->write(TimelineSvg(job.panels).draw());
    svg->close();
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return run_program("fetch", help, argc, argv, run); }
