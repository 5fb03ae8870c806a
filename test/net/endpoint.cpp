// SPDX-License-Identifier: MIT
#include "pawl/net/endpoint.hpp"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/socket_address.hpp"

using namespace std::string_literals;
using pawl::Endpoint;
using pawl::SocketAddress;
using Family = pawl::Endpoint::Family;

namespace {

/// Whatever can go wrong with it says so; else its text.
std::string reason_against(std::string_view text) {
  try {
    return "none: it is " + Endpoint::parse(text).to_string();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

std::string longest_name() { return std::string(107, 'n'); }

Endpoint from_unix(const std::string& path, std::size_t bytes) {
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, path.data(), std::min(path.size(), sizeof un.sun_path));
  return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&un),
                                 static_cast<unsigned>(offsetof(sockaddr_un, sun_path) + bytes));
}

}  // namespace

TEST_CASE("An endpoint prints itself as it was parsed") {
  for (const std::string& text : {
           "127.0.0.1:80"s,
           "0.0.0.0:0"s,
           "255.255.255.255:65535"s,
           "[::1]:80"s,
           "[::]:0"s,
           "[2001:db8::7]:65535"s,
           "[::ffff:192.0.2.1]:8080"s,
           "[fe80::1%lo]:80"s,
           "[fe80::1%4294967295]:80"s,  // no such interface any more, say
           "unix:/run/pawl.sock"s,
           "unix:relative path"s,
           "unix:/a:b@c"s,
           "unix:@pawl"s,
           "unix:@@"s,
           "unix:@with space:80"s,
           "unix:/" + longest_name().substr(1),
           "unix:@" + longest_name(),
       }) {
    CAPTURE(text);
    const Endpoint endpoint = Endpoint::parse(text);
    CHECK(endpoint.to_string() == text);
    CHECK(Endpoint::parse(endpoint.to_string()) == endpoint);
  }
}

TEST_CASE("An IPv6 address is printed in its shortest form") {
  CHECK(Endpoint::parse("[0:0:0:0:0:0:0:1]:080").to_string() == "[::1]:80");
  CHECK(Endpoint::parse("[2001:0DB8:0:0:1:0:0:0]:1").to_string() == "[2001:db8:0:0:1::]:1");
}

TEST_CASE("A scope may be given by name or by number") {
  const unsigned number = ::if_nametoindex("lo");
  REQUIRE(number > 0);
  const Endpoint by_number = Endpoint::parse("[fe80::1%" + std::to_string(number) + "]:80");
  CHECK(by_number == Endpoint::parse("[fe80::1%lo]:80"));
  CHECK(by_number.host() == "fe80::1%lo");
  CHECK(by_number != Endpoint::parse("[fe80::1]:80"));
}

TEST_CASE("What is wrong with a text that isn't an endpoint is said, and the text with it") {
  const struct {
    std::string text;
    std::string_view reason;
  } cases[] = {
      {"", "there is no port"},
      {"127.0.0.1", "there is no port"},
      {"[::1]", "brackets"},
      {":80", "not an IPv4 or IPv6 address"},
      {"127.0.0.1:", "port"},
      {"127.0.0.1:x", "port"},
      {"127.0.0.1:80x", "port"},
      {"127.0.0.1: 80", "port"},
      {"127.0.0.1:+80", "port"},
      {"127.0.0.1:-1", "port"},
      {"127.0.0.1:65536", "port"},
      {"127.0.0.1:99999999999999999999", "port"},
      {"127.0.0.1:80:81", "brackets"},
      {"256.0.0.1:80", "not an IPv4 or IPv6 address"},
      {"127.0.1:80", "not an IPv4 or IPv6 address"},
      {" 127.0.0.1:80", "not an IPv4 or IPv6 address"},
      {"127.0.0.1 :80", "not an IPv4 or IPv6 address"},
      {"127.0.0.1%lo:80", "not an IPv4 or IPv6 address"},
      {"localhost:80", "not an IPv4 or IPv6 address"},
      {"::1:80", "brackets"},
      {"[127.0.0.1]:80", "brackets"},
      {"[]:80", "brackets"},
      {"[:80", "not an IPv4 or IPv6 address"},
      {"[::1:80", "brackets"},
      {"::1]:80", "brackets"},
      {"[[::1]]:80", "not an IPv4 or IPv6 address"},
      {"[:::]:80", "not an IPv4 or IPv6 address"},
      {"[1:2:3:4:5:6:7:8:9]:80", "not an IPv4 or IPv6 address"},
      {"[fe80::1%]:80", "no such interface"},
      {"[fe80::1%0]:80", "no such interface"},
      {"[fe80::1%no-such-interface]:80", "no such interface"},
      {"127.0.0.1\0:80"s, "NUL"},
      {"[::1\0]:80"s, "NUL"},
      {"unix:", "the name is empty"},
      {"unix:@", "the name is empty"},
      {"unix:" + longest_name() + "n", "over 107 bytes"},
      {"unix:@" + longest_name() + "n", "over 107 bytes"},
      {"unix:/run\0/x"s, "NUL"},
      {"unix:@a\0b"s, "NUL"},
      {"UNIX:/run/x", "port"},
      {"evil\n:80", "not an IPv4 or IPv6 address"},
  };
  for (const auto& [text, reason] : cases) {
    CAPTURE(text);
    const std::string said = reason_against(text);
    CHECK_THAT(said, Catch::Contains(std::string(reason)));
    std::string shown = text;
    for (char& c : shown) {
      if (c == '\0' || c == '\n') c = '?';
    }
    CHECK_THAT(said, Catch::StartsWith("Endpoint: \"" + shown + "\": "));
  }
}

