// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "net/socket_address.hpp"
#include "pawl/core/unique_fd.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/endpoint.hpp"

/// What a name server was asked (RFC 1035 §4.1.2).
struct DnsQuestion {
  static constexpr int a = 1;
  static constexpr int aaaa = 28;

  std::string id;    // two bytes
  std::string name;  // lower case, without the last dot
  int type = 0;
  std::string bytes;  // the whole question section
  bool is_over_tcp = false;
};

/// A reply that is made by hand, right or wrong.
class DnsReply {
 public:
  explicit DnsReply(const DnsQuestion& asked) : id(asked.id), question(asked.bytes) {}

  /// An A or AAAA record for the name that was asked for, as the address is.
  DnsReply& address(const std::string& text, int ttl = 60);
  /// As above, for another name.
  DnsReply& address_of(const std::string& owner, const std::string& text, int ttl = 60);
  DnsReply& alias(const std::string& owner, const std::string& target, int ttl = 60);
  std::string bytes() const;

  std::string id;
  std::string question;
  int code = 0;  // RFC 1035's RCODE: 0 fine, 1 format error, 2 server failure, 3 no such name …
  bool is_truncated = false;

  static std::string encoded(const std::string& name);

 private:
  DnsReply& record(const std::string& owner, int type, int ttl, const std::string& data);

  std::string records_;
  int record_count_ = 0;
};

/// A name server on a free port of 127.0.0.1 or where it is told, UDP and TCP, which says whatever
/// the test wants.
class NameServer {
 public:
  /// Returns what is sent back: so many messages.
  using Answer = std::function<std::vector<std::string>(const DnsQuestion&)>;

  NameServer(pawl::EventLoop& loop, Answer answer);
  NameServer(pawl::EventLoop& loop, Answer answer, const pawl::Endpoint& at);
  ~NameServer();
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

  pawl::Endpoint endpoint() const { return endpoint_; }
  /// Answers what has come by a datagram, without the loop.
  void serve_now() { on_datagram(); }
  /// Answers those again who asked by a datagram and got nothing.
  void answer_again();
  /// All that was asked, in its order.
  std::vector<DnsQuestion> questions;
  /// How many of them were about A records.
  int count() const;
  /// How many streams have come and haven't ended.
  std::size_t streams() const { return streams_.size(); }

 private:
  void watch();
  void on_datagram();
  void on_connection();
  void on_stream(int fd);
  std::vector<std::string> answer(const std::string& message, bool is_over_tcp);

  pawl::EventLoop& loop_;
  Answer answer_;
  pawl::Endpoint endpoint_;
  struct Asked {
    pawl::SocketAddress by;
    DnsQuestion question;
  };
  void send(const pawl::SocketAddress& to, const std::string& reply);
  std::vector<Asked> unanswered_;
  pawl::UniqueFd udp_;
  pawl::UniqueFd tcp_;
  std::map<int, pawl::UniqueFd> streams_;
  std::map<int, std::string> input_;
};
