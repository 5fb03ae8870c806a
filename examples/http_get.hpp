// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "advice.hpp"
#include "http_response.hpp"
#include "http_url.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"

/// One GET on a connection of its own: connects, asks, and reads the reply to its end.
///
/// Owns:     the connection, which goes from CONNECTING to DONE, and the reader of the reply.
/// Calls:    `on_body` for each piece of the body, then `on_done` exactly once: when the reply is
///           complete, or when it is clear that it won't be. `on_done` may destroy this.
/// Promises: no step takes longer than `patience`, as long as bytes keep coming the whole may.
/// Fails:    by `failure()`, one line that names the URL, the peer, the state and what to do.
class HttpGet {
 public:
  using DoneCallback = pawl::Function<void(HttpGet&)>;

  HttpGet(pawl::EventLoop& loop, HttpUrl url, pawl::Duration patience,
          HttpResponseReader::BodyCallback on_body, DoneCallback on_done)
      : loop_(loop),
        url_(std::move(url)),
        on_done_(std::move(on_done)),
        response_(std::move(on_body), loop.observer(), url_.text),
        started_(loop.time()),
        connection_(pawl::Connection::connect(loop, url_.server.host, url_.server.port,
                                              options(patience))) {
    connection_->on_data([this](pawl::Connection&, std::string_view bytes) { on_data(bytes); });
    connection_->on_eof([this](pawl::Connection&) { on_end(); });
    connection_->on_closed([this](pawl::Connection&, std::error_code error) { on_closed(error); });
  }

  /// Writes the request, which leaves as soon as the connection stands.
  void ask() {
    connection_->write("GET " + url_.target + " HTTP/1.1\r\nHost: " + url_.authority +
                       "\r\nUser-Agent: pawl\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  }

  const HttpUrl& url() const { return url_; }
  const HttpResponseReader& response() const { return response_; }
  const pawl::Connection& connection() const { return *connection_; }
  /// True exactly from the moment before `on_done`.
  bool is_done() const { return is_done_; }
  /// Empty exactly when nothing went wrong (so far). A reply such as 404 is no failure.
  const std::string& failure() const { return failure_; }
  pawl::TimePoint started() const { return started_; }
  /// From the beginning to the end, or to now.
  pawl::Duration elapsed() const { return (is_done_ ? ended_ : loop_.time()) - started_; }

 private:
  static pawl::ConnectionOptions options(pawl::Duration patience) {
    pawl::ConnectionOptions options;
    options.connect_timeout = options.write_timeout = options.idle_timeout = patience;
    options.close_timeout = std::chrono::milliseconds(200);  // we have what we wanted
    return options;
  }

  void on_data(std::string_view bytes) {
    response_.feed(bytes);
    if (response_.is_over()) conclude();
  }

  void on_end() {
    response_.end();
    conclude();
  }

  void on_closed(std::error_code error) {
    if (is_done_) return;
    failure_ = url_.text + ": " + connection_->describe();
    const std::uint64_t bytes = response_.body_bytes();
    if (bytes > 0) failure_ += ", after " + std::to_string(bytes) + " bytes of the body";
    failure_ += advice_on(error);
    finish();
  }

  void conclude() {
    if (is_done_) return;
    if (response_.state() == ResponseState::failed) {
      failure_ = url_.text + ": connection to " + url_.authority + " " +
                 std::string(to_string(connection_->state())) + ": " + response_.problem() +
                 "; the server's log may say why";
    }
    connection_->close();
    finish();
  }

  void finish() {
    is_done_ = true;
    ended_ = loop_.time();
    DoneCallback on_done = std::move(on_done_);
    on_done(*this);
  }

  pawl::EventLoop& loop_;
  HttpUrl url_;
  DoneCallback on_done_;
  HttpResponseReader response_;
  std::string failure_;
  pawl::TimePoint started_;
  pawl::TimePoint ended_{};
  bool is_done_ = false;
  std::unique_ptr<pawl::Connection> connection_;
};
