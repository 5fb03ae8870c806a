// SPDX-License-Identifier: MIT
#include "net/resolving.hpp"

#include <sys/socket.h>

#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

using Kind = KnownHost::Kind;

namespace {

constexpr int format_error = 1;
constexpr int server_failure = 2;
constexpr int no_such_name = 3;

std::string normal(std::string name) {
  if (!name.empty() && name.back() == '.') name.pop_back();
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

const KnownHost& known_or_missing(const KnownHosts& hosts, const std::string& name) {
  static const KnownHost missing{Kind::missing, {}};
  const auto found = hosts.find(normal(name));
  return found == hosts.end() ? missing : found->second;
}

}  // namespace

std::vector<std::string> reply_to(const KnownHosts& hosts, const DnsQuestion& question,
                                  bool is_silent) {
  const KnownHost& host = known_or_missing(hosts, question.name);
  DnsReply reply(question);
  const bool wants_ipv6 = question.type == DnsQuestion::aaaa;
  switch (host.of(wants_ipv6)) {
    case Kind::silent: return {};
    case Kind::late:
      if (is_silent) return {};
      [[fallthrough]];
    case Kind::found:
      for (const std::string& address : host.addresses) {
        const bool is_ipv6 = address.find(':') != std::string::npos;
        if (is_ipv6 == wants_ipv6) reply.address(address, host.ttl);
      }
      break;
    case Kind::missing: reply.code = no_such_name; break;
    case Kind::unanswered: reply.code = server_failure; break;
    case Kind::nonsense: reply.code = format_error; break;
    case Kind::no_address: break;
  }
  return {reply.bytes()};
}

void wait_for_resolver_threads() {
  const auto is_there = [] {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "comm");  // fails when it has just ended
      std::string name;
      if (std::getline(file, name) && name == "pawl-resolver") return true;
    }
    return false;
  };
  while (is_there()) std::this_thread::yield();
}

KnowingSystem::~KnowingSystem() {
  end_silence();
  wait_for_resolver_threads();
  synchronize();  // with all that they have done in here
}

void KnowingSystem::end_silence() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_silent_ = false;
  changed_.notify_all();
}

bool KnowingSystem::is_silent() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return is_silent_;
}

void KnowingSystem::wait_for_idle_threads() {
  const auto is_any_busy = [] {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "stat");
      std::string stat;
      std::getline(file, stat);
      const std::size_t end = stat.rfind(')');  // of the name: proc(5)
      if (end == std::string::npos || stat.find("pawl-resolver") == std::string::npos) continue;
      if (stat.compare(end, 3, ") S") != 0) return true;
    }
    return false;
  };
  while (is_any_busy()) std::this_thread::yield();
  synchronize();
}

int KnowingSystem::questions() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return questions_;
}

pawl::SystemResult KnowingSystem::getaddrinfo(const char* node, const char* service,
                                              const addrinfo* hints, addrinfo** results) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++questions_;
  }
  const pawl::SystemResult result = answer(node, service, hints, results);
  synchronize();
  return result;
}

void KnowingSystem::freeaddrinfo(addrinfo* results) {
  OneAnswer().freeaddrinfo(results);
  synchronize();
}

void KnowingSystem::synchronize() { const std::lock_guard<std::mutex> lock(mutex_); }

pawl::SystemResult KnowingSystem::answer(const char* node, const char* service,
                                         const addrinfo* hints, addrinfo** results) {
  const KnownHost& host = known_or_missing(hosts_, node);
  const bool wants_ipv4 = hints->ai_family != AF_INET6;
  const bool wants_ipv6 = hints->ai_family != AF_INET;
  const auto waits = [](Kind kind) { return kind == Kind::silent || kind == Kind::late; };
  if ((wants_ipv4 && waits(host.of(false))) || (wants_ipv6 && waits(host.of(true)))) {
    wait_for_end_of_silence();
  }
  std::vector<pawl::Endpoint> endpoints;
  for (const std::string& address : host.addresses) {
    const bool is_ipv6 = address.find(':') != std::string::npos;
    const Kind kind = host.of(is_ipv6);
    const bool is_known = kind == Kind::found || kind == Kind::late;
    if (!(is_ipv6 ? wants_ipv6 : wants_ipv4) || !is_known) continue;
    endpoints.push_back(pawl::Endpoint::from_address(address, 0));
  }
  if (!endpoints.empty()) return OneAnswer(endpoints).getaddrinfo(node, service, hints, results);
  switch (host.of(!wants_ipv4)) {
    case Kind::missing: return {EAI_NONAME, 0};
    case Kind::unanswered:
    case Kind::silent: return {EAI_AGAIN, 0};
    case Kind::nonsense: return {EAI_FAIL, 0};
    case Kind::found:
    case Kind::late:
    case Kind::no_address: break;
  }
  return {EAI_NODATA, 0};
}

void KnowingSystem::wait_for_end_of_silence() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !is_silent_; });
}

pawl::SystemResult KnowingSystem::read_file(const char* path, std::string& text) {
  std::string nothing;
  const pawl::SystemResult struck = FaultySystem::read_file("/dev/null", nothing);
  if (!struck.ok()) return struck;
  const auto found = files.find(path);
  if (found == files.end()) return {-1, ENOENT};
  text = found->second;
  return {static_cast<std::int64_t>(text.size()), 0};
}

pawl::SystemResult KnowingSystem::host_name(std::string& name) {
  name.clear();
  return {};
}

Resolving::Resolving(std::string_view backend, KnownHosts known, pawl::ResolverOptions wanted,
                     pawl::Observer* observer)
    : hosts(std::move(known)),
      system(hosts),
      loop([&] {
        pawl::LoopOptions on = options_on(system);
        on.observer = observer;
        return on;
      }()),
      server(loop,
             [this](const DnsQuestion& question) {
               return reply_to(hosts, question, system.is_silent());
             }),
      options(std::move(wanted)) {
  options.backend = backend;
  if (backend == "cares") options.servers = {server.endpoint()};
  resolver = std::make_unique<pawl::Resolver>(loop, options);
}

int Resolving::questions() {
  return options.backend == "cares" ? server.count() : system.questions();
}

void Resolving::end_silence() {
  system.end_silence();
  server.answer_again();
}

std::string Found::text() const {
  if (calls != 1) return "called " + std::to_string(calls) + " times";
  if (error) return error.message();
  std::string text;
  for (const pawl::Endpoint& endpoint : endpoints) {
    text += (text.empty() ? "" : " ") + endpoint.to_string();
  }
  return text;
}
