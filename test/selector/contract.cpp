// SPDX-License-Identifier: MIT
#include "selector/contract.hpp"

#include <ctime>

#include "pawl/system/system.hpp"

using pawl::Duration;
using pawl::Interest;
using pawl::Ready;

namespace {

const std::vector<std::string_view>& selector_names() {
  static const std::vector<std::string_view> names = pawl::available_selectors();
  return names;
}

Duration processor_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

std::string Catch::StringMaker<Interest>::convert(Interest interest) {
  std::string text;
  if (has(interest, Interest::read)) text += " read";
  if (has(interest, Interest::write)) text += " write";
  if (has(interest, Interest::priority)) text += " priority";
  return text.empty() ? "none" : text.substr(1);
}

std::string Catch::StringMaker<Events>::convert(const Events& events) {
  std::string text = "{";
  for (const auto& [fd, interest] : events) {
    text += " " + std::to_string(fd) + ": " + StringMaker<Interest>::convert(interest);
  }
  return text + " }";
}

SelectorContract::SelectorContract() {
  const auto name = GENERATE(from_range(selector_names()));
  const bool is_disturbed = GENERATE(false, true);
  selector = pawl::make_selector(name);
  message_ = std::make_unique<Catch::ScopedMessage>(
      Catch::MessageBuilder("INFO", CATCH_INTERNAL_LINEINFO, Catch::ResultWas::Info)
      << "on " << name << (is_disturbed ? ", under signals" : ""));
  if (is_disturbed) interrupter_.emplace();
}

Events SelectorContract::select(std::optional<Duration> timeout) {
  std::vector<Ready> ready{Ready{{-1, Interest::none, nullptr}, Interest::none}};
  REQUIRE_FALSE(selector->select(timeout, ready));
  Events events;
  for (const Ready& one : ready) {
    const pawl::SelectorKey* key = selector->get_key(one.key.fd);
    // Nothing came: a hang-up, while nothing was waited for.
    const bool is_for_nothing = one.events == Interest::none;
    const bool is_sound = key != nullptr && key->interest == one.key.interest &&
                          key->data == one.key.data && has(one.key.interest, one.events) &&
                          is_for_nothing == (one.key.interest == Interest::none);
    if (!is_sound) FAIL("nobody asked for this of " << one.key.fd);
    if (!events.emplace(one.key.fd, one.events).second) FAIL(one.key.fd << " came twice");
  }
  return events;
}

bool SelectorContract::waits_quietly() {
  constexpr Duration span = std::chrono::milliseconds(2);
  Duration used = span;
  for (int attempt = 0; attempt < 30 && used > span / 2;
       ++attempt) {  // who spins does it each time
    const Duration used_before = processor_time();
    const pawl::TimePoint start = pawl::System::real().now();
    const Events events = select(span);
    const Duration waited = pawl::System::real().now() - start;
    used = processor_time() - used_before;
    CHECK(events == Events{});
    CHECK(waited.count() >= span.count());
    if (!events.empty() || waited < span) return false;
  }
  CHECK(used.count() <= (span / 2).count());
  return used <= span / 2;
}
