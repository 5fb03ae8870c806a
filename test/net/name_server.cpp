// SPDX-License-Identifier: MIT
#include "net/name_server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cctype>
#include <stdexcept>
#include <utility>

#include "net/stream.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"

namespace {

std::string two_bytes(int value) {
  return {static_cast<char>(value >> 8 & 0xff), static_cast<char>(value & 0xff)};
}

std::string four_bytes(int value) { return two_bytes(value >> 16) + two_bytes(value); }

int number_at(const std::string& bytes, std::size_t position) {
  return static_cast<unsigned char>(bytes.at(position)) << 8 |
         static_cast<unsigned char>(bytes.at(position + 1));
}

const std::string asked_name{'\xc0', '\x0c'};  // a pointer to the question's (RFC 1035 §4.1.4)

constexpr std::size_t header_bytes = 12;

DnsQuestion parsed(const std::string& message, bool is_over_tcp) {
  DnsQuestion question;
  question.id = message.substr(0, 2);
  question.is_over_tcp = is_over_tcp;
  std::size_t position = header_bytes;
  while (const auto size = static_cast<unsigned char>(message.at(position))) {
    if (!question.name.empty()) question.name += '.';
    question.name += message.substr(position + 1, size);
    position += 1 + std::size_t{size};
  }
  for (char& c : question.name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  question.type = number_at(message, position + 1);
  question.bytes = message.substr(header_bytes, position + 5 - header_bytes);
  return question;
}

}  // namespace

std::string DnsReply::encoded(const std::string& name) {
  std::string bytes;
  std::size_t begin = 0;
  while (begin < name.size()) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    bytes += static_cast<char>(end - begin) + name.substr(begin, end - begin);
    begin = end + 1;
  }
  return bytes + '\0';
}

DnsReply& DnsReply::record(const std::string& owner, int type, int ttl, const std::string& data) {
  ++record_count_;
  records_ += owner + two_bytes(type) + two_bytes(1) + four_bytes(ttl) +
              two_bytes(static_cast<int>(data.size())) + data;
  return *this;
}

DnsReply& DnsReply::address(const std::string& text, int ttl) { return address_of("", text, ttl); }

DnsReply& DnsReply::address_of(const std::string& owner, const std::string& text, int ttl) {
  const bool is_ipv6 = text.find(':') != std::string::npos;
  std::string data(is_ipv6 ? 16 : 4, '\0');
  REQUIRE(::inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text.c_str(), data.data()) == 1);
  return record(owner.empty() ? asked_name : encoded(owner),
                is_ipv6 ? DnsQuestion::aaaa : DnsQuestion::a, ttl, data);
}

DnsReply& DnsReply::alias(const std::string& owner, const std::string& target, int ttl) {
  constexpr int cname = 5;
  return record(owner.empty() ? asked_name : encoded(owner), cname, ttl, encoded(target));
}

std::string DnsReply::bytes() const {
  // A response, recursion desired and available.
  const int flags = 0x8180 | (is_truncated ? 0x0200 : 0) | code;
  return id + two_bytes(flags) + two_bytes(1) + two_bytes(record_count_) + two_bytes(0) +
         two_bytes(0) + question + records_;
}

