// SPDX-License-Identifier: MIT
// The program that "asyncio" begins with: calls to a server that takes its time for each. One after
// the other, sent together, on threads, and on one loop; the last three take as long as one call,
// and only the last keeps a call in one piece without a thread for it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "pawl/async/future.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/lock.hpp"
#include "pawl/async/promise.hpp"
#include "pawl/async/run_until_complete.hpp"
#include "pawl/async/task.hpp"
#include "pawl/async/wait_for.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/net/endpoint.hpp"
#include "program.hpp"

namespace {

constexpr const char* help = R"(usage: udp_calls [--mode MODE,...] [--calls N] [--delay SECONDS]

Makes calls by UDP to a server, which it starts itself and which answers each
after a delay, and says how long they took. Without a mode: the first four, side
by side. Ctrl-C ends it.

  --mode MODE        sequential: one after the other, on blocking sockets
                     together: all are sent, then all answers are received
                     threads: each call blocks a thread of its own
                     loop: each call is a socket and a callback on one loop
                     shared: the same on one socket, with a Lock around a call
                     shared-unlocked: without it, which is broken: answers go
                     to the wrong call, and a call waits until its timeout
  --calls N          default 2
  --delay SECONDS    of an answer, default 1
  --timeout SECONDS  of a call on a shared socket, default three delays)";

using Responses = std::vector<std::string>;

std::string request(std::size_t index) { return "request" + std::to_string(index); }

/// Answers each request after a while, as many at a time as there are.
class SlowServer {
 public:
  explicit SlowServer(pawl::Duration delay)
      : group_(1, [this, delay](pawl::EventLoop& loop, std::size_t) { serve(loop, delay); }),
        port_(started_.get_future().get()) {}

  std::uint16_t port() const { return port_; }

 private:
  void serve(pawl::EventLoop& loop, pawl::Duration delay) {
    std::optional<pawl::DatagramSocket> socket;
    try {
      socket.emplace(loop, pawl::Endpoint::loopback(0));
    } catch (...) {  // whoever waits for the port has to know
      return started_.set_exception(std::current_exception());
    }
    socket->on_datagram([&](pawl::DatagramSocket& self, const pawl::Datagram& datagram) {
      const std::string response = "response for " + std::string(datagram.bytes);
      loop.call_later(delay, [&self, response, to = datagram.from] { self.send_to(response, to); });
    });
    started_.set_value(socket->local_endpoint().port());
    loop.run_forever();
  }

  std::promise<std::uint16_t> started_;
  pawl::LoopGroup group_;
  std::uint16_t port_;
};

// Three ways without a loop: the document's, on blocking sockets

pawl::UniqueFd blocking_socket(std::uint16_t port) {
  pawl::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in server{};
  server.sin_family = AF_INET;
  server.sin_port = htons(port);
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&server), sizeof server) != 0) {
    throw std::system_error(errno, std::system_category(), "socket");
  }
  return fd;
}

std::string receive(const pawl::UniqueFd& fd) {
  std::array<char, 1024> buffer;
  const ssize_t got =
      ::recv(fd.get(), buffer.data(), buffer.size(), 0);  // blocks until it is there
  if (got < 0) throw std::system_error(errno, std::system_category(), "recv");
  return std::string(buffer.data(), static_cast<std::size_t>(got));
}

void send(const pawl::UniqueFd& fd, const std::string& text) {
  if (::send(fd.get(), text.data(), text.size(), 0) < 0) {
    throw std::system_error(errno, std::system_category(), "send");
  }
}

std::string call_and_wait(std::uint16_t port, const std::string& text) {
  const pawl::UniqueFd fd = blocking_socket(port);
  send(fd, text);
  return receive(fd);
}

Responses call_sequentially(std::uint16_t port, std::size_t calls) {
  Responses responses;
  for (std::size_t i = 0; i < calls; ++i) responses.push_back(call_and_wait(port, request(i)));
  return responses;
}

Responses call_together(std::uint16_t port, std::size_t calls) {
  const pawl::UniqueFd fd = blocking_socket(port);
  Responses responses;
  for (std::size_t i = 0; i < calls; ++i) send(fd, request(i));
  for (std::size_t i = 0; i < calls; ++i) responses.push_back(receive(fd));
  return responses;
}

Responses call_on_threads(std::uint16_t port, std::size_t calls) {
  std::vector<std::future<std::string>> running;  // which join their threads, whatever is thrown
  for (std::size_t i = 0; i < calls; ++i) {
    running.push_back(std::async(std::launch::async, call_and_wait, port, request(i)));
  }
  Responses responses;
  for (std::future<std::string>& call : running) responses.push_back(call.get());
  return responses;
}

// And with one

/// A call in one piece: its socket, and what to do with the answer.
class Call {
 public:
  Call(pawl::EventLoop& loop, std::uint16_t port, const std::string& text,
       pawl::Function<void(std::string_view)> done)
      : done_(std::move(done)), socket_(loop, pawl::Endpoint(), to(port)) {
    socket_.on_datagram([this](pawl::DatagramSocket& self, const pawl::Datagram& datagram) {
      done_(datagram.bytes);
      self.close();
    });
    socket_.send(text);
  }

 private:
  static pawl::DatagramOptions to(std::uint16_t port) {
    pawl::DatagramOptions options;
    options.peer = pawl::Endpoint::loopback(port);
    return options;
  }

  pawl::Function<void(std::string_view)> done_;
  pawl::DatagramSocket socket_;
};

