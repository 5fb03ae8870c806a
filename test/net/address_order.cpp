// SPDX-License-Identifier: MIT
// RFC 6724: the order in which addresses are to be tried.
#include "net/address_order.hpp"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/socket_address.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/system/system.hpp"

using pawl::Endpoint;
using pawl::SocketAddress;
using pawl::System;
using pawl::SystemResult;

namespace {

/// A machine that reaches each destination from the address that is given here, or not at all.
class Routes final : public System {
 public:
  explicit Routes(std::map<std::string, std::string> sources) : sources_(std::move(sources)) {}

  SystemResult socket(int, int, int) override { return {++open_ + 1'000'000, 0}; }
  SystemResult close(int) override {
    --open_;
    return {0, 0};
  }
  SystemResult connect(int, const sockaddr* address, unsigned bytes) override {
    const auto route = sources_.find(Endpoint::from_sockaddr(address, bytes).host());
    if (route == sources_.end()) return {-1, ENETUNREACH};
    source_ = route->second;
    return {0, 0};
  }
  SystemResult getsockname(int, sockaddr* address, unsigned* bytes) override {
    const SocketAddress source(Endpoint::from_address(source_, 0));
    std::copy_n(reinterpret_cast<const char*>(source.get()), source.bytes(),
                reinterpret_cast<char*>(address));
    *bytes = source.bytes();
    return {0, 0};
  }
  int open() const { return open_; }

 private:
  std::map<std::string, std::string> sources_;
  std::string source_;
  int open_ = 0;
};

using Hosts = std::vector<std::string>;

Hosts sorted(System& system, const Hosts& hosts) {
  std::vector<Endpoint> addresses;
  for (const std::string& host : hosts) addresses.push_back(Endpoint::from_address(host, 0));
  pawl::sort_addresses(system, addresses);
  Hosts result;
  for (const Endpoint& address : addresses) result.push_back(address.host());
  return result;
}

}  // namespace

TEST_CASE("Addresses come in the order of RFC 6724's examples, whatever their order was") {
  // §10.2: destinations in the order that is right, each with its source.
  const std::vector<std::vector<std::pair<std::string, std::string>>> examples{
      // prefer matching scope
      {{"2001:db8:1::1", "2001:db8::2"}, {"198.51.100.121", "169.254.13.78"}},
      {{"198.51.100.121", "198.51.100.117"}, {"2001:db8:1::1", "fe80::1"}},
      // prefer higher precedence
      {{"2001:db8:1::1", "2001:db8::2"}, {"10.1.2.3", "10.1.2.4"}},
      {{"2001:db8:1::1", "2001:db8::2"}, {"2002:c633:6401::1", "2002:c633:6401::2"}},
      // prefer smaller scope
      {{"fe80::1", "fe80::2"}, {"2001:db8:1::1", "2001:db8::2"}},
      // prefer matching label
      {{"2002:c633:6401::1", "2002:c633:6401::2"}, {"2001:db8:1::1", "2002:c633:6401::2"}},
      // use the longest matching prefix
      {{"2001:db8:1::1", "2001:db8:1::2"}, {"2001:db8:3ffe::1", "2001:db8:3f44::2"}},
      // not in the RFC: this machine's own
      {{"::1", "::1"}, {"127.0.0.1", "127.0.0.1"}},
  };
  for (const auto& example : examples) {
    Hosts right;
    for (const auto& each : example) right.push_back(each.first);
    CAPTURE(right);
    Routes routes({example.begin(), example.end()});
    const Hosts wrong(right.rbegin(), right.rend());
    CHECK(sorted(routes, right) == right);
    CHECK(sorted(routes, wrong) == right);
    CHECK(routes.open() == 0);
  }
}

TEST_CASE("Where no route leads comes last, and what ranks the same keeps its order") {
  Routes routes({{"10.0.0.3", "10.0.0.1"}, {"10.0.0.2", "10.0.0.1"}});
  CHECK(sorted(routes, {"2001:db8::1", "10.0.0.3", "192.0.2.1", "10.0.0.2", "2001:db8::2"}) ==
        Hosts{"10.0.0.3", "10.0.0.2", "2001:db8::1", "2001:db8::2", "192.0.2.1"});
  CHECK(sorted(routes, {}).empty());
  CHECK(sorted(routes, {"192.0.2.1"}) == Hosts{"192.0.2.1"});
}

TEST_CASE("Addresses come in the order that getaddrinfo gives them on this machine") {
  // It sorts what the hosts file says of localhost, here ::1 and 127.0.0.1 as the case may be.
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* results = nullptr;
  REQUIRE(System::real().getaddrinfo("localhost", nullptr, &hints, &results).value == 0);
  Hosts given;
  for (const addrinfo* each = results; each != nullptr; each = each->ai_next) {
    given.push_back(Endpoint::from_sockaddr(each->ai_addr, each->ai_addrlen).host());
  }
  System::real().freeaddrinfo(results);
  CHECK(sorted(System::real(), Hosts(given.rbegin(), given.rend())) == given);
}
