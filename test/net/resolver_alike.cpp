// SPDX-License-Identifier: MIT
// Both backends on one machine with the same resolv.conf(5), hosts(5) and name servers: the C
// library shows what is right. Each runs in a machine of its own (namespaces: needs root).
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "net/own_machine.hpp"
#include "net/resolving.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/resolver.hpp"
#include "support/environment.hpp"

using namespace std::chrono_literals;
using pawl::AddressFamily;
using pawl::Errc;
using Kind = KnownHost::Kind;
using Names = std::vector<std::string>;

namespace {

const std::string local_server = "nameserver 127.0.0.1\n";

std::string message(Errc error) { return make_error_code(error).message(); }

MachineLookups machine(const std::string& resolv_conf, const KnownHosts& hosts,
                       const std::string& hosts_file = "") {
  return {{{"/etc/resolv.conf", resolv_conf},
           {"/etc/hosts", hosts_file},
           {"/etc/nsswitch.conf", "hosts: files dns\n"}},
          [hosts](const DnsQuestion& question) { return reply_to(hosts, question); }};
}

/// With both backends; `expected` in the C library's words, so to say.
void check_alike(const MachineLookups& there, const Names& names, const std::string& expected,
                 AddressFamily family = AddressFamily::any) {
  for (const std::string_view backend : pawl::available_resolver_backends()) {
    CAPTURE(backend);
    const std::string found = there.with(std::string(backend), names, family);
    if (found == "no right") return;
    CHECK(found == expected);
  }
}

}  // namespace

TEST_CASE("Both backends go through the suffixes of a search list in the same order") {
  const KnownHosts hosts{{"www.one.test", {Kind::found, {"127.0.0.1"}}},
                         {"www.two.test", {Kind::found, {"127.0.0.2"}}},
                         {"ftp.two.test", {Kind::found, {"127.0.0.3"}}},
                         {"top", {Kind::found, {"127.0.0.4"}}},
                         {"a.b", {Kind::found, {"127.0.0.5"}}},
                         {"c.d.two.test", {Kind::found, {"127.0.0.6"}}}};
  check_alike(machine("search one.test two.test\n" + local_server, hosts),
              {"www", "ftp", "top", "a.b", "c.d", "none", "www.", "c.d."},
              "www: 127.0.0.1:80\nftp: 127.0.0.3:80\ntop: 127.0.0.4:80\na.b: 127.0.0.5:80\n"
              "c.d: 127.0.0.6:80\nnone: host not found\nwww.: host not found\n"
              "c.d.: host not found\n"
              "asked: www.one.test; ftp.one.test; ftp.two.test; top.one.test; top.two.test; top; "
              "a.b; c.d; c.d.one.test; c.d.two.test; none.one.test; none.two.test; none; www;\n");
}

TEST_CASE("Both backends take the last of \"search\" and \"domain\", and a dot for the root") {
  const KnownHosts hosts{{"top", {Kind::found, {"127.0.0.4"}}},
                         {"www.two.test", {Kind::found, {"127.0.0.2"}}}};
  check_alike(machine("search .\n" + local_server, hosts), {"top", "none", "x.y"},
              "top: 127.0.0.4:80\nnone: host not found\nx.y: host not found\n"
              "asked: top; none; x.y;\n");
  check_alike(machine("search . two.test\n" + local_server, hosts), {"www"},
              "www: 127.0.0.2:80\nasked: www; www.two.test;\n");
  check_alike(machine("search one.test\ndomain two.test\n" + local_server, hosts), {"www"},
              "www: 127.0.0.2:80\nasked: www.two.test;\n");
  check_alike(machine("domain two.test\nsearch one.test.\n" + local_server, hosts), {"www"},
              "www: host not found\nasked: www.one.test; www;\n");
  // A comment's word, and one that isn't at the beginning of its line, count for nothing.
  check_alike(
      machine("#search one.test\n;search one.test\n search one.test\nsearch\ttwo.test \r\n" +
                  local_server,
              hosts),
      {"www"}, "www: 127.0.0.2:80\nasked: www.two.test;\n");
}

