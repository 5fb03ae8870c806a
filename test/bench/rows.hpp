#pragma once
// SPDX-License-Identifier: MIT
// The rows of the table: what is measured, and what pawl has set itself for it.

#include <optional>
#include <string>
#include <vector>

#include "contender.hpp"

namespace bench {

/// Nothing where a contender can't do what the row asks for.
using Figure = std::optional<double>;

struct Goal {
  double limit;
  /// "libev", "Asio", "best peer" (hand-written code is none), or "" for an absolute limit.
  std::string against;
};

struct Row {
  std::string name;
  std::string unit;
  std::vector<Goal> goals;
};

/// Rows that come from one run of a contender, because one prepares the other.
struct Group {
  std::vector<Row> rows;
  /// A figure for each row, in their order; all empty when the contender can't.
  std::function<std::vector<Figure>(const Contender&)> measure;
};

/// `quick` is true exactly when small sizes are enough to see that everything works.
std::vector<Group> all_groups(bool quick);

}  // namespace bench
