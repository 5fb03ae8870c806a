// SPDX-License-Identifier: MIT
// asyncio's operations on raw sockets, each allocation failing in turn.
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/net/sock.hpp"
#include "support/allocation_sweep.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Endpoint;
using pawl::SockHandle;

TEST_CASE("sock_recv and sock_sendall complete once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    const SocketPair pair;
    make_blocking(pair.ours.get(), false);
    make_blocking(pair.theirs.get(), false);
    int accepted = 0;
    int called = 0;
    std::string got;
    std::size_t sent = 0;
    // On this side one operation waits, on that one bytes come.
    if (trial.attempt([&] {
          pawl::sock_recv(loop, pair.ours.get(), 100, [&](std::error_code, std::string bytes) {
            ++called;
            const Spared spared;
            got = std::move(bytes);
          });
        })) {
      ++accepted;
    }
    trial.attempt([&] { loop.run_once(0s); });
    if (trial.attempt([&] {
          pawl::sock_sendall(loop, pair.theirs.get(), std::string(90, 's'),
                             [&](std::error_code, std::size_t bytes) {
                               ++called;
                               sent = bytes;
                             });
        })) {
      ++accepted;
    }
    trial.run([&] { return called == accepted || trial.has_failed(); });
    write_byte(pair.theirs.get());
    trial.run([&] { return called == accepted; });
    if (!trial.has_failed()) {
      CHECK(got == std::string(90, 's'));
      CHECK(sent == 90);
    }
    // A big one, which has to wait.
    SockHandle big;
    int ended = 0;
    const bool is_sending = trial.attempt([&] {
      big = pawl::sock_sendall(loop, pair.ours.get(), std::string(1'000'000, 'b'),
                               [&](std::error_code, std::size_t) { ++ended; });
    });
    trial.run([&] {
      trial.attempt([&] { drain(pair.theirs.get()); });
      return ended == (is_sending ? 1 : 0);
    });
    drain(pair.ours.get());  // the byte from above, when nobody waited for it
    SockHandle cancelled;
    trial.attempt([&] {
      cancelled = pawl::sock_recv(loop, pair.ours.get(), 100,
                                  [&](std::error_code, const std::string&) { ++ended; });
    });
    trial.attempt([&] { loop.run_once(0s); });
    trial.must([&] { cancelled.cancel(); });
    trial.run_dry();
    // The one that was cancelled may have ended for want of memory before.
    const int sent_ones = is_sending ? 1 : 0;
    CHECK(ended >= sent_ones);
    CHECK(ended <= sent_ones + (trial.has_failed() ? 1 : 0));
  });
}

TEST_CASE("sock_connect and sock_accept complete once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    RawListener listener;
    const pawl::UniqueFd socket(pawl::System::real().socket(AF_INET, SOCK_STREAM, 0).fd());
    int accepted = 0;
    int called = 0;
    std::error_code error;
    if (trial.attempt([&] {
          pawl::sock_accept(loop, listener.fd(),
                            [&](std::error_code, const pawl::AcceptedSocket&) { ++called; });
        })) {
      ++accepted;
    }
    if (trial.attempt([&] {
          pawl::sock_connect(loop, socket.get(), listener.endpoint(), [&](std::error_code code) {
            ++called;
            error = code;
          });
        })) {
      ++accepted;
    }
    pawl::UniqueFd more;
    if (trial.has_failed()) more = raw_connect(listener.endpoint());
    trial.run([&] { return called == accepted || trial.has_failed(); });
    if (!more) more = raw_connect(listener.endpoint());
    trial.run([&] { return called == accepted; });
    if (!trial.has_failed()) CHECK_FALSE(error);
  });
}

TEST_CASE("sock_sendto and sock_recvfrom complete once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    pawl::EventLoop& loop = trial.loop();
    const pawl::UniqueFd ours = bound_socket(SOCK_DGRAM);
    const pawl::UniqueFd theirs = bound_socket(SOCK_DGRAM);
    make_blocking(ours.get(), false);
    make_blocking(theirs.get(), false);
    const sockaddr_in address = address_of(theirs.get());
    const Endpoint to =
        Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address), sizeof address);
    int accepted = 0;
    int called = 0;
    std::string got;
    if (trial.attempt([&] {
          pawl::sock_recvfrom(loop, theirs.get(), 1000,
                              [&](std::error_code, pawl::ReceivedFrom received) {
                                ++called;
                                const Spared spared;
                                got = std::move(received.bytes);
                              });
        })) {
      ++accepted;
    }
    if (trial.attempt([&] {
          pawl::sock_sendto(loop, ours.get(), std::string(100, 'd'), to,
                            [&](std::error_code, std::size_t) { ++called; });
        })) {
      ++accepted;
    }
    trial.run([&] { return called == accepted || trial.has_failed(); });
    ::sendto(ours.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    trial.run([&] { return called == accepted; });
    if (!trial.has_failed()) CHECK(got == std::string(100, 'd'));
  });
}

TEST_CASE("Operations whose loop goes leave nothing, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    const SocketPair pair;
    make_blocking(pair.ours.get(), false);
    int called = 0;
    trial.attempt([&] {
      pawl::sock_recv(trial.loop(), pair.ours.get(), 100,
                      [&](std::error_code, const std::string&) { ++called; });
    });
    trial.attempt([&] {
      pawl::sock_sendall(trial.loop(), pair.ours.get(), std::string(1'000'000, 'x'),
                         [&](std::error_code, std::size_t) { ++called; });
    });
    trial.attempt([&] { trial.loop().run_once(0s); });
    trial.attempt([&] { (void)trial.loop().why_alive(); });
    trial.must([&] { trial.end_loop(); });
    if (!trial.has_failed()) CHECK(called == 0);
  });
}
