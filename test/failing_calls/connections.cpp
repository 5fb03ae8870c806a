// SPDX-License-Identifier: MIT
// Each system call that a dialed connection makes fails in turn.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>

#include "failing_calls/ends.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/relay.hpp"
#include "support/sockets.hpp"
#include "support/temporary_directory.hpp"

using pawl::Connection;
using pawl::Endpoint;

namespace {

/// Sends `text` and closes when all of it has come back.
void echo_through(CallTrial& trial, const Endpoint& where, const std::string& text,
                  pawl::ConnectionOptions options) {
  EchoPeer peer(trial, where);
  StreamEnd end;
  const auto client =
      Connection::connect(trial.loop(), peer.server.local_endpoint(), std::move(options));
  end.watch(*client);
  client->on_data([&](Connection& self, std::string_view bytes) {
    end.data += bytes;
    if (end.data.size() >= text.size()) self.close();
  });
  client->on_connected([&](Connection& self) { self.write(text); });
  trial.run_until([&] { return end.closed > 0 && peer.is_quiet(); });
  trial.expect(end.closed <= 1, "on_closed twice");
  trial.expect(end.error || end.data == text, "says success without all bytes");
  trial.expect(text.compare(0, end.data.size(), end.data) == 0, "wrong bytes");
}

}  // namespace

