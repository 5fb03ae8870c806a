// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <system_error>

namespace pawl {

class System;

/// Reads one of the files in /etc. One that isn't there, or may not be read, is empty, as to the C
/// library: that stays so. An error is one of this process, such as EMFILE.
std::error_code read_settings(System& system, const char* path, std::string& text);

/// Cuts the first line off; without its end.
std::string_view next_line(std::string_view& text);
/// Cuts the first word off; empty when there is none.
std::string_view next_word(std::string_view& text);

}  // namespace pawl
