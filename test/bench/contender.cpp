// SPDX-License-Identifier: MIT
#include "contender.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace bench {

std::vector<Contender>& contenders() {
  static std::vector<Contender> all;
  return all;
}

Chain::Chain(std::size_t pairs) {
  pairs_.reserve(pairs);
  try {
    for (std::size_t i = 0; i < pairs; ++i) open_pair(static_cast<int>(pairs) + 64);
  } catch (...) {
    close_all();
    throw;
  }
}

Chain::~Chain() { close_all(); }

void Chain::open_pair(int first_writer) {
  std::array<int, 2> pair{};
  const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (::socketpair(AF_UNIX, type, 0, pair.data()) != 0) {
    throw std::system_error(errno, std::system_category(), "socketpair");
  }
  pairs_.push_back(pair);
  const int writer = ::fcntl(pair[1], F_DUPFD_CLOEXEC, first_writer);
  if (writer < 0) throw std::system_error(errno, std::system_category(), "F_DUPFD_CLOEXEC");
  ::close(pair[1]);
  pairs_.back()[1] = writer;
}

void Chain::close_all() {
  for (const auto& pair : pairs_) {
    ::close(pair[0]);
    ::close(pair[1]);
  }
}

void Chain::start(std::size_t active, std::size_t writes) {
  writes_left_ = writes;
  sent_ = 0;
  received_ = 0;
  const std::size_t distance = pairs_.size() / active;
  for (std::size_t i = 0; i < active; ++i) {
    sent_ += ::send(pairs_[i * distance][1], "e", 1, MSG_NOSIGNAL) == 1 ? 1 : 0;
  }
}

bool Chain::on_readable(std::size_t pair) {
  char byte = 0;
  if (::recv(pairs_[pair][0], &byte, 1, 0) != 1) return true;
  return on_byte(pair);
}

bool Chain::on_byte(std::size_t pair) {
  ++received_;
  if (writes_left_ > 0) {
    --writes_left_;
    const std::size_t next = pair + 1 < pairs_.size() ? pair + 1 : 0;
    sent_ += ::send(pairs_[next][1], "e", 1, MSG_NOSIGNAL) == 1 ? 1 : 0;
  }
  return received_ < sent_;
}

}  // namespace bench
