// SPDX-License-Identifier: MIT
// select(2).
//
// Traps: glibc's FD_SET writes behind its array beyond descriptor 1023, while the system call takes
// bitmaps of any size; so the bitmaps are ours and the call is the bare one. The kernel writes the
// rest of the time into the timeout. EBADF doesn't say which descriptor is closed.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>

#include "pawl/system/system.hpp"
#include "selector/backends.hpp"
#include "selector/timespec.hpp"

namespace pawl {
namespace {

using Word = unsigned long;
constexpr int word_bits = static_cast<int>(sizeof(Word) * CHAR_BIT);
using Bitmap = std::vector<Word>;

void set_bit(Bitmap& bits, int fd, bool value) {
  const Word mask = Word{1} << (fd % word_bits);
  Word& word = bits[static_cast<std::size_t>(fd / word_bits)];
  word = value ? word | mask : word & ~mask;
}

class SelectSelector final : public Selector {
 public:
  SelectSelector() : Selector("select", ClosedFdCheck::by_base) {}

 private:
  int change(int fd, Interest, Interest to) override {
    const auto words = static_cast<std::size_t>(fd / word_bits) + 1;
    if (words > read_.size()) {
      read_.resize(words);
      write_.resize(words);
    }
    set_bit(read_, fd, has(to, Interest::read));
    set_bit(write_, fd, has(to, Interest::write));
    if (to != Interest::none) used_words_ = std::max(used_words_, words);
    while (used_words_ > 0 && (read_[used_words_ - 1] | write_[used_words_ - 1]) == 0) {
      --used_words_;
    }
    return 0;
  }

  int wait(std::optional<Duration> timeout) override {
    const auto end = static_cast<std::ptrdiff_t>(used_words_);
    ready_read_.assign(read_.begin(), read_.begin() + end);
    ready_write_.assign(write_.begin(), write_.begin() + end);
    timespec time = timeout ? to_timespec(*timeout) : timespec{};
    const int fd_count = static_cast<int>(used_words_) * word_bits;
    const long count = ::syscall(SYS_pselect6, fd_count, ready_read_.data(), ready_write_.data(),
                                 nullptr, timeout ? &time : nullptr, nullptr);
    if (count < 0) return errno == EBADF ? report_closed_ones() : errno;
    if (count > 0) report_ready();
    return 0;
  }

  void report_ready() {
    for (std::size_t i = 0; i < ready_read_.size(); ++i) {
      for (Word any = ready_read_[i] | ready_write_[i]; any != 0; any &= any - 1) {
        const Word bit = any & ~(any - 1);
        const int fd = static_cast<int>(i) * word_bits + __builtin_ctzl(any);
        const Interest read = (ready_read_[i] & bit) != 0 ? Interest::read : Interest::none;
        const Interest write = (ready_write_[i] & bit) != 0 ? Interest::write : Interest::none;
        report(fd, read | write, generation(fd));
      }
    }
  }

  int report_closed_ones() {
    for (int fd = 0; fd < fd_limit(); ++fd) {
      if (applied_interest(fd) != Interest::none && !System::real().is_open(fd)) report_closed(fd);
    }
    return 0;
  }

  Bitmap read_;
  Bitmap write_;
  Bitmap ready_read_;
  Bitmap ready_write_;
  std::size_t used_words_ = 0;  // up to the highest bit that is set
};

}  // namespace

std::unique_ptr<Selector> make_select_selector() { return std::make_unique<SelectSelector>(); }

}  // namespace pawl
