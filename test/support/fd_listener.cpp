// SPDX-License-Identifier: MIT
// Fails each test case (each run of it, where sections make it run more than once) that leaves a
// descriptor open or closes one that isn't its own.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <catch2/catch.hpp>

#include "support/open_fds.hpp"

namespace {

class FdListener final : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void sectionStarting(const Catch::SectionInfo& info) override {
    TestEventListenerBase::sectionStarting(info);
    if (depth_++ == 0) before_ = open_fds();
  }

  // The outermost section is the test case itself. An assertion still counts here; in
  // testCaseEnded() it would come too late.
  void sectionEnded(const Catch::SectionStats& stats) override {
    TestEventListenerBase::sectionEnded(stats);
    if (--depth_ > 0) return;
    const std::map<int, std::string> after = open_fds();
    const std::string leaked = difference(after, before_);
    const std::string vanished = difference(before_, after);
    if (!leaked.empty()) FAIL_CHECK("left open:" << leaked);
    if (!vanished.empty()) FAIL_CHECK("closed, but not its own:" << vanished);
  }

 private:
  static std::string difference(const std::map<int, std::string>& those,
                                const std::map<int, std::string>& without) {
    std::string text;
    for (const auto& [fd, target] : those) {
      const auto other = without.find(fd);
      if (other != without.end() && other->second == target) continue;
      text += " " + std::to_string(fd) + " (" + target + ")";
    }
    return text;
  }

  int depth_ = 0;
  std::map<int, std::string> before_;
};

}  // namespace

CATCH_REGISTER_LISTENER(FdListener)
