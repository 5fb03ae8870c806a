// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "console.hpp"
#include "pawl/core/time.hpp"

/// What a request spends its time with.
enum class Phase : std::uint8_t { connecting, sending, waiting, receiving };

/// One request: when each phase began and when the last one ended, from the picture's beginning.
struct TimelineRow {
  struct Mark {
    Phase phase;
    pawl::Duration begin;
  };
  std::string label;
  std::vector<Mark> marks;  ///< in order; a phase may be left out
  pawl::Duration end{};
  bool has_failed = false;

  pawl::Duration elapsed() const { return marks.empty() ? end : end - marks.front().begin; }
};

/// The characters of the picture, one column each.
struct TimelineStyle {
  const char* phases[4];
  const char* failure;
  const char* axis;
  const char* tick;
  const char* corner;
  const char* last_tick;

  static TimelineStyle utf8() { return {{"·", "▸", "─", "█"}, "×", "─", "┴", "└", "┘"}; }
  static TimelineStyle ascii() { return {{".", ">", "-", "#"}, "x", "-", "+", "+", "+"}; }

  /// "·· connecting   ▸▸ sending …"
  std::string legend() const {
    const char* names[] = {"connecting", "sending", "waiting", "receiving"};
    std::string text;
    for (std::size_t i = 0; i < 4; ++i) {
      text += std::string(phases[i]) + phases[i] + " " + names[i] + "   ";
    }
    return text + failure + " failed\n";
  }
};

/// 1, 2 or 5 of some power of ten, so that at most so many ticks are between the beginning and
/// `end`.
inline pawl::Duration tick_step(pawl::Duration end, std::int64_t most) {
  for (std::int64_t power = 1'000;; power *= 10) {
    for (const std::int64_t digit : {1, 2, 5}) {
      if (end.count() / (digit * power) <= std::max<std::int64_t>(most, 1)) {
        return pawl::Duration(digit * power);
      }
    }
  }
}

/// "0", "200 ms", "1.5 s"
inline std::string tick_label(pawl::Duration time) {
  const double milliseconds = static_cast<double>(time.count()) / 1e6;
  char text[64];
  if (milliseconds >= 1000) {
    std::snprintf(text, sizeof text, "%g s", milliseconds / 1000);
  } else {
    std::snprintf(text, sizeof text, "%g ms", milliseconds);
  }
  return time == pawl::Duration::zero() ? "0" : text;
}

/// Draws rows of one axis of time, so wide that everything fits into `columns`.
class Timeline {
 public:
  /// Both pictures of a comparison get the same `end`, so that the eye can compare them.
  Timeline(const TimelineStyle& style, pawl::Duration end, std::size_t columns)
      : style_(style), end_(std::max(end, pawl::Duration(1))), columns_(columns) {}

  std::string draw(const std::vector<TimelineRow>& rows) const {
    std::size_t label_width = 0;
    for (const TimelineRow& row : rows) label_width = std::max(label_width, row.label.size());
    label_width = std::min(label_width, columns_ / 3);
    const std::size_t used = label_width + time_width + 2;
    const std::size_t width = std::max<std::size_t>(columns_ > used ? columns_ - used : 0, 20);
    std::string text;
    for (const TimelineRow& row : rows) {
      text += padded(shortened(row.label, label_width), label_width) + "  " +
              padded(bar(row, width), width) + right_aligned(as_text(row.elapsed()), time_width) +
              "\n";
    }
    return text + axis(label_width + 2, width);
  }

 private:
  static constexpr std::size_t time_width = 10;

  std::size_t column(pawl::Duration time, std::size_t width) const {
    const double share = static_cast<double>(time.count()) / static_cast<double>(end_.count());
    return static_cast<std::size_t>(std::lround(share * static_cast<double>(width)));
  }

  /// Each phase gets at least one column, however short it was, so that it can be seen.
  std::string bar(const TimelineRow& row, std::size_t width) const {
    const std::size_t shortest = row.marks.size() + (row.has_failed ? 1 : 0);
    if (shortest == 0) return {};
    const std::size_t begin = std::min(column(row.marks.front().begin, width), width - shortest);
    const std::size_t end = std::min(std::max(column(row.end, width), begin + shortest), width);
    std::string text(begin, ' ');
    std::size_t drawn = begin;
    for (std::size_t i = 0; i < row.marks.size(); ++i) {
      const std::size_t left_for_others = shortest - i - 1;
      const bool is_last = i + 1 == row.marks.size();
      std::size_t stop = is_last ? end - left_for_others : column(row.marks[i + 1].begin, width);
      stop = std::min(std::max(stop, drawn + 1), end - left_for_others);
      for (; drawn < stop; ++drawn)
        text += style_.phases[static_cast<std::size_t>(row.marks[i].phase)];
    }
    return row.has_failed ? text + style_.failure : text;
  }

  std::string axis(std::size_t indent, std::size_t width) const {
    const pawl::Duration step = tick_step(end_, static_cast<std::int64_t>(width) / 9);
    std::vector<std::size_t> ticks;
    std::string line(indent, ' ');
    std::string labels(indent, ' ');
    for (std::size_t position = 0; position <= width; ++position) {
      const pawl::Duration tick = step * static_cast<std::int64_t>(ticks.size());
      if (tick > end_ || column(tick, width) > position) {
        if (position < width) line += style_.axis;
        continue;
      }
      line += ticks.empty() ? style_.corner : position == width ? style_.last_tick : style_.tick;
      ticks.push_back(position);
      const std::string label = tick_label(tick);
      const std::size_t back = ticks.size() == 1 ? 0 : label.size() / 2;
      labels.resize(std::max(labels.size(), indent + position - back), ' ');
      labels += label;
    }
    return line + "\n" + labels + "\n";
  }

  TimelineStyle style_;
  pawl::Duration end_;
  std::size_t columns_;
};
