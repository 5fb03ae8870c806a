// SPDX-License-Identifier: MIT
// What a program writes that needs exactly this and no library: a timing wheel of intrusive nodes,
// time stamps, a vector of functions, an eventfd, and the bare system calls.

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <system_error>

#include "contender.hpp"

namespace bench {
namespace {

struct Link {
  Link* next = nullptr;
  Link* previous = nullptr;
};

struct Node : Link {
  std::uint64_t tick = 0;
  Call call{Payload{}};
};

/// Four wheels of 256 slots; a tick is 2^20 ns, so they reach 52 days. Not ordered within a tick.
class Wheel {
 public:
  Wheel() {
    for (auto& wheel : wheels_) {
      for (Link& slot : wheel) slot.next = slot.previous = &slot;
    }
  }

  void set_now(Nanoseconds now) { tick_ = ticks(now); }

  void add(Node& node, Nanoseconds when) {
    node.tick = ticks(when) + 1;
    link(node);
  }

  static void cancel(Node& node) {
    node.next->previous = node.previous;
    node.previous->next = node.next;
  }

  void run(Nanoseconds now) {
    for (const std::uint64_t until = ticks(now); tick_ < until;) {
      ++tick_;
      for (std::size_t level = 1; level < wheels_.size(); ++level) {
        if ((tick_ & ((std::uint64_t{1} << (8 * level)) - 1)) != 0) break;
        relink(wheels_[level][slot(tick_, level)]);
      }
      Link& due = wheels_[0][slot(tick_, 0)];
      while (due.next != &due) {
        Node& node = static_cast<Node&>(*due.next);
        cancel(node);
        node.call();
      }
    }
  }

 private:
  static std::uint64_t ticks(Nanoseconds time) {
    return static_cast<std::uint64_t>(time.count()) >> 20;
  }
  static std::size_t slot(std::uint64_t tick, std::size_t level) {
    return (tick >> (8 * level)) & 255;
  }

  void link(Node& node) {
    const std::uint64_t distance = node.tick - tick_;
    std::size_t level = 0;
    while (level + 1 < wheels_.size() && distance >> (8 * (level + 1)) != 0) ++level;
    Link& head = wheels_[level][slot(node.tick, level)];
    node.next = &head;
    node.previous = head.previous;
    head.previous->next = &node;
    head.previous = &node;
  }

  void relink(Link& head) {
    while (head.next != &head) {
      Node& node = static_cast<Node&>(*head.next);
      cancel(node);
      link(node);
    }
  }

  std::uint64_t tick_ = 0;
  std::array<std::array<Link, 256>, 4> wheels_;
};

/// Everything but the wait, which differs between select, poll and epoll.
class HandLoop : public Loop {
 public:
  HandLoop() { read_clock(); }

  ~HandLoop() override {
    if (event_fd_ >= 0) ::close(event_fd_);
  }

  void in_callback(const std::function<void()>& work) override {
    read_clock();
    work();
  }

  bool prepare_timers(std::size_t count) override {
    nodes_.resize(count);
    for (Node& node : nodes_) node.call = Call(payload());
    wheel_ = std::make_unique<Wheel>();
    wheel_->set_now(now_);
    return true;
  }

  void add_timers(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) wheel_->add(nodes_[i], now_ + delays[i]);
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      read_clock();
      wheel_->add(nodes_[i], now_ + delays[i]);
    }
    return true;
  }

  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) Wheel::cancel(nodes_[i]);
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) {
      read_clock();
      wheel_->run(now_);
    }
  }

  bool prepare_idle(std::size_t count) override {
    last_activity_.resize(count);
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) last_activity_[i] = now_;
  }

  bool prepare_soon(std::size_t batch) override {
    batch_ = batch;
    return true;
  }

  void post_soon() override {
    for (std::size_t i = 0; i < batch_; ++i) soon_.emplace_back(payload());
  }

  void run_soon() override {
    soon_.swap(running_);
    for (const Call& call : running_) call();
    running_.clear();
  }

  bool prepare_posts() override {
    event_fd_ = ::eventfd(0, EFD_CLOEXEC);
    return event_fd_ >= 0;
  }

  void post_from_thread(std::size_t count) override {
    const std::uint64_t one = 1;
    for (std::size_t i = 0; i < count; ++i) {
      if (!posts_.push(Call(payload()))) continue;
      while (::write(event_fd_, &one, sizeof one) < 0 && errno == EINTR) {
      }
    }
  }

  void run_posts(std::size_t count) override {
    std::uint64_t wake_ups = 0;
    while (ran_ < count) {
      if (::read(event_fd_, &wake_ups, sizeof wake_ups) > 0) posts_.run_all();
    }
  }

 protected:
  Chain* chain_ = nullptr;

 private:
  void read_clock() { now_ = Clock::now().time_since_epoch(); }

  Nanoseconds now_{};
  std::vector<Node> nodes_;
  std::unique_ptr<Wheel> wheel_;
  std::vector<Nanoseconds> last_activity_;
  std::size_t batch_ = 0;
  std::vector<Call> soon_;
  std::vector<Call> running_;
  PostQueue posts_;
  int event_fd_ = -1;
};

