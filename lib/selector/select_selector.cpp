// SPDX-License-Identifier: MIT
// select(2).
//
// Traps: glibc's FD_SET writes behind its array beyond descriptor 1023, while the system call takes
// bitmaps of any size; so the bitmaps are ours and the call is the bare one. The kernel writes the
// rest of the time into the timeout. EBADF doesn't say which descriptor is closed. Only the set for
// reading shows a hang-up; so who doesn't wait for that is in an epoll set inside, where there is
// one.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>

#include "pawl/system/system.hpp"
#include "selector/backends.hpp"
#include "selector/inner_set.hpp"
#include "selector/timespec.hpp"

namespace pawl {
namespace {

using Word = unsigned long;
// The youngest of the 32-bit machines have the wide call alone.
#ifdef SYS_pselect6
constexpr long select_call = SYS_pselect6;
using SelectTime = LongTimespec;
#else
constexpr long select_call = SYS_pselect6_time64;
using SelectTime = WideTimespec;
#endif

constexpr int word_bits = static_cast<int>(sizeof(Word) * CHAR_BIT);

/// One of select's three sets.
class Bits {
 public:
  void grow(std::size_t words) {
    if (words > wanted_.size()) wanted_.resize(words);
  }
  void set(int fd, bool value) {
    const Word mask = Word{1} << (fd % word_bits);
    Word& word = wanted_[static_cast<std::size_t>(fd / word_bits)];
    word = value ? word | mask : word & ~mask;
  }
  Word wanted(std::size_t word) const { return wanted_[word]; }

  /// For the system call: a copy of what is wanted, which becomes what is ready.
  Word* copy(std::size_t words) {
    ready_.assign(wanted_.begin(), wanted_.begin() + static_cast<std::ptrdiff_t>(words));
    return ready_.data();
  }
  Word ready(std::size_t word) const { return ready_[word]; }

 private:
  std::vector<Word> wanted_;
  std::vector<Word> ready_;
};

class SelectSelector final : public Selector {
 public:
  SelectSelector() : Selector("select", ClosedFdCheck::by_base, ~Interest::none) {}

  Selector* inner() const override { return inner_.selector(); }

 private:
  int change(int fd, Interest, Interest to) override {
    grow(fd);
    const bool is_there = is_watched(fd);
    if (is_there && !has(to, Interest::read) && inner_.is_there()) return watch_inside(fd, to);
    set_bits(fd, is_there ? to : Interest::none);
    inner_.forget(fd);
    return 0;
  }

  int watch_inside(int fd, Interest interest) {
    grow(inner_.fileno());
    set_bits(inner_.fileno(), Interest::read);
    const int error = inner_.watch(fd, interest);
    if (error == 0) set_bits(fd, Interest::none);
    return error;
  }

  void grow(int fd) {
    const auto words = static_cast<std::size_t>(fd / word_bits) + 1;
    for (Bits* bits : {&read_, &write_, &priority_}) bits->grow(words);
  }

  void set_bits(int fd, Interest interest) {
    read_.set(fd, has(interest, Interest::read));
    write_.set(fd, has(interest, Interest::write));
    priority_.set(fd, has(interest, Interest::priority));
    const auto words = static_cast<std::size_t>(fd / word_bits) + 1;
    if (interest != Interest::none) used_words_ = std::max(used_words_, words);
    while (used_words_ > 0 && !is_used(used_words_ - 1)) --used_words_;
  }

  bool is_used(std::size_t word) const {
    return (read_.wanted(word) | write_.wanted(word) | priority_.wanted(word)) != 0;
  }

  int wait(std::optional<Duration> timeout) override {
    bool is_inner_ready = inner_.flush();
    if (is_inner_ready) timeout = Duration::zero();
    auto time = to_time<SelectTime>(timeout.value_or(Duration::zero()));
    Word* const read = read_.copy(used_words_);
    Word* const write = write_.copy(used_words_);
    Word* const priority = priority_.copy(used_words_);
    const long count = ::syscall(select_call, static_cast<int>(used_words_) * word_bits, read,
                                 write, priority, timeout ? &time : nullptr, nullptr);
    if (count < 0) return errno == EBADF ? report_closed_ones() : errno;
    if (count > 0) report_ready(is_inner_ready);
    return is_inner_ready ? report_inner() : 0;
  }

  void report_ready(bool& is_inner_ready) {
    for (std::size_t i = 0; i < used_words_; ++i) {
      Word any = read_.ready(i) | write_.ready(i) | priority_.ready(i);
      for (; any != 0; any &= any - 1) {
        const Word bit = any & ~(any - 1);
        const int fd = static_cast<int>(i) * word_bits + __builtin_ctzl(any);
        if (fd == inner_.fileno()) {
          is_inner_ready = true;
          continue;
        }
        const Interest read = (read_.ready(i) & bit) != 0 ? Interest::read : Interest::none;
        const Interest write = (write_.ready(i) & bit) != 0 ? Interest::write : Interest::none;
        const Interest priority =
            (priority_.ready(i) & bit) != 0 ? Interest::priority : Interest::none;
        report(fd, read | write | priority, generation(fd));
      }
    }
  }

  int report_inner() {
    return inner_.look([this](int fd, Interest events) {
      report(fd, events == Interest::none ? hang_up : events, generation(fd));
    });
  }

  int report_closed_ones() {
    bool found = false;
    for (int fd = 0; fd < fd_limit(); ++fd) {
      if (!is_watched(fd) || System::real().is_open(fd)) continue;
      report_closed(fd);
      found = true;
    }
    return found ? 0 : EBADF;  // nobody but the inner set, which somebody closed
  }

  InnerSet inner_;
  Bits read_;
  Bits write_;
  Bits priority_;
  std::size_t used_words_ = 0;  // up to the highest bit that is set
};

}  // namespace

std::unique_ptr<Selector> make_select_selector() { return std::make_unique<SelectSelector>(); }

}  // namespace pawl
