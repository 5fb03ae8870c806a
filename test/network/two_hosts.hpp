// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "pawl/core/unique_fd.hpp"
#include "pawl/net/endpoint.hpp"

/// Two hosts with a link between them, each a network namespace of its own, for one test case. This
/// thread, and what it starts, is on the near one until the end of the scope: `on_far` makes
/// sockets on the other, which stay there. The addresses are those of documentation, RFC 5737 and
/// RFC 3849; nothing of it is seen from outside. Make it before the loop.
class TwoHosts {
 public:
  /// False, and says why, where there is no right to make namespaces or no tool.
  static bool are_possible();

  TwoHosts();
  ~TwoHosts();
  TwoHosts(const TwoHosts&) = delete;
  TwoHosts& operator=(const TwoHosts&) = delete;

  static pawl::Endpoint near(std::uint16_t port);
  static pawl::Endpoint far(std::uint16_t port);
  static pawl::Endpoint far_ipv6(std::uint16_t port);

  /// `work()` on the far host.
  template <typename Work>
  void on_far(Work work) {
    enter(far_.get());
    try {
      work();
    } catch (...) {
      enter(near_.get());
      throw;
    }
    enter(near_.get());
  }

  /// nftables rules, one a line, for what comes in at the far host, at both, or for what leaves the
  /// near one; nft(8). They take the place of those before.
  void filter_far(const std::string& rules);
  void filter_both(const std::string& rules);
  void filter_near_output(const std::string& rules);
  /// How many packets have come to the rules for what comes in.
  static int filtered_near();
  int filtered_far();
  /// No rules. A packet that is still on its way may arrive.
  void heal();
  /// Neither host hears anything of the other from now on, and nobody is told.
  void cut() { filter_both("drop"); }
  /// How often the near kernel sends again before it gives a connection up (tcp(7): tcp_retries2).
  void set_patience(int retransmissions);
  /// The near end of the link.
  void set_link(bool is_up);

 private:
  static void enter(int network);
  void join_by_link();

  pawl::UniqueFd before_;
  pawl::UniqueFd far_;
  pawl::UniqueFd near_;
};
