// SPDX-License-Identifier: MIT
// Connections, each allocation failing in turn.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "net/stream.hpp"
#include "out_of_memory/link.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;

namespace {

/// A file with `bytes` in it, at its beginning.
pawl::UniqueFd file_with(std::string_view bytes) {
  pawl::UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  REQUIRE(::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  return file;
}

pawl::UniqueFd copy_of(const pawl::UniqueFd& fd) {
  return pawl::UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
}

ConnectionOptions small_buffers() {
  ConnectionOptions options;
  options.send_buffer = 4096;
  options.receive_buffer = 4096;
  return options;
}

/// Two connections over one socket pair, recorded.
struct Pair {
  explicit Pair(Trial& trial, ConnectionOptions options = {}) : a(trial), b(trial) {
    SocketPair sockets;
    ::fcntl(sockets.ours.get(), F_SETFL, O_NONBLOCK);
    ::fcntl(sockets.theirs.get(), F_SETFL, O_NONBLOCK);
    adopt(trial, a, sockets.ours, options);
    adopt(trial, b, sockets.theirs, options);
  }

  static void adopt(Trial& trial, Client& client, const pawl::UniqueFd& socket,
                    const ConnectionOptions& options) {
    trial.insist(
        [&] { client.connection = Connection::adopt(trial.loop(), copy_of(socket), options); });
    client.attach([](Connection&) {});
  }
  bool is_over() const { return a.is_over() && b.is_over(); }

  Client a;
  Client b;
};

}  // namespace

TEST_CASE("An echo arrives whole or ends with an error, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    CountingServer server(trial, echo);
    Client client(trial);
    client.dial(server.endpoint());
    client.attach([&](Connection& self) {
      self.write("hello");
      self.write(std::string(3000, 'x'));
      self.write(", again");
      self.shutdown();
    });
    trial.run([&] { return client.is_over() && server.is_quiet(); });
    CHECK(client.story.closed == (client.connection ? 1 : 0));
    if (!client.story.error && client.connection) CHECK(client.story.data.size() == 3012);
    if (!trial.has_failed()) CHECK_FALSE(client.story.error);
    trial.must([&] { client.connection.reset(); });
    trial.must([&] { server.server.reset(); });
  });
}

TEST_CASE("A long stream with back pressure comes to an end, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    constexpr std::size_t portions = 20;
    const std::string portion(30'000, 'p');
    pawl::ServerOptions options;
    options.connection = small_buffers();
    CountingServer server(trial, echo, options);
    Client client(trial);
    client.dial(server.endpoint(), small_buffers());
    std::size_t sent = 0;
    const auto send = [&](Connection& self) {
      while (sent < portions && !self.is_congested()) {
        ++sent;
        self.write(portion);
      }
      if (sent == portions) self.shutdown();
    };
    client.attach(send);
    if (client.connection) {
      trial.insist([&] {
        client.connection->on_drained(
            [&](Connection& self) { or_abort(self, [&] { send(self); }); });
      });
    }
    trial.run([&] { return client.is_over() && server.is_quiet(); });
    if (!client.story.error && client.connection) {
      CHECK(client.story.data.size() == portions * portion.size());
    }
    if (!trial.has_failed()) CHECK_FALSE(client.story.error);
  });
}

TEST_CASE("A dial by name ends in a connection or an error, whichever allocation fails",
          "[threads]") {
  each_allocation_fails([](Trial& trial) {
    trial.set_patience(20ms);
    CountingServer server(trial, echo);
    Client client(trial);
    client.dial("localhost", server.endpoint().port());
    client.attach([](Connection& self) { self.close(); });
    trial.run([&] { return client.is_over() && server.is_quiet(); });
    CHECK(client.story.closed == (client.connection ? 1 : 0));
    if (!trial.has_failed()) CHECK_FALSE(client.story.error);
  });
}

TEST_CASE("A dial in vain ends with an error once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Client client(trial);
    client.dial(refusing_endpoint());
    client.attach([](Connection&) {});
    if (client.connection) client.connection->write("kept for later");
    trial.run([&] { return client.is_over(); });
    trial.run_dry();
    CHECK(client.story.connected == 0);
    CHECK(client.story.closed == (client.connection ? 1 : 0));
    trial.attempt([&] {
      if (client.connection) (void)client.connection->describe();
    });
  });
}

