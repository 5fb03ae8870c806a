// SPDX-License-Identifier: MIT
// The c-ares backend against name servers that do what none should. Skipped, and said so, in a
// build without c-ares.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "net/name_server.hpp"
#include "net/resolving.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/resolver.hpp"
#include "support/copy_holder.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using pawl::AddressFamily;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Resolver;
using pawl::ResolverOptions;

namespace {

using Messages = std::vector<std::string>;

bool has_cares() {
  if (pawl::available_resolver_backends().size() > 1) return true;
  WARN("skipped: this build has no c-ares");
  return false;
}

/// A resolver whose one name server answers as the test says.
struct Hostile {
  explicit Hostile(NameServer::Answer answer, ResolverOptions wanted = {})
      : system(nobody), loop(options_on(system)), server(loop, std::move(answer)) {
    wanted.backend = "cares";
    if (wanted.servers.empty()) wanted.servers = {server.endpoint()};
    resolver = std::make_unique<Resolver>(loop, wanted);
  }

  std::string look_up(const std::string& name = "host.test.",
                      AddressFamily family = AddressFamily::ipv4) {
    Found found;
    resolver->resolve(name, 80, family, found.callback());
    run_until(loop, [&] { return found.calls > 0; });
    return found.text();
  }

  KnownHosts nobody;
  KnowingSystem system;
  EventLoop loop;
  NameServer server;
  std::unique_ptr<Resolver> resolver;
};

std::string message(Errc error) { return make_error_code(error).message(); }

ResolverOptions impatient() {
  ResolverOptions options;
  options.try_timeout = 30ms;
  options.tries = 1;
  return options;
}

std::string right(const DnsQuestion& question) {
  return DnsReply(question).address("127.0.0.1").bytes();
}

std::string with_wrong_id(const DnsQuestion& question) {
  DnsReply reply(question);
  reply.id[0] = static_cast<char>(reply.id[0] ^ 0x55);
  return reply.address("127.6.6.6").bytes();
}

std::string with_wrong_question(const DnsQuestion& question) {
  DnsReply reply(question);
  reply.question = DnsReply::encoded("evil.test") + "\0\x01\0\x01"s;
  return reply.address("127.6.6.6").bytes();
}

std::string with_wrong_type(const DnsQuestion& question) {
  DnsReply reply(question);
  reply.question = DnsReply::encoded("host.test") + "\0\x1c\0\x01"s;
  return reply.address("127.6.6.6").bytes();
}

std::string truncated(const DnsQuestion& question) {
  DnsReply reply(question);
  reply.is_truncated = true;
  return reply.address("127.6.6.6").bytes();
}

}  // namespace

TEST_CASE(
    "A reply that doesn't belong to the question is passed over, and the right one is taken") {
  if (!has_cares()) return;
  const std::vector<std::pair<std::string, NameServer::Answer>> lies{
      {"nothing at all", [](const DnsQuestion&) { return Messages{""}; }},
      {"much nothing", [](const DnsQuestion&) { return Messages(50); }},
      {"one byte", [](const DnsQuestion& q) { return Messages{q.id.substr(0, 1)}; }},
      {"half a header", [](const DnsQuestion& q) { return Messages{right(q).substr(0, 11)}; }},
      {"wrong id", [](const DnsQuestion& q) { return Messages{with_wrong_id(q)}; }},
      {"wrong question", [](const DnsQuestion& q) { return Messages{with_wrong_question(q)}; }},
      {"wrong type", [](const DnsQuestion& q) { return Messages{with_wrong_type(q)}; }},
      {"no question", [](const DnsQuestion& q) { return Messages{q.id + std::string(10, '\0')}; }},
  };
  for (const auto& [lie, tell] : lies) {
    CAPTURE(lie);
    Hostile there([&, &tell_lie = tell](const DnsQuestion& question) {
      Messages messages = tell_lie(question);
      messages.push_back(right(question));
      return messages;
    });
    CHECK(there.look_up() == "127.0.0.1:80");
    CHECK(there.server.questions.size() == 1);
  }
}

TEST_CASE("Nothing but wrong replies is no answer") {
  if (!has_cares()) return;
  Hostile there(
      [](const DnsQuestion& question) {
        return Messages{"", with_wrong_id(question), with_wrong_question(question)};
      },
      impatient());
  CHECK(there.look_up() == message(Errc::resolve_failed));
}

TEST_CASE("A reply that was cut off is asked for again over TCP") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    return Messages{question.is_over_tcp ? right(question) : truncated(question)};
  });
  CHECK(there.look_up() == "127.0.0.1:80");
  REQUIRE(there.server.questions.size() == 2);
  CHECK(there.server.questions[1].is_over_tcp);
}

