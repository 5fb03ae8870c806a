// SPDX-License-Identifier: MIT
// The c-ares backend against a name server that no one here wrote. Skipped, and said so, where
// dnsmasq isn't installed or the build has no c-ares.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "net/resolving.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/child_process.hpp"
#include "pawl/net/resolver.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::AddressFamily;
using pawl::ChildExit;
using pawl::ChildProcess;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Resolver;

namespace {

constexpr const char* program = "/usr/sbin/dnsmasq";

/// A port of 127.0.0.1 that nobody has, for TCP and UDP: it is free until someone else takes it.
std::uint16_t free_port() {
  for (;;) {
    const pawl::UniqueFd udp = bound_socket(SOCK_DGRAM);
    const sockaddr_in address = address_of(udp.get());
    const pawl::UniqueFd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(tcp.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      return ntohs(address.sin_port);
    }
  }
}

/// For UDP.
bool is_free(std::uint16_t port) {
  const pawl::UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::bind(udp.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

/// dnsmasq on a free port of 127.0.0.1, which knows the names that it is given and asks nobody.
class Dnsmasq {
 public:
  Dnsmasq(EventLoop& loop, const std::vector<std::string>& names) : loop_(loop) {
    for (int tries = 0; !is_up_; ++tries) {
      REQUIRE(tries < 5);  // the port may have been taken meanwhile
      start(names);
    }
  }
  ~Dnsmasq() { stop(); }

  Endpoint endpoint() const { return Endpoint::loopback(port_); }
  void stop() {
    if (process_ == nullptr) return;
    process_->kill(SIGKILL);
    run_until(loop_, [&] { return has_ended_; });
    process_.reset();
    // The child that it had for TCP may live a moment longer, and hears datagrams too.
    run_until(loop_, [&] { return is_free(port_); });
  }

 private:
  void start(const std::vector<std::string>& names) {
    port_ = free_port();
    pawl::ChildProcessOptions options;
    options.arguments = {program,
                         "--keep-in-foreground",
                         "--log-facility=-",
                         "--no-resolv",
                         "--no-hosts",
                         "--conf-file=/dev/null",
                         "--pid-file=",
                         "--bind-interfaces",
                         "--listen-address=127.0.0.1",
                         "--port=" + std::to_string(port_),
                         "--user=",
                         "--local=/test/"};
    options.arguments.insert(options.arguments.end(), names.begin(), names.end());
    options.standard_error = pawl::Stdio::pipe;
    has_ended_ = false;
    process_ = std::make_unique<ChildProcess>(
        loop_, options, [this](ChildProcess&, const ChildExit&) { has_ended_ = true; });
    const pawl::UniqueFd errors = std::move(process_->standard_error());
    loop_.add_reader(errors.get(), [&] { read(errors.get()); });
    run_until(loop_, [&] { return is_up_ || has_ended_; });
    loop_.remove_reader(errors.get());
    if (!is_up_) process_.reset();
  }

  void read(int fd) {
    std::array<char, 4096> buffer;
    const ssize_t bytes = ::read(fd, buffer.data(), buffer.size());
    if (bytes > 0) log_.append(buffer.data(), static_cast<std::size_t>(bytes));
    is_up_ = log_.find("started, version") != std::string::npos;
  }

  EventLoop& loop_;
  std::unique_ptr<ChildProcess> process_;
  std::string log_;
  std::uint16_t port_ = 0;
  bool is_up_ = false;
  bool has_ended_ = false;
};

bool can_run() {
  if (::access(program, X_OK) != 0) {
    WARN("skipped: dnsmasq (package dnsmasq-base) isn't installed");
    return false;
  }
  if (pawl::available_resolver_backends().size() < 2) {
    WARN("skipped: this build has no c-ares");
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("dnsmasq's names lead to its addresses, for as long as it says") {
  if (!can_run()) return;
  KnownHosts nobody;
  KnowingSystem system(nobody);
  EventLoop loop(options_on(system));
  std::vector<std::string> names{
      "--host-record=one.test,127.0.0.11,::1,40", "--host-record=four.test,127.0.0.12",
      "--cname=alias.test,one.test", "--txt-record=text.test,no address"};
  for (int i = 0; i < 200; ++i) {  // more than fits into a datagram of 512 bytes
    names.push_back("--host-record=many.test,127.8.0." + std::to_string(i));
  }
  Dnsmasq dnsmasq(loop, names);
  system.stop_clock();
  pawl::ResolverOptions options;
  options.backend = "cares";
  options.servers = {dnsmasq.endpoint()};
  options.try_timeout = 2s;  // when it is gone the kernel may say so, or not
  options.tries = 2;
  Resolver resolver(loop, options);
  const auto look_up = [&](const std::string& name, AddressFamily family) {
    Found found;
    resolver.resolve(name, 80, family, found.callback());
    run_until(loop, [&] { return found.calls > 0; });
    if (found.endpoints.size() > 2) return std::to_string(found.endpoints.size()) + " addresses";
    return found.text();
  };
  const auto message = [](Errc error) { return make_error_code(error).message(); };
  CHECK(look_up("one.test.", AddressFamily::ipv4) == "127.0.0.11:80");
  CHECK(look_up("ONE.test.", AddressFamily::ipv6) == "[::1]:80");
  CHECK(look_up("alias.test.", AddressFamily::ipv4) == "127.0.0.11:80");
  CHECK(look_up("many.test.", AddressFamily::ipv4) == "200 addresses");
  CHECK(look_up("four.test.", AddressFamily::ipv6) == message(Errc::no_address));
  CHECK(look_up("text.test.", AddressFamily::any) == message(Errc::no_address));
  CHECK(look_up("missing.test.", AddressFamily::any) == message(Errc::host_not_found));
  // It answers REFUSED for names that it would have to ask others about.
  CHECK(look_up("elsewhere.invalid.", AddressFamily::any) == message(Errc::resolve_failed));

  const std::uint64_t queries = resolver.counters().queries;
  system.advance(39s);
  CHECK(look_up("one.test.", AddressFamily::ipv4) == "127.0.0.11:80");
  CHECK(resolver.counters().queries == queries);
  dnsmasq.stop();
  system.advance(1s);
  CHECK(look_up("one.test.", AddressFamily::ipv4) == message(Errc::resolve_failed));
}