TEST_CASE("Aborted and destroyed connections leave nothing, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    CountingServer server(trial, echo);
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 4; ++i) {
      clients.push_back(std::make_unique<Client>(trial));
      Client& client = *clients.back();
      client.dial(server.endpoint());
      client.attach([&, i](Connection& self) {
        self.write(std::string(1000, 'x'));
        if (i == 0) self.abort();
        if (i == 1) client.connection.reset();
      });
      if (i == 2) trial.must([&] { client.connection.reset(); });
    }
    trial.run([&] { return clients[0]->is_over() && clients[1]->is_over(); });
    trial.must([&] {
      if (clients[3]->connection) clients[3]->connection->abort();
    });
    trial.run([&] { return clients[3]->is_over() && server.is_quiet(); });
  });
}

TEST_CASE("A file is sent whole or the connection ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    const std::string content = noise(50'000);
    const pawl::UniqueFd file = file_with(content);
    CountingServer server(trial, [&](Connection& self) {
      self.write("head");
      self.write_file(copy_of(file), 10, 40'000);
      self.write("tail");
      self.close();
    });
    Client client(trial);
    client.dial(server.endpoint(), small_buffers());
    client.attach([](Connection&) {});
    trial.run([&] { return client.is_over() && server.is_quiet(); });
    if (!trial.has_failed()) {
      CHECK(client.story.data == "head" + content.substr(10, 40'000) + "tail");
    }
  });
}

TEST_CASE("Descriptors arrive or the connection ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair pair(trial);
    std::size_t came = 0;
    trial.insist([&] {
      pair.b.connection->on_fds(
          [&](Connection&, std::vector<pawl::UniqueFd> fds) { came += fds.size(); });
    });
    const pawl::UniqueFd file = file_with("x");
    for (int i = 0; i < 3; ++i) {
      std::vector<pawl::UniqueFd> fds;
      fds.push_back(copy_of(file));
      fds.push_back(copy_of(file));
      trial.attempt([&] { pair.a.connection->write_fds("take these", std::move(fds)); });
      trial.attempt([&] { pair.a.connection->write("and this"); });
    }
    trial.attempt([&] { pair.a.connection->close(); });
    trial.run([&] { return pair.is_over(); });
    if (!trial.has_failed()) CHECK(came == 6);
    CHECK(pair.a.story.closed == 1);
    CHECK(pair.b.story.closed == 1);
  });
}

TEST_CASE("What is given back comes again or the connection ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair pair(trial);
    int calls = 0;
    std::string data;
    trial.insist([&] {
      pair.b.connection->on_data([&](Connection& self, std::string_view bytes) {
        if (calls++ == 0) return or_abort(self, [&] { self.unread(bytes.substr(2)); });
        const Spared spared;
        data.append(bytes);
      });
    });
    trial.attempt([&] { pair.a.connection->write("ab" + std::string(1000, 'c')); });
    trial.run([&] { return pair.b.is_over() || data.size() == 1000 || trial.has_failed(); });
    trial.attempt([&] { pair.a.connection->close(); });
    trial.run([&] { return pair.is_over(); });
    if (!trial.has_failed()) CHECK(data == std::string(1000, 'c'));
  });
}

TEST_CASE("A released socket takes along what wasn't read, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair pair(trial, small_buffers());
    Connection::Released released;
    bool is_released = false;
    trial.insist([&] {
      pair.b.connection->on_data([&](Connection& self, std::string_view bytes) {
        or_abort(self, [&] {
          self.unread(bytes);
          self.write(std::string(300'000, 'y'));
          released = self.release();
          is_released = true;
        });
      });
    });
    trial.attempt([&] { pair.a.connection->pause_reading(); });
    trial.attempt([&] { pair.a.connection->write(std::string(100, 'x')); });
    trial.run([&] { return is_released || pair.b.is_over() || trial.has_failed(); });
    trial.attempt([&] { pair.a.connection->abort(); });
    trial.attempt([&] { pair.b.connection->abort(); });
    trial.run([&] { return pair.is_over(); });
    if (!trial.has_failed()) {
      CHECK(released.socket);
      CHECK(released.unread == std::string(100, 'x'));
    }
  });
}

