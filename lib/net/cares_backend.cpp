// SPDX-License-Identifier: MIT
// c-ares asks name servers from the loop's thread, for one name and one family at a time: what else
// there is to a lookup (resolv.conf(5), the hosts file, the suffixes, the families together) is
// `DnsSearch`'s and this file's, because c-ares 1.18.1 has it unlike the C library: one family's
// silence loses the other's answer, a SERVFAIL for one suffix ends the search, "search ." and a
// server with a scope don't work. What else it sets out of its way:
// - It calls back inside ares_getaddrinfo(), and ares_cancel() or ares_destroy() inside a callback
//   free what its callers still use. So the callback only takes a note; `settle` acts on the notes
//   when no call to c-ares is on the stack.
// - One lookup can't be cancelled, only all: an abandoned one goes on while others are wanted, and
//   the channel is destroyed with the last wanted one. So an idle resolver has no socket, and
//   resolv.conf(5) is read anew.
// - It would sort addresses past `System`, so we do that. It still reads the clock by itself.
// What it does to sockets is cares_sockets.cpp's.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/address_order.hpp"
#include "net/cares_sockets.hpp"
#include "net/dns_reply_head.hpp"
#include "net/dns_search.hpp"
#include "net/hosts_file.hpp"
#include "net/resolver_backend.hpp"
#include "net/resolver_config.hpp"
#include "net/socket_address.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

// A name server's socket buffer holds some hundred datagrams; what is lost costs seconds.
constexpr std::size_t asking_limit = 64;
constexpr int server_failure = 2;  // RFC 1035 §4.1.1
constexpr int type_a = 1;          // RFC 1035 §3.2.2
constexpr int type_aaaa = 28;      // RFC 3596 §2.1
constexpr std::uint16_t dns_port = 53;
constexpr Duration longest_lifetime = std::chrono::hours(7 * 24);  // RFC 8767 §4

std::error_code out_of_memory() { return system_error_code(ENOMEM); }

DnsAnswer failure(DnsOutcome outcome, std::error_code error) { return {outcome, error, {}, {}}; }

DnsAnswer failure(int status) {
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENONAME: return failure(DnsOutcome::no_name, Errc::host_not_found);
    case ARES_SUCCESS:
    case ARES_ENODATA: return failure(DnsOutcome::no_address, Errc::no_address);
    case ARES_EBADNAME: return failure(DnsOutcome::failed, Errc::bad_name);
    // c-ares, like the C library, asks the next server after a SERVFAIL, a REFUSED or silence.
    case ARES_ESERVFAIL: return failure(DnsOutcome::server_failure, Errc::resolve_failed);
    case ARES_EREFUSED:
    case ARES_ENOTIMP:
    case ARES_ETIMEOUT: return failure(DnsOutcome::failed, Errc::resolve_failed);
    case ARES_ECONNREFUSED: return failure(DnsOutcome::no_server, Errc::resolve_failed);
    case ARES_ENOMEM: return failure(DnsOutcome::no_server, out_of_memory());
    default: return failure(DnsOutcome::failed, Errc::bad_answer);
  }
}

Duration shorter(Duration lifetime, int ttl) {
  // The top bit set means 0 (RFC 2181 §8).
  return std::min<Duration>(lifetime, std::chrono::seconds(std::max(ttl, 0)));
}

DnsAnswer to_answer(int status, const ares_addrinfo* results) {
  if (status != ARES_SUCCESS || results == nullptr) return failure(status);
  DnsAnswer answer;
  answer.lifetime = longest_lifetime;
  for (const ares_addrinfo_node* node = results->nodes; node != nullptr; node = node->ai_next) {
    answer.endpoints.push_back(Endpoint::from_sockaddr(node->ai_addr, node->ai_addrlen));
    answer.lifetime = shorter(answer.lifetime, node->ai_ttl);
  }
  for (const ares_addrinfo_cname* alias = results->cnames; alias != nullptr; alias = alias->next) {
    answer.lifetime = shorter(answer.lifetime, alias->ttl);
  }
  return answer.endpoints.empty() ? failure(ARES_ENODATA) : answer;
}

class CaresBackend final : public ResolverBackend {
 public:
  CaresBackend(EventLoop& loop, const ResolverOptions& options, Sink sink)
      : loop_(loop),
        options_(options),
        sink_(std::move(sink)),
        sockets_(
            loop, [this] { look(); }, [this](std::string_view message) { on_message(message); }) {
    // Once in a process; on Unix it sets nothing that would have to be given back.
    static const int status = ::ares_library_init(ARES_LIB_INIT_ALL);
    if (status != ARES_SUCCESS) throw std::bad_alloc();
  }

