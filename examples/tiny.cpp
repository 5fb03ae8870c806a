// SPDX-License-Identifier: MIT
// The parts of "Tiny-asyncio", each once: run, sleep, create_connection, sock_sendall, sock_recv,
// a periodic task, gather. Each is an operation with a callback, which becomes a future with one
// line, which a task awaits.
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "http_url.hpp"
#include "pawl/async/future.hpp"
#include "pawl/async/gather.hpp"
#include "pawl/async/make_future.hpp"
#include "pawl/async/sleep.hpp"
#include "pawl/async/task.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/sock.hpp"
#include "program.hpp"
#include "run_task.hpp"

namespace {

constexpr const char* help = R"(usage: tiny URL URL... [--every SECONDS]

Sleeps a little, then gets all URLs at once by the operations on sockets that
asyncio has, while a periodic task ticks. Prints which was done when, and then
what `gather` gives: the replies in the order of the URLs. Addresses have to be
numbers. Ctrl-C ends it with exit code 130. Try it with:
  http_server --port 8080 &
  tiny http://127.0.0.1:8080/slow?ms=300 http://127.0.0.1:8080/hello

  --every SECONDS    between two ticks, default 0.1)";

using SharedSocket = std::shared_ptr<pawl::UniqueFd>;

/// create_connection: a socket, connected.
pawl::Future<SharedSocket> create_connection(pawl::EventLoop& loop, const pawl::Endpoint& peer) {
  const bool is_ipv6 = peer.family() == pawl::Endpoint::Family::ipv6;
  const auto socket = std::make_shared<pawl::UniqueFd>(
      ::socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!*socket) throw std::system_error(errno, std::system_category(), "socket");
  return pawl::make_future<SharedSocket>(loop, [&](auto done) {
    return pawl::sock_connect(loop, socket->get(), peer,
                              [=](std::error_code error) { done(error, socket); });
  });
}

/// sock_sendall: a future for how many bytes that were.
pawl::Future<std::size_t> sock_sendall(pawl::EventLoop& loop, int fd, const std::string& bytes) {
  return pawl::make_future<std::size_t>(
      loop, [&](auto done) { return pawl::sock_sendall(loop, fd, bytes, done); });
}

/// sock_recv: a future for some bytes, or for none at the end.
pawl::Future<std::string> sock_recv(pawl::EventLoop& loop, int fd) {
  return pawl::make_future<std::string>(
      loop, [&](auto done) { return pawl::sock_recv(loop, fd, 64 * 1024, done); });
}

/// It is kept whole, and a server may have no end of it.
constexpr std::size_t longest_reply = 16 * 1024 * 1024;

/// Receives until `delimiter` is there, or until the end when there is none. `received` is what
/// came before.
pawl::Future<std::string> receive_until(pawl::EventLoop& loop, int fd, std::string_view delimiter,
                                        std::string received = {}) {
  return sock_recv(loop, fd).then([&loop, fd, delimiter, received](const std::string& bytes) {
    const std::string all = received + bytes;
    if (all.size() > longest_reply) throw std::runtime_error("the reply is longer than 16 MiB");
    const bool is_there = !delimiter.empty() && all.find(delimiter) != std::string::npos;
    if (is_there || bytes.empty()) return pawl::make_ready_future(loop, all);
    return receive_until(loop, fd, delimiter, all);
  });
}

/// What a `gather` of several gives: one reply.
struct Reply {
  std::string url;
  std::string status;
  std::size_t body_bytes = 0;
};

/// `sock = await create_connection(...); await sock_sendall(...); await sock_recv(...)`
class Get final : public pawl::Task<Reply> {
 public:
  Get(pawl::EventLoop& loop, HttpUrl url)
      : Task(loop, url.text),
        url_(std::move(url)),
        peer_(pawl::Endpoint::from_address(url_.server.host, url_.server.port)) {}

 private:
  enum class Step { connect, send, receive_head, receive_body, end };

