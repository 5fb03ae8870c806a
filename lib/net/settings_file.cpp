// SPDX-License-Identifier: MIT
#include "net/settings_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr std::string_view blanks = " \t\r";

/// True exactly for what is so because of what the file system holds, and not only now.
bool is_of_the_file(int error) {
  return error == ENOENT || error == ENOTDIR || error == EACCES || error == EPERM ||
         error == EISDIR || error == ELOOP;
}

}  // namespace

std::error_code read_settings(System& system, const char* path, std::string& text) {
  const SystemResult read = system.read_file(path, text);
  if (read.ok()) return {};
  text.clear();
  return is_of_the_file(read.error) ? std::error_code() : read.code();
}

std::string_view next_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

std::string_view next_word(std::string_view& text) {
  const std::size_t begin = std::min(text.find_first_not_of(blanks), text.size());
  const std::size_t end = std::min(text.find_first_of(blanks, begin), text.size());
  const std::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return word;
}

}  // namespace pawl
