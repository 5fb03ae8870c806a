// SPDX-License-Identifier: MIT
// resolv.conf(5), hosts(5) and the heads of replies, whatever is in them.
#include "net/resolver_config.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "net/dns_search.hpp"
#include "net/hosts_file.hpp"
#include "pawl/core/error.hpp"

using namespace std::chrono_literals;
using pawl::AddressFamily;
using pawl::DnsAnswer;
using pawl::DnsOutcome;
using pawl::DnsSearch;
using pawl::Endpoint;
using pawl::Errc;
using pawl::ResolverAnswer;
using pawl::ResolverConfig;
using Step = pawl::DnsSearch::Step;

namespace {

ResolverConfig config_of(const std::string& text) {
  ResolverConfig config;
  config.take_file(text);
  return config;
}

std::string names(const ResolverConfig& config, const std::string& name) {
  std::string all;
  for (const std::string& each : config.candidates(name).names) all += each + " ";
  return all;
}

std::string hosts(const std::string& text, const std::string& name,
                  AddressFamily family = AddressFamily::any) {
  std::string all;
  for (const Endpoint& each : pawl::find_in_hosts(text, name, family)) all += each.host() + " ";
  return all;
}

DnsAnswer addresses(const std::string& host) {
  return {DnsOutcome::addresses, {}, {Endpoint::from_address(host, 0)}, 60s};
}

DnsAnswer failure(DnsOutcome outcome, Errc error) { return {outcome, error, {}, {}}; }

}  // namespace

TEST_CASE("An empty resolv.conf has the defaults of the C library") {
  for (const char* text : {"", "\n\n", "# nameserver 1.2.3.4\n", "options\nsearch\nnameserver\n",
                           "nameserverx 1.2.3.4\n", "  nameserver 1.2.3.4\n", "\r\n", "search"}) {
    const ResolverConfig config = config_of(text);
    CHECK(config.servers.empty());
    CHECK(config.ndots == 1);
    CHECK(config.timeout == 5s);
    CHECK(config.attempts == 2);
    CHECK_FALSE((config.rotates || config.uses_tcp));
    CHECK(config.asks_ipv6);
  }
}

TEST_CASE("Numbers in resolv.conf have the limits of the C library") {
  CHECK(config_of("options ndots:99 timeout:99 attempts:99\n").ndots == 15);
  CHECK(config_of("options ndots:99999999999999999999\n").ndots == 15);
  CHECK(config_of("options timeout:99\n").timeout == 30s);
  CHECK(config_of("options timeout:0 attempts:0\n").timeout == 1s);
  CHECK(config_of("options attempts:99\n").attempts == 5);
  CHECK(config_of("options attempts:0\n").attempts == 1);
  CHECK(config_of("options ndots:-1\n").ndots == 0);
  CHECK(config_of("options ndots:3x\n").ndots == 3);
  CHECK(config_of("options rotate no-aaaa use-vc no-tld-query edns0 nonsense\n").rotates);
}

TEST_CASE("A server's line has one address, and three lines count") {
  const ResolverConfig config = config_of(
      "nameserver 192.0.2.1 192.0.2.9\nnameserver\t::1\r\nnameserver 1.2.3\nnameserver fe80::1%lo\n"
      "nameserver 192.0.2.4\n");
  REQUIRE(config.servers.size() == 3);
  CHECK(config.servers[0].to_string() == "192.0.2.1:53");
  CHECK(config.servers[1].to_string() == "[::1]:53");
  CHECK(config.servers[2].to_string() == "[fe80::1%lo]:53");
}

TEST_CASE("Suffixes that no name can have are left out") {
  const std::string label(63, 'a');
  const ResolverConfig config =
      config_of("search good.test a..b bad\\name " + label + "." + label + "." + label + "\n");
  CHECK(names(config, "www") ==
        "www.good.test. www." + label + "." + label + "." + label + ". www. ");
  CHECK(names(config, label) == label + ".good.test. " + label + ". ");  // 255 bytes are too many
  CHECK(names(config, "www.") == "www. ");
  CHECK(names(config_of("search one.test\noptions no-tld-query\n"), "www") == "www.one.test. ");
  CHECK(names(config_of("options no-tld-query\n"), "www") == "www. ");
  CHECK(names(config_of("search 1\n"), "x") == "x. ");
}

