// SPDX-License-Identifier: MIT
#pragma once

// What every example does alike: its command line, how it ends, and Ctrl-C.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "pawl/core/function.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/selector/selector.hpp"

/// "0.05", "2": a number of seconds from 0 to a year; none for anything else.
inline std::optional<pawl::Duration> parse_seconds(std::string_view text) {
  constexpr double year = 365.0 * 24 * 3600;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(seconds >= 0 && seconds <= year)) return std::nullopt;
  return std::chrono::duration_cast<pawl::Duration>(std::chrono::duration<double>(seconds));
}

/// A decimal number from `lowest` to `highest`; none for anything else.
inline std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t lowest,
                                                 std::uint64_t highest) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value < lowest || value > highest) return std::nullopt;
  return value;
}

/// The words of a command line. Each option that is asked for is taken out of them.
///
/// Fails: by `std::invalid_argument`, whose text is for the person who typed it.
class Options {
 public:
  Options(int argc, char** argv) {
    if (argc > 1) words_.assign(argv + 1, argv + argc);
    const auto separator = std::find(words_.begin(), words_.end(), "--");
    if (separator == words_.end()) return;
    literal_words_.assign(separator + 1, words_.end());
    words_.erase(separator, words_.end());
  }

  /// True exactly when the option is there: "--verbose".
  bool flag(std::string_view name) {
    const auto kept = std::remove(words_.begin(), words_.end(), name);
    const bool is_there = kept != words_.end();
    words_.erase(kept, words_.end());
    return is_there;
  }

  /// What was said with "--name VALUE" or "--name=VALUE"; the last one wins.
  std::optional<std::string> text(std::string_view name) {
    std::optional<std::string> value;
    for (auto word = words_.begin(); word != words_.end();) {
      if (*word == name) {
        const auto next = word + 1;
        if (next == words_.end() || next->substr(0, 2) == "--") {
          throw std::invalid_argument(std::string(name) + " needs a value");
        }
        value = *next;
        word = words_.erase(word, next + 1);
      } else if (word->size() > name.size() && (*word)[name.size()] == '=' &&
                 word->substr(0, name.size()) == name) {
        value = word->substr(name.size() + 1);
        word = words_.erase(word);
      } else {
        ++word;
      }
    }
    return value;
  }

  std::uint64_t number(std::string_view name, std::uint64_t otherwise, std::uint64_t lowest,
                       std::uint64_t highest) {
    const std::optional<std::string> value = text(name);
    if (!value) return otherwise;
    if (const auto number = parse_number(*value, lowest, highest)) return *number;
    throw std::invalid_argument(std::string(name) + " is a number from " + std::to_string(lowest) +
                                " to " + std::to_string(highest) + ", not \"" + *value + "\"");
  }

  pawl::Duration seconds(std::string_view name, pawl::Duration otherwise) {
    const std::optional<std::string> value = text(name);
    if (!value) return otherwise;
    if (const auto seconds = parse_seconds(*value)) return *seconds;
    throw std::invalid_argument(std::string(name) + " is a number of seconds, such as 2 or 0.05" +
                                ", not \"" + *value + "\"");
  }

  /// What is left when all options have been asked for.
  std::vector<std::string> rest() {
    for (const std::string& word : words_) {
      if (word.size() > 1 && word[0] == '-') throw std::invalid_argument("unknown option " + word);
    }
    words_.insert(words_.end(), literal_words_.begin(), literal_words_.end());
    literal_words_.clear();
    return std::move(words_);
  }

  /// For programs that take no words.
  void expect_nothing_else() {
    const std::vector<std::string> words = rest();
    if (!words.empty()) throw std::invalid_argument("what is \"" + words[0] + "\"?");
  }

 private:
  std::vector<std::string> words_;
  std::vector<std::string> literal_words_;  // what stood behind "--"
};

/// The help of a program, and the options that all have. It fits a terminal of 80 columns.
inline void print_help(std::FILE* file, const char* help) {
  constexpr std::size_t columns = 80;
  const std::string indent(21, ' ');
  std::string text = std::string(help) + "\n";
  std::string line = "  --selector NAME    one of";
  for (const std::string_view selector : pawl::available_selectors()) {
    if (line.size() + 1 + selector.size() > columns) {
      text += line + "\n";
      line = indent.substr(1);
    }
    line += " " + std::string(selector);
  }
  std::fprintf(file, "%s%s\n  --help             this\n", text.c_str(), line.c_str());
}

/// Thrown by a program that was started without what it needs: it gets its help, and exit code 2.
struct ShowHelp {};

/// What was printed is where it was to go: only now a full disk is noticed, since stdio keeps it.
inline void finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw std::runtime_error("standard output can't be written");
}

/// Runs `body(options)`, which returns the exit code. What it throws becomes one line and exit code
/// 2 for a command line that makes no sense, 1 for anything else.
template <typename Body>
int run_program(const char* name, const char* help, int argc, char** argv, Body body) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // line by line into pipes too
  try {
    Options options(argc, argv);
    if (options.flag("--help")) {
      print_help(stdout, help);
      finish_output();
      return 0;
    }
    const int exit_code = body(options);
    finish_output();
    return exit_code;
  } catch (const ShowHelp&) {
    print_help(stderr, help);
    return 2;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s: %s (%s --help tells more)\n", name, error.what(), name);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  }
}

/// The loop has nothing more to wait for from `on_interrupt`.
inline void forget_interrupt(pawl::EventLoop& loop) {
  loop.remove_signal_handler(SIGINT);
  loop.remove_signal_handler(SIGTERM);
}

/// Calls `callback(signal)` on the first Ctrl-C (SIGINT) or SIGTERM. A second one ends the program
/// the hard way.
template <typename Callback>
void on_interrupt(pawl::EventLoop& loop, Callback callback) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::error_code error = loop.add_signal_handler(signal, [&loop, signal, callback] {
      forget_interrupt(loop);
      callback(signal);
    });
    if (error) throw std::system_error(error, "Ctrl-C");
  }
}

/// Says where a server is, and runs it until Ctrl-C. What it has to send then goes within a second.
/// Throws when nobody can be accepted any more.
template <typename Server>
void run_until_interrupt(pawl::EventLoop& loop, Server& server, const char* scheme = "") {
  on_interrupt(loop, [&](int) { server.close(std::chrono::seconds(1)); });
  server.on_failed([&](std::error_code) { throw std::runtime_error(server.describe()); });
  std::printf("listening on %s%s\n", scheme, server.local_endpoint().to_string().c_str());
  loop.run();
}
