// SPDX-License-Identifier: MIT
// Runs every contender once in each round, so that a busy moment of the machine strikes them all,
// and prints the medians as one table, then what pawl had set itself.

#include <malloc.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>

#include "rows.hpp"

namespace bench {
namespace {

constexpr const char* help =
    R"(Measures pawl against hand-written code, libev, libuv, libevent and Asio.

  --quick          small sizes, three rounds: does it all work?
  --rounds N       the median is taken of N rounds (default 5)
  --rows PATTERN   only rows whose names contain PATTERN; may be given more than once
  --only NAME      only this contender; may be given more than once
  --help
)";

struct Options {
  bool quick = false;
  std::size_t rounds = 0;
  std::vector<std::string> rows;
  std::vector<std::string> only;
};

struct Column {
  std::string name;
  std::string package;
  const Contender* contender = nullptr;
};

using Samples = std::vector<std::vector<double>>;  // for each column, one a round

struct Result {
  Row row;
  Samples samples;
};

[[noreturn]] void leave(int status, const char* text) {
  std::fputs(text, status == 0 ? stdout : stderr);
  std::exit(status);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help") leave(0, help);
    if (word == "--quick") {
      options.quick = true;
      continue;
    }
    if (i + 1 == argc) leave(2, help);
    const std::string value = argv[++i];
    if (word == "--rounds") {
      options.rounds = static_cast<std::size_t>(std::max(1, std::atoi(value.c_str())));
    } else if (word == "--rows") {
      options.rows.push_back(value);
    } else if (word == "--only") {
      options.only.push_back(value);
    } else {
      leave(2, help);
    }
  }
  if (options.rounds == 0) options.rounds = options.quick ? 3 : 5;
  return options;
}

bool is_wanted(const std::vector<std::string>& patterns, const std::string& name) {
  return patterns.empty() || std::any_of(patterns.begin(), patterns.end(), [&](const auto& each) {
           return name.find(each) != std::string::npos;
         });
}

bool is_asked_for(const Options& options, const Column& column) {
  const auto& only = options.only;
  return only.empty() || std::find(only.begin(), only.end(), column.name) != only.end();
}

std::vector<Column> find_columns(const Options& options) {
  std::vector<Column> columns{{"pawl", "", nullptr},
                              {"by hand", "", nullptr},
                              {"libev", "libev-dev", nullptr},
                              {"libuv", "libuv1-dev", nullptr},
                              {"libevent", "libevent-dev", nullptr},
                              {"Asio", "libasio-dev", nullptr}};
  for (Column& column : columns) {
    if (!is_asked_for(options, column)) continue;
    for (const Contender& contender : contenders()) {
      if (contender.name == column.name) column.contender = &contender;
    }
  }
  return columns;
}

Figure median(std::vector<double> samples) {
  if (samples.empty()) return std::nullopt;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

/// The order is turned from round to round; no one always comes after the same neighbour's garbage.
std::vector<Result> measure(const Group& group, const std::vector<Column>& columns,
                            std::size_t rounds) {
  std::vector<Samples> samples(group.rows.size(), Samples(columns.size()));
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::size_t column = (i + round) % columns.size();
      if (columns[column].contender == nullptr) continue;
      malloc_trim(0);
      const std::vector<Figure> figures = group.measure(*columns[column].contender);
      for (std::size_t row = 0; row < figures.size(); ++row) {
        if (figures[row]) samples[row][column].push_back(*figures[row]);
      }
    }
  }
  std::vector<Result> results;
  for (std::size_t row = 0; row < group.rows.size(); ++row) {
    results.push_back({group.rows[row], std::move(samples[row])});
  }
  return results;
}

std::string format(Figure figure) {
  if (!figure) return "-";
  char text[32];
  std::snprintf(text, sizeof text, *figure < 99.95 ? "%.1f" : "%.0f", *figure);
  return text;
}