  ~CaresBackend() override {
    searches_.clear();
    destroy_channel();
  }

  void ask(std::uint64_t id, const std::string& name, AddressFamily family) override;
  void abandon(std::uint64_t id) noexcept override;
  void look() noexcept override;

 private:
  struct Search;
  /// What a question's callback gets: one family of one name. c-ares has it until it called back.
  struct Question {
    CaresBackend& backend;
    Search* search;  // null when nobody wants its answer any more
    std::size_t family;
    int last_code = 0;  // of the replies to it (RFC 1035 §4.1.1)
  };
  /// One lookup.
  struct Search {
    Search(std::uint64_t id_, const std::string& name_, AddressFamily family_)
        : id(id_), name(name_), family(family_) {}
    ~Search() { forget_questions(); }
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;
    void forget_questions();

    const std::uint64_t id;
    const std::string name;
    const AddressFamily family;
    std::optional<DnsSearch> way;                   // from when it is begun
    Question* questions[DnsSearch::families] = {};  // that c-ares has
    bool is_changed = false;  // true exactly when `way` may have a step to make
  };
  using Searches = std::map<std::uint64_t, Search>;

  bool begin(Search& search);
  void ask_for(Search& search);
  void ask_for(Search& search, std::size_t family);
  void step(Searches::iterator search);
  void finish(Searches::iterator search, ResolverAnswer&& answer);
  Searches::iterator next_to_step();
  std::error_code make_channel();
  int init_channel();
  std::vector<Endpoint> servers();
  int set_servers();
  void destroy_channel() noexcept;
  static void on_answer(void* data, int status, int timeouts, ares_addrinfo* results);
  void settle() noexcept;
  bool arm_timer();
  void on_message(std::string_view message);

  EventLoop& loop_;
  const ResolverOptions options_;
  Sink sink_;
  ares_channel channel_ = nullptr;
  ResolverConfig config_;           // while there is a channel
  std::size_t channels_ = 0;        // so many were made
  Searches searches_;               // first come, first served
  std::uint64_t last_begun_ = 0;    // those up to it are being asked, the others wait
  std::size_t open_questions_ = 0;  // of those that are wanted
  CaresSockets sockets_;
  ScopedHandle timer_;
};

void CaresBackend::Search::forget_questions() {
  for (Question*& question : questions) {
    if (question == nullptr) continue;
    --question->backend.open_questions_;
    question->search = nullptr;
    question = nullptr;
  }
}

void CaresBackend::ask(std::uint64_t id, const std::string& name, AddressFamily family) {
  searches_.emplace(std::piecewise_construct, std::forward_as_tuple(id),
                    std::forward_as_tuple(id, name, family));
  settle();
}

void CaresBackend::abandon(std::uint64_t id) noexcept {
  searches_.erase(id);
  if (!loop_.parts().is_forked_child()) settle();
}

/// The hosts file, or the first name to ask for. False when the answer was handed on.
bool CaresBackend::begin(Search& search) {
  ResolverAnswer answer;
  answer.error = find_in_hosts(loop_.system(), search.name, search.family, answer.endpoints);
  if (!answer.error && answer.endpoints.empty() && channel_ == nullptr) {
    answer.error = make_channel();
  }
  if (answer.error || !answer.endpoints.empty()) {
    finish(searches_.find(search.id), std::move(answer));
    return false;
  }
  search.way.emplace(config_.candidates(search.name), search.family, config_.asks_ipv6);
  search.is_changed = true;
  return true;
}

/// Both families at once: each has an answer of its own.
void CaresBackend::ask_for(Search& search) {
  for (std::size_t family = 0; family < DnsSearch::families; ++family) {
    if (search.way->wants(family)) ask_for(search, family);
  }
}

void CaresBackend::ask_for(Search& search, std::size_t family) {
  std::unique_ptr<Question> question;
  try {
    question = std::make_unique<Question>(Question{*this, &search, family, 0});
  } catch (const std::bad_alloc&) {
    search.way->take(family, failure(ARES_ENOMEM));
    search.is_changed = true;
    return;
  }
  search.questions[family] = question.get();
  ++open_questions_;
  ares_addrinfo_hints hints{};
  hints.ai_flags = ARES_AI_NOSORT;  // see sort_addresses
  hints.ai_family = family == DnsSearch::ipv4 ? AF_INET : AF_INET6;
  // It may call back before it returns, but then only takes a note.
  ::ares_getaddrinfo(channel_, search.way->name().c_str(), nullptr, &hints, &on_answer,
                     question.release());
}

