// SPDX-License-Identifier: MIT
// Asio (standalone) as its users write it: one io_context for one thread, lambdas as handlers.
// It has epoll only.

#include <asio.hpp>
#include <optional>

#include "contender.hpp"

namespace bench {
namespace {

using asio::local::stream_protocol;

struct OnTimer {
  Payload payload;

  void operator()(std::error_code error) const {
    if (!error) payload();
  }
};

class AsioLoop final : public Loop {
 public:
  ~AsioLoop() override {
    for (stream_protocol::socket& socket : sockets_) socket.release();
    run_pass();
  }

  void in_callback(const std::function<void()>& work) override {
    asio::post(io_, [&work] { work(); });
    run_pass();
  }

  bool prepare_timers(std::size_t count) override {
    timers_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) timers_.emplace_back(io_);
    return true;
  }

  void add_timers(const Delays& delays) override {
    const auto now = Clock::now();
    for (std::size_t i = 0; i < delays.size(); ++i) {
      timers_[i].expires_at(now + delays[i]);
      timers_[i].async_wait(OnTimer{payload()});
    }
  }

  bool add_timers_from_now(const Delays& delays) override {
    for (std::size_t i = 0; i < delays.size(); ++i) {
      timers_[i].expires_after(delays[i]);
      timers_[i].async_wait(OnTimer{payload()});
    }
    return true;
  }

  /// Each cancelled wait still calls its handler, which belongs to the price.
  void cancel_timers(const Order& order) override {
    for (const std::uint32_t i : order) timers_[i].cancel();
    run_pass();
  }

  void run_timers(std::size_t count) override {
    while (ran_ < count) run_pass();
  }

  bool prepare_idle(std::size_t count) override {
    prepare_timers(count);
    Order all(count);
    for (std::size_t i = 0; i < count; ++i) all[i] = static_cast<std::uint32_t>(i);
    touch_idle(all);
    return true;
  }

  void touch_idle(const Order& order) override {
    for (const std::uint32_t i : order) {
      timers_[i].expires_after(std::chrono::minutes(1));
      timers_[i].async_wait(OnTimer{payload()});
    }
  }

  bool prepare_soon(std::size_t batch) override {
    batch_ = batch;
    return true;
  }

  void post_soon() override {
    for (std::size_t i = 0; i < batch_; ++i) asio::post(io_, payload());
  }

  void run_soon() override { run_pass(); }

  bool prepare_posts() override {
    work_.emplace(io_.get_executor());
    return true;
  }

  void post_from_thread(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) asio::post(io_, payload());
  }

  void run_posts(std::size_t count) override {
    while (ran_ < count) io_.run_one();
  }

  bool watch(Chain& chain) override {
    chain_ = &chain;
    sockets_.reserve(chain.size());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      sockets_.emplace_back(io_, stream_protocol(), chain.reader(i));
      sockets_[i].non_blocking(true);
    }
    return true;
  }

  void run_chain() override {
    for (std::size_t i = started_; i < sockets_.size(); ++i) read(i);
    started_ = sockets_.size();
    io_.restart();
    io_.run();
  }

  bool switch_off_and_on() override {
    for (stream_protocol::socket& socket : sockets_) {
      socket.cancel();
      socket.async_wait(stream_protocol::socket::wait_read, [](std::error_code) {});
    }
    run_pass();
    return true;
  }

  bool remove_and_add() override {
    for (stream_protocol::socket& socket : sockets_) {
      socket.assign(stream_protocol(), socket.release());
      socket.async_wait(stream_protocol::socket::wait_read, [](std::error_code) {});
    }
    run_pass();
    return true;
  }

 private:
  void run_pass() {
    io_.restart();
    io_.poll();
  }

  void read(std::size_t pair) {
    sockets_[pair].async_read_some(asio::buffer(&byte_, 1),
                                   [this, pair](std::error_code error, std::size_t) {
                                     if (error) return;
                                     const bool more = chain_->on_byte(pair);
                                     read(pair);
                                     if (!more) io_.stop();
                                   });
  }

  asio::io_context io_{1};
  std::vector<asio::steady_timer> timers_;
  std::size_t batch_ = 0;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  Chain* chain_ = nullptr;
  std::vector<stream_protocol::socket> sockets_;
  std::size_t started_ = 0;
  char byte_ = 0;
};

std::unique_ptr<Loop> make(std::string_view selector, bool /*threads*/) {
  if (selector != "epoll") return nullptr;
  return std::make_unique<AsioLoop>();
}

const Registration registration({"Asio",
                                 std::to_string(ASIO_VERSION / 100000) + '.' +
                                     std::to_string(ASIO_VERSION / 100 % 1000) + '.' +
                                     std::to_string(ASIO_VERSION % 100),
                                 make});

}  // namespace
}  // namespace bench
