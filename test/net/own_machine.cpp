// SPDX-License-Identifier: MIT
#include "net/own_machine.hpp"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <utility>

#include "net/resolving.hpp"
#include "net/stream.hpp"
#include "support/forked.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;

namespace {

constexpr int no_right = 77;
constexpr const char* no_right_text = "no right";

bool puts_in_place(const std::string& path, const std::string& source) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return path == "/etc/nsswitch.conf" || path == "/etc/gai.conf";  // the C library does without
  }
  return ::mount(source.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0;
}

bool moves_into(const Files& files, const TemporaryDirectory& sources) {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS) != 0) return false;
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  const bool has_network =
      std::system(
          "PATH=$PATH:/usr/sbin:/sbin; exec 2>/dev/null; ip link set lo up && "
          "ip link add wire0 type veth peer name wire1 && ip link set wire1 up && "
          "ip link set wire0 up && ip addr add fe80::1/64 dev wire0 nodad") == 0;
  if (!has_network) return false;
  return std::all_of(files.begin(), files.end(), [&](const auto& file) {
    const std::string name = file.first.substr(file.first.rfind('/') + 1);
    return puts_in_place(file.first, sources.file(name));
  });
}

void write_all(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t bytes = ::write(fd, text.data() + done, text.size() - done);
    if (bytes <= 0) return;
    done += static_cast<std::size_t>(bytes);
  }
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t bytes = ::read(fd, buffer.data(), buffer.size());
    if (bytes <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(bytes));
  }
}

}  // namespace

std::string in_own_machine(const Files& files, const std::function<std::string()>& work) {
  const TemporaryDirectory sources;
  for (const auto& [path, text] : files) {
    std::ofstream(sources.file(path.substr(path.rfind('/') + 1))) << text;
  }
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pawl::UniqueFd reading(ends[0]);
  pawl::UniqueFd writing(ends[1]);
  // What it says fits into the pipe: nobody reads before it is over.
  const int code = exit_code_of_fork([&] {
    if (!moves_into(files, sources)) return no_right;
    write_all(writing.get(), work());
    return 0;
  });
  writing.reset();
  if (code == no_right) {
    WARN("skipped: no right to make a machine of its own");
    return no_right_text;
  }
  CHECK(code == 0);
  return read_all(reading.get());
}

std::string MachineLookups::with(const std::string& backend, const std::vector<std::string>& names,
                                 pawl::AddressFamily family) const {
  return in_own_machine(files, [&] {
    if (std::system(("PATH=$PATH:/usr/sbin:/sbin; " + setup).c_str()) != 0) {
      return "failed: " + setup;
    }
    pawl::EventLoop loop;
    std::vector<std::unique_ptr<NameServer>> servers;
    for (const std::string& address : addresses) {
      servers.push_back(
          std::make_unique<NameServer>(loop, answer, pawl::Endpoint::from_address(address, 53)));
    }
    pawl::ResolverOptions wanted = options;
    wanted.backend = backend;
    wanted.cache_entries = 0;
    pawl::Resolver resolver(loop, wanted);
    std::string text;
    for (const std::string& name : names) {
      Found found;
      resolver.resolve(name, 80, family, found.callback());
      for (int i = 0; i < 600 && found.calls == 0; ++i) loop.run_once(100ms);
      text += name + ": " + found.text() + "\n";
    }
    for (const auto& server : servers) {
      std::string asked;
      for (const DnsQuestion& question : server->questions) {
        if (question.is_over_tcp) continue;
        if (asked.find(" " + question.name + ";") == std::string::npos) {
          asked += " " + question.name + ";";
        }
      }
      text += "asked:" + asked + "\n";
    }
    return text;
  });
}