TEST_CASE("A name server's stream ends with the lookup, though a child holds a copy") {
  if (!has_cares()) return;
  std::optional<CopyHolder> holder;
  Hostile there([&](const DnsQuestion& question) {
    if (!question.is_over_tcp) return Messages{truncated(question)};
    holder.emplace();
    return Messages{right(question)};
  });
  CHECK(there.look_up() == "127.0.0.1:80");
  run_until(there.loop, [&] { return there.server.streams() == 0; });
}

TEST_CASE("A thousand addresses are all given, in their order") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    if (!question.is_over_tcp) return Messages{truncated(question)};
    DnsReply reply(question);
    for (int i = 0; i < 1000; ++i) {
      reply.address("127.9." + std::to_string(i / 250) + "." + std::to_string(i % 250));
    }
    return Messages{reply.bytes()};
  });
  Found found;
  there.resolver->resolve("host.test.", 80, AddressFamily::ipv4, found.callback());
  run_until(there.loop, [&] { return found.calls > 0; });
  REQUIRE(found.endpoints.size() == 1000);
  CHECK(found.endpoints[0].to_string() == "127.9.0.0:80");
  CHECK(found.endpoints[999].to_string() == "127.9.3.249:80");
}

TEST_CASE("What a TCP server does to its stream ends the lookup, and doesn't hang it") {
  if (!has_cares()) return;
  const std::vector<std::pair<std::string, NameServer::Answer>> deeds{
      {"an empty message", [](const DnsQuestion&) { return Messages{""}; }},
      {"silence", [](const DnsQuestion&) { return Messages{}; }},
      {"a truncated message", [](const DnsQuestion& q) { return Messages{truncated(q)}; }},
      {"another one's answer", [](const DnsQuestion& q) { return Messages{with_wrong_id(q)}; }},
  };
  for (const auto& [deed, act] : deeds) {
    CAPTURE(deed);
    const bool is_an_answer = deed == "a truncated message";
    Hostile there(
        [&act_now = act](const DnsQuestion& question) {
          return question.is_over_tcp ? act_now(question) : Messages{truncated(question)};
        },
        is_an_answer ? ResolverOptions() : impatient());
    const std::string outcome = there.look_up();
    if (is_an_answer) {
      CHECK(outcome == "127.6.6.6:80");  // what there is; TCP has no reason to truncate
    } else {
      CHECK(outcome == message(Errc::resolve_failed));
    }
  }
}

TEST_CASE("Aliases are followed within the reply") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    return Messages{DnsReply(question)
                        .alias("host.test", "a.test")
                        .alias("a.test", "b.test")
                        .address_of("b.test", "127.0.0.7")
                        .bytes()};
  });
  CHECK(there.look_up() == "127.0.0.7:80");
}

TEST_CASE("Aliases that go round and round lead to no address") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    DnsReply reply(question);
    if (question.name == "self.test") {
      reply.alias("self.test", "self.test");
    } else {
      for (int i = 0; i < 5; ++i) reply.alias("host.test", "a.test").alias("a.test", "host.test");
    }
    return Messages{reply.bytes()};
  });
  CHECK(there.look_up("host.test.") == message(Errc::no_address));
  CHECK(there.look_up("self.test.") == message(Errc::no_address));
  CHECK(there.server.questions.size() == 2);
}

TEST_CASE("An address of another name than the one that was asked for isn't taken") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    return Messages{DnsReply(question)
                        .address_of("evil.test", "127.6.6.6")
                        .address("127.0.0.1")
                        .address_of("host.test.evil.test", "127.6.6.6")
                        .bytes()};
  });
  CHECK(there.look_up() == "127.0.0.1:80");
}