std::error_code CaresBackend::make_channel() {
  if (const std::error_code error = config_.read(loop_.system())) return error;
  int status = init_channel();
  if (status == ARES_SUCCESS) {
    sockets_.serve(channel_);
    try {
      status = set_servers();
    } catch (const std::bad_alloc&) {
      status = ARES_ENOMEM;
    }
  }
  if (status == ARES_SUCCESS) return {};
  destroy_channel();
  return status == ARES_ENOMEM ? out_of_memory() : make_error_code(Errc::resolve_failed);
}

int CaresBackend::init_channel() {
  ares_options options{};
  options.sock_state_cb = &CaresSockets::on_state;
  options.sock_state_cb_data = &sockets_;
  const Duration timeout =
      options_.try_timeout > Duration::zero() ? options_.try_timeout : config_.timeout;
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  // c-ares doubles it with each round.
  options.timeout = static_cast<int>(
      std::min<std::int64_t>(milliseconds, std::numeric_limits<int>::max() / 1024));
  options.tries = options_.tries > 0 ? options_.tries : config_.attempts;
  options.flags = config_.uses_tcp && options_.servers.empty() ? ARES_FLAG_USEVC : 0;
  char nothing[] = "/dev/null";
  char dns_alone[] = "b";
  options.resolvconf_path = nothing;
  options.lookups = dns_alone;
  const int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_FLAGS |
                   ARES_OPT_RESOLVCONF | ARES_OPT_LOOKUPS | ARES_OPT_DOMAINS | ARES_OPT_NDOTS |
                   ARES_OPT_NOROTATE;
  const int status = ::ares_init_options(&channel_, &options, mask);
  if (status != ARES_SUCCESS) channel_ = nullptr;
  return status;
}
/// Whom to ask, and whom first: with "rotate" c-ares would begin anew with each channel.
std::vector<Endpoint> CaresBackend::servers() {
  if (!options_.servers.empty()) return options_.servers;
  std::vector<Endpoint> servers = config_.servers;
  if (servers.empty()) servers.push_back(Endpoint::loopback(dns_port));  // resolv.conf(5)
  if (config_.rotates) {
    const auto first = static_cast<std::ptrdiff_t>(channels_++ % servers.size());
    std::rotate(servers.begin(), servers.begin() + first, servers.end());
  }
  return servers;
}

int CaresBackend::set_servers() {
  const std::vector<Endpoint> servers = this->servers();
  std::vector<ares_addr_port_node> nodes(servers.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const SocketAddress address(servers[i]);
    ares_addr_port_node& node = nodes[i];
    node.next = i + 1 < nodes.size() ? &nodes[i + 1] : nullptr;
    node.family = address.family();
    if (node.family == AF_INET) {
      const auto& in = reinterpret_cast<const sockaddr_in&>(*address.get());
      node.addr.addr4 = in.sin_addr;
    } else {
      const auto& in6 = reinterpret_cast<const sockaddr_in6&>(*address.get());
      in6_addr bytes = in6.sin6_addr;
      CaresSockets::put_scope_inside(bytes, in6.sin6_scope_id);
      std::memcpy(&node.addr.addr6, &bytes, sizeof bytes);
    }
    const std::uint16_t port = servers[i].port();
    node.udp_port = node.tcp_port = port != 0 ? port : dns_port;
  }
  return ::ares_set_servers_ports(channel_, nodes.data());
}

/// Never with c-ares on the stack. What is still being asked is told by `on_answer`, and unwanted.
void CaresBackend::destroy_channel() noexcept {
  timer_.cancel();
  if (channel_ != nullptr) ::ares_destroy(std::exchange(channel_, nullptr));
}

void CaresBackend::look() noexcept {
  if (channel_ == nullptr) return;
  sockets_.process(channel_);
  settle();
}

/// Hands on an answer, and forgets who asked.
void CaresBackend::finish(Searches::iterator search, ResolverAnswer&& answer) {
  const std::uint64_t id = search->first;
  searches_.erase(search);
  try {
    sort_addresses(loop_.system(), answer.endpoints);
  } catch (const std::bad_alloc&) {
    answer = ResolverAnswer{out_of_memory(), {}, {}, {}};
  }
  sink_(id, std::move(answer));
}