  pawl::Next step() override {
    switch (at_) {
      case Step::connect:
        at_ = Step::send;
        connected_ = create_connection(loop(), peer_);
        return pawl::Next::future(connected_);
      case Step::send:
        at_ = Step::receive_head;
        socket_ = connected_.result();
        sent_ = sock_sendall(loop(), socket_->get(), request());
        return pawl::Next::future(sent_);
      case Step::receive_head:
        at_ = Step::receive_body;
        sent_.result();
        received_ = receive_until(loop(), socket_->get(), head_end);
        return pawl::Next::future(received_);
      case Step::receive_body:
        at_ = Step::end;
        received_ = receive_until(loop(), socket_->get(), {}, received_.result());
        return pawl::Next::future(received_);
      case Step::end: break;
    }
    return done(reply());
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"connect", "send", "receive head", "receive body", "end"};
    return names[static_cast<std::size_t>(at_)];
  }

  std::string request() const {
    return "GET " + url_.target + " HTTP/1.1\r\nHost: " + url_.authority +
           "\r\nConnection: close\r\n\r\n";
  }

  Reply reply() const {
    const std::string& text = received_.result();
    const auto body = text.find(head_end);
    if (body == std::string::npos) throw std::runtime_error("the reply has no end of its head");
    const std::size_t bytes = text.size() - body - head_end.size();
    return Reply{url_.text, text.substr(0, text.find("\r\n")), bytes};
  }

  static constexpr std::string_view head_end = "\r\n\r\n";

  const HttpUrl url_;
  const pawl::Endpoint peer_;
  SharedSocket socket_;
  pawl::Future<SharedSocket> connected_;
  pawl::Future<std::size_t> sent_;
  pawl::Future<std::string> received_;
  Step at_ = Step::connect;
};

/// `await sleep(...); replies = await gather(...)`
class Main final : public pawl::Task<> {
 public:
  Main(pawl::EventLoop& loop, std::vector<HttpUrl> urls)
      : Task(loop, "main"), urls_(std::move(urls)) {}

 private:
  enum class Step { sleep, gather, print };

  pawl::Next step() override {
    switch (at_) {
      case Step::sleep:
        at_ = Step::gather;
        slept_ = pawl::sleep(loop(), std::chrono::milliseconds(50));
        return pawl::Next::future(slept_);
      case Step::gather:
        at_ = Step::print;
        say("slept");
        replies_ = pawl::gather(loop(), start_all());
        return pawl::Next::future(replies_);
      case Step::print: print(replies_.result());
    }
    return pawl::Next::done();
  }

  std::string_view step_name() const override {
    constexpr std::string_view names[] = {"sleep", "gather", "print"};
    return names[static_cast<std::size_t>(at_)];
  }

  std::vector<pawl::Future<Reply>> start_all() {
    std::vector<pawl::Future<Reply>> futures;
    for (const HttpUrl& url : urls_) {
      gets_.push_back(std::make_unique<Get>(loop(), url));
      futures.push_back(gets_.back()->future());
      futures.back().add_done_callback([this, &url] { say("done: " + url.text); });
    }
    return futures;
  }

  static void print(const std::vector<Reply>& replies) {
    std::printf("gathered, in the order of the arguments:\n");
    for (const Reply& reply : replies) {
      std::printf("  %s  %s, %zu bytes\n", reply.url.c_str(), reply.status.c_str(),
                  reply.body_bytes);
    }
  }

  void say(const std::string& what) const {
    std::printf("%10s  %s\n", as_text(loop().time() - started_).c_str(), what.c_str());
  }

  const std::vector<HttpUrl> urls_;
  const pawl::TimePoint started_ = loop().time();
  std::vector<std::unique_ptr<Get>> gets_;
  pawl::Future<void> slept_;
  pawl::Future<std::vector<Reply>> replies_;
  Step at_ = Step::sleep;
};

int run(Options& words) {
  const pawl::Duration interval = words.seconds("--every", std::chrono::milliseconds(100));
  pawl::LoopOptions options;
  options.selector = words.text("--selector").value_or("");
  std::vector<HttpUrl> urls;
  for (const std::string& word : words.rest()) {
    urls.push_back(HttpUrl::parse(word));
    pawl::Endpoint::from_address(urls.back().server.host, 0);  // throws for a name
  }
  if (urls.empty()) throw ShowHelp();
  if (interval <= pawl::Duration::zero()) throw std::invalid_argument("--every has to be positive");

  pawl::EventLoop loop(std::move(options));
  int ticks = 0;
  const pawl::ScopedHandle ticker = loop.call_every(interval, [&] { ++ticks; });
  Main main(loop, std::move(urls));
  const int exit_code = run_task(loop, main);
  std::printf("the periodic task ticked %d times meanwhile\n", ticks);
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return run_program("tiny", help, argc, argv, run); }
