// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "console.hpp"
#include "pawl/core/time.hpp"
#include "timeline.hpp"

/// One run of several requests.
struct TimelinePanel {
  std::string title;
  std::vector<TimelineRow> rows;
  pawl::Duration elapsed{};
};

/// The same picture as `Timeline`'s, as an SVG file: a panel below the other on one axis of time.
class TimelineSvg {
 public:
  explicit TimelineSvg(const std::vector<TimelinePanel>& panels) : panels_(panels) {
    std::size_t longest = 0;
    for (const TimelinePanel& panel : panels) {
      end_ = std::max(end_, panel.elapsed);
      for (const TimelineRow& row : panel.rows) longest = std::max(longest, row.label.size());
    }
    label_columns_ = std::min<std::size_t>(longest, 40);
    left_ = margin + static_cast<double>(label_columns_) * column_width + 12;
  }

  std::string draw() {
    text_.clear();
    y_ = margin;
    draw_legend();
    for (const TimelinePanel& panel : panels_) draw_panel(panel);
    const std::string size = number(width) + "\" height=\"" + number(y_) + "\" viewBox=\"0 0 " +
                             number(width) + " " + number(y_) + "\"";
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + size +
           " font-family=\"monospace\" font-size=\"12\">\n" +
           "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n" + text_ + "</svg>\n";
  }

 private:
  static constexpr double width = 960;
  static constexpr double margin = 20;
  static constexpr double right = width - 110;  // behind it stand the times
  static constexpr double column_width = 7.3;   // of the font, or a little more
  static constexpr double row_height = 24;
  static constexpr double bar_height = 16;

  struct Look {
    const char* name;
    const char* color;
  };
  static Look look_of(Phase phase) {
    constexpr Look looks[] = {{"connecting", "#8a94a6"},
                              {"sending", "#e0892b"},
                              {"waiting", "#a9cbee"},
                              {"receiving", "#2f8f5b"}};
    return looks[static_cast<std::size_t>(phase)];
  }

  static std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
  }

  static std::string escaped(std::string_view text) {
    std::string safe;
    for (const char c : text) {
      if (c == '&')
        safe += "&amp;";
      else if (c == '<')
        safe += "&lt;";
      else if (c == '>')
        safe += "&gt;";
      else if (c == '"')
        safe += "&quot;";
      else
        safe += c;
    }
    return safe;
  }

  double x_of(pawl::Duration time) const {
    return left_ +
           (right - left_) * static_cast<double>(time.count()) / static_cast<double>(end_.count());
  }

  void rectangle(double x, double y, double wide, double high, const char* color,
                 const std::string& title = {}) {
    text_ += "<rect x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(wide) +
             "\" height=\"" + number(high) + "\" fill=\"" + color + "\">" +
             (title.empty() ? "" : "<title>" + escaped(title) + "</title>") + "</rect>\n";
  }

  void write(double x, double y, std::string_view text, const char* more = "") {
    text_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" fill=\"#222222\"" + more + ">" +
             escaped(text) + "</text>\n";
  }

  void line(double x1, double y1, double x2, double y2, const char* color, const char* wide = "1") {
    text_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
             "\" y2=\"" + number(y2) + "\" stroke=\"" + color + "\" stroke-width=\"" + wide +
             "\"/>\n";
  }

  void draw_legend() {
    double x = margin;
    for (const Phase phase :
         {Phase::connecting, Phase::sending, Phase::waiting, Phase::receiving}) {
      const Look look = look_of(phase);
      rectangle(x, y_, 14, 12, look.color);
      write(x + 20, y_ + 10.5, look.name);
      x += 120;
    }
    cross(x + 6, y_ + 6);
    write(x + 20, y_ + 10.5, "failed");
    y_ += 24;
  }

  void cross(double x, double y) {
    line(x - 5, y - 5, x + 5, y + 5, "#c0262d", "2.5");
    line(x - 5, y + 5, x + 5, y - 5, "#c0262d", "2.5");
  }

  void draw_panel(const TimelinePanel& panel) {
    write(margin, y_ + 22, panel.title + ": " + as_text(panel.elapsed),
          " font-size=\"14\" font-weight=\"bold\"");
    y_ += 36;
    const double bottom = y_ + static_cast<double>(panel.rows.size()) * row_height;
    draw_axis(y_, bottom);
    for (const TimelineRow& row : panel.rows) {
      draw_row(row);
      y_ += row_height;
    }
    y_ = bottom + 36;
  }

  void draw_axis(double top, double bottom) {
    const pawl::Duration step = tick_step(end_, 8);
    for (pawl::Duration tick{}; tick <= end_; tick += step) {
      line(x_of(tick), top, x_of(tick), bottom + 4, "#dddddd");
      write(x_of(tick), bottom + 18, tick_label(tick), " text-anchor=\"middle\"");
    }
    line(left_, bottom, right, bottom, "#888888");
  }

  /// Each phase is two pixels wide at least, so that it can be seen.
  void draw_row(const TimelineRow& row) {
    const double text_y = y_ + row_height / 2 + 4;
    write(margin, text_y, shortened(row.label, label_columns_));
    double drawn = 0;
    for (std::size_t i = 0; i < row.marks.size(); ++i) {
      const bool is_last = i + 1 == row.marks.size();
      const pawl::Duration begin = row.marks[i].begin;
      const pawl::Duration end = is_last ? row.end : row.marks[i + 1].begin;
      const Look look = look_of(row.marks[i].phase);
      const double x = std::max(x_of(begin), drawn);
      drawn = std::max(x_of(end), x + 2);
      rectangle(x, y_ + (row_height - bar_height) / 2, drawn - x, bar_height, look.color,
                std::string(look.name) + " " + as_text(end - begin));
    }
    if (row.has_failed) cross(drawn + 9, y_ + row_height / 2);
    write(width - margin, text_y, as_text(row.elapsed()), " text-anchor=\"end\"");
  }

  const std::vector<TimelinePanel>& panels_;
  pawl::Duration end_{1};
  std::size_t label_columns_ = 0;
  double left_ = 0;
  double y_ = 0;
  std::string text_;
};
