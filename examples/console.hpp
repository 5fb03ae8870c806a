// SPDX-License-Identifier: MIT
#pragma once

// How the examples write things for a person to read.

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "pawl/core/time.hpp"

/// "0.021 ms", "6.04 ms", "604.2 ms", "1.234 s"
inline std::string as_text(pawl::Duration duration) {
  const double milliseconds = static_cast<double>(duration.count()) / 1e6;
  char text[64];
  if (milliseconds < 1) {
    std::snprintf(text, sizeof text, "%.3f ms", milliseconds);
  } else if (milliseconds < 10) {
    std::snprintf(text, sizeof text, "%.2f ms", milliseconds);
  } else if (milliseconds < 1000) {
    std::snprintf(text, sizeof text, "%.1f ms", milliseconds);
  } else {
    std::snprintf(text, sizeof text, "%.3f s", milliseconds / 1000);
  }
  return text;
}

/// What a peer sent, fit for a terminal: in quotes, at most 60 bytes of it, and "?" for each byte
/// that isn't a printable ASCII character.
inline std::string quoted(std::string_view bytes) {
  constexpr std::size_t longest = 60;
  std::string text = "\"";
  for (const char c : bytes.substr(0, longest)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (bytes.size() > longest ? "\"..." : "\"");
}

/// Puts spaces behind it until it is `columns` wide. Each UTF-8 character counts as one column.
inline std::string padded(std::string text, std::size_t columns) {
  std::size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xC0) == 0x80 ? 0 : 1;
  if (width < columns) text.append(columns - width, ' ');
  return text;
}

/// Puts spaces before it until it is `columns` wide. For ASCII.
inline std::string right_aligned(const std::string& text, std::size_t columns) {
  return text.size() < columns ? std::string(columns - text.size(), ' ') + text : text;
}

/// At most `columns` of it: the middle goes, because a URL's beginning and end tell it apart.
inline std::string shortened(std::string_view text, std::size_t columns) {
  if (text.size() <= columns) return std::string(text);
  if (columns < 4) return std::string(text.substr(0, columns));
  const std::size_t head = (columns - 2) / 2;
  const std::size_t tail = columns - 2 - head;
  return std::string(text.substr(0, head)) + ".." + std::string(text.substr(text.size() - tail));
}

/// True exactly when standard output is a terminal that understands cursor movements.
inline bool is_terminal() {
  const char* type = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && type != nullptr && std::string_view(type) != "dumb";
}

/// How much fits on the terminal; 100 columns where there is none.
struct ConsoleSize {
  std::size_t columns = 100;
  std::size_t rows = 24;
};

inline ConsoleSize console_size() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {};
  return {size.ws_col, size.ws_row};
}

/// False exactly when the locale's variables name a character set that isn't UTF-8.
inline bool speaks_utf8() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view locale(value);
    for (const char* name : {"UTF-8", "utf8", "UTF8", "utf-8"}) {
      if (locale.find(name) != std::string_view::npos) return true;
    }
    return false;
  }
  return true;
}
