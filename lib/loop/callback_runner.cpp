// SPDX-License-Identifier: MIT
#include "loop/callback_runner.hpp"

namespace pawl {
namespace {

std::string_view word_for(CallbackKind kind) {
  switch (kind) {
    case CallbackKind::soon: return "call_soon callback";
    case CallbackKind::timer:
    case CallbackKind::moving_timer: return "timer";
    case CallbackKind::repeating_timer: return "repeating timer";
    case CallbackKind::reader: return "reader";
    case CallbackKind::writer: return "writer";
    case CallbackKind::signal: return "signal handler";
  }
  return "callback";
}

}  // namespace

std::string describe(const CallbackSlot& slot) {
  return std::string(word_for(slot.kind)) + " registered at " + to_string(slot.place());
}

void CallbackRunner::run_once_timed(CallbackSlot* slot) {
  slot->status = CallbackStatus::running;
  const Once at_the_end{*this, slot};
  call_timed(slot);
}

// The handler comes first: it may look at what was captured.
void CallbackRunner::end_once_after_exception(CallbackSlot* slot) {
  const Once at_the_end{*this, slot};
  handle_exception();
}

void CallbackRunner::call_timed(CallbackSlot* slot) {
  guard_timed([slot] { slot->callback()(); }, [slot] { return describe(*slot); });
}

void CallbackRunner::handle_exception() {
  const std::shared_ptr<ExceptionHandler> handler = exception_handler_;
  if (handler == nullptr) throw;
  (*handler)(std::current_exception());
}

void CallbackRunner::report_slow(Duration took, const std::string& who) {
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
  reporter_.say("slow callback: " + who + " took " + std::to_string(milliseconds) +
                " ms; the loop stood still meanwhile");
}

}  // namespace pawl
