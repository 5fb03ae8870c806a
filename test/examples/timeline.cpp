// SPDX-License-Identifier: MIT
#include "../../examples/timeline.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

using std::chrono::milliseconds;

namespace {

TimelineRow row(const char* label, int begin, int sending, int waiting, int receiving, int end) {
  TimelineRow row;
  row.label = label;
  row.marks = {{Phase::connecting, milliseconds(begin)},
               {Phase::sending, milliseconds(sending)},
               {Phase::waiting, milliseconds(waiting)},
               {Phase::receiving, milliseconds(receiving)}};
  row.end = milliseconds(end);
  return row;
}

}  // namespace

TEST_CASE("The picture shows each phase in proportion to its time") {
  const Timeline timeline(TimelineStyle::ascii(), milliseconds(500), 64);
  CHECK(timeline.draw({row("/a", 0, 50, 100, 300, 400), row("/b", 100, 150, 200, 450, 500)}) ==
        "/a  .....>>>>>--------------------##########            400.0 ms\n"
        "/b            .....>>>>>-------------------------#####  400.0 ms\n"
        "    +---------+---------+---------+---------+---------+\n"
        "    0      100 ms    200 ms    300 ms    400 ms    500 ms\n");
}

TEST_CASE("A phase that took no time still has its column") {
  const Timeline timeline(TimelineStyle::ascii(), milliseconds(500), 64);
  TimelineRow last = row("/b", 500, 500, 500, 500, 500);
  last.has_failed = true;
  const std::string picture = timeline.draw({row("/a", 0, 0, 0, 100, 100), last});
  CHECK(picture.substr(0, picture.find('\n')) ==
        "/a  .>-------#                                          100.0 ms");
  CHECK(picture.find(".>-#x  0.000 ms\n") != std::string::npos);
}

TEST_CASE("A request that was refused has one phase and a cross") {
  TimelineRow refused;
  refused.label = "/";
  refused.marks = {{Phase::connecting, milliseconds(0)}};
  refused.end = milliseconds(1);
  refused.has_failed = true;
  const Timeline timeline(TimelineStyle::ascii(), milliseconds(100), 60);
  CHECK(timeline.draw({refused}).substr(0, 8) == "/  .x   ");
}

TEST_CASE("Every span of time gets an axis that fits") {
  for (const bool is_utf8 : {false, true}) {
    const auto style = is_utf8 ? TimelineStyle::utf8() : TimelineStyle::ascii();
    for (const std::size_t columns : {10U, 40U, 80U, 200U}) {
      for (std::int64_t end = 0; end < 10'000'000'000'000; end = end * 3 + 1) {
        INFO(columns << " columns, " << end << " ns");
        const std::string picture =
            Timeline(style, pawl::Duration(end), columns).draw({row("/", 0, 0, 0, 0, 0)});
        std::size_t width = 0;
        for (const char c : picture) {
          width = c == '\n' ? 0 : width + ((static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0);
          CHECK(width <= std::max<std::size_t>(columns, 40));
        }
        CHECK(picture.find(" 0") != std::string::npos);
      }
    }
  }
}
