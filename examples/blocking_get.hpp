// SPDX-License-Identifier: MIT
#pragma once

// The broken forms that "But what's async anyway?" and "Inside The Event Loop" begin with: a GET
// that nothing else can happen beside. They are here to be looked at next to the right form.

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "advice.hpp"
#include "http_response.hpp"
#include "http_url.hpp"
#include "pawl/core/time.hpp"
#include "pawl/core/unique_fd.hpp"
#include "timeline.hpp"

/// How a GET waits for what isn't there yet.
enum class Waiting : std::uint8_t {
  blocked,  ///< the kernel keeps the thread until it is there
  busy,     ///< the socket doesn't block, so it asks again, and again: EINPROGRESS, EAGAIN
};

/// One GET from beginning to end inside one call.
///
/// Fails: by `failure()`, one line for a person.
class BlockingGet {
 public:
  using Clock = std::chrono::steady_clock;

  /// Calls that were made of each kind; one would have been enough for most.
  struct Tries {
    std::uint64_t connect = 0;
    std::uint64_t send = 0;
    std::uint64_t receive = 0;

    Tries& operator+=(const Tries& other) {
      connect += other.connect;
      send += other.send;
      receive += other.receive;
      return *this;
    }
  };

  BlockingGet(HttpUrl url, Waiting waiting, pawl::Duration patience,
              HttpResponseReader::BodyCallback on_body)
      : url_(std::move(url)),
        waiting_(waiting),
        patience_(patience),
        response_(std::move(on_body), nullptr, url_.text) {}

  /// Does it all. Notes in `row` when which phase began, by the clock `now`.
  void run(TimelineRow& row, const std::function<pawl::Duration()>& now) {
    started_ = Clock::now();
    try {
      row.marks = {{Phase::connecting, now()}};
      connect();
      row.marks.push_back({Phase::sending, now()});
      send();
      row.marks.push_back({Phase::waiting, now()});
      receive([&] {
        if (row.marks.back().phase == Phase::waiting)
          row.marks.push_back({Phase::receiving, now()});
      });
    } catch (const std::system_error& error) {
      failure_ = url_.text + ": " + error.what() + advice_on(error.code());
    }
    socket_.reset();
    row.end = now();
    row.has_failed = !failure_.empty();
    elapsed_ = Clock::now() - started_;
  }

  const HttpUrl& url() const { return url_; }
  const HttpResponseReader& response() const { return response_; }
  const std::string& failure() const { return failure_; }
  const Tries& tries() const { return tries_; }
  pawl::Duration elapsed() const { return elapsed_; }

 private:
  [[noreturn]] static void fail(int error, const char* call) {
    throw std::system_error(error, std::system_category(), call);
  }

  void connect() {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const std::string port = std::to_string(url_.server.port);
    if (::getaddrinfo(url_.server.host.c_str(), port.c_str(), &hints, &found) != 0) {
      throw std::system_error(make_error_code(pawl::Errc::host_not_found), url_.server.host);
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> address(found, &::freeaddrinfo);
    const int flags = SOCK_STREAM | SOCK_CLOEXEC | (waiting_ == Waiting::busy ? SOCK_NONBLOCK : 0);
    socket_.reset(::socket(address->ai_family, flags, 0));
    if (!socket_) fail(errno, "socket");
    limit_waits();
    retry("connect", tries_.connect, [&] {
      const int result = ::connect(socket_.get(), address->ai_addr, address->ai_addrlen);
      return result < 0 && errno == EISCONN ? 0 : result;
    });
  }

  /// For a socket that blocks; `retry` limits the other.
  void limit_waits() const {
    const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(patience_);
    timeval limit{};
    limit.tv_sec = static_cast<time_t>(microseconds.count() / 1'000'000);
    limit.tv_usec = static_cast<suseconds_t>(microseconds.count() % 1'000'000);
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }

  void send() {
    const std::string request = "GET " + url_.target + " HTTP/1.1\r\nHost: " + url_.authority +
                                "\r\nUser-Agent: pawl\r\nConnection: close\r\n\r\n";
    for (std::string_view left = request; !left.empty();) {
      const auto sent = retry("send", tries_.send, [&] {
        return ::send(socket_.get(), left.data(), left.size(), MSG_NOSIGNAL);
      });
      left.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  template <typename OnBytes>
  void receive(OnBytes on_bytes) {
    std::array<char, 64 * 1024> buffer;
    while (!response_.is_over()) {
      const auto got = retry("recv", tries_.receive, [&] {
        return ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      });
      on_bytes();
      if (got == 0) {
        response_.end();
        break;
      }
      response_.feed(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
    }
    if (response_.state() == ResponseState::failed) {
      failure_ = url_.text + ": " + response_.problem() + "; the server's log may say why";
    }
  }

  /// Makes the call until it works. On a socket that blocks once is enough; on one that doesn't
  /// this is the document's `except BlockingIOError: continue`, and burns a processor.
  template <typename Call>
  ssize_t retry(const char* name, std::uint64_t& tries, Call call) {
    for (;;) {
      ++tries;
      ssize_t result = call();
      while (result < 0 && errno == EINTR) result = call();  // a limit on waiting brings that alone
      if (result >= 0) return result;
      const bool would_block = errno == EAGAIN || errno == EINPROGRESS || errno == EALREADY;
      if (!would_block) fail(errno, name);
      if (waiting_ == Waiting::blocked || Clock::now() - started_ > patience_) {
        fail(ETIMEDOUT, name);
      }
    }
  }

  const HttpUrl url_;
  const Waiting waiting_;
  const pawl::Duration patience_;
  HttpResponseReader response_;
  pawl::UniqueFd socket_;
  Tries tries_;
  Clock::time_point started_;
  pawl::Duration elapsed_{};
  std::string failure_;
};
