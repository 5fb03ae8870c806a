// SPDX-License-Identifier: MIT
// Names to addresses, all at once: each lookup is one callback, and the loop waits for none of
// them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "advice.hpp"
#include "console.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"
#include "program.hpp"

namespace {

constexpr const char* help =
    R"(usage: resolve NAME... [--count N] [--family 4|6] [--timeout SECONDS]
               [--backend NAME] [--server ADDRESS[:PORT],...]

Looks names up, all at once, and prints for each how long that took, where the
answer came from (asked, shared with another lookup, cached, or the name was an
address already), and the addresses in the order in which to try them. Exit code
1 when a name has none, 130 on Ctrl-C.

  --count N          so many rounds, one after the other, default 1
  --family 4|6       addresses of IPv4 or IPv6 alone
  --timeout SECONDS  how long to be patient with silent name servers, default 30
  --backend NAME     system (getaddrinfo on threads, the default) or cares (DNS
                     on the loop's thread)
  --server LIST      the name servers to ask, in turn; for cares, and implies it)";

/// "127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353"
pawl::Endpoint parse_server(const std::string& text) {
  try {
    return pawl::Endpoint::from_address(text, 53);
  } catch (const std::invalid_argument&) {
    return pawl::Endpoint::parse(text);
  }
}

std::vector<pawl::Endpoint> parse_servers(const std::string& list) {
  std::vector<pawl::Endpoint> servers;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    servers.push_back(parse_server(list.substr(begin, end - begin)));
    begin = end + 1;
  }
  return servers;
}

pawl::AddressFamily parse_family(const std::string& text) {
  if (text == "4") return pawl::AddressFamily::ipv4;
  if (text == "6") return pawl::AddressFamily::ipv6;
  throw std::invalid_argument("--family is 4 or 6, not \"" + text + "\"");
}

/// Looks all names up, round after round.
class Rounds {
 public:
  Rounds(pawl::EventLoop& loop, pawl::ResolverOptions options, std::vector<std::string> names,
         std::uint64_t count, pawl::AddressFamily family)
      : loop_(loop),
        resolver_(loop, std::move(options)),
        names_(std::move(names)),
        rounds_left_(count),
        family_(family) {
    for (const std::string& name : names_) columns_ = std::max(columns_, shown(name).size());
    start_round();
  }

  bool has_failed() const { return has_failed_; }
  std::size_t pending() const { return resolver_.pending(); }

 private:
  static std::string shown(const std::string& name) { return shortened(printable(name), 40); }

  static std::string printable(std::string name) {
    for (char& c : name) {
      if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
    }
    return name;
  }

  void start_round() {
    --rounds_left_;
    for (const std::string& name : names_) start(name);
  }

  void start(const std::string& name) {
    const pawl::TimePoint begin = loop_.time();
    const pawl::ResolverCounters before = resolver_.counters();
    const auto source = std::make_shared<const char*>("address");
    resolver_.resolve(name, 0, family_,
                      [this, &name, begin, source](std::error_code error,
                                                   const std::vector<pawl::Endpoint>& endpoints) {
                        print(name, loop_.time() - begin, *source, error, endpoints);
                        if (resolver_.pending() == 0) end_round();
                      });
    const pawl::ResolverCounters& now = resolver_.counters();
    if (now.queries > before.queries) *source = "asked";
    if (now.shared > before.shared) *source = "shared";
    if (now.cache_hits > before.cache_hits) *source = "cached";
  }

  void print(const std::string& name, pawl::Duration took, const char* source,
             std::error_code error, const std::vector<pawl::Endpoint>& endpoints) {
    std::string line =
        padded(shown(name), columns_) + right_aligned(as_text(took), 11) + "  " + padded(source, 7);
    for (const pawl::Endpoint& endpoint : endpoints) line += " " + endpoint.host();
    if (error) {
      has_failed_ = true;
      line += " " + error.message() + advice_on(error);
    }
    std::printf("%s\n", line.c_str());
  }

  void end_round() {
    if (rounds_left_ > 0) return start_round();
    forget_interrupt(loop_);
  }

  pawl::EventLoop& loop_;
  pawl::Resolver resolver_;
  const std::vector<std::string> names_;
  std::uint64_t rounds_left_;
  pawl::AddressFamily family_;
  std::size_t columns_ = 0;
  bool has_failed_ = false;  // true exactly when a name had no address
};

int run(Options& words) {
  const std::uint64_t count = words.number("--count", 1, 1, 1'000'000);
  pawl::AddressFamily family = pawl::AddressFamily::any;
  if (const auto text = words.text("--family")) family = parse_family(*text);
  pawl::ResolverOptions options;
  options.timeout = words.seconds("--timeout", options.timeout);
  if (const auto list = words.text("--server")) {
    options.servers = parse_servers(*list);
    options.backend = "cares";
  }
  options.backend = words.text("--backend").value_or(options.backend);
  pawl::LoopOptions loop_options;
  loop_options.selector = words.text("--selector").value_or("");
  std::vector<std::string> names = words.rest();
  if (names.empty()) throw ShowHelp();

  pawl::EventLoop loop(std::move(loop_options));
  int interrupted_by = 0;
  on_interrupt(loop, [&](int signal) {
    interrupted_by = signal;
    loop.stop();
  });
  const Rounds rounds(loop, std::move(options), std::move(names), count, family);
  loop.run();
  if (interrupted_by != 0) {
    std::fprintf(stderr, "resolve: interrupted, with %zu unfinished\n", rounds.pending());
    return 128 + interrupted_by;
  }
  return rounds.has_failed() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("resolve", help, argc, argv, run); }