NameServer::NameServer(pawl::EventLoop& loop, Answer answer)
    : loop_(loop), answer_(std::move(answer)) {
  for (int tries = 0; !tcp_; ++tries) {
    REQUIRE(tries < 100);
    udp_ = bound_socket(SOCK_DGRAM);
    pawl::UniqueFd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const sockaddr_in address = address_of(udp_.get());
    if (::bind(tcp.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      continue;
    REQUIRE(::listen(tcp.get(), 16) == 0);
    tcp_ = std::move(tcp);
  }
  endpoint_ = pawl::Endpoint::loopback(ntohs(address_of(udp_.get()).sin_port));
  watch();
}

NameServer::NameServer(pawl::EventLoop& loop, Answer answer, const pawl::Endpoint& at)
    : loop_(loop), answer_(std::move(answer)), endpoint_(at) {
  const pawl::SocketAddress address(at);
  for (const auto& [type, socket] : {std::pair(SOCK_DGRAM, &udp_), std::pair(SOCK_STREAM, &tcp_)}) {
    socket->reset(::socket(address.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(socket->get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket->get(), address.get(), address.bytes()) != 0) {
      throw std::runtime_error("no name server at " + at.to_string());
    }
  }
  REQUIRE(::listen(tcp_.get(), 16) == 0);
  watch();
}

void NameServer::watch() {
  make_blocking(udp_.get(), false);
  loop_.add_reader(udp_.get(), [this] { on_datagram(); });
  loop_.add_reader(tcp_.get(), [this] { on_connection(); });
}

NameServer::~NameServer() {
  loop_.remove_reader(udp_.get());
  loop_.remove_reader(tcp_.get());
  for (const auto& stream : streams_) loop_.remove_reader(stream.first);
}

void NameServer::send(const pawl::SocketAddress& to, const std::string& reply) {
  ::sendto(udp_.get(), reply.data(), reply.size(), 0, to.get(), to.bytes());
}

void NameServer::answer_again() {
  for (const Asked& asked : std::exchange(unanswered_, {})) {
    for (const std::string& reply : answer_(asked.question)) send(asked.by, reply);
  }
}

int NameServer::count() const {
  return static_cast<int>(
      std::count_if(questions.begin(), questions.end(),
                    [](const DnsQuestion& each) { return each.type == DnsQuestion::a; }));
}

std::vector<std::string> NameServer::answer(const std::string& message, bool is_over_tcp) {
  questions.push_back(parsed(message, is_over_tcp));
  return answer_(questions.back());
}

void NameServer::on_datagram() {
  const FailingAllocation::Spared spared;
  std::array<char, 4096> buffer;
  pawl::SocketAddress asker;
  const ssize_t bytes =
      ::recvfrom(udp_.get(), buffer.data(), buffer.size(), 0, asker.get(), asker.bytes_pointer());
  if (bytes < 0) return;
  const std::string message(buffer.data(), static_cast<std::size_t>(bytes));
  const std::vector<std::string> replies = answer(message, false);
  for (const std::string& reply : replies) send(asker, reply);
  if (replies.empty()) unanswered_.push_back(Asked{asker, questions.back()});
}

void NameServer::on_connection() {
  const FailingAllocation::Spared spared;
  pawl::UniqueFd stream(::accept4(tcp_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const int fd = stream.get();
  if (fd < 0) return;
  streams_[fd] = std::move(stream);
  loop_.add_reader(fd, [this, fd] { on_stream(fd); });
}

void NameServer::on_stream(int fd) {
  const FailingAllocation::Spared spared;
  std::array<char, 4096> buffer;
  const ssize_t bytes = ::recv(fd, buffer.data(), buffer.size(), 0);
  if (bytes <= 0) {
    loop_.remove_reader(fd);
    input_.erase(fd);
    streams_.erase(fd);
    return;
  }
  std::string& input = input_[fd];
  input.append(buffer.data(), static_cast<std::size_t>(bytes));
  while (input.size() >= 2 && input.size() >= 2 + static_cast<std::size_t>(number_at(input, 0))) {
    const auto size = static_cast<std::size_t>(number_at(input, 0));
    const std::string message = input.substr(2, size);
    input.erase(0, 2 + size);
    for (const std::string& reply : answer(message, true)) {
      const std::string framed = two_bytes(static_cast<int>(reply.size())) + reply;
      const ssize_t sent = ::send(fd, framed.data(), framed.size(), MSG_NOSIGNAL);
      if (sent < 0) return;  // whoever asked has gone
      REQUIRE(sent == static_cast<ssize_t>(framed.size()));
    }
  }
}