TEST_CASE("An echo over TCP whose calls fail brings the right bytes or an error") {
  const std::string text = long_text(100'000);
  each_call_fails([&](CallTrial& trial) {
    echo_through(trial, Endpoint::loopback(0), text, patient_options());
  });
}

TEST_CASE("An echo with all options whose calls fail brings the right bytes or an error") {
  each_call_fails([](CallTrial& trial) {
    pawl::ConnectionOptions options = patient_options();
    options.bind = Endpoint::loopback(0);
    options.keep_alive = std::chrono::seconds(5);
    options.receive_buffer = 20'000;
    options.send_buffer = 20'000;
    echo_through(trial, Endpoint::loopback(0), "short", options);
  });
}

TEST_CASE("An echo over a Unix socket whose calls fail brings the right bytes or an error") {
  const std::string text = long_text(500'000);
  each_call_fails([&](CallTrial& trial) {
    const TemporaryDirectory folder;
    echo_through(trial, Endpoint::parse("unix:" + folder.file("socket")), text, patient_options());
  });
}

TEST_CASE("A name is dialed, or there is an error, whatever calls fail") {
  each_call_fails([](CallTrial& trial) {
    EchoPeer peer(trial);
    StreamEnd end;
    const auto client = Connection::connect(trial.loop(), "localhost",
                                            peer.server.local_endpoint().port(), patient_options());
    end.watch(*client);
    client->on_connected([](Connection& self) { self.close(); });
    trial.run_until([&] { return end.closed > 0 && peer.is_quiet(); });
    trial.expect(end.error || peer.accepted > 0, "says success without a peer");
  });
}

TEST_CASE("A file goes whole, or there is an error, whatever calls fail") {
  const std::string text = long_text(300'000);
  const TemporaryDirectory folder;
  const std::string path = folder.file("file");
  {
    const pawl::UniqueFd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    REQUIRE(::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  each_call_fails([&](CallTrial& trial) {
    EchoPeer peer(trial);
    StreamEnd end;
    const auto client =
        Connection::connect(trial.loop(), peer.server.local_endpoint(), patient_options());
    end.watch(*client);
    bool is_connected = false;
    client->on_connected([&](Connection&) { is_connected = true; });
    client->write("head ");
    client->write_file(pawl::UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), 0, text.size());
    client->write(" tail");
    client->shutdown();
    trial.run_until([&] { return end.closed > 0 && peer.is_quiet(); });
    const std::string all = "head " + text + " tail";
    trial.expect(end.error || end.data == all, "says success without all bytes");
    trial.expect(all.compare(0, end.data.size(), end.data) == 0, "wrong bytes");
    if (is_connected && end.error && !peer.error) {
      trial.expect(peer.received == all.size(),
                   "a part looks whole to the peer: " + std::to_string(peer.received));
    }
  });
}

TEST_CASE("Descriptors go with their bytes, or there is an error, whatever calls fail") {
  each_call_fails([](CallTrial& trial) {
    const TemporaryDirectory folder;
    EchoPeer peer(trial, Endpoint::parse("unix:" + folder.file("socket")));
    StreamEnd end;
    const auto client =
        Connection::connect(trial.loop(), peer.server.local_endpoint(), patient_options());
    end.watch(*client);
    client->on_connected([](Connection& self) {
      std::vector<pawl::UniqueFd> fds;
      fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      self.write_fds("with one", std::move(fds));
      self.shutdown();
    });
    trial.run_until([&] { return end.closed > 0 && peer.is_quiet(); });
    trial.expect(end.error || end.data == "with one", "says success without all bytes");
  });
}

TEST_CASE(
    "A connection that is aborted, released or destroyed leaves nothing, whatever calls fail") {
  for (const int way : {0, 1, 2, 3}) {
    each_call_fails([&](CallTrial& trial) {
      EchoPeer peer(trial);
      StreamEnd end;
      bool is_over = false;
      auto client =
          Connection::connect(trial.loop(), peer.server.local_endpoint(), patient_options());
      end.watch(*client);
      client->on_connected([&](Connection& self) {
        self.write("to be dropped");
        if (way == 0) self.abort();
        if (way == 1) self.release();
        if (way == 2) client.reset();
        if (way == 3) self.close();
        is_over = true;
      });
      trial.run_until([&] { return (is_over || end.closed > 0) && peer.is_quiet(); });
    });
  }
}

TEST_CASE("A relay between two connections whose calls fail brings the right bytes or an error") {
  const std::string text = long_text(50'000);
  each_call_fails([&](CallTrial& trial) {
    EchoPeer peer(trial);
    std::unique_ptr<Connection> upstream;
    const auto is_done = std::make_shared<bool>(false);  // it is told behind all ends
    int accepted = 0;
    pawl::ServerOptions options;
    options.connection = patient_options();
    options.connection.allow_half_open = true;
    pawl::Server proxy(
        trial.loop(), Endpoint::loopback(0),
        [&](Connection& connection) {
          ++accepted;
          pawl::ConnectionOptions other = patient_options();
          other.allow_half_open = true;
          upstream = Connection::connect(trial.loop(), peer.server.local_endpoint(), other);
          pawl::relay(connection, *upstream, [=](std::error_code) { *is_done = true; });
        },
        options);
    StreamEnd end;
    pawl::ConnectionOptions half_open;
    half_open.allow_half_open = true;
    const auto client = Connection::connect(trial.peers(), proxy.local_endpoint(), half_open);
    end.watch(*client);
    client->on_connected([&](Connection& self) {
      self.write(text);
      self.shutdown();
    });
    client->on_eof([](Connection& self) { self.close(); });
    trial.run_until([&] { return end.closed > 0 || trial.system().count(Call::accept) > 50; });
    if (accepted == 0) return;
    trial.run_until([&] { return *is_done && peer.is_quiet(); });
    trial.expect(end.error || end.data == text,
                 "a part looks whole: " + std::to_string(end.data.size()));
    trial.expect(text.compare(0, end.data.size(), end.data) == 0, "wrong bytes");
  });
}

TEST_CASE("A close towards a peer that still sends says what it was, whatever calls fail") {
  each_call_fails([](CallTrial& trial) {
    const std::string text = long_text(20'000);
    StreamEnd end;
    int accepted = 0;
    pawl::Server uploader(trial.peers(), Endpoint::loopback(0), [&](Connection& connection) {
      ++accepted;
      end.watch(connection);
      connection.write(long_text(2'000'000));
    });
    StreamEnd ours;
    pawl::ConnectionOptions options = patient_options();
    options.close_timeout = std::chrono::seconds(2);
    const auto client =
        Connection::connect(trial.loop(), uploader.local_endpoint(), std::move(options));
    ours.watch(*client);
    client->on_connected([&](Connection& self) {
      self.write(text);
      self.close();
    });
    trial.run_until([&] { return ours.closed > 0 && (accepted == 0 || end.closed > 0); });
    trial.expect(ours.error || end.data == text, "says success, and cuts its own bytes");
  });
}
