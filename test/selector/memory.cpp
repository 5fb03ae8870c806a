// SPDX-License-Identifier: MIT
// Each allocation fails in turn: what throws std::bad_alloc has changed nothing, and with memory
// there again everything is told that there is.
#include <fcntl.h>

#include <memory>
#include <new>
#include <vector>

#include "selector/contract.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"

using pawl::Interest;
using pawl::Ready;
using pawl::UniqueFd;

namespace {

/// Does `work`, once more when memory failed. True exactly when it didn't fail otherwise.
template <typename Work>
bool twice(Work work) {
  for (int i = 0; i < 2; ++i) {
    try {
      const FailingAllocation::Armed armed;
      const std::error_code error = work();
      if (!error) return true;
      if (error != std::errc::not_enough_memory) return false;
    } catch (const std::bad_alloc&) {
      // There is memory again.
    }
  }
  return false;
}

/// Sockets to read and to write, hang-ups, a file: what each allocation of a selector is for.
class Scenario {
 public:
  explicit Scenario(std::string_view name)
      : name_(name), file_(::open("/", O_RDONLY | O_CLOEXEC)) {}

  /// What went wrong first, or null.
  const char* run() {
    std::unique_ptr<pawl::Selector> selector;
    if (!twice([&] { return selector = pawl::make_selector(name_), std::error_code(); })) {
      return "make_selector";
    }
    for (std::size_t i = 0; i < count; ++i) {
      constexpr Interest interests[] = {Interest::read, Interest::write, Interest::none};
      const int fd = pairs_[i].ours.get();
      if (!twice([&] { return selector->add(fd, interests[i % 3]); })) return "add";
    }
    if (!twice([&] { return selector->add(file_.get(), Interest::read); })) return "add a file";
    if (selector->size() != count + 1) return "size";
    for (std::size_t i = 0; i < count; ++i) pairs_[i].theirs.reset();
    if (const char* wrong = look_for_all(*selector)) return wrong;
    for (std::size_t i = 0; i < count; ++i) {
      const int fd = pairs_[i].ours.get();
      if (!twice([&] { return selector->modify(fd, Interest::none); })) return "modify";
    }
    if (const char* wrong = look_for_all(*selector)) return wrong;
    for (std::size_t i = 0; i < count; ++i) {
      const int fd = pairs_[i].ours.get();
      if (!twice([&] { return selector->remove(fd); })) return "remove";
    }
    return selector->size() == 1 ? nullptr : "size at the end";
  }

 private:
  static constexpr std::size_t count = 24;

  /// Everything is told at once, or by the next wait when memory failed.
  const char* look_for_all(pawl::Selector& selector) const {
    std::vector<bool> is_told(1024);
    std::vector<Ready> ready;
    for (int i = 0; i < 2; ++i) {
      std::vector<Ready> fresh;
      const bool is_good = twice([&] {
        fresh = std::vector<Ready>();
        return selector.select(pawl::Duration::zero(), fresh);
      });
      if (!is_good) return "select";
      for (const Ready& one : fresh) is_told[static_cast<std::size_t>(one.key.fd)] = true;
    }
    if (!is_told[static_cast<std::size_t>(file_.get())]) return "the file isn't ready";
    for (const SocketPair& pair : pairs_) {
      if (!is_told[static_cast<std::size_t>(pair.ours.get())]) return "an end isn't told";
    }
    return nullptr;
  }

  std::string_view name_;
  UniqueFd file_;
  SocketPair pairs_[count];
};

}  // namespace

TEST_CASE("Whichever allocation fails, a selector tells everything once there is memory again") {
  for (const std::string_view name : pawl::available_selectors()) {
    CAPTURE(name);
    bool has_failed = true;
    for (long nth = 0; has_failed && nth < 2000; ++nth) {
      const FailingAllocation failing(nth);
      const char* wrong = Scenario(name).run();
      if (wrong != nullptr) FAIL("with allocation " << nth << ": " << wrong);
      has_failed = FailingAllocation::has_failed();
    }
    CHECK_FALSE(has_failed);
  }
}
