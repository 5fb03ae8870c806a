// SPDX-License-Identifier: MIT
// c-ares asks name servers from the loop's thread. What it sets out of its way (1.18.1):
// - It calls back inside ares_getaddrinfo(), and ares_cancel() or ares_destroy() inside a callback
//   free what its callers still use. So the callback only takes a note; `settle` acts on the notes
//   when no call to c-ares is on the stack.
// - One lookup can't be cancelled, only all: an abandoned one goes on while others are wanted, and
//   the channel is destroyed with the last wanted one. So an idle resolver has no socket, and
//   resolv.conf(5) is read anew.
// - It reads datagrams as long as there are any (a flood would hold the loop), and before 1.19.1 it
//   took an empty one for the end of a connection (CVE-2023-32067).
// - Its sockets are made and used through `System`, but it would sort addresses past it, so we do
//   that. It still reads the clock, resolv.conf(5) and the hosts file by itself.
#define CARES_NO_DEPRECATED  // later versions warn about functions that all versions have
#include <ares.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <new>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "net/address_order.hpp"
#include "net/resolver_backend.hpp"
#include "net/socket_address.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

// A name server's socket buffer holds some hundred datagrams; what is lost costs seconds.
constexpr std::size_t asking_limit = 64;
constexpr int datagram_budget = 64;  // in one wake-up; the selector tells again of the rest
constexpr Duration longest_lifetime = std::chrono::hours(7 * 24);  // RFC 8767 §4

std::error_code lookup_error(int status) {
  switch (status) {
    case ARES_SUCCESS: return {};
    case ARES_ENOTFOUND:
    case ARES_ENONAME: return Errc::host_not_found;
    case ARES_ENODATA: return Errc::no_address;
    case ARES_EBADNAME: return Errc::bad_name;
    // c-ares, like the C library, asks the next server after a SERVFAIL, a REFUSED or silence.
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
    case ARES_ENOTIMP:
    case ARES_ECONNREFUSED:
    case ARES_ETIMEOUT: return Errc::resolve_failed;
    case ARES_ENOMEM: return system_error_code(ENOMEM);
    default: return Errc::bad_answer;
  }
}