TEST_CASE("Both backends search below this machine's own name where nobody names a suffix") {
  const KnownHosts hosts{{"www.two.test", {Kind::found, {"127.0.0.2"}}}};
  MachineLookups there = machine(local_server, hosts);
  there.setup = "hostname me.two.test";
  check_alike(there, {"www"}, "www: 127.0.0.2:80\nasked: www.two.test;\n");
  there.setup = "hostname me";
  check_alike(there, {"www"}, "www: host not found\nasked: www;\n");
}

TEST_CASE("Both backends take LOCALDOMAIN and RES_OPTIONS from the environment") {
  const KnownHosts hosts{{"www.two.test", {Kind::found, {"127.0.0.2"}}},
                         {"a.b.two.test", {Kind::found, {"127.0.0.3"}}}};
  const ScopedVariable domain("LOCALDOMAIN", "none.test two.test");
  const ScopedVariable options("RES_OPTIONS", "ndots:2 attempts:1");
  check_alike(machine("search one.test\noptions ndots:1\n" + local_server, hosts), {"www", "a.b"},
              "www: 127.0.0.2:80\na.b: 127.0.0.3:80\n"
              "asked: www.none.test; www.two.test; a.b.none.test; a.b.two.test;\n");
}

TEST_CASE("Both backends try a name with as many dots as ndots says as it is, and first") {
  const KnownHosts hosts{{"a.b", {Kind::found, {"127.0.0.1"}}},
                         {"a.b.one.test", {Kind::found, {"127.0.0.2"}}},
                         {"top", {Kind::found, {"127.0.0.3"}}},
                         {"top.one.test", {Kind::found, {"127.0.0.4"}}}};
  const auto with = [&](const std::string& options) {
    return machine("search one.test\n" + options + local_server, hosts);
  };
  check_alike(with("options ndots:2\n"), {"a.b", "top"},
              "a.b: 127.0.0.2:80\ntop: 127.0.0.4:80\nasked: a.b.one.test; top.one.test;\n");
  check_alike(with("options ndots:1\n"), {"a.b", "top"},
              "a.b: 127.0.0.1:80\ntop: 127.0.0.4:80\nasked: a.b; top.one.test;\n");
  check_alike(with("options ndots:0\n"), {"a.b", "top"},
              "a.b: 127.0.0.1:80\ntop: 127.0.0.3:80\nasked: a.b; top;\n");
  check_alike(with("options ndots:x\n"), {"top"}, "top: 127.0.0.3:80\nasked: top;\n");
}

TEST_CASE("Both backends go on when the servers fail at one suffix") {
  const KnownHosts hosts{{"www.bad.test", {Kind::unanswered, {}}},
                         {"ftp.bad.test", {Kind::unanswered, {}}},
                         {"ftp", {Kind::found, {"127.0.0.7"}}},
                         {"none.bad.test", {Kind::unanswered, {}}},
                         {"x.y", {Kind::unanswered, {}}},
                         {"x.y.two.test", {Kind::found, {"127.0.0.8"}}},
                         {"www.two.test", {Kind::found, {"127.0.0.2"}}}};
  check_alike(machine("search bad.test two.test\noptions attempts:1\n" + local_server, hosts),
              {"www", "ftp", "none", "x.y"},
              "www: 127.0.0.2:80\nftp: 127.0.0.7:80\nnone: " + message(Errc::resolve_failed) +
                  "\nx.y: 127.0.0.8:80\n"
                  "asked: www.bad.test; www.two.test; ftp.bad.test; ftp.two.test; ftp; "
                  "none.bad.test; none.two.test; none; x.y; x.y.bad.test; x.y.two.test;\n");
}

TEST_CASE("Both backends leave the other suffixes out when the servers keep silent about one") {
  const KnownHosts hosts{{"www.dead.test", {Kind::silent, {}}},
                         {"www", {Kind::found, {"127.0.0.7"}}},
                         {"www.two.test", {Kind::found, {"127.0.0.2"}}}};
  check_alike(
      machine("search dead.test two.test\noptions attempts:1 timeout:1\n" + local_server, hosts),
      {"www"}, "www: 127.0.0.7:80\nasked: www.dead.test; www;\n");
}