class EpollLoop final : public HandLoop {
 public:
  ~EpollLoop() override { ::close(epoll_); }

  bool watch(Chain& chain) override {
    chain_ = &chain;
    for (std::size_t i = 0; i < chain.size(); ++i) control(EPOLL_CTL_ADD, i, EPOLLIN);
    return true;
  }

  void run_chain() override {
    while (true) {
      const int count = wait(-1);
      for (int i = 0; i < count; ++i) {
        if (!chain_->on_readable(events_[static_cast<std::size_t>(i)].data.u64)) return;
      }
    }
  }

  bool switch_off_and_on() override {
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      control(EPOLL_CTL_MOD, i, 0);
      control(EPOLL_CTL_MOD, i, EPOLLIN);
    }
    wait(0);
    return true;
  }

  bool remove_and_add() override {
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      control(EPOLL_CTL_DEL, i, 0);
      control(EPOLL_CTL_ADD, i, EPOLLIN);
    }
    wait(0);
    return true;
  }

 private:
  void control(int operation, std::size_t pair, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = pair;
    if (::epoll_ctl(epoll_, operation, chain_->reader(pair), &event) != 0) {
      throw std::system_error(errno, std::system_category(), "epoll_ctl");
    }
  }

  int wait(int timeout) {
    return ::epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), timeout);
  }

  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  std::array<epoll_event, 512> events_{};
};

class PollLoop final : public HandLoop {
 public:
  bool watch(Chain& chain) override {
    chain_ = &chain;
    for (std::size_t i = 0; i < chain.size(); ++i) set_.push_back({chain.reader(i), POLLIN, 0});
    return true;
  }

  void run_chain() override {
    while (true) {
      int count = ::poll(set_.data(), set_.size(), -1);
      for (std::size_t i = 0; count > 0; ++i) {
        if (set_[i].revents == 0) continue;
        --count;
        if (!chain_->on_readable(i)) return;
      }
    }
  }

  bool switch_off_and_on() override {
    for (pollfd& entry : set_) {
      entry.events = 0;
      // The compiler must not see that both stores end where they began.
      asm volatile("" : : "r"(&entry) : "memory");
      entry.events = POLLIN;
    }
    ::poll(set_.data(), set_.size(), 0);
    return true;
  }

  /// poll skips negative numbers.
  bool remove_and_add() override {
    for (pollfd& entry : set_) {
      const int fd = entry.fd;
      entry.fd = -1;
      asm volatile("" : : "r"(&entry) : "memory");
      entry = {fd, POLLIN, 0};
    }
    ::poll(set_.data(), set_.size(), 0);
    return true;
  }

 private:
  std::vector<pollfd> set_;
};

/// Linux takes bitmaps of any size; only glibc's macros stop at FD_SETSIZE.
class SelectLoop final : public HandLoop {
 public:
  bool watch(Chain& chain) override {
    chain_ = &chain;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      const auto fd = static_cast<std::size_t>(chain.reader(i));
      if (fd >= pair_of_.size()) pair_of_.resize(fd + 1);
      pair_of_[fd] = i;
      wanted_.resize(pair_of_.size() / 64 + 1);
      wanted_[fd / 64] |= bit(fd);
    }
    return true;
  }

  void run_chain() override {
    while (true) {
      wait(nullptr);
      for (std::size_t word = 0; word < ready_.size(); ++word) {
        for (std::uint64_t bits = ready_[word]; bits != 0; bits &= bits - 1) {
          const auto fd = word * 64 + static_cast<std::size_t>(__builtin_ctzll(bits));
          if (!chain_->on_readable(pair_of_[fd])) return;
        }
      }
    }
  }

  bool switch_off_and_on() override {
    for (std::size_t i = 0; i < chain_->size(); ++i) {
      const auto fd = static_cast<std::size_t>(chain_->reader(i));
      wanted_[fd / 64] &= ~bit(fd);
      asm volatile("" : : "r"(wanted_.data()) : "memory");
      wanted_[fd / 64] |= bit(fd);
    }
    const timespec zero{};
    wait(&zero);
    return true;
  }

  bool remove_and_add() override { return switch_off_and_on(); }

 private:
  static std::uint64_t bit(std::size_t fd) { return std::uint64_t{1} << (fd % 64); }

  void wait(const timespec* timeout) {
    ready_ = wanted_;
    timespec time = timeout != nullptr ? *timeout : timespec{};
    ::syscall(SYS_pselect6, pair_of_.size(), ready_.data(), nullptr, nullptr,
              timeout != nullptr ? &time : nullptr, nullptr);
  }

  std::vector<std::size_t> pair_of_;
  std::vector<std::uint64_t> wanted_;
  std::vector<std::uint64_t> ready_;
};

std::unique_ptr<Loop> make(std::string_view selector, bool /*threads*/) {
  if (selector == "epoll") return std::make_unique<EpollLoop>();
  if (selector == "poll") return std::make_unique<PollLoop>();
  return std::make_unique<SelectLoop>();
}

const Registration registration({"by hand", "Linux", make});

}  // namespace
}  // namespace bench