TEST_CASE("Answers are kept as long as the shortest of their times to live") {
  if (!has_cares()) return;
  const struct {
    int alias_ttl;
    int first_ttl;
    int second_ttl;
    pawl::Duration kept;
  } cases[] = {
      {300, 200, 100, 100s},
      {50, 200, 100, 50s},
      {300, 0, 100, 0s},
      {300, -1, 100, 0s},  // the top bit (RFC 2181 §8)
      {2'000'000'000, 2'000'000'000, 2'000'000'000, 7 * 24h},
  };
  for (const auto& each : cases) {
    CAPTURE(each.alias_ttl, each.first_ttl, each.second_ttl);
    Hostile there([&](const DnsQuestion& question) {
      return Messages{DnsReply(question)
                          .alias("host.test", "a.test", each.alias_ttl)
                          .address_of("a.test", "127.0.0.1", each.first_ttl)
                          .address_of("a.test", "127.0.0.2", each.second_ttl)
                          .bytes()};
    });
    there.system.stop_clock();
    const std::string both = "127.0.0.1:80 127.0.0.2:80";
    CHECK(there.look_up() == both);
    CHECK(there.resolver->cached() == (each.kept > 0s ? 1 : 0));
    if (each.kept > 0s) {
      there.system.advance(each.kept - 1s);
      CHECK(there.look_up() == both);
      CHECK(there.server.questions.size() == 1);
    }
    there.system.advance(1s);
    CHECK(there.look_up() == both);
    CHECK(there.server.questions.size() == 2);
  }
}

TEST_CASE("A silent name server is asked as often as the options say, and the next one helps") {
  if (!has_cares()) return;
  ResolverOptions options = impatient();
  options.tries = 3;
  Hostile silent([](const DnsQuestion&) { return Messages{}; }, options);
  CHECK(silent.look_up() == message(Errc::resolve_failed));
  CHECK(silent.server.questions.size() == 3);

  const pawl::UniqueFd nobody = bound_socket(SOCK_DGRAM);
  EventLoop loop;
  NameServer server(loop, [](const DnsQuestion& question) { return Messages{right(question)}; });
  options.backend = "cares";
  options.servers = {Endpoint::loopback(ntohs(address_of(nobody.get()).sin_port)),
                     refusing_endpoint(), server.endpoint()};
  Resolver resolver(loop, options);
  Found found;
  resolver.resolve("host.test.", 80, AddressFamily::ipv4, found.callback());
  run_until(loop, [&] { return found.calls > 0; });
  CHECK(found.text() == "127.0.0.1:80");
}

TEST_CASE("Name servers that refuse to be spoken to fail a lookup at once") {
  if (!has_cares()) return;
  ResolverOptions options;
  options.servers = {refusing_endpoint()};
  Hostile there([](const DnsQuestion&) { return Messages{}; }, options);
  CHECK(there.look_up() == message(Errc::resolve_failed));
  CHECK(there.look_up("host.test.", AddressFamily::any) == message(Errc::resolve_failed));
}

TEST_CASE("A process without descriptors gets its errno, and an answer when it has some again") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) { return Messages{right(question)}; });
  there.system.fail(Call::socket, EMFILE, FaultySystem::forever);
  const std::string failure = pawl::system_error_code(EMFILE).message();
  CHECK(there.look_up() == failure);
  CHECK(there.look_up("host.test.", AddressFamily::any) == failure);
  there.system.heal(Call::socket);
  CHECK(there.look_up() == "127.0.0.1:80");
}

TEST_CASE("A process that can't read its settings asks nobody, and doesn't take them for empty") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) { return Messages{right(question)}; });
  const int skip = GENERATE(0, 1);  // the hosts file, resolv.conf
  const int error = GENERATE(EMFILE, ENFILE, ENOMEM, EIO);
  there.system.fail(Call::read_file, error, 1, skip);
  CHECK(there.look_up() == pawl::system_error_code(error).message());
  CHECK(there.server.questions.empty());
  CHECK(there.look_up() == "127.0.0.1:80");
}

TEST_CASE("Settings that aren't there, or may not be read, are empty") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) { return Messages{right(question)}; });
  const int error = GENERATE(ENOENT, EACCES, EPERM, EISDIR, ENOTDIR, ELOOP);
  there.system.fail(Call::read_file, error, FaultySystem::forever);
  CHECK(there.look_up() == "127.0.0.1:80");
}

TEST_CASE("Faults of a socket cost a try, not the lookup") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) { return Messages{right(question)}; });
  const auto call = GENERATE(Call::connect, Call::sendmsg, Call::recvmsg);
  const int error = GENERATE(EPERM, ENETUNREACH, ENOBUFS);
  CAPTURE(static_cast<int>(call), error);
  there.system.fail(call, error);
  CHECK(there.look_up() == "127.0.0.1:80");
}

TEST_CASE("A flood of datagrams doesn't hold the loop") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) {
    Messages messages(100, with_wrong_id(question));
    messages.insert(messages.end(), 100, "");
    messages.push_back(right(question));
    return messages;
  });
  Found found;
  there.resolver->resolve("host.test.", 80, AddressFamily::ipv4, found.callback());
  int passes_with_datagrams = 0;
  while (found.calls == 0) {
    const int before = there.system.count(Call::recvmsg);
    there.loop.run_once(1s);
    const int taken = there.system.count(Call::recvmsg) - before;
    CHECK(taken <= 64);
    passes_with_datagrams += taken > 0 ? 1 : 0;
  }
  CHECK(found.text() == "127.0.0.1:80");
  CHECK(passes_with_datagrams >= 4);
}