Responses call_on_loop(const std::string& selector, std::uint16_t port, std::size_t calls) {
  pawl::LoopOptions options;
  options.selector = selector;
  pawl::EventLoop loop(std::move(options));
  Responses responses(calls);
  std::vector<std::unique_ptr<Call>> running;
  for (std::size_t i = 0; i < calls; ++i) {
    running.push_back(std::make_unique<Call>(
        loop, port, request(i),
        [&responses, i](std::string_view response) { responses[i] = response; }));
  }
  loop.run();  // until every socket is closed
  return responses;
}

/// A call on a socket that others use too. What comes there goes to whoever has set `on_datagram`
/// last, so a call has the socket to itself from its request to its answer: if there is a lock.
class SharedCall final : public pawl::Task<std::string> {
 public:
  SharedCall(pawl::EventLoop& loop, pawl::DatagramSocket& socket, pawl::Lock* lock,
             std::string text, pawl::Duration patience)
      : Task(loop, text),
        socket_(socket),
        lock_(lock),
        text_(std::move(text)),
        patience_(patience) {}

 private:
  enum class Step { acquire, ask, end };

  pawl::Next step() override {
    switch (at_) {
      case Step::acquire:
        at_ = Step::ask;
        if (lock_ == nullptr) return pawl::Next::go_on();
        turn_ = lock_->acquire();
        return pawl::Next::future(turn_);
      case Step::ask:
        at_ = Step::end;
        if (lock_ != nullptr) permit_ = std::move(turn_.result());
        return ask();
      case Step::end: break;
    }
    permit_.release();
    return done(response());
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"acquire", "ask", "end"};
    return names[static_cast<std::size_t>(at_)];
  }

  pawl::Next ask() {
    socket_.on_datagram([this](pawl::DatagramSocket&, const pawl::Datagram& datagram) {
      if (!answer_.done()) answer_.set_result(std::string(datagram.bytes));
    });
    socket_.send(text_);
    limited_ = pawl::wait_for(answer_.future(), patience_);
    return pawl::Next::future(limited_);
  }

  std::string response() const {
    if (limited_.error() == pawl::Errc::timed_out) return "no answer to " + text_;
    const std::string& response = limited_.result();
    return response == "response for " + text_ ? response : response + " to " + text_;
  }

  pawl::DatagramSocket& socket_;
  pawl::Lock* const lock_;  // null: none
  const std::string text_;
  const pawl::Duration patience_;
  pawl::Future<pawl::Permit> turn_;
  pawl::Permit permit_;
  pawl::Promise<std::string> answer_{loop()};
  pawl::Future<std::string> limited_;
  Step at_ = Step::acquire;
};

Responses call_on_shared_socket(const std::string& selector, std::uint16_t port, std::size_t calls,
                                pawl::Duration patience, bool is_locked) {
  pawl::LoopOptions options;
  options.selector = selector;
  pawl::EventLoop loop(std::move(options));
  pawl::DatagramOptions to_server;
  to_server.peer = pawl::Endpoint::loopback(port);
  pawl::DatagramSocket socket(loop, pawl::Endpoint(), to_server);
  pawl::Lock lock(loop);
  std::vector<std::unique_ptr<SharedCall>> running;
  std::vector<pawl::Future<std::string>> responses;
  for (std::size_t i = 0; i < calls; ++i) {
    running.push_back(std::make_unique<SharedCall>(loop, socket, is_locked ? &lock : nullptr,
                                                   request(i), patience));
    responses.push_back(running.back()->future());
  }
  return pawl::run_until_complete(loop, pawl::gather(loop, responses));
}

/// "shared,loop": true exactly when `name` is in the list.
bool is_in(const std::string& list, const std::string& name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

int run(Options& words) {
  const std::string wanted = words.text("--mode").value_or("sequential,together,threads,loop");
  const auto calls = static_cast<std::size_t>(words.number("--calls", 2, 1, 100));
  const pawl::Duration delay = words.seconds("--delay", std::chrono::seconds(1));
  const pawl::Duration patience = words.seconds("--timeout", 3 * delay);
  const std::string selector = words.text("--selector").value_or("");
  words.expect_nothing_else();

  const struct {
    std::string name;
    std::function<Responses(std::uint16_t)> call;
  } modes[] = {
      {"sequential", [=](std::uint16_t port) { return call_sequentially(port, calls); }},
      {"together", [=](std::uint16_t port) { return call_together(port, calls); }},
      {"threads", [=](std::uint16_t port) { return call_on_threads(port, calls); }},
      {"loop", [=](std::uint16_t port) { return call_on_loop(selector, port, calls); }},
      {"shared-unlocked",
       [=](std::uint16_t port) {
         return call_on_shared_socket(selector, port, calls, patience, false);
       }},
      {"shared",
       [=](std::uint16_t port) {
         return call_on_shared_socket(selector, port, calls, patience, true);
       }},
  };
  std::size_t known_letters = 0;
  for (const auto& mode : modes)
    known_letters += is_in(wanted, mode.name) ? mode.name.size() + 1 : 0;
  if (known_letters != wanted.size() + 1) {
    throw std::invalid_argument("no mode is called " + quoted(wanted));
  }

  const SlowServer server(delay);
  for (const auto& mode : modes) {
    if (!is_in(wanted, mode.name)) continue;
    const auto begin = std::chrono::steady_clock::now();
    const Responses responses = mode.call(server.port());
    const auto took = std::chrono::steady_clock::now() - begin;
    std::string shown;
    for (const std::string& response : responses) shown += (shown.empty() ? "" : ", ") + response;
    std::printf("%s %s  %s\n",
                padded(mode.name, wanted.find("shared") == std::string::npos ? 10 : 15).c_str(),
                right_aligned(as_text(took), 9).c_str(), shortened(shown, 58).c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("udp_calls", help, argc, argv, run); }
