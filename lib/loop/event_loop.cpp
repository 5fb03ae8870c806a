// SPDX-License-Identifier: MIT
#include "pawl/loop/event_loop.hpp"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "loop/age.hpp"
#include "loop/loop_parts.hpp"

namespace pawl {

EventLoop::EventLoop(LoopOptions options)
    : parts_(std::make_unique<LoopParts>(std::move(options))) {}

EventLoop::~EventLoop() {
  parts_->services.clear();  // while all that they use of the loop is there
}

Handle EventLoop::call_soon(Function<void()> callback, Place place) {
  if (!callback) CallbackPool::throw_empty_callback(place);
  const Queued queued = queue_soon(place, callback.dies_as_nothing());
  ::new (queued.callback) Function<void()>(std::move(callback));
  return Handle(queued.ticket);
}

EventLoop::Queued EventLoop::queue_soon(Place place, bool dies_as_nothing) {
  LoopParts& parts = *parts_;
  const bool is_easy = !parts.is_debug && !parts.pool.is_exhausted() && !parts.ready.is_full();
  if (__builtin_expect(!is_easy, false)) return queue_soon_with_care(place, dies_as_nothing);
  CallbackSlot* slot = parts.add_soon(place, dies_as_nothing);
  return Queued{&slot->callback(), slot};
}

// Apart, so that the easy way needs no frame.
EventLoop::Queued EventLoop::queue_soon_with_care(Place place, bool dies_as_nothing) {
  parts_->refuse_wrong_thread("call_soon");
  parts_->pool.make_room();
  parts_->ready.make_room();
  CallbackSlot* slot = parts_->add_soon(place, dies_as_nothing);
  return Queued{&slot->callback(), slot};
}

TimerHandle EventLoop::call_later(Duration delay, Function<void()> callback, Place place) {
  parts_->refuse_wrong_thread("call_later");
  const TimePoint when = add_saturated(parts_->system.now(), delay);
  return parts_->add_timer(CallbackKind::timer, when, {}, std::move(callback), place);
}

TimerHandle EventLoop::call_at(TimePoint when, Function<void()> callback, Place place) {
  parts_->refuse_wrong_thread("call_at");
  return parts_->add_timer(CallbackKind::timer, when, {}, std::move(callback), place);
}

TimerHandle EventLoop::call_every(Duration interval, Function<void()> callback, Place place) {
  parts_->refuse_wrong_thread("call_every");
  if (interval <= Duration::zero()) {
    throw std::logic_error("EventLoop::call_every: the interval must be positive; registered at " +
                           to_string(place));
  }
  const TimePoint when = add_saturated(parts_->system.now(), interval);
  return parts_->add_timer(CallbackKind::repeating_timer, when, interval, std::move(callback),
                           place);
}

void EventLoop::call_soon_threadsafe(Function<void()> callback) {
  if (!callback) throw std::logic_error("EventLoop::call_soon_threadsafe: an empty callback");
  parts_->mailbox->post(std::move(callback));
}

std::shared_ptr<Mailbox> EventLoop::mailbox() const { return parts_->mailbox; }

std::error_code EventLoop::add_reader(int fd, Function<void()> callback, Place place) {
  if (parts_->is_wrong_thread("add_reader")) return Errc::wrong_thread;
  return parts_->watches.add_callback(fd, Interest::read, std::move(callback), place,
                                      parts_->pass_time);
}

bool EventLoop::remove_reader(int fd) {
  parts_->refuse_wrong_thread("remove_reader");
  return parts_->watches.remove_callback(fd, Interest::read);
}

std::error_code EventLoop::add_writer(int fd, Function<void()> callback, Place place) {
  if (parts_->is_wrong_thread("add_writer")) return Errc::wrong_thread;
  return parts_->watches.add_callback(fd, Interest::write, std::move(callback), place,
                                      parts_->pass_time);
}

bool EventLoop::remove_writer(int fd) {
  parts_->refuse_wrong_thread("remove_writer");
  return parts_->watches.remove_callback(fd, Interest::write);
}

std::error_code EventLoop::add_handler(int fd, Interest interest, IoHandler& handler, Place place) {
  if (parts_->is_wrong_thread("add_handler")) return Errc::wrong_thread;
  return parts_->watches.add_handler(fd, interest, handler, true, place, parts_->pass_time);
}

std::error_code EventLoop::modify_handler(int fd, Interest interest) {
  if (parts_->is_wrong_thread("modify_handler")) return Errc::wrong_thread;
  return parts_->watches.modify_handler(fd, interest);
}

bool EventLoop::remove_handler(int fd) {
  parts_->refuse_wrong_thread("remove_handler");
  return parts_->watches.remove_handler(fd);
}

std::error_code EventLoop::add_signal_handler(int signal, Function<void()> callback, Place place) {
  if (parts_->is_wrong_thread("add_signal_handler")) return Errc::wrong_thread;
  return parts_->signals.add(signal, std::move(callback), place);
}

bool EventLoop::remove_signal_handler(int signal) {
  parts_->refuse_wrong_thread("remove_signal_handler");
  return parts_->signals.remove(signal);
}

ThreadPool& EventLoop::thread_pool() {
  if (parts_->threads == nullptr) {
    std::size_t count = parts_->options.executor_threads;
    if (count == 0) count = std::min<std::size_t>(std::thread::hardware_concurrency() + 4, 32);
    parts_->threads = std::make_unique<ThreadPool>(count);
  }
  return *parts_->threads;
}

Job EventLoop::start_job(ThreadPool& pool, Function<void()> work, Function<void()> done,
                         Place place) {
  parts_->refuse_wrong_thread("run_in_executor");
  if (parts_->is_forked_child()) LoopParts::throw_used_after_fork();
  return parts_->jobs.start(pool, std::move(work), std::move(done), place, time());
}

void EventLoop::throw_job_dropped() {
  throw std::system_error(std::make_error_code(std::errc::operation_canceled),
                          "ThreadPool: it went before the job began");
}

void EventLoop::run() { parts_->run(false, TimePoint::max()); }

void EventLoop::run_forever() { parts_->run(true, TimePoint::max()); }

void EventLoop::run_for(Duration duration) { parts_->run(false, add_saturated(time(), duration)); }

bool EventLoop::run_once(std::optional<Duration> timeout) { return parts_->run_once(timeout); }

void EventLoop::stop() { parts_->mailbox->stop(); }

bool EventLoop::is_running() const { return parts_->is_running; }

TimePoint EventLoop::time() const { return parts_->system.now(); }

TimePoint EventLoop::pass_time() const { return parts_->pass_time; }

std::optional<TimePoint> EventLoop::next_deadline() const {
  const bool is_ready_now = parts_->selector->flush();
  const std::optional<Duration> limit = parts_->wait_limit(std::nullopt);
  if (is_ready_now || (limit && *limit == Duration::zero())) return parts_->system.now();
  return parts_->next_deadline();
}

Selector& EventLoop::selector() { return *parts_->selector; }

System& EventLoop::system() { return parts_->system; }

bool EventLoop::is_debug() const { return parts_->is_debug; }

Observer* EventLoop::observer() const { return parts_->observer; }

std::string EventLoop::why_alive() const { return parts_->why_alive(); }

void EventLoop::set_exception_handler(Function<void(std::exception_ptr)> handler) {
  parts_->runner.set_exception_handler(std::move(handler));
}

void EventLoop::set_report_sink(Function<void(std::string_view)> sink) {
  parts_->reporter.set_sink(std::move(sink));
}

void EventLoop::report(std::string_view line) {
  if (parts_->is_debug) parts_->reporter.say(line);
}

}  // namespace pawl