void print_machine(const std::vector<Column>& columns, const Options& options) {
  utsname system{};
  uname(&system);
  std::string processor = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0) processor = line.substr(line.find(':') + 2);
  }
  double load[1] = {0};
  getloadavg(load, 1);
  std::printf("%s, Linux %s, compiler %s, load %.2f; median of %zu rounds\n", processor.c_str(),
              system.release, __VERSION__, load[0], options.rounds);
  for (const Column& column : columns) {
    if (column.contender != nullptr) {
      std::printf("%s %s; ", column.name.c_str(), column.contender->version.c_str());
    }
  }
  std::printf("\n");
  for (const Column& column : columns) {
    const bool missing = column.contender == nullptr && is_asked_for(options, column);
    if (missing && !column.package.empty()) {
      std::printf("%s isn't here: install %s and configure again.\n", column.name.c_str(),
                  column.package.c_str());
    }
  }
}

void print_line(const std::string& name, const std::string& unit,
                const std::vector<std::string>& cells) {
  std::printf("%-50s %-7s", name.c_str(), unit.c_str());
  for (const std::string& cell : cells) std::printf(" %8s", cell.c_str());
  std::printf("\n");
  std::fflush(stdout);
}

/// The column that a goal is measured against; the first two are pawl and the hand-written code.
std::optional<std::size_t> find_rival(const Goal& goal, const Result& result,
                                      const std::vector<Column>& columns) {
  std::optional<std::size_t> best;
  for (std::size_t i = 2; i < columns.size(); ++i) {
    const bool is_rival = goal.against == "best peer" || goal.against == columns[i].name;
    if (!is_rival || result.samples[i].empty()) continue;
    if (!best || *median(result.samples[i]) < *median(result.samples[*best])) best = i;
  }
  return best;
}

/// The median of what pawl was in each round, in terms of its rival in the same round: the machine
/// may be slower in one round than in the next.
Figure measure_up(const Goal& goal, const Result& result, const std::vector<Column>& columns) {
  std::vector<double> ratios = result.samples[0];
  if (goal.against.empty()) return median(ratios);
  const auto rival = find_rival(goal, result, columns);
  if (!rival) return std::nullopt;
  for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] /= result.samples[*rival][i];
  return median(ratios);
}

/// Counts the goals that were reached.
std::size_t print_goals(const Result& result, const std::vector<Column>& columns) {
  std::size_t reached = 0;
  for (const Goal& goal : result.row.goals) {
    char limit[64];
    std::snprintf(limit, sizeof limit, goal.against.empty() ? "%.0f%s" : "%.2f x %s", goal.limit,
                  goal.against.c_str());
    const Figure figure = measure_up(goal, result, columns);
    const bool is_reached = figure && *figure <= goal.limit;
    reached += is_reached ? 1 : 0;
    std::printf("%-50s %-18s ", result.row.name.c_str(), limit);
    if (figure) std::printf("%8.2f  ", *figure);
    std::printf("%s\n", !figure ? "not measured" : is_reached ? "reached" : "NOT REACHED");
  }
  return reached;
}

/// The chain needs 16,000 descriptors; systems hand out 1,024 unless asked.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void run(const Options& options) {
  raise_descriptor_limit();
  const std::vector<Column> columns = find_columns(options);
  print_machine(columns, options);
  std::vector<std::string> names;
  for (const Column& column : columns) names.push_back(column.name);
  print_line("\nthe less the better", " ", names);

  std::vector<Result> results;
  for (const Group& group : all_groups(options.quick)) {
    const auto wanted = [&](const Row& row) { return is_wanted(options.rows, row.name); };
    if (std::none_of(group.rows.begin(), group.rows.end(), wanted)) continue;
    for (const Result& result : measure(group, columns, options.rounds)) {
      if (!wanted(result.row)) continue;
      std::vector<std::string> cells;
      for (const auto& samples : result.samples) cells.push_back(format(median(samples)));
      print_line(result.row.name, result.row.unit, cells);
      results.push_back(result);
    }
  }

  std::printf("\n%-50s %-18s %8s\n", "goal", "at most", "is");
  std::size_t goals = 0;
  std::size_t reached = 0;
  for (const Result& result : results) {
    goals += result.row.goals.size();
    reached += print_goals(result, columns);
  }
  std::printf("%zu of %zu goals reached\n", reached, goals);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  const bench::Options options = bench::parse(argc, argv);
  try {
    bench::run(options);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