TEST_CASE("Both backends say the same of a name whose families are told of differently") {
  const KnownHosts hosts{
      {"v4.test", {Kind::found, {"127.0.0.1"}, 10, {}, Kind::missing}},
      {"v6.test", {Kind::found, {"::1"}, 10, Kind::missing, {}}},
      {"none4.test", {Kind::missing, {}, 10, Kind::no_address, {}}},
      {"none6.test", {Kind::missing, {}, 10, {}, Kind::no_address}},
      {"no.test", {Kind::no_address, {}}},
      {"bad6.test", {Kind::found, {"127.0.0.1"}, 10, {}, Kind::unanswered}},
      {"bad4.test", {Kind::found, {"::1"}, 10, Kind::unanswered, {}}},
  };
  const MachineLookups there = machine("options attempts:1\n" + local_server, hosts);
  check_alike(there, {"v4.test", "v6.test", "no.test", "bad6.test"},
              "v4.test: 127.0.0.1:80\nv6.test: [::1]:80\nno.test: " + message(Errc::no_address) +
                  "\nbad6.test: 127.0.0.1:80\n"
                  "asked: v4.test; v6.test; no.test; bad6.test;\n");
}

TEST_CASE("Both backends give what has come when the other family stays silent") {
  const KnownHosts hosts{{"dead6.test", {Kind::found, {"127.0.0.1"}, 10, {}, Kind::silent}},
                         {"dead4.test", {Kind::found, {"::1"}, 10, Kind::silent, {}}}};
  MachineLookups there = machine(local_server, hosts);
  there.options.timeout = 20s;
  there.options.other_family_delay = 20ms;
  check_alike(there, {"dead6.test", "dead4.test"},
              "dead6.test: 127.0.0.1:80\ndead4.test: [::1]:80\nasked: dead6.test; dead4.test;\n");
}

TEST_CASE("Both backends take what the hosts file has, and ask nobody for its other family") {
  const KnownHosts hosts{{"pinned.test", {Kind::found, {"127.6.6.6", "2001:db8::66"}}},
                         {"other.test", {Kind::found, {"127.0.0.9"}}}};
  const MachineLookups there = machine("search test\n" + local_server, hosts,
                                       "127.0.0.3 pinned.test short # not.test\n"
                                       "# 127.0.0.4 short\n"
                                       "\t127.0.0.5\tTWO.test\r\n"
                                       "::1 both.test\n127.0.0.1 both.test\n"
                                       "nonsense other.test\n");
  check_alike(there, {"pinned.test", "PINNED.TEST", "short", "two.test", "both.test", "other.test"},
              "pinned.test: 127.0.0.3:80\nPINNED.TEST: 127.0.0.3:80\nshort: 127.0.0.3:80\n"
              "two.test: 127.0.0.5:80\nboth.test: [::1]:80 127.0.0.1:80\nother.test: "
              "127.0.0.9:80\nasked: other.test;\n");
  check_alike(there, {"pinned.test", "both.test"},
              "pinned.test: [2001:db8::66]:80\nboth.test: [::1]:80\nasked: pinned.test;\n",
              AddressFamily::ipv6);
  check_alike(there, {"pinned.test."},
              "pinned.test.: 127.6.6.6:80 [2001:db8::66]:80\nasked: "
              "pinned.test;\n");
}

TEST_CASE("Both backends reach a name server with a scope, and one with an IPv6 address") {
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1"}}}};
  MachineLookups there = machine("nameserver fe80::1%wire0\n", hosts);
  there.addresses = {"fe80::1%wire0"};
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\n");
  there = machine("nameserver ::1\n", hosts);
  there.addresses = {"::1"};
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\n");
  // One whose interface is gone is left for the next one.
  there =
      machine("options timeout:1 attempts:1\nnameserver fe80::1%nowhere\n" + local_server, hosts);
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\n");
}