void CaresBackend::step(Searches::iterator found) {
  Search& search = found->second;
  search.is_changed = false;
  switch (search.way->step()) {
    case DnsSearch::Step::wait: return;
    case DnsSearch::Step::next: return ask_for(search);
    case DnsSearch::Step::over: return finish(found, search.way->answer());
    case DnsSearch::Step::part: {
      ResolverAnswer part = search.way->answer();
      sort_addresses(loop_.system(), part.endpoints);
      return sink_(search.id, std::move(part));
    }
  }
}

/// One that has a step to make, or that there is room to begin with; the end when there is none.
CaresBackend::Searches::iterator CaresBackend::next_to_step() {
  for (auto each = searches_.begin(); each != searches_.end(); ++each) {
    if (each->second.is_changed) return each;
    if (each->first > last_begun_) return open_questions_ < asking_limit ? each : searches_.end();
  }
  return searches_.end();
}

/// With no call to c-ares on the stack: hands on what it told, asks what there is room for.
void CaresBackend::settle() noexcept {
  for (auto next = next_to_step(); next != searches_.end(); next = next_to_step()) {
    const std::uint64_t id = next->first;
    try {
      if (id > last_begun_) {
        last_begun_ = id;
        if (!begin(next->second)) continue;
      }
      step(next);
    } catch (const std::bad_alloc&) {
      const auto failed = searches_.find(id);
      if (failed == searches_.end()) continue;
      finish(failed, ResolverAnswer{out_of_memory(), {}, {}, {}});
    }
  }
  if (!searches_.empty() && !arm_timer()) {
    while (!searches_.empty())
      finish(searches_.begin(), ResolverAnswer{out_of_memory(), {}, {}, {}});
  }
  if (searches_.empty()) destroy_channel();
}

/// False when there is no room for a timer, without which a silent server would be waited for in
/// vain.
bool CaresBackend::arm_timer() {
  timeval left{};
  const timeval* const next = ::ares_timeout(channel_, nullptr, &left);
  timer_ = ScopedHandle();
  if (next == nullptr) return true;
  const Duration delay =
      std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec);
  try {
    timer_ = loop_.call_later(delay, [this] { look(); });
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

/// c-ares keeps to itself why it goes to the next server; for the search it matters.
void CaresBackend::on_message(std::string_view message) {
  const DnsReplyHead head = DnsReplyHead::parse(message);
  if (head.code == 0) return;
  for (auto& each : searches_) {
    for (Question* question : each.second.questions) {
      if (question == nullptr) continue;
      const bool is_ipv6 = question->family == DnsSearch::ipv6;
      if (head.type != (is_ipv6 ? type_aaaa : type_a)) continue;
      if (head.is_about(each.second.way->name())) question->last_code = head.code;
    }
  }
}

void CaresBackend::on_answer(void* data, int status, int, ares_addrinfo* results) {
  const std::unique_ptr<Question> question(static_cast<Question*>(data));
  if (Search* search = question->search) {
    CaresBackend& backend = question->backend;
    --backend.open_questions_;
    search->questions[question->family] = nullptr;
    DnsAnswer answer;
    try {
      answer = to_answer(status, results);
    } catch (const std::bad_alloc&) {  // which can't pass through C
      answer = failure(ARES_ENOMEM);
    }
    // c-ares says that the server refused when there was no socket to ask it with, and when all
    // said that they can't answer.
    const int error = backend.sockets_.take_error();
    const bool has_failed = status == ARES_ECONNREFUSED || status == ARES_ETIMEOUT;
    if (has_failed && question->last_code != 0) {
      const bool is_server_failure = question->last_code == server_failure;
      answer.outcome = is_server_failure ? DnsOutcome::server_failure : DnsOutcome::failed;
    } else if (status == ARES_ECONNREFUSED && error != 0) {
      answer.error = system_error_code(error);
    }
    search->way->take(question->family, std::move(answer));
    search->is_changed = true;
  }
  if (results != nullptr) ::ares_freeaddrinfo(results);
}

}  // namespace

bool has_cares_backend() { return true; }

std::unique_ptr<ResolverBackend> make_cares_backend(EventLoop& loop, const ResolverOptions& options,
                                                    ResolverBackend::Sink sink) {
  return std::make_unique<CaresBackend>(loop, options, std::move(sink));
}

}  // namespace pawl
