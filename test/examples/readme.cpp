// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pawl/loop/event_loop.hpp"
#include "running_program.hpp"

namespace {

/// The lines of examples/README.md. The compiler may have been given this file's name as seen from
/// the build's folder, which is the one above the examples'.
std::vector<std::string> readme() {
  const std::string name = __FILE__;
  const std::string path = name.substr(0, name.rfind('/')) + "/../../examples/README.md";
  std::ifstream file(path[0] == '/' ? path : example("../" + path));
  if (!file) throw std::runtime_error("can't read " + path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// A command and the line that stands below it.
std::vector<std::pair<std::string, std::string>> commands_of(
    const std::vector<std::string>& lines) {
  const auto is_code = [](const std::string& line) { return line.substr(0, 4) == "    "; };
  std::vector<std::pair<std::string, std::string>> commands;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    if (!is_code(lines[i]) || !is_code(lines[i + 1])) continue;
    const bool is_server = lines[i].back() == '&';
    if (!is_server) commands.emplace_back(lines[i].substr(4), lines[i + 1].substr(4));
    ++i;
  }
  return commands;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

/// What two runs have in common: measured numbers, lengths of bars and spaces don't matter.
std::string shape_of(const std::string& line) {
  std::string text = replaced(replaced(line, "─", "-"), "·", "-");
  std::string shape;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const char token = std::isdigit(c) || (c == '.' && !shape.empty() && shape.back() == '0')
                           ? '0'
                           : static_cast<char>(c);
    const bool is_repeated = !shape.empty() && shape.back() == token;
    if (is_repeated && (token == '0' || token == ' ' || token == '-')) continue;
    shape += token;
  }
  return shape;
}

}  // namespace

TEST_CASE("Each command in the examples' README prints the line that stands below it") {
  if (!has_program("curl", "curl") || !has_program("nc", "netcat-openbsd")) return;
  pawl::EventLoop loop;
  RunningServer http(loop, "http_server", {"--next", "1"});
  RunningServer echo(loop, "echo_server");
  const auto commands = commands_of(readme());
  CHECK(commands.size() > 8);
  for (auto [command, shown] : commands) {
    for (std::string* text : {&command, &shown}) {
      *text = replaced(*text, "127.0.0.1:8080", "127.0.0.1:" + http.port());
      *text = replaced(replaced(*text, "127.0.0.1:7000", echo.address()), "127.0.0.1 7000",
                       "127.0.0.1 " + echo.port());
    }
    command = replaced(command, "./", example(""));
    const Ended ended = run_shell(loop, "set -f; export LC_ALL=C.UTF-8; " + command + " 2>&1");
    INFO(command << "\nprints\n" << ended.output << "instead of\n" << shown);
    bool is_there = false;
    for (const std::string& line : lines_of(ended.output)) {
      is_there |= shape_of(line) == shape_of(shown);
    }
    CHECK(is_there);
  }
}