bool is_out_of_room(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

Duration shorter(Duration lifetime, int ttl) {
  // The top bit set means 0 (RFC 2181 §8).
  return std::min<Duration>(lifetime, std::chrono::seconds(std::max(ttl, 0)));
}

ResolverAnswer to_answer(int status, const ares_addrinfo* results) {
  ResolverAnswer answer;
  answer.error = lookup_error(status);
  if (answer.error || results == nullptr) return answer;
  Duration lifetime = longest_lifetime;
  for (const ares_addrinfo_node* node = results->nodes; node != nullptr; node = node->ai_next) {
    answer.endpoints.push_back(Endpoint::from_sockaddr(node->ai_addr, node->ai_addrlen));
    lifetime = shorter(lifetime, node->ai_ttl);
  }
  for (const ares_addrinfo_cname* alias = results->cnames; alias != nullptr; alias = alias->next) {
    lifetime = shorter(lifetime, alias->ttl);
  }
  answer.lifetime = lifetime;
  return answer;
}

class CaresBackend final : public ResolverBackend {
 public:
  CaresBackend(EventLoop& loop, const ResolverOptions& options, Sink sink)
      : loop_(loop), options_(options), sink_(std::move(sink)) {
    // Once in a process; on Unix it sets nothing that would have to be given back.
    static const int status = ::ares_library_init(ARES_LIB_INIT_ALL);
    if (status != ARES_SUCCESS) throw std::bad_alloc();
  }

  ~CaresBackend() override {
    unasked_.clear();
    wanted_.clear();
    destroy_channel();
  }

  void ask(std::uint64_t id, const std::string& name, AddressFamily family) override;
  void abandon(std::uint64_t id) override;

 private:
  struct Unasked {
    std::string name;
    AddressFamily family;
  };
  /// What a lookup's callback gets.
  struct Question {
    CaresBackend& backend;
    std::uint64_t id;
  };
  struct Socket {
    int type = 0;
    bool is_read = false;     // true exactly while the loop watches it for reading
    bool is_written = false;  // … and for writing
  };
  struct Note {
    std::uint64_t id;
    ResolverAnswer answer;
  };

  void start(std::uint64_t id, const Unasked& question);
  int make_channel();
  int set_servers();
  void destroy_channel();
  void process(int read_fd, int write_fd);
  void settle();
  void arm_timer();

  // What c-ares calls. `errno` is how it gets errors.
  static CaresBackend& self(void* data) { return *static_cast<CaresBackend*>(data); }
  static void on_answer(void* data, int status, int timeouts, ares_addrinfo* results);
  static void on_state(void* data, int fd, int is_read, int is_written);
  static int make_socket(int family, int type, int protocol, void* data);
  static int close_socket(int fd, void* data);
  static int connect_socket(int fd, const sockaddr* address, ares_socklen_t bytes, void* data);
  static ares_ssize_t receive(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                              ares_socklen_t* from_bytes, void* data);
  static ares_ssize_t send(int fd, const iovec* pieces, int count, void* data);

  void watch(int fd, bool is_read, bool is_written);

  EventLoop& loop_;
  const ResolverOptions options_;
  Sink sink_;
  ares_channel channel_ = nullptr;
  std::map<std::uint64_t, Unasked> unasked_;  // first come, first served
  std::unordered_set<std::uint64_t> wanted_;  // of those that c-ares was asked
  std::unordered_map<int, Socket> sockets_;
  std::vector<Note> notes_;  // has room for all that are being asked
  std::size_t asking_ = 0;   // lookups within c-ares, abandoned ones included
  int datagrams_left_ = 0;
  int socket_error_ = 0;  // of this process, for which the last socket couldn't be made
  ScopedHandle timer_;
};

void CaresBackend::ask(std::uint64_t id, const std::string& name, AddressFamily family) {
  unasked_.emplace(id, Unasked{name, family});
  settle();
}

void CaresBackend::abandon(std::uint64_t id) {
  unasked_.erase(id);
  wanted_.erase(id);
  settle();
}

void CaresBackend::start(std::uint64_t id, const Unasked& question) {
  if (channel_ == nullptr) {
    const int status = make_channel();
    if (status != ARES_SUCCESS) {
      destroy_channel();
      return sink_(id, ResolverAnswer{lookup_error(status), {}, {}});
    }
  }
  notes_.reserve(asking_ + 1);
  auto asked = std::make_unique<Question>(Question{*this, id});
  wanted_.insert(id);
  ++asking_;
  ares_addrinfo_hints hints{};
  hints.ai_flags = ARES_AI_NOSORT;  // see sort_addresses
  hints.ai_family = to_address_family(question.family);
  ::ares_getaddrinfo(channel_, question.name.c_str(), nullptr, &hints, &on_answer, asked.release());
}

int CaresBackend::make_channel() {
  ares_options options{};
  options.sock_state_cb = [](void* data, int fd, int is_read, int is_written) {
    on_state(data, fd, is_read, is_written);
  };
  options.sock_state_cb_data = this;
  int mask = ARES_OPT_SOCK_STATE_CB;
  if (options_.try_timeout > Duration::zero()) {
    const auto milliseconds =
        std::chrono::ceil<std::chrono::milliseconds>(options_.try_timeout).count();
    // c-ares doubles it with each round.
    options.timeout = static_cast<int>(
        std::min<std::int64_t>(milliseconds, std::numeric_limits<int>::max() / 1024));
    mask |= ARES_OPT_TIMEOUTMS;
  }
  if (options_.tries > 0) {
    options.tries = options_.tries;
    mask |= ARES_OPT_TRIES;
  }
  const int status = ::ares_init_options(&channel_, &options, mask);
  if (status != ARES_SUCCESS) {
    channel_ = nullptr;
    return status;
  }
  static const ares_socket_functions functions{&make_socket, &close_socket, &connect_socket,
                                               &receive, &send};
  ::ares_set_socket_functions(channel_, &functions, this);
  return options_.servers.empty() ? ARES_SUCCESS : set_servers();
}

int CaresBackend::set_servers() {
  std::vector<ares_addr_port_node> nodes(options_.servers.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const SocketAddress address(options_.servers[i]);
    ares_addr_port_node& node = nodes[i];
    node.next = i + 1 < nodes.size() ? &nodes[i + 1] : nullptr;
    node.family = address.family();
    if (node.family == AF_INET) {
      const auto& in = reinterpret_cast<const sockaddr_in&>(*address.get());
      node.addr.addr4 = in.sin_addr;
    } else {
      const auto& in6 = reinterpret_cast<const sockaddr_in6&>(*address.get());
      std::memcpy(&node.addr.addr6, &in6.sin6_addr, sizeof in6.sin6_addr);
    }
    node.udp_port = node.tcp_port = options_.servers[i].port();
  }
  return ::ares_set_servers_ports(channel_, nodes.data());
}

/// Never with c-ares on the stack. What is still being asked is told by `on_answer`, and unwanted.
void CaresBackend::destroy_channel() {
  timer_.cancel();
  if (channel_ != nullptr) ::ares_destroy(std::exchange(channel_, nullptr));
  notes_.clear();
}

void CaresBackend::process(int read_fd, int write_fd) {
  datagrams_left_ = datagram_budget;
  ::ares_process_fd(channel_, read_fd, write_fd);
  settle();
}

/// With no call to c-ares on the stack: hands on what it told, asks what there is room for.
void CaresBackend::settle() {
  for (;;) {
    std::vector<Note> notes;
    notes.swap(notes_);
    for (Note& note : notes) {
      if (wanted_.erase(note.id) > 0) sink_(note.id, std::move(note.answer));
    }
    if (unasked_.empty() || wanted_.size() >= asking_limit) break;
    const auto next = unasked_.extract(unasked_.begin());
    start(next.key(), next.mapped());
  }
  if (wanted_.empty()) return destroy_channel();
  notes_.reserve(asking_);
  arm_timer();
}

void CaresBackend::arm_timer() {
  timeval left{};
  if (::ares_timeout(channel_, nullptr, &left) == nullptr) return timer_.cancel();
  const Duration delay =
      std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec);
  timer_ = loop_.call_later(delay, [this] { process(ARES_SOCKET_BAD, ARES_SOCKET_BAD); });
}

