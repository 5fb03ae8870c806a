// SPDX-License-Identifier: MIT
#include "loop/loop_parts.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "loop/age.hpp"

namespace pawl {
namespace {

constexpr Duration before_retry = std::chrono::milliseconds(10);

bool is_switched_on(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

}  // namespace

/// Notes for its lifetime that the loop is running, and on which thread.
class LoopParts::RunScope {
 public:
  explicit RunScope(LoopParts& parts) : parts_(parts) {
    if (parts.is_forked_child()) throw_used_after_fork();
    if (parts.is_running) {
      throw std::logic_error("EventLoop: run() called while the loop is running");
    }
    parts.thread = std::this_thread::get_id();
    parts.is_running = true;
    parts.mailbox->end_wait();
  }
  ~RunScope() {
    parts_.mailbox->leave_pass();
    parts_.is_running = false;
  }
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;

 private:
  LoopParts& parts_;
};

LoopParts::LoopParts(LoopOptions wanted)
    : options(std::move(wanted)),
      system(options.system != nullptr ? *options.system : System::real()),
      stream_calls(system),
      is_debug(options.debug || is_switched_on("PAWL_DEBUG")),
      forks_before(fork_count()),
      observer(options.observer),
      selector(system.make_selector(options.selector)),
      mailbox(std::make_shared<Mailbox>(system)),
      pool_owner(new CallbackPool),
      pool(*pool_owner),
      runner(system, pool, reporter, is_debug, options.slow_callback, mailbox->fork_mark()),
      timers(pool),
      ready(pool),
      watches(*selector, pool, runner),
      signals(*mailbox, pool, runner),
      jobs(mailbox),
      pass_time(system.now()) {
  pool.set_queues(&timers, &ready);
  if (is_debug) watches.remember_files(system);
  if (observer == nullptr && is_switched_on("PAWL_TRACE")) {
    tracing_observer = std::make_unique<TracingObserver>(reporter);
    observer = tracing_observer.get();
  }
  const std::error_code error = watches.add_handler(mailbox->wake_fd(), Interest::read, *this,
                                                    false, Place::here(), pass_time);
  if (error) throw std::system_error(error, "EventLoop: watching the wake-up");
  mailbox->leave_pass();
}

LoopParts::~LoopParts() {
  letters.clear();  // what was taken and not run
  jobs.clear();
  threads.reset();  // before the mailbox closes: what their jobs own comes back by it
  mailbox->close(letters);
  letters.clear();
  jobs.clear();
  socks.clear();
  signals.clear();
  orphans.clear();
  polled_children.clear();
  watches.clear();
  ready.clear();
  timers.clear_due();
  pool_owner.reset();
}

void LoopParts::run(bool forever, TimePoint end) {
  const RunScope scope(*this);
  for (;;) {
    const bool is_stopping = mailbox->is_stopping();
    if (!is_stopping && !forever && !is_alive()) return;
    std::optional<Duration> limit;
    if (end != TimePoint::max()) limit = std::max(end - system.now(), Duration::zero());
    pass(limit);
    const bool is_stopped = mailbox->take_stop();
    // The callback that forked has returned: what is left of the pass is the parent's alone.
    if (is_forked_child() && !is_stopped) throw_used_after_fork();
    if (is_stopped || (limit && system.now() >= end)) return;
  }
}

bool LoopParts::run_once(std::optional<Duration> timeout) {
  const RunScope scope(*this);
  if (!timeout && !is_alive() && !mailbox->is_stopping()) return false;
  was_stopped = false;
  pass(timeout);
  was_stopped = mailbox->take_stop();
  if (!is_forked_child()) return is_alive();
  if (!was_stopped) throw_used_after_fork();
  return false;
}

void LoopParts::throw_used_after_fork() {
  throw std::logic_error("EventLoop: used in a forked child; make a new one there");
}

void LoopParts::pass(std::optional<Duration> limit) {
  try {
    make_pass(limit);
  } catch (...) {
    mailbox->take_stop();  // it was meant for the run that ends now
    throw;
  }
}

void LoopParts::make_pass(std::optional<Duration> limit) {
  poll(limit);
  try {
    begin_batches();
  } catch (...) {  // out of memory
    watches.put_off(ready_fds);
    throw;
  }
  watches.dispatch(ready_fds);
  if (!polled_children.empty()) polled_children.look(pass_time, runner);
  run_signals();
  if (timers.has_due()) run_timers();
  if (next_letter < letters.size()) run_letters();
  if (ready.has_batch()) run_ready();
  if (!deferred.empty()) run_deferred();
}

/// All of them before any callback: what one of them posts waits for the next pass.
void LoopParts::begin_batches() {
  deferred.begin_batch();
  ready.begin_batch(options.ready_budget);
  timers.collect(pass_time, options.timer_budget);
  if (next_letter == letters.size() && mailbox->has_letters()) {
    letters.clear();
    next_letter = 0;
    mailbox->take_letters(letters);
    had_letters = true;
  }
}

void LoopParts::poll(std::optional<Duration> limit) {
  ++pass_number;
  if (!retries.empty()) retries.run();
  pass_end.run();
  if (is_debug) watches.report_closed_ones(system, reporter);
  if (const std::error_code error = select(wait_limit(limit))) throw_unpolled(error);
  pass_time = system.now();
}

void LoopParts::throw_unpolled(std::error_code error) const {
  if (error == Errc::used_after_fork) throw_used_after_fork();
  throw std::system_error(error, "EventLoop: selector " + std::string(selector->name()));
}

std::error_code LoopParts::select(std::optional<Duration> limit) {
  const bool had_some = std::exchange(had_letters, false);
  if (limit && *limit <= Duration::zero()) return selector->select(limit, ready_fds);
  if (had_some) {
    // Where letters come, more do. A look costs less than to be woken, which the sender pays too.
    const std::error_code error = selector->select(Duration::zero(), ready_fds);
    if (error || !ready_fds.empty() || mailbox->has_letters()) return error;
  }
  if (!mailbox->begin_wait()) limit = Duration::zero();
  const std::error_code error = selector->select(limit, ready_fds);
  mailbox->end_wait();
  return error;
}

std::optional<Duration> LoopParts::wait_limit(std::optional<Duration> limit) const {
  const bool has_work =
      !ready.empty() || next_letter < letters.size() || !pass_end.empty() || !deferred.empty();
  if (has_work) return Duration::zero();
  const std::optional<TimePoint> deadline = next_deadline();
  if (!deadline || (limit && *limit <= Duration::zero())) return limit;
  const Duration until = std::max(*deadline - system.now(), Duration::zero());
  return limit ? std::min(*limit, until) : until;
}

std::optional<TimePoint> LoopParts::next_deadline() const {
  const std::optional<TimePoint> deadline = timers.next_deadline();
  if (__builtin_expect(polled_children.empty() && retries.empty(), true)) return deadline;
  TimePoint earliest = deadline.value_or(TimePoint::max());
  if (!polled_children.empty()) earliest = std::min(earliest, polled_children.next_look());
  if (!retries.empty()) earliest = std::min(earliest, pass_time + before_retry);
  return earliest;
}

void LoopParts::run_signals() {
  if (const std::uint64_t set = mailbox->take_signals()) signals.run(set);
}

void LoopParts::run_timers() {
  for (std::size_t i = 0; i < options.timer_budget && !is_forked_child(); ++i) {
    CallbackSlot* slot = timers.pop_due();
    if (slot == nullptr) return;
    if (slot->kind == CallbackKind::timer) {
      runner.run_once(slot);
      continue;
    }
    struct Rearm {
      LoopParts& parts;
      CallbackSlot* slot;
      ~Rearm() { parts.rearm(slot); }
    };
    const Rearm at_the_end{*this, slot};
    runner.run(slot);
  }
}

void LoopParts::rearm(CallbackSlot* slot) {
  if (slot->status == CallbackStatus::cancelled) return pool.release(slot);
  const Duration interval = slot->body().interval;
  if (slot->kind == CallbackKind::moving_timer) {
    if (interval == Duration::zero()) return pool.abandon(slot);
    slot->when = add_saturated(slot->when, interval);
    slot->body().interval = Duration::zero();
    return timers.add(slot);
  }
  const TimePoint now = system.now();
  const Duration late = now - slot->when;
  const auto missed = late > Duration::zero() ? late / interval : 0;
  slot->when = add_saturated(slot->when, interval * (missed + 1));
  timers.add(slot);
}

void LoopParts::run_again_at(const TimerHandle& timer, TimePoint when) {
  CallbackSlot* slot = CallbackPool::slot_of(timer);
  slot->body().interval = std::max(when - slot->when, Duration(1));
}

void LoopParts::run_letters() {
  for (std::size_t i = 0; i < options.ready_budget && next_letter < letters.size(); ++i) {
    if (is_forked_child()) return;
    struct Free {
      Function<void()>& letter;
      ~Free() { letter.reset(); }
    };
    Function<void()>& letter = letters[next_letter++];
    const Free at_the_end{letter};
    runner.guard([&] { letter(); }, [] { return std::string("call_soon_threadsafe callback"); });
  }
}

void LoopParts::run_deferred() {
  deferred.run([this] { return !is_forked_child(); },
               [this](auto call) {
                 runner.guard(call,
                              [] { return std::string("a callback that was put off by a pass"); });
               });
}

void LoopParts::run_ready() {
  while (!is_forked_child()) {
    CallbackSlot* slot = ready.take();
    if (slot == nullptr) return;
    runner.run_once(slot);
  }
}

bool LoopParts::is_alive() const {
  return !ready.empty() || next_letter < letters.size() || !timers.empty() || !deferred.empty() ||
         watches.live_count() > 0 || signals.size() > 0 || jobs.size() > 0 ||
         mailbox->has_letters() || !retries.empty() || polled_children.is_alive();
}

std::string LoopParts::why_alive() {
  const TimePoint now = system.now();
  std::string text;
  pool.for_each_pending([&](const CallbackSlot& slot) {
    if (slot.kind == CallbackKind::soon) text += pawl::describe(slot) + "\n";
    if (!slot.is_timer()) return;
    // Not before the epoch, so that the difference can be counted.
    const Duration until = std::max(slot.when, TimePoint{}) - now;
    text += pawl::describe(slot) + ", due in " + to_age(until) + "\n";
  });
  const bool has_letters = next_letter < letters.size() || mailbox->has_letters();
  if (has_letters) text += "call_soon_threadsafe callbacks\n";
  if (!deferred.empty()) text += "callbacks that were put off by a pass\n";
  text += watches.describe_live(now) + signals.describe_live() + jobs.describe_live(now) +
          polled_children.describe_live();
  for (auto& describe : describers) text += describe(now);
  return text;
}

void LoopParts::on_ready(Interest) {
  // Somebody closed a descriptor that wasn't theirs: it would be ready again and again.
  const std::error_code error = mailbox->drain_wake_fd();
  if (error) throw std::system_error(error, "EventLoop: reading the wake-up");
}

std::string LoopParts::describe() const { return "wake-up"; }

namespace {

std::string wrong_thread_text(const char* operation) {
  return std::string(operation) +
         " called from a thread that is not the loop's; use call_soon_threadsafe";
}

}  // namespace

bool LoopParts::report_wrong_thread(const char* operation) {
  reporter.say(wrong_thread_text(operation));
  return true;
}

void LoopParts::throw_wrong_thread(const char* operation) {
  throw std::logic_error(wrong_thread_text(operation));
}

void LoopParts::tell_wrong_thread(const char* operation) noexcept {
  try {
    is_wrong_thread(operation);
  } catch (...) {  // the sink's, or there was no memory: one line less
  }
}

void LoopParts::end_handler(int fd) noexcept {
  tell_wrong_thread("remove_handler");
  watches.remove_handler(fd);
}

}  // namespace pawl
