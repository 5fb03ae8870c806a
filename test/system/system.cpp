// SPDX-License-Identifier: MIT
#include "pawl/system/system.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "pawl/core/unique_fd.hpp"
#include "support/faulty_system.hpp"
#include "support/interrupter.hpp"
#include "support/later.hpp"
#include "support/pipe_signals.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using pawl::System;
using pawl::SystemResult;
using pawl::UniqueFd;

namespace {

System& kernel() { return System::real(); }

bool is_close_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
bool is_non_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

const sockaddr* generic(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

UniqueFd connected_to(int listener) {
  const sockaddr_in address = address_of(listener);
  UniqueFd fd(kernel().socket(AF_INET, SOCK_STREAM, 0).fd());
  kernel().connect(fd.get(), generic(address), sizeof address);
  return fd;
}

}  // namespace

TEST_CASE("The clock is the monotonic one and never runs backwards") {
  const pawl::TimePoint before = kernel().now();
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  const pawl::TimePoint after = kernel().now();
  const pawl::TimePoint between(std::chrono::seconds(time.tv_sec) +
                                std::chrono::nanoseconds(time.tv_nsec));
  CHECK(before <= between);
  CHECK(between <= after);
}

TEST_CASE("Random bytes fill the whole buffer and differ each time") {
  std::array<unsigned char, 64> first{};
  std::array<unsigned char, 64> second{};
  CHECK(kernel().random(first.data(), first.size()).bytes() == first.size());
  CHECK(kernel().random(second.data(), second.size()).bytes() == second.size());
  CHECK(first != second);
  CHECK(kernel().random(first.data(), 0).ok());
}

TEST_CASE("Signals at 1 kHz don't cut a large request for random bytes short") {
  std::vector<unsigned char> buffer(8 << 20);
  const Interrupter interrupter;
  const long strikes = Interrupter::count();
  while (Interrupter::count() < strikes + 5) {
    REQUIRE(kernel().random(buffer.data(), buffer.size()).bytes() == buffer.size());
  }
}

TEST_CASE("Each descriptor that System makes is close-on-exec and non-blocking") {
  std::vector<UniqueFd> fds;
  int two[2];
  fds.emplace_back(kernel().socket(AF_INET, SOCK_STREAM, 0).fd());
  fds.emplace_back(kernel().socket(AF_INET6, SOCK_DGRAM, 0).fd());
  REQUIRE(kernel().socketpair(AF_UNIX, SOCK_STREAM, 0, two).ok());
  for (const int fd : two) fds.emplace_back(fd);
  REQUIRE(kernel().pipe(two).ok());
  for (const int fd : two) fds.emplace_back(fd);
  fds.emplace_back(kernel().eventfd().fd());
  fds.emplace_back(kernel().open_null().fd());
  const UniqueFd listener = bound_socket(SOCK_STREAM);
  const UniqueFd client = connected_to(listener.get());
  fds.emplace_back(kernel().accept(listener.get(), nullptr, nullptr).fd());
  for (const UniqueFd& fd : fds) {
    CAPTURE(&fd - fds.data());
    REQUIRE(fd);
    CHECK(is_close_on_exec(fd.get()));
    CHECK(is_non_blocking(fd.get()));
    CHECK(kernel().is_open(fd.get()));
  }
}

TEST_CASE("A descriptor that comes with a message is close-on-exec") {
  const SocketPair pair;
  const UniqueFd sent(kernel().eventfd().fd());
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = sent.get();
  std::memcpy(CMSG_DATA(header), &number, sizeof number);
  REQUIRE(kernel().sendmsg(pair.theirs.get(), &message, 0).ok());

  control.fill(0);
  REQUIRE(kernel().recvmsg(pair.ours.get(), &message, 0).bytes() == 1);
  int received = -1;
  std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
  const UniqueFd fd(received);
  REQUIRE(fd);
  CHECK(is_close_on_exec(fd.get()));
}

TEST_CASE("Several datagrams go and come in one call, each with its length") {
  const SocketPair pair(SOCK_DGRAM);
  std::array<std::string, 3> texts{"one", "", "three"};
  std::array<iovec, 3> parts{};
  std::array<mmsghdr, 3> messages{};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    parts[i] = iovec{texts[i].data(), texts[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  REQUIRE(kernel().sendmmsg(pair.theirs.get(), messages.data(), 3, 0).value == 3);
  std::array<std::array<char, 4>, 3> buffers{};
  for (std::size_t i = 0; i < buffers.size(); ++i) parts[i] = iovec{buffers[i].data(), 4};
  REQUIRE(kernel().recvmmsg(pair.ours.get(), messages.data(), 3, MSG_TRUNC).value == 3);
  CHECK(messages[0].msg_len == 3);
  CHECK(messages[1].msg_len == 0);
  CHECK(messages[2].msg_len == 5);  // the true one: four of them came
  CHECK(std::string(buffers[2].data(), 4) == "thre");
  CHECK(kernel().recvmmsg(pair.ours.get(), messages.data(), 3, 0).would_block());
}

TEST_CASE("Sending several datagrams to a peer that has gone raises no SIGPIPE") {
  SocketPair pair(SOCK_DGRAM);
  pair.theirs.reset();
  mmsghdr message{};
  CHECK(kernel().sendmmsg(pair.ours.get(), &message, 1, 0).error == ECONNREFUSED);
}

TEST_CASE("A descriptor is asked whether it blocks") {
  const SocketPair pair;
  CHECK(kernel().is_non_blocking(pair.ours.get()).value == 1);
  make_blocking(pair.ours.get());
  CHECK(kernel().is_non_blocking(pair.ours.get()).value == 0);
  CHECK(kernel().is_non_blocking(-1).error == EBADF);
}

TEST_CASE("Sending to a peer that has gone gives EPIPE and raises no SIGPIPE") {
  SocketPair pair;
  pair.theirs.reset();
  CHECK(kernel().send(pair.ours.get(), "x", 1).error == EPIPE);
  char byte = 'x';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  CHECK(kernel().sendmsg(pair.ours.get(), &message, 0).error == EPIPE);
}

TEST_CASE("A file that is sent to a peer that has gone gives EPIPE and raises no SIGPIPE") {
  SocketPair pair;
  pair.theirs.reset();
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto send = [&] { return kernel().sendfile(pair.ours.get(), file.get(), 0, 100).error; };
  const PipeSignals signals;
  SECTION("what the program does with it is left alone, and so is the thread's mask") {
    CHECK(send() == EPIPE);
    CHECK_FALSE(PipeSignals::is_blocked());
  }
  SECTION("where it is ignored") {
    ::signal(SIGPIPE, SIG_IGN);
    CHECK(send() == EPIPE);
    CHECK_FALSE(PipeSignals::is_pending());
  }
  SECTION("where it is blocked") {
    PipeSignals::block(true);
    CHECK(send() == EPIPE);
    CHECK(PipeSignals::is_blocked());
    CHECK_FALSE(PipeSignals::is_pending());
  }
  SECTION("one that waited already still waits") {
    PipeSignals::block(true);
    ::raise(SIGPIPE);
    CHECK(send() == ENOSYS);  // who sends goes another way
    CHECK(PipeSignals::is_pending());
    PipeSignals::block(false);
    CHECK(PipeSignals::count() == 1);
    return;
  }
  CHECK(PipeSignals::count() == 0);
}

TEST_CASE("A non-blocking call that has nothing to do says so") {
  const SocketPair pair;
  const UniqueFd listener = bound_socket(SOCK_STREAM);
  std::array<char, 8> buffer{};
  CHECK(kernel().recv(pair.ours.get(), buffer.data(), buffer.size()).would_block());
  CHECK(kernel().read(pair.ours.get(), buffer.data(), buffer.size()).would_block());
  CHECK(kernel().accept(listener.get(), nullptr, nullptr).would_block());
  CHECK_FALSE(kernel().recv(-1, buffer.data(), buffer.size()).would_block());
  CHECK_FALSE(SystemResult{}.would_block());
}

TEST_CASE("A connection is made, named at both ends, used and shut down") {
  const UniqueFd listener = bound_socket(SOCK_STREAM);
  const sockaddr_in address = address_of(listener.get());
  const UniqueFd client(kernel().socket(AF_INET, SOCK_STREAM, 0).fd());
  const SystemResult connecting = kernel().connect(client.get(), generic(address), sizeof address);
  CHECK((connecting.ok() || connecting.error == EINPROGRESS));

  sockaddr_in peer{};
  unsigned bytes = sizeof peer;
  const UniqueFd accepted(
      kernel().accept(listener.get(), reinterpret_cast<sockaddr*>(&peer), &bytes).fd());
  REQUIRE(accepted);
  CHECK(bytes == sizeof peer);
  CHECK(peer.sin_port == address_of(client.get()).sin_port);
  sockaddr_in name{};
  bytes = sizeof name;
  CHECK(kernel().getpeername(client.get(), reinterpret_cast<sockaddr*>(&name), &bytes).ok());
  CHECK(name.sin_port == address.sin_port);

  int error = -1;
  bytes = sizeof error;
  CHECK(kernel().getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &error, &bytes).ok());
  CHECK(error == 0);
  const int on = 1;
  CHECK(kernel().setsockopt(client.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on).ok());

  CHECK(kernel().send(client.get(), "hello", 5).bytes() == 5);
  CHECK(kernel().shutdown(client.get(), SHUT_WR).ok());
  std::array<char, 16> buffer{};
  CHECK(kernel().recv(accepted.get(), buffer.data(), buffer.size()).bytes() == 5);
  const SystemResult end = kernel().recv(accepted.get(), buffer.data(), buffer.size());
  CHECK(end.ok());
  CHECK(end.bytes() == 0);
}

TEST_CASE("A failure is an errno, whatever the call") {
  CHECK(kernel().close(-1).error == EBADF);
  CHECK(kernel().send(-1, "x", 1).error == EBADF);
  CHECK(kernel().listen(-1, 1).error == EBADF);
  CHECK(kernel().shutdown(-1, SHUT_RDWR).error == EBADF);
  CHECK(kernel().socket(-1, SOCK_STREAM, 0).error == EAFNOSUPPORT);
  CHECK(kernel().close(-1).code() == std::errc::bad_file_descriptor);
  CHECK_FALSE(kernel().is_open(-1));
  CHECK_FALSE(kernel().is_open(1'000'000'000));
  const UniqueFd taken = bound_socket(SOCK_STREAM);
  const UniqueFd second(kernel().socket(AF_INET, SOCK_STREAM, 0).fd());
  const sockaddr_in address = address_of(taken.get());
  CHECK(kernel().bind(second.get(), generic(address), sizeof address).error == EADDRINUSE);
}

TEST_CASE("getaddrinfo gives a numeric address, or its own code for what isn't one") {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* results = nullptr;
  const SystemResult found = kernel().getaddrinfo("127.0.0.1", "80", &hints, &results);
  REQUIRE(found.ok());
  REQUIRE(found.value == 0);
  REQUIRE(results != nullptr);
  CHECK(results->ai_family == AF_INET);
  sockaddr_in address{};
  std::memcpy(&address, results->ai_addr, sizeof address);
  CHECK(address.sin_port == htons(80));
  CHECK(address.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  kernel().freeaddrinfo(results);

  results = nullptr;
  const SystemResult missing = kernel().getaddrinfo("not numeric", "80", &hints, &results);
  CHECK(missing.value == EAI_NONAME);
  CHECK(missing.error == 0);
}

TEST_CASE("A call that waits goes on when signals interrupt it") {
  // Blocking descriptors, because only a call that waits can be interrupted. What ends each wait
  // comes from another thread after some strikes.
  const Interrupter interrupter;
  SocketPair pair;
  Pipe pipe;
  for (const int fd : {pair.ours.get(), pair.theirs.get(), pipe.reader.get(), pipe.writer.get()}) {
    make_blocking(fd);
  }
  std::array<char, 8> buffer{};
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const long strikes = Interrupter::count();

  SECTION("read") {
    const Later later([&] { write_byte(pipe.writer.get()); });
    CHECK(kernel().read(pipe.reader.get(), buffer.data(), buffer.size()).bytes() == 1);
  }
  SECTION("recv") {
    const Later later([&] { write_byte(pair.theirs.get()); });
    CHECK(kernel().recv(pair.ours.get(), buffer.data(), buffer.size()).bytes() == 1);
  }
  SECTION("recvmsg") {
    const Later later([&] { write_byte(pair.theirs.get()); });
    CHECK(kernel().recvmsg(pair.ours.get(), &message, 0).bytes() == 1);
  }
  SECTION("accept") {
    const UniqueFd listener = bound_socket(SOCK_STREAM);
    make_blocking(listener.get());
    UniqueFd client;
    const Later later([&] { client = connected_to(listener.get()); });
    CHECK(UniqueFd(kernel().accept(listener.get(), nullptr, nullptr).fd()));
  }
  SECTION("write") {
    make_blocking(pipe.writer.get(), false);
    fill(pipe.writer.get());
    make_blocking(pipe.writer.get());
    make_blocking(pipe.reader.get(), false);
    const Later later([&] { drain(pipe.reader.get()); });
    CHECK(kernel().write(pipe.writer.get(), "x", 1).bytes() == 1);
  }
  SECTION("send and sendmsg") {
    const bool with_message = GENERATE(false, true);
    make_blocking(pair.ours.get(), false);
    fill(pair.ours.get());
    make_blocking(pair.ours.get());
    make_blocking(pair.theirs.get(), false);
    const Later later([&] { drain(pair.theirs.get()); });
    const SystemResult result = with_message ? kernel().sendmsg(pair.ours.get(), &message, 0)
                                             : kernel().send(pair.ours.get(), "12345678", 8);
    CHECK(result.bytes() == 8);
  }
  CHECK(Interrupter::count() > strikes);
}

TEST_CASE("A connect that a signal interrupts is in progress, not failed and not repeated") {
  // Only a Unix socket makes a blocking connect wait: for room in the backlog.
  const UniqueFd listener(kernel().socket(AF_UNIX, SOCK_STREAM, 0).fd());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  REQUIRE(kernel().bind(listener.get(), name, sizeof(sa_family_t)).ok());  // the kernel names it
  unsigned bytes = sizeof address;
  auto* own_name = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(kernel().getsockname(listener.get(), own_name, &bytes).ok());
  REQUIRE(kernel().listen(listener.get(), 0).ok());
  const UniqueFd first(kernel().socket(AF_UNIX, SOCK_STREAM, 0).fd());
  REQUIRE(kernel().connect(first.get(), name, bytes).ok());

  const Interrupter interrupter;
  const UniqueFd second(kernel().socket(AF_UNIX, SOCK_STREAM, 0).fd());
  make_blocking(second.get());
  CHECK(kernel().connect(second.get(), name, bytes).error == EINPROGRESS);
}

TEST_CASE("read_file gives the whole of a file, or why not") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("some");
  std::string text = "old";
  CHECK(kernel().read_file(path.c_str(), text).error == ENOENT);
  std::string whole;
  for (int i = 0; i < 3000; ++i) whole += std::to_string(i) + "\n";
  whole += '\0';
  std::ofstream(path) << whole;
  CHECK(kernel().read_file(path.c_str(), text).bytes() == whole.size());
  CHECK(text == whole);
  std::ofstream(path, std::ios::trunc) << "";
  CHECK(kernel().read_file(path.c_str(), text).ok());
  CHECK(text.empty());
  CHECK(kernel().read_file(directory.file(".").c_str(), text).error == EISDIR);
  CHECK(kernel().read_file("/dev/zero", text).error == EFBIG);
  REQUIRE(::mkfifo(directory.file("fifo").c_str(), 0600) == 0);
  CHECK(kernel().read_file(directory.file("fifo").c_str(), text).ok());  // and waits for nobody
}

TEST_CASE("host_name is this machine's") {
  std::string name;
  REQUIRE(kernel().host_name(name).ok());
  char buffer[256] = "";
  REQUIRE(::gethostname(buffer, sizeof buffer) == 0);
  CHECK(name == buffer);
}

TEST_CASE("A FaultySystem fails the calls that it was told to, and no others") {
  FaultySystem system;
  system.fail(Call::socket, EMFILE, 2, 1);
  const auto try_socket = [&] {
    const SystemResult result = system.socket(AF_INET, SOCK_STREAM, 0);
    const UniqueFd closer(result.ok() ? result.fd() : -1);
    return result.error;
  };
  CHECK(try_socket() == 0);
  CHECK(try_socket() == EMFILE);
  CHECK(try_socket() == EMFILE);
  CHECK(try_socket() == 0);
  CHECK(system.count(Call::socket) == 4);
  CHECK(system.count(Call::send) == 0);

  system.fail(Call::socket, ENOBUFS, FaultySystem::forever);
  for (int i = 0; i < 10; ++i) CHECK(try_socket() == ENOBUFS);
  system.heal(Call::socket);
  CHECK(try_socket() == 0);

  const SocketPair pair;
  system.set_chunk_limit(3);
  CHECK(system.send(pair.ours.get(), "12345", 5).bytes() == 3);
}
