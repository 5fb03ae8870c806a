// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "net/name_server.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/resolver.hpp"

/// Files in /etc, by their paths, and what they hold.
using Files = std::map<std::string, std::string>;

/// Runs `work` in a child that has a loopback, an interface "wire0" with fe80::1, and these files
/// in place of the machine's. Returns what it returned; "no right" where that can't be had, which
/// is said too.
std::string in_own_machine(const Files& files, const std::function<std::string()>& work);

/// Looks names up in such a machine, with both backends in turn. Its name servers, at port 53 of
/// each of `addresses`, answer as `answer` says.
struct MachineLookups {
  Files files;
  NameServer::Answer answer;
  std::vector<std::string> addresses{"127.0.0.1"};
  pawl::ResolverOptions options{};
  std::string setup{};  // a shell's words about the network

  /// One line for each name, with what `backend` found: "www.test: 127.0.0.1:80"; then one with the
  /// names that were asked for.
  std::string with(const std::string& backend, const std::vector<std::string>& names,
                   pawl::AddressFamily family = pawl::AddressFamily::any) const;
};
