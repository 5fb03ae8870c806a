// SPDX-License-Identifier: MIT
#include "network/two_hosts.hpp"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "support/forked.hpp"

namespace {

/// The beginning of each script.
const std::string in_path = "set -e; PATH=$PATH:/usr/sbin:/sbin\n";

/// Runs commands, in the network of this thread.
void shell(const std::string& script) {
  if (std::system((in_path + script).c_str()) != 0) throw std::runtime_error("failed: " + script);
}

std::string output_of(const std::string& script) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen((in_path + script).c_str(), "re"),
                                                   ::pclose);
  if (pipe == nullptr) throw std::system_error(errno, std::system_category(), "popen");
  std::array<char, 4096> buffer;
  return std::string(buffer.data(), std::fread(buffer.data(), 1, buffer.size(), pipe.get()));
}

void set_kernel(const std::string& name, const std::string& value) {
  std::ofstream file("/proc/sys/net/" + name);
  file << value << std::flush;
  if (!file) throw std::runtime_error("can't set net/" + name);
}

pawl::UniqueFd this_network() {
  pawl::UniqueFd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!fd) throw std::system_error(errno, std::system_category(), "ns/net");
  return fd;
}

/// This thread goes into a new network.
pawl::UniqueFd new_network() {
  if (::unshare(CLONE_NEWNET) != 0) {
    throw std::system_error(errno, std::system_category(), "unshare");
  }
  return this_network();
}

/// nft's words for one chain, in place of all that was there. It counts what comes to the rules.
std::string ruleset(const std::string& hook, const std::string& rules) {
  return "nft -f - <<'RULES'\nflush ruleset\ntable inet weather {\nchain rules {\ntype filter "
         "hook " +
         hook + " priority 0\nicmpv6 type { nd-neighbor-solicit, " +
         "nd-neighbor-advert } accept\ncounter\n" + rules + "\n}\n}\nRULES\n";
}

/// Every ICMP error is sent, and a neighbour that isn't there is noticed in a fraction of a second.
void make_impatient() {
  set_kernel("ipv4/icmp_ratelimit", "0");
  set_kernel("ipv6/icmp/ratelimit", "0");
  set_kernel("ipv4/neigh/wire/retrans_time_ms", "50");
  set_kernel("ipv6/neigh/wire/retrans_time_ms", "50");
}

/// A link of big packets, whose loss TCP notices within milliseconds instead of the usual fifth of
/// a second (ip-route(8), rto_min and quickack). IPv6 addresses count at once (nodad).
std::string set_up(const std::string& number) {
  return "ip link set lo up\nip address add 192.0.2." + number +
         "/24 dev wire\nip address add 2001:db8::" + number +
         "/64 dev wire nodad\nip link set wire up\n"
         "ip route change 192.0.2.0/24 dev wire proto kernel scope link src 192.0.2." +
         number + " rto_min 5ms quickack 1\n";
}

/// In a child, which takes its network with it. What fails beyond this is a failure, not a skip.
bool may_make_networks() {
  return exit_code_of_fork([] { return ::unshare(CLONE_NEWNET) == 0 ? 0 : 1; }) == 0;
}

bool has_tools() {
  return std::system(
             "PATH=$PATH:/usr/sbin:/sbin; command -v nft >/dev/null && command -v ip >/dev/null") ==
         0;
}

}  // namespace

bool TwoHosts::are_possible() {
  static const char* const reason = ::geteuid() != 0 ? "needs root"
                                    : !has_tools()   ? "needs the packages nftables and iproute2"
                                    : !may_make_networks()
                                        ? "needs root that may make network namespaces"
                                        : nullptr;
  if (reason != nullptr) WARN("skipped: " << reason);
  return reason == nullptr;
}

TwoHosts::TwoHosts() : before_(this_network()) {
  try {
    far_ = new_network();
    near_ = new_network();
    join_by_link();
  } catch (...) {
    enter(before_.get());
    throw;
  }
}

TwoHosts::~TwoHosts() { ::setns(before_.get(), CLONE_NEWNET); }

void TwoHosts::join_by_link() {
  const std::string far =
      "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(far_.get());
  shell("ip link add wire mtu 9000 type veth peer name wire mtu 9000 netns " + far);
  on_far([] {
    make_impatient();
    shell(set_up("2"));
  });
  make_impatient();
  shell(set_up("1"));
}

void TwoHosts::enter(int network) {
  if (::setns(network, CLONE_NEWNET) != 0) {
    throw std::system_error(errno, std::system_category(), "setns");
  }
}

pawl::Endpoint TwoHosts::near(std::uint16_t port) {
  return pawl::Endpoint::from_address("192.0.2.1", port);
}

pawl::Endpoint TwoHosts::far(std::uint16_t port) {
  return pawl::Endpoint::from_address("192.0.2.2", port);
}

pawl::Endpoint TwoHosts::far_ipv6(std::uint16_t port) {
  return pawl::Endpoint::from_address("2001:db8::2", port);
}

void TwoHosts::filter_far(const std::string& rules) {
  on_far([&] { shell(ruleset("input", rules)); });
}

void TwoHosts::filter_both(const std::string& rules) {
  filter_far(rules);
  shell(ruleset("input", rules));
}

void TwoHosts::filter_near_output(const std::string& rules) { shell(ruleset("output", rules)); }

int TwoHosts::filtered_near() {
  std::istringstream rules(
      output_of("nft list ruleset | sed -n 's/.*counter packets \\([0-9]*\\).*/\\1/p'"));
  int packets = 0;
  rules >> packets;
  return packets;
}

int TwoHosts::filtered_far() {
  int packets = 0;
  on_far([&] { packets = filtered_near(); });
  return packets;
}

void TwoHosts::heal() {
  shell("nft flush ruleset");
  on_far([] { shell("nft flush ruleset"); });
}

void TwoHosts::set_patience(int retransmissions) {
  set_kernel("ipv4/tcp_retries2", std::to_string(retransmissions));
}

void TwoHosts::set_link(bool is_up) {
  shell(std::string("ip link set wire ") + (is_up ? "up" : "down"));
}
