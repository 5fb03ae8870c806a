// SPDX-License-Identifier: MIT
#pragma once

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/selector/selector.hpp"
#include "support/interrupter.hpp"

/// What was ready, and with what.
using Events = std::map<int, pawl::Interest>;

template <>
struct Catch::StringMaker<pawl::Interest> {
  static std::string convert(pawl::Interest interest);
};
template <>
struct Catch::StringMaker<Events> {
  static std::string convert(const Events& events);
};

/// What all selectors must do alike: each test case on this fixture runs once for each of them,
/// undisturbed and again under 1,000 signals a second. (The end of a SECTION makes Catch forget
/// which selector it is; GENERATE doesn't.)
class SelectorContract {
 protected:
  SelectorContract();

  /// Waits, and checks that what came belongs to what was asked for.
  Events select(std::optional<pawl::Duration> timeout);
  /// What is ready now.
  Events look() { return select(pawl::Duration::zero()); }
  /// True exactly when a wait of 2 ms ends empty, not early, and hardly used the processor.
  bool waits_quietly();

  bool is_named(std::string_view name) const { return selector->name() == name; }

  std::unique_ptr<pawl::Selector> selector;

 private:
  std::unique_ptr<Catch::ScopedMessage> message_;
  std::optional<Interrupter> interrupter_;
};
