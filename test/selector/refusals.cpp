// SPDX-License-Identifier: MIT
// What the kernel refuses is worked around, or is an error of add() or select(); never the end of
// the process, and never silence.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "pawl/system/system.hpp"
#include "selector/contract.hpp"
#include "support/descriptor_limit.hpp"
#include "support/forked.hpp"
#include "support/open_fds.hpp"
#include "support/refused_call.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::Ready;
using pawl::UniqueFd;
using namespace std::chrono_literals;

namespace {

constexpr int can_not_be_refused = 99;

/// In a child, because what is refused stays refused: runs `work` on a selector of this name after
/// the kernel has been told to answer `call` with `error`.
template <typename Work>
int in_refused(std::string_view name, long call, int error, Work work) {
  return exit_code_of_fork([&] {
    const auto selector = pawl::make_selector(name);
    if (!refuse_call(call, error)) return can_not_be_refused;
    return work(*selector);
  });
}

bool is_fine(int code) {
  if (code == can_not_be_refused) WARN("skipped: this kernel takes no filter");
  return code == 0 || code == can_not_be_refused;
}

/// Waits in vain, and not too short.
int wait_in_vain(pawl::Selector& selector) {
  std::vector<Ready> ready;
  const pawl::TimePoint start = pawl::System::real().now();
  if (selector.select(2'500us, ready) || !ready.empty()) return 1;
  return pawl::System::real().now() - start >= 2'500us ? 0 : 2;
}

}  // namespace

TEST_CASE_METHOD(SelectorContract,
                 "A kernel that answers newer waiting calls with an error is fine") {
#ifdef SYS_epoll_pwait2
  const int error = GENERATE(ENOSYS, EPERM);
  CAPTURE(error);
  CHECK(is_fine(in_refused(selector->name(), SYS_epoll_pwait2, error, wait_in_vain)));
#endif
}

TEST_CASE_METHOD(SelectorContract,
                 "A descriptor that the kernel has no room for is told of, not lost") {
  const int error = GENERATE(ENOSPC, ENOMEM);
  CAPTURE(error);
  const SocketPair pair;
  write_byte(pair.theirs.get());
  const int code = in_refused(selector->name(), SYS_epoll_ctl, error, [&](pawl::Selector& own) {
    const std::error_code refused(error, std::system_category());
    std::vector<Ready> ready;
    const std::error_code added = own.add(pair.ours.get(), Interest::read);
    if (added) return added == refused && own.size() == 0 ? 0 : 1;
    for (int i = 0; i < 3; ++i) {  // again each time, and never by waiting for what doesn't come
      const std::error_code waited = own.select(std::nullopt, ready);
      if (waited ? waited != refused : ready.size() != 1) return 2;
    }
    return own.remove(pair.ours.get()) ? 3 : 0;
  });
  CHECK(is_fine(code));
}

TEST_CASE_METHOD(SelectorContract,
                 "Who waits for nothing and has no room is told of, or has room") {
  const SocketPair pair;
  const int code = in_refused(selector->name(), SYS_epoll_ctl, ENOSPC, [&](pawl::Selector& own) {
    const std::error_code added = own.add(pair.ours.get(), Interest::none);
    if (added) return added == std::errc::no_space_on_device && own.size() == 0 ? 0 : 1;
    return own.size() == 1 ? 0 : 2;
  });
  CHECK(is_fine(code));
}

TEST_CASE_METHOD(SelectorContract,
                 "A wait that fails is an error of select(), and the next one too") {
  // What becomes of a selector whose own descriptor somebody closed and used again.
  const std::map<int, std::string> before = open_fds();
  const auto own = pawl::make_selector(selector->name());
  const SocketPair pair;
  write_byte(pair.theirs.get());
  std::vector<Ready> ready;
  REQUIRE_FALSE(own->add(pair.ours.get(), Interest::read));
  REQUIRE_FALSE(own->select(pawl::Duration::zero(), ready));
  for (const auto& [fd, file] : open_fds()) {
    const bool is_its_own = before.count(fd) == 0 && file == "anon_inode:[eventpoll]";
    if (!is_its_own) continue;
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    REQUIRE(::dup3(null.get(), fd, O_CLOEXEC) == fd);
  }
  for (int i = 0; i < 3; ++i) {
    const std::error_code error = own->select(pawl::Duration::zero(), ready);
    const bool is_told = error == std::errc::invalid_argument && ready.empty();
    CHECK((is_told || (!error && ready.size() == 1)));
    if (is_named("epoll") || is_named("libev") || is_named("libev:epoll")) CHECK(is_told);
  }
}

TEST_CASE_METHOD(SelectorContract,
                 "More descriptors than the limit, lowered since, are waited for") {
  std::vector<SocketPair> pairs(20);
  for (const SocketPair& pair : pairs)
    REQUIRE_FALSE(selector->add(pair.ours.get(), Interest::read));
  CHECK(look() == Events{});
  const DescriptorLimit limit(8);
  std::vector<Ready> ready;
  for (const SocketPair& pair : pairs) {
    write_byte(pair.theirs.get());
    const std::error_code error = selector->select(std::nullopt, ready);
    if (is_named("libev:poll")) {
      CHECK(error == std::errc::invalid_argument);  // libev can't do without
      continue;
    }
    CHECK_FALSE(error);
    REQUIRE(ready.size() == 1);
    CHECK(ready[0].key.fd == pair.ours.get());
    drain(pair.ours.get());
  }
  if (is_named("libev:poll")) return;
  CHECK(waits_quietly());
  for (const SocketPair& pair : pairs) {
    REQUIRE_FALSE(selector->modify(pair.ours.get(), Interest::write));
  }
  CHECK(look().size() == pairs.size());
  for (const SocketPair& pair : pairs) REQUIRE_FALSE(selector->remove(pair.ours.get()));
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A closed descriptor and a duplicate that reports don't end the process") {
  SocketPair closed;
  SocketPair old;
  const SocketPair live;
  for (const SocketPair* pair :
       {static_cast<const SocketPair*>(&closed), static_cast<const SocketPair*>(&old), &live}) {
    REQUIRE_FALSE(selector->add(pair->ours.get(), Interest::read));
  }
  CHECK(look() == Events{});
  const UniqueFd ghost(::fcntl(old.ours.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE_FALSE(selector->remove(old.ours.get()));
  old.ours.reset();
  closed.ours.reset();
  write_byte(old.theirs.get());
  for (int i = 0; i < 4; ++i) look();
  write_byte(live.theirs.get());
  CHECK(look().count(live.ours.get()) == 1);
  drain(live.ours.get());
  CHECK(waits_quietly());
}

TEST_CASE_METHOD(SelectorContract,
                 "A duplicate that reports while no descriptor can be had doesn't spin") {
  if (!is_named("epoll")) return;  // libev needs none for it
  SocketPair old;
  const UniqueFd ghost(::fcntl(old.ours.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE_FALSE(selector->add(old.ours.get(), Interest::read));
  CHECK(look() == Events{});
  REQUIRE_FALSE(selector->remove(old.ours.get()));
  old.ours.reset();
  write_byte(old.theirs.get());
  look();
  const NoDescriptorLeft none_left;
  CHECK(waits_quietly());
}
