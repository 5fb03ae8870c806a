// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <map>
#include <string>

/// The descriptors of this process that are open now, and what each is ("socket:[4711]").
std::map<int, std::string> open_fds();

/// How many those are.
inline std::size_t open_fd_count() { return open_fds().size(); }
