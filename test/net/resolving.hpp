// SPDX-License-Identifier: MIT
#pragma once

#include <netdb.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/name_server.hpp"
#include "net/systems.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/resolver.hpp"
#include "support/virtual_clock.hpp"

/// What name servers, or the system, know about a name.
struct KnownHost {
  /// `late` is silent until the end of the silence, and then found.
  enum class Kind { found, missing, no_address, unanswered, nonsense, silent, late };

  Kind kind = Kind::found;
  std::vector<std::string> addresses;
  int ttl = 10;
  std::optional<Kind> ipv4{};  // what is said of one family alone, where it isn't `kind`
  std::optional<Kind> ipv6{};

  Kind of(bool is_ipv6) const { return (is_ipv6 ? ipv6 : ipv4).value_or(kind); }
};

using KnownHosts = std::map<std::string, KnownHost>;

/// For a `NameServer` that knows them.
std::vector<std::string> reply_to(const KnownHosts& hosts, const DnsQuestion& question,
                                  bool is_silent = true);

/// Waits until the threads of all resolvers that are gone have ended. One of them may have taken a
/// question and not have asked the system yet: that must not go before.
void wait_for_resolver_threads();

/// A system that knows these names, and a clock that can be put forward, and stopped, so that a
/// busy machine changes nothing.
class KnowingSystem : public FaultySystem {
 public:
  explicit KnowingSystem(const KnownHosts& hosts) : hosts_(hosts) {}
  /// Waits until no thread is in here any more, or about to be.
  ~KnowingSystem() override;

  pawl::TimePoint now() override {
    const pawl::TimePoint stopped(pawl::Duration(stopped_at_.load()));
    const pawl::Duration ahead(ahead_.load());
    return (stopped == pawl::TimePoint{} ? FaultySystem::now() : stopped) + ahead;
  }
  void stop_clock() { stopped_at_ = FaultySystem::now().time_since_epoch().count(); }
  void advance(pawl::Duration span) { ahead_ += span.count(); }
  pawl::SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) override;
  void freeaddrinfo(addrinfo* results) override;
  /// Only the files that a test puts here are on this machine, which has no name.
  pawl::SystemResult read_file(const char* path, std::string& text) override;
  pawl::SystemResult host_name(std::string& name) override;
  std::map<std::string, std::string> files;
  /// How often it was asked.
  int questions();
  /// The silent ones answer now.
  void end_silence();
  bool is_silent();
  /// Waits until each thread of a resolver has nothing to do, or waits in here.
  void wait_for_idle_threads();

 private:
  pawl::SystemResult answer(const char* node, const char* service, const addrinfo* hints,
                            addrinfo** results);
  void wait_for_end_of_silence();
  /// What was done in one thread before this is done for another one after it.
  void synchronize();

  const KnownHosts& hosts_;
  std::atomic<pawl::Duration::rep> ahead_{0};
  std::atomic<pawl::Duration::rep> stopped_at_{0};  // 0 while it runs
  std::mutex mutex_;
  std::condition_variable changed_;
  int questions_ = 0;
  bool is_silent_ = true;
};

/// A resolver of either backend among known hosts.
struct Resolving {
  explicit Resolving(std::string_view backend, KnownHosts known, pawl::ResolverOptions wanted = {},
                     pawl::Observer* observer = nullptr);

  /// How often a name was looked up outside.
  int questions();
  /// Who was silent answers now.
  void end_silence();

  KnownHosts hosts;
  KnowingSystem system;
  pawl::EventLoop loop;
  NameServer server;
  pawl::ResolverOptions options;
  std::unique_ptr<pawl::Resolver> resolver;
};

/// What a lookup came to.
struct Found {
  int calls = 0;
  std::error_code error;
  std::vector<pawl::Endpoint> endpoints;

  pawl::Resolver::Done callback() {
    return [this](std::error_code why, const std::vector<pawl::Endpoint>& found) {
      ++calls;
      error = why;
      endpoints = found;
    };
  }
  /// "127.0.0.1:80 [::1]:80", or the error.
  std::string text() const;
};