TEST_CASE("Messages come whole, or their reader ends, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair pair(trial);
    std::vector<std::string> messages;
    int ends = 0;
    std::unique_ptr<MessageReader> reader;
    trial.insist(
        [&] { reader = std::make_unique<MessageReader>(*pair.b.connection, Framing::lines()); });
    trial.insist([&] {
      reader->on_message([&](Connection& self, std::string_view message) {
        {
          const Spared spared;
          messages.emplace_back(message);
        }
        or_abort(self, [&] {
          if (messages.size() == 1) reader->set_framing(Framing::until("END"));
          if (messages.size() == 2) reader->pause();
        });
      });
    });
    trial.insist([&] { reader->on_end([&](Connection&, std::error_code) { ++ends; }); });
    const auto write = [&](const std::string& bytes) {
      trial.attempt([&] { pair.a.connection->write(bytes); });
      trial.attempt([&] { trial.loop().run_once(0s); });
      trial.attempt([&] { trial.loop().run_once(0s); });
    };
    write("fi");
    write("rst\n" + std::string(2000, 's'));
    write(std::string(2000, 's') + "ENDthirdEND" + std::string(500, 'p'));
    trial.run([&] { return pair.b.is_over() || messages.size() == 2 || trial.has_failed(); });
    trial.insist([&] { reader->resume(); });
    trial.attempt([&] { pair.a.connection->close(); });
    trial.run([&] { return pair.is_over(); });
    trial.must([&] { reader.reset(); });
    if (!trial.has_failed()) {
      CHECK(messages == std::vector<std::string>{"first", std::string(4000, 's'), "third"});
      CHECK(ends == 1);
    }
  });
}

TEST_CASE("A reader that goes gives back what it has, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair pair(trial);
    std::unique_ptr<MessageReader> reader;
    trial.insist([&] {
      reader = std::make_unique<MessageReader>(*pair.b.connection, Framing::exactly(10'000));
    });
    trial.attempt([&] { pair.a.connection->write(std::string(5'000, 'x')); });
    trial.run([&] {
      return pair.b.is_over() || reader->partial().size() == 5'000 || trial.has_failed();
    });
    // Not `must`: without any memory at all the connection ends, and its on_closed is lost.
    trial.attempt([&] { reader.reset(); });
    pair.b.attach([](Connection&) {});
    trial.attempt([&] { pair.a.connection->close(); });
    trial.run([&] { return pair.is_over(); });
    if (!trial.has_failed()) CHECK(pair.b.story.data == std::string(5'000, 'x'));
  });
}

TEST_CASE("A relay passes all on or ends both sides, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    Pair left(trial, small_buffers());
    Pair right(trial, small_buffers());
    int done = 0;
    const bool is_relayed = trial.attempt([&] {
      pawl::relay(*left.b.connection, *right.a.connection, [&](std::error_code) { ++done; });
    });
    if (is_relayed) {
      trial.attempt([&] { left.a.connection->write(std::string(100'000, 'x')); });
      trial.attempt([&] { right.b.connection->write(std::string(100'000, 'y')); });
      trial.attempt([&] { left.a.connection->shutdown(); });
      trial.attempt([&] { right.b.connection->shutdown(); });
      trial.run([&] { return done == 1 && left.a.is_over() && right.b.is_over(); });
    }
    if (!trial.has_failed()) {
      CHECK(left.a.story.data == std::string(100'000, 'y'));
      CHECK(right.b.story.data == std::string(100'000, 'x'));
    }
  });
}

TEST_CASE("Timeouts end a connection once, whichever allocation fails") {
  each_allocation_fails([](Trial& trial) {
    ConnectionOptions options = small_buffers();
    options.idle_timeout = 5s;
    options.write_timeout = 7s;
    options.close_timeout = 3s;
    Pair pair(trial, options);
    trial.attempt([&] { pair.b.connection->pause_reading(); });
    trial.attempt([&] { pair.a.connection->write(std::string(500'000, 'x')); });
    trial.run([&] { return pair.a.is_over(); });
    trial.attempt([&] { pair.b.connection->resume_reading(); });
    trial.run([&] { return pair.is_over(); });
    trial.run_dry();
    CHECK(pair.a.story.closed == 1);
    CHECK(pair.b.story.closed == 1);
  });
}
