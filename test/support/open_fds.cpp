// SPDX-License-Identifier: MIT
#include "support/open_fds.hpp"

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <stdexcept>

std::map<int, std::string> open_fds() {
  struct Closer {
    void operator()(DIR* directory) const { ::closedir(directory); }
  };
  const std::unique_ptr<DIR, Closer> directory(::opendir("/proc/self/fd"));
  if (!directory) throw std::runtime_error("can't read /proc/self/fd");
  std::map<int, std::string> fds;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    const int fd = std::atoi(entry->d_name);
    if (fd == ::dirfd(directory.get())) continue;
    std::array<char, 256> target{};
    const ssize_t bytes =
        ::readlinkat(::dirfd(directory.get()), entry->d_name, target.data(), target.size());
    fds[fd] = std::string(target.data(), bytes < 0 ? 0 : static_cast<std::size_t>(bytes));
  }
  return fds;
}