TEST_CASE("Both backends ask the server of this machine when resolv.conf names none") {
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1"}}}};
  check_alike(machine("", hosts), {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\n");
  check_alike(machine("nameserver nonsense\nnameserver\n", hosts), {"one.test"},
              "one.test: 127.0.0.1:80\nasked: one.test;\n");
}

TEST_CASE("Both backends ask the first three servers, in turn, and no fourth one") {
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1"}}}};
  MachineLookups there = machine(
      "nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\nnameserver 127.0.0.1\n"
      "options timeout:1 attempts:1\n",
      hosts);
  check_alike(there, {"one.test"}, "one.test: " + message(Errc::resolve_failed) + "\nasked:\n");
  there.addresses = {"127.0.0.4", "127.0.0.1"};
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\nasked:\n");
}

TEST_CASE("Both backends don't ask for IPv6 where resolv.conf says so") {
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1", "::1"}}},
                         {"six.test", {Kind::found, {"::1"}}}};
  const MachineLookups there = machine("options no-aaaa\n" + local_server, hosts);
  check_alike(there, {"one.test", "six.test"},
              "one.test: 127.0.0.1:80\nsix.test: " + message(Errc::no_address) +
                  "\nasked: one.test; six.test;\n");
}

TEST_CASE("Both backends ask over TCP where resolv.conf says so, and for what was cut off") {
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1"}}}};
  MachineLookups there = machine("options use-vc\n" + local_server, hosts);
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked:\n");
  there = machine(local_server, hosts);
  there.answer = [hosts](const DnsQuestion& question) {
    if (question.is_over_tcp) return reply_to(hosts, question);
    DnsReply reply(question);
    reply.is_truncated = true;
    return std::vector<std::string>{reply.bytes()};
  };
  check_alike(there, {"one.test"}, "one.test: 127.0.0.1:80\nasked: one.test;\n");
}

TEST_CASE("Both backends give addresses in the same order") {
  const KnownHosts hosts{
      {"near.test", {Kind::found, {"::1", "127.0.0.1"}}},
      {"far.test", {Kind::found, {"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.9"}}},
      {"mixed.test", {Kind::found, {"192.0.2.1", "::1", "2001:db8::2", "127.0.0.1"}}},
      {"many.test", {Kind::found, {"192.0.2.7", "192.0.2.3", "192.0.2.9", "192.0.2.1"}}}};
  check_alike(machine(local_server, hosts), {"near.test", "far.test", "mixed.test", "many.test"},
              "near.test: [::1]:80 127.0.0.1:80\n"
              "far.test: [2001:db8::1]:80 [2001:db8::2]:80 192.0.2.1:80 192.0.2.9:80\n"
              "mixed.test: [::1]:80 127.0.0.1:80 [2001:db8::2]:80 192.0.2.1:80\n"
              "many.test: 192.0.2.7:80 192.0.2.3:80 192.0.2.9:80 192.0.2.1:80\n"
              "asked: near.test; far.test; mixed.test; many.test;\n");
}

TEST_CASE("Both backends give addresses in the order in which they can be reached") {
  const KnownHosts hosts{
      {"far.test", {Kind::found, {"2001:db8:1::1", "198.51.100.1", "192.0.2.1", "2001:db8::2"}}},
      {"six.test", {Kind::found, {"2001:db8::f:1", "2001:db8::1", "fe80::2"}}}};
  MachineLookups there = machine(local_server, hosts);
  const Names names{"far.test", "six.test"};
  there.setup = "ip addr add 192.0.2.200/24 dev wire0";  // no IPv6 but on the wire itself
  check_alike(there, names,
              "far.test: 192.0.2.1:80 [2001:db8:1::1]:80 [2001:db8::2]:80 198.51.100.1:80\n"
              "six.test: [fe80::2]:80 [2001:db8::f:1]:80 [2001:db8::1]:80\n"
              "asked: far.test; six.test;\n");
  there.setup = "ip addr add 2001:db8::f:2/64 dev wire0 nodad";
  check_alike(there, names,
              "far.test: [2001:db8::2]:80 [2001:db8:1::1]:80 198.51.100.1:80 192.0.2.1:80\n"
              "six.test: [2001:db8::f:1]:80 [2001:db8::1]:80 [fe80::2]:80\n"
              "asked: far.test; six.test;\n");
}

TEST_CASE("IPv4 addresses of this machine's own networks come first with the C library alone") {
  const KnownHosts hosts{
      {"mixed.test", {Kind::found, {"198.51.100.1", "192.0.2.1", "192.0.2.201", "192.0.2.130"}}},
      {"loop.test", {Kind::found, {"127.0.0.9", "127.0.0.1", "127.8.0.1"}}}};
  MachineLookups there = machine(local_server, hosts);
  there.setup = "ip addr add 192.0.2.200/24 dev wire0 && ip route add default dev wire0";
  const std::string by_system = there.with("system", {"mixed.test", "loop.test"});
  if (by_system == "no right") return;
  CHECK(by_system ==
        "mixed.test: 192.0.2.201:80 192.0.2.130:80 192.0.2.1:80 198.51.100.1:80\n"
        "loop.test: 127.0.0.1:80 127.0.0.9:80 127.8.0.1:80\nasked: mixed.test; loop.test;\n");
  if (pawl::available_resolver_backends().size() < 2) return;
  CHECK(there.with("cares", {"mixed.test", "loop.test"}) ==
        "mixed.test: 198.51.100.1:80 192.0.2.1:80 192.0.2.201:80 192.0.2.130:80\n"
        "loop.test: 127.0.0.9:80 127.0.0.1:80 127.8.0.1:80\nasked: mixed.test; loop.test;\n");
}

TEST_CASE("Both backends ask for names with underscores, digits and hyphens") {
  KnownHosts hosts;
  std::string expected;
  std::string asked = "asked:";
  Names names;
  for (const char* name :
       {"_x._tcp.test", "a_b.test", "9gag.test", "4.x", "xn--nxasmq6b.test", "a--b.test"}) {
    hosts[name] = {Kind::found, {"127.0.0.1"}};
    names.push_back(name);
    expected += std::string(name) + ": 127.0.0.1:80\n";
    asked += " " + std::string(name) + ";";
  }
  check_alike(machine(local_server, hosts), names, expected + asked + "\n");
}

TEST_CASE("Both backends leave the names of localhost and of Tor unasked") {
  const KnownHosts hosts{{"a.localhost", {Kind::found, {"127.6.6.6"}}},
                         {"localhost", {Kind::found, {"127.6.6.6"}}},
                         {"a.onion", {Kind::found, {"127.6.6.6"}}}};
  check_alike(machine("search one.test\n" + local_server, hosts, "127.6.6.6 localhost\n"),
              {"localhost", "LOCALHOST.", "a.localhost", "a.onion", "A.Onion."},
              "localhost: [::1]:80 127.0.0.1:80\nLOCALHOST.: [::1]:80 127.0.0.1:80\na.localhost: "
              "[::1]:80 127.0.0.1:80\na.onion: host not found\nA.Onion.: host not found\nasked:\n");
}

TEST_CASE("The c-ares backend asks the servers in turn where resolv.conf says \"rotate\"") {
  if (pawl::available_resolver_backends().size() < 2) {
    WARN("skipped: this build has no c-ares");
    return;
  }
  const KnownHosts hosts{{"one.test", {Kind::found, {"127.0.0.1"}}},
                         {"two.test", {Kind::found, {"127.0.0.2"}}}};
  MachineLookups there =
      machine("nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions rotate\n", hosts);
  there.addresses = {"127.0.0.1", "127.0.0.2"};
  const std::string found = there.with("cares", {"one.test", "two.test"});
  if (found == "no right") return;
  CHECK(found ==
        "one.test: 127.0.0.1:80\ntwo.test: 127.0.0.2:80\nasked: one.test;\nasked: two.test;\n");
}