void CaresBackend::on_answer(void* data, int status, int, ares_addrinfo* results) {
  const std::unique_ptr<Question> question(static_cast<Question*>(data));
  CaresBackend& backend = question->backend;
  --backend.asking_;
  if (backend.channel_ != nullptr) {  // null while it is being destroyed
    ResolverAnswer answer;
    try {
      answer = to_answer(status, results);
      sort_addresses(backend.loop_.system(), answer.endpoints);
      // c-ares says that the server refused when there was no socket to ask it with.
      const int error = std::exchange(backend.socket_error_, 0);
      if (status == ARES_ECONNREFUSED && error != 0) answer.error = system_error_code(error);
    } catch (const std::bad_alloc&) {  // which can't pass through C
      answer = ResolverAnswer{system_error_code(ENOMEM), {}, {}};
    }
    backend.notes_.push_back(Note{question->id, std::move(answer)});
  }
  if (results != nullptr) ::ares_freeaddrinfo(results);
}

void CaresBackend::on_state(void* data, int fd, int is_read, int is_written) {
  try {
    self(data).watch(fd, is_read != 0, is_written != 0);
  } catch (const std::bad_alloc&) {
    // The socket stays silent, and the next server's turn comes.
  }
}

void CaresBackend::watch(int fd, bool is_read, bool is_written) {
  Socket& socket = sockets_[fd];
  if (is_read && !socket.is_read)
    loop_.add_reader(fd, [this, fd] { process(fd, ARES_SOCKET_BAD); });
  if (!is_read && socket.is_read) loop_.remove_reader(fd);
  socket.is_read = is_read;
  if (is_written && !socket.is_written) {
    loop_.add_writer(fd, [this, fd] { process(ARES_SOCKET_BAD, fd); });
  }
  if (!is_written && socket.is_written) loop_.remove_writer(fd);
  socket.is_written = is_written;
}

int CaresBackend::make_socket(int family, int type, int protocol, void* data) {
  System& system = self(data).loop_.system();
  const SystemResult made = system.socket(family, type, protocol);
  self(data).socket_error_ = is_out_of_room(made.error) ? made.error : 0;
  if (!made.ok()) {
    errno = made.error;
    return ARES_SOCKET_BAD;
  }
  const int on = 1;
  if (type == SOCK_STREAM) system.setsockopt(made.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  try {
    self(data).sockets_[made.fd()].type = type;
  } catch (const std::bad_alloc&) {
    system.close(made.fd());
    errno = ENOMEM;
    return ARES_SOCKET_BAD;
  }
  return made.fd();
}

int CaresBackend::close_socket(int fd, void* data) {
  self(data).sockets_.erase(fd);
  const SystemResult result = self(data).loop_.system().close(fd);
  errno = result.error;
  return result.ok() ? 0 : -1;
}

int CaresBackend::connect_socket(int fd, const sockaddr* address, ares_socklen_t bytes,
                                 void* data) {
  const SystemResult result = self(data).loop_.system().connect(fd, address, bytes);
  errno = result.error;
  return result.ok() ? 0 : -1;
}

ares_ssize_t CaresBackend::receive(int fd, void* buffer, std::size_t bytes, int flags,
                                   sockaddr* from, ares_socklen_t* from_bytes, void* data) {
  CaresBackend& backend = self(data);
  const auto socket = backend.sockets_.find(fd);
  const bool is_datagram = socket != backend.sockets_.end() && socket->second.type == SOCK_DGRAM;
  for (;;) {
    if (is_datagram && --backend.datagrams_left_ < 0) {
      errno = EAGAIN;
      return -1;
    }
    iovec piece{buffer, bytes};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_name = from;
    message.msg_namelen = from_bytes != nullptr ? *from_bytes : 0;
    const SystemResult result = backend.loop_.system().recvmsg(fd, &message, flags);
    if (result.ok() && result.bytes() == 0 && is_datagram) continue;
    if (from_bytes != nullptr) *from_bytes = message.msg_namelen;
    errno = result.error;
    return result.ok() ? static_cast<ares_ssize_t>(result.value) : -1;
  }
}

ares_ssize_t CaresBackend::send(int fd, const iovec* pieces, int count, void* data) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const SystemResult result = self(data).loop_.system().sendmsg(fd, &message, 0);
  errno = result.error;
  return result.ok() ? static_cast<ares_ssize_t>(result.value) : -1;
}

}  // namespace

bool has_cares_backend() { return true; }

std::unique_ptr<ResolverBackend> make_cares_backend(EventLoop& loop, const ResolverOptions& options,
                                                    ResolverBackend::Sink sink) {
  return std::make_unique<CaresBackend>(loop, options, std::move(sink));
}

}  // namespace pawl