TEST_CASE("An endpoint can be made of an address and a port") {
  CHECK(Endpoint::from_address("192.0.2.1", 80) == Endpoint::parse("192.0.2.1:80"));
  CHECK(Endpoint::from_address("::1", 80) == Endpoint::parse("[::1]:80"));
  CHECK(Endpoint::from_address("fe80::1%lo", 80) == Endpoint::parse("[fe80::1%lo]:80"));
  for (const char* text : {"", "localhost", "[::1]", "127.0.0.1:80", "::1%", "127.1"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(Endpoint::from_address(text, 80), std::invalid_argument);
    CHECK_THROWS_WITH(Endpoint::from_address(text, 80),
                      Catch::StartsWith("Endpoint: \"" + std::string(text) + "\": "));
  }
}

TEST_CASE("The usual endpoints have names") {
  CHECK(Endpoint::loopback(80).to_string() == "127.0.0.1:80");
  CHECK(Endpoint::loopback_ipv6(80).to_string() == "[::1]:80");
  CHECK(Endpoint::any(80).to_string() == "0.0.0.0:80");
  CHECK(Endpoint().to_string() == "-");
  CHECK(Endpoint().family() == Family::none);
}

TEST_CASE("An endpoint tells its parts") {
  const struct {
    const char* text;
    Family family;
    const char* host;
    std::uint16_t port;
  } cases[] = {
      {"127.0.0.1:80", Family::ipv4, "127.0.0.1", 80},
      {"[fe80::1%lo]:65535", Family::ipv6, "fe80::1%lo", 65535},
      {"unix:/run/x", Family::unix_path, "/run/x", 0},
      {"unix:@x", Family::unix_abstract, "@x", 0},
  };
  for (const auto& [text, family, host, port] : cases) {
    CAPTURE(text);
    const Endpoint endpoint = Endpoint::parse(text);
    CHECK(endpoint.family() == family);
    CHECK(endpoint.host() == host);
    CHECK(endpoint.port() == port);
    const bool is_unix = family == Family::unix_path || family == Family::unix_abstract;
    CHECK(endpoint.is_unix() == is_unix);
  }
}

TEST_CASE("Two endpoints are equal exactly when all their parts are") {
  std::vector<Endpoint> endpoints{Endpoint()};
  for (const char* text : {"127.0.0.1:80", "127.0.0.1:81", "127.0.0.2:80", "[::1]:80", "[::2]:80",
                           "[::ffff:127.0.0.1]:80", "[fe80::1]:80", "[fe80::1%1]:80",
                           "[fe80::1%2]:80", "unix:x", "unix:@x", "unix:y"}) {
    endpoints.push_back(Endpoint::parse(text));
  }
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    for (std::size_t j = 0; j < endpoints.size(); ++j) {
      CAPTURE(endpoints[i].to_string(), endpoints[j].to_string());
      CHECK((endpoints[i] == endpoints[j]) == (i == j));
      CHECK((endpoints[i] != endpoints[j]) == (i != j));
    }
  }
}

TEST_CASE("An endpoint with another port is otherwise the same, and a Unix socket has none") {
  CHECK(Endpoint::parse("[fe80::1%lo]:80").with_port(81) == Endpoint::parse("[fe80::1%lo]:81"));
  CHECK(Endpoint::loopback(80).with_port(0) == Endpoint::loopback(0));
  const Endpoint socket = Endpoint::parse("unix:@x");
  CHECK(socket.with_port(80) == socket);
  CHECK(Endpoint().with_port(80) == Endpoint());
}

TEST_CASE("What the kernel filled in becomes an endpoint, and back") {
  for (const char* text :
       {"127.0.0.1:80", "[2001:db8::7]:1", "[fe80::1%lo]:80", "unix:/run/x", "unix:@x", "-"}) {
    CAPTURE(text);
    const Endpoint endpoint = *text == '-' ? Endpoint() : Endpoint::parse(text);
    const SocketAddress address(endpoint);
    CHECK(address.endpoint() == endpoint);
    CHECK(Endpoint::from_sockaddr(address.get(), address.bytes()).to_string() == text);
  }
}

TEST_CASE("A Unix address ends where the kernel says, not at its first NUL") {
  CHECK(from_unix("", 0) == Endpoint());
  CHECK(from_unix("/run/x", 6).to_string() == "unix:/run/x");
  CHECK(from_unix("/run/x", 7).to_string() == "unix:/run/x");
  CHECK(from_unix("/run/x", 108).to_string() == "unix:/run/x");
  CHECK(from_unix("\0x"s, 2) == Endpoint::parse("unix:@x"));
  CHECK(from_unix("\0x"s, 3).host() == "@x\0"s);
  CHECK(from_unix(std::string(108, 'p'), 108).host() == std::string(108, 'p'));
}

TEST_CASE("An address that is cut short or of a family of its own is nowhere") {
  sockaddr_in6 in6{};
  const auto* address = reinterpret_cast<const sockaddr*>(&in6);
  CHECK(Endpoint::from_sockaddr(nullptr, 0) == Endpoint());
  in6.sin6_family = AF_INET6;
  CHECK(Endpoint::from_sockaddr(address, 0) == Endpoint());
  CHECK(Endpoint::from_sockaddr(address, 1) == Endpoint());
  CHECK(Endpoint::from_sockaddr(address, sizeof in6 - 1) == Endpoint());
  CHECK(Endpoint::from_sockaddr(address, sizeof in6) == Endpoint::parse("[::]:0"));
  in6.sin6_family = AF_INET;
  CHECK(Endpoint::from_sockaddr(address, sizeof(sockaddr_in) - 1) == Endpoint());
  in6.sin6_family = AF_NETLINK;
  CHECK(Endpoint::from_sockaddr(address, sizeof in6) == Endpoint());
}
