// SPDX-License-Identifier: MIT
// libev ends the process when it gets no memory, or when a call fails for a reason that it doesn't
// know. In a pawl program it doesn't.
#include "selector/libev_guard.hpp"

#include <ev.h>
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "pawl/selector/libev_callbacks.hpp"
#include "pawl/selector/selector.hpp"
#include "support/forked.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::LibevGuard;
using pawl::Ready;
using pawl::UniqueFd;

namespace {

std::vector<std::string_view> libev_names() {
  std::vector<std::string_view> names;
  for (const std::string_view name : pawl::available_selectors()) {
    if (name.substr(0, 5) == "libev") names.push_back(name);
  }
  return names;
}

/// While there is one, libev's allocations fail: the `first` of them and as many as `count`.
class NoMemoryForLibev {
 public:
  NoMemoryForLibev(int first, int count) {
    left_ = first;
    failing_ = count;
    LibevGuard::set_system_reallocate([](void* block, std::size_t bytes) -> void* {
      if (left_-- > 0 || failing_-- <= 0) return std::realloc(block, bytes);
      has_failed_ = true;
      return nullptr;
    });
  }
  ~NoMemoryForLibev() { LibevGuard::set_system_reallocate(&std::realloc); }
  NoMemoryForLibev(const NoMemoryForLibev&) = delete;
  NoMemoryForLibev& operator=(const NoMemoryForLibev&) = delete;

  bool has_failed() const { return std::exchange(has_failed_, false); }

 private:
  static int left_;
  static int failing_;
  static bool has_failed_;
};
int NoMemoryForLibev::left_ = 0;
int NoMemoryForLibev::failing_ = 0;
bool NoMemoryForLibev::has_failed_ = false;

/// Everything that makes libev allocate. Returns what came out right.
int use(std::string_view name) {
  constexpr int count = 40;
  const auto selector = pawl::make_selector(name);
  std::vector<SocketPair> pairs(count);
  std::vector<Ready> ready;
  int right = 0;
  for (const SocketPair& pair : pairs) {
    if (!selector->add(pair.ours.get(), Interest::read_write)) ++right;
  }
  if (!selector->select(std::nullopt, ready)) right += static_cast<int>(ready.size());
  for (const SocketPair& pair : pairs) selector->modify(pair.ours.get(), Interest::read);
  write_byte(pairs.back().theirs.get());
  if (!selector->select(std::chrono::hours(1), ready)) right += static_cast<int>(ready.size());
  for (const SocketPair& pair : pairs) selector->remove(pair.ours.get());
  if (!selector->select(pawl::Duration::zero(), ready)) right += static_cast<int>(ready.size());
  return right - 2 * count - 1;
}

/// Puts /dev/null in the place of what `own` waits by. False when that is no descriptor.
bool break_wait(const std::map<int, std::string>& before) {
  bool is_broken = false;
  for (const auto& [fd, file] : open_fds()) {
    if (before.count(fd) != 0 || file != "anon_inode:[eventpoll]") continue;
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    is_broken |= ::dup3(null.get(), fd, O_CLOEXEC) == fd;
  }
  return is_broken;
}

int foreign_errors = 0;

}  // namespace

TEST_CASE("Whichever allocation of libev's fails, its selector does its work") {
  for (const std::string_view name : libev_names()) {
    CAPTURE(name);
    CHECK(use(name) == 0);
    bool has_failed = true;
    for (int nth = 0; has_failed && nth < 2000; ++nth) {
      const NoMemoryForLibev none(nth, 1);
      if (const int missing = use(name); missing != 0) FAIL("at " << nth << ": " << missing);
      has_failed = none.has_failed();
    }
    CHECK_FALSE(has_failed);
  }
}

TEST_CASE("libev's selectors do their work while libev gets no memory at all") {
  for (const std::string_view name : libev_names()) {
    CAPTURE(name);
    for (const int first : {0, 1, 2, 5, 10, 20, 50}) {
      const NoMemoryForLibev none(first, 1'000'000);
      CHECK(use(name) == 0);
    }
  }
}

TEST_CASE("A program's own libev loops are none of ours") {
  pawl::make_selector("libev");
  CHECK_FALSE(pawl::take_libev_error());
  struct ev_loop* loop = ev_loop_new(EVFLAG_NOENV);
  REQUIRE(loop != nullptr);
  ev_run(loop, EVRUN_NOWAIT);
  ev_loop_destroy(loop);
  void* block = pawl::libev_reallocate(nullptr, 10);
  block = pawl::libev_reallocate(block, 1000);
  CHECK(block != nullptr);
  CHECK(pawl::libev_reallocate(block, 0) == nullptr);
}

TEST_CASE("A program with libev callbacks of its own keeps them, and hands ours on") {
  const int code = exit_code_of_fork([] {
    pawl::leave_libev_callbacks();
    ev_set_allocator([](void* block, long bytes) noexcept -> void* {
      return pawl::libev_reallocate(block, bytes);
    });
    ev_set_syserr_cb([](const char*) noexcept {
      ++foreign_errors;
      if (pawl::take_libev_error()) return;
      ++foreign_errors;
    });
    const std::map<int, std::string> before = open_fds();
    const auto selector = pawl::make_selector("libev:epoll");
    if (!break_wait(before)) return 1;
    std::vector<Ready> ready;
    if (selector->select(std::nullopt, ready) != std::errc::invalid_argument) return 2;
    return foreign_errors == 1 ? 0 : 3;
  });
  CHECK(code == 0);
}