TEST_CASE("A hosts file's lines count as the C library counts them") {
  const std::string text =
      "127.0.0.1 one # two\n127.0.0.2\tTWO one\r\n::1 one\n\n#127.0.0.3 one\nbad one\n127.0.0.4\n"
      "127.0.0.5 one.\n127.0.0.6 last";
  CHECK(hosts(text, "one") == "127.0.0.1 127.0.0.2 ::1 ");
  CHECK(hosts(text, "ONE", AddressFamily::ipv4) == "127.0.0.1 127.0.0.2 ");
  CHECK(hosts(text, "one", AddressFamily::ipv6) == "::1 ");
  CHECK(hosts(text, "two") == "127.0.0.2 ");
  CHECK(hosts(text, "one.") == "127.0.0.5 ");
  CHECK(hosts(text, "last") == "127.0.0.6 ");
  CHECK(hosts(text, "three").empty());
  CHECK(hosts("", "one").empty());
}

TEST_CASE("Whatever stands in the files, they are read to their end") {
  std::mt19937 random(20260101);
  const std::string alphabet = "search options nameserver 127.0.0.1::%lo\t\r\n\n\n#;.\\:0 \0\xff";
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (int k = 0; k < 200; ++k) text += alphabet[random() % alphabet.size()];
    const ResolverConfig config = config_of(text);
    CHECK(config.servers.size() <= 3);
    CHECK(config.candidates("a.b").names.size() <= config.search.size() + 1);
    hosts(text, "search");
  }
}

TEST_CASE("A search gives one family's addresses while the other's are missing, once") {
  DnsSearch search(config_of("").candidates("www."), AddressFamily::any, true);
  CHECK(search.step() == Step::next);
  CHECK((search.wants(DnsSearch::ipv4) && search.wants(DnsSearch::ipv6)));
  CHECK(search.step() == Step::wait);
  search.take(DnsSearch::ipv4, addresses("127.0.0.1"));
  CHECK(search.step() == Step::part);
  CHECK(search.answer().part == ResolverAnswer::Part::first);
  CHECK(search.step() == Step::wait);
  SECTION("they come") {
    search.take(DnsSearch::ipv6, addresses("::1"));
    CHECK(search.step() == Step::over);
    CHECK(search.answer().part == ResolverAnswer::Part::whole);
    CHECK(search.answer().endpoints.size() == 2);
  }
  SECTION("there are none") {
    search.take(DnsSearch::ipv6, failure(DnsOutcome::no_address, Errc::no_address));
    CHECK(search.step() == Step::over);
    CHECK(search.answer().part == ResolverAnswer::Part::whole);
  }
  SECTION("their servers fail") {
    search.take(DnsSearch::ipv6, failure(DnsOutcome::failed, Errc::resolve_failed));
    CHECK(search.step() == Step::over);
    CHECK(search.answer().part == ResolverAnswer::Part::crippled);
    CHECK_FALSE(search.answer().error);
  }
}

TEST_CASE("A search ends where there is no server, and where nothing is to be asked") {
  DnsSearch search(config_of("search one.test two.test\n").candidates("www"), AddressFamily::ipv4,
                   true);
  CHECK(search.step() == Step::next);
  CHECK(search.name() == "www.one.test.");
  search.take(DnsSearch::ipv4, failure(DnsOutcome::no_server, Errc::resolve_failed));
  CHECK(search.step() == Step::over);
  CHECK(search.answer().error == Errc::resolve_failed);

  DnsSearch nothing(config_of("").candidates("www"), AddressFamily::ipv6, false);
  CHECK(nothing.step() == Step::over);
  CHECK(nothing.answer().error == Errc::no_address);
}