TEST_CASE("Mangled replies of every kind end a lookup, and the resolver lives") {
  if (!has_cares()) return;
  std::mt19937 random(20260101);
  const auto mangled = [&](const DnsQuestion& question) {
    std::string bytes = DnsReply(question)
                            .alias("host.test", "a.test")
                            .address_of("a.test", "127.0.0.1")
                            .address_of("a.test", "127.0.0.2")
                            .bytes();
    // The header's id and the question stay, so that it is looked into.
    const std::size_t begin = 12 + question.bytes.size();
    for (int i = 0; i < 3; ++i) bytes[begin + random() % (bytes.size() - begin)] = char(random());
    if (random() % 2 == 0) bytes.resize(begin + random() % (bytes.size() - begin));
    if (random() % 4 == 0) bytes[3] = char(random());
    return Messages{bytes};
  };
  ResolverOptions options = impatient();
  options.try_timeout = 1ms;
  options.cache_entries = 0;
  Hostile there(mangled, options);
  for (int i = 0; i < 500; ++i) there.look_up("host.test.", AddressFamily::any);
  CHECK(there.resolver->pending() == 0);
}

TEST_CASE("A resolver can be destroyed, and a lookup cancelled, at each step of a question") {
  if (!has_cares()) return;
  // UDP, then TCP, then the answer: some passes each.
  for (const bool is_destroyed : {true, false}) {
    for (int count = 0; count < 8; ++count) {
      CAPTURE(is_destroyed, count);
      Hostile there([](const DnsQuestion& question) {
        return Messages{question.is_over_tcp ? right(question) : truncated(question)};
      });
      auto captured = std::make_shared<int>(0);
      int calls = 0;
      pawl::Lookup lookup = there.resolver->resolve(
          "host.test.", 80, [&calls, captured](auto, const auto&) { ++calls; });
      passes(there.loop, count);
      const int before = calls;
      if (is_destroyed) there.resolver.reset();
      lookup.cancel();
      CHECK(captured.use_count() == 1);
      passes(there.loop);
      CHECK(calls == before);
      if (!is_destroyed) CHECK(there.look_up() == "127.0.0.1:80");
    }
  }
}

TEST_CASE("No more than 64 questions are on their way, and who is cancelled makes room") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion&) { return Messages{}; });
  std::vector<pawl::Lookup> lookups;
  for (int i = 0; i < 200; ++i) {
    lookups.push_back(there.resolver->resolve("host" + std::to_string(i) + ".test.", 80,
                                              AddressFamily::ipv4, [](auto, const auto&) {}));
  }
  passes(there.loop, 100);
  CHECK(there.server.questions.size() == 64);
  CHECK(there.server.questions.back().name == "host63.test");
  for (std::size_t i = 0; i < 10; ++i) lookups[i].cancel();
  passes(there.loop, 100);
  CHECK(there.server.questions.size() == 74);
  for (pawl::Lookup& lookup : lookups) lookup.cancel();
  CHECK(there.system.count(Call::socket) == there.system.count(Call::close));
}

TEST_CASE("An idle resolver has no descriptor open") {
  if (!has_cares()) return;
  Hostile there([](const DnsQuestion& question) { return Messages{right(question)}; });
  const std::size_t before = there.loop.selector().size();
  CHECK(there.look_up() == "127.0.0.1:80");
  CHECK(there.loop.selector().size() == before);
  CHECK(there.system.count(Call::socket) == there.system.count(Call::close));
  pawl::Lookup lookup = there.resolver->resolve("other.test.", 80, [](auto, const auto&) {});
  CHECK(there.loop.selector().size() == before + 1);
  lookup.cancel();
  CHECK(there.loop.selector().size() == before);
}

TEST_CASE("A name server may have an IPv6 address") {
  if (!has_cares()) return;
  pawl::UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  socklen_t bytes = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(socket.get(), generic, bytes) != 0) {
    WARN("skipped: there is no ::1 on this machine");
    return;
  }
  REQUIRE(::getsockname(socket.get(), generic, &bytes) == 0);
  ResolverOptions options;
  options.backend = "cares";
  options.servers = {Endpoint::loopback_ipv6(ntohs(address.sin6_port))};
  EventLoop loop;
  Resolver resolver(loop, options);
  resolver.resolve("host.test.", 80, [](auto, const auto&) {});
  char byte;
  run_until(loop, [&] { return ::recv(socket.get(), &byte, 1, 0) == 1; });
}
