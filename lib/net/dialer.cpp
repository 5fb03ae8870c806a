// SPDX-License-Identifier: MIT
// Traps: a Unix socket whose listener's backlog is full is refused with EAGAIN instead of waiting;
// a dial to a free ephemeral port of this machine can meet itself; with TCP Fast Open a socket
// counts as connected before a byte was sent, and has no peer's name then.
#include "net/dialer.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "net/socket_address.hpp"
#include "net/socket_settings.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr Duration unix_retry_after = std::chrono::milliseconds(10);

/// RFC 8305 §4: the families in turn, beginning with the first one's; each in the order given.
std::vector<Endpoint> interleaved(const std::vector<Endpoint>& found) {
  std::vector<Endpoint> first;
  std::vector<Endpoint> other;
  for (const Endpoint& endpoint : found) {
    (endpoint.family() == found.front().family() ? first : other).push_back(endpoint);
  }
  std::vector<Endpoint> mixed;
  for (std::size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
    if (i < first.size()) mixed.push_back(first[i]);
    if (i < other.size()) mixed.push_back(other[i]);
  }
  return mixed;
}

/// An address to come from leaves but one family to go to.
AddressFamily wanted_family(const Endpoint& from) {
  switch (from.family()) {
    case Endpoint::Family::ipv4: return AddressFamily::ipv4;
    case Endpoint::Family::ipv6: return AddressFamily::ipv6;
    default: return AddressFamily::any;
  }
}

}  // namespace

/// One socket on its way to one address.
class Dialer::Attempt final : public IoHandler {
 public:
  Attempt(Dialer& dialer, const Endpoint& endpoint)
      : dialer_(dialer), endpoint_(endpoint), started_(dialer.loop_.time()) {}
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt() {
    if (fd_ < 0) return;
    loop().remove_handler(fd_);
    system().close(fd_);
  }

  /// No error: `Dialer::on_attempt` follows.
  std::error_code start();
  void on_ready(Interest) override { dialer_.on_attempt(*this); }
  /// EINPROGRESS: not yet.
  std::error_code check() const;
  int take_socket() {
    loop().remove_handler(fd_);
    return std::exchange(fd_, -1);
  }

  const Endpoint& endpoint() const { return endpoint_; }
  TimePoint started() const { return started_; }
  std::string_view phase() const { return phase_; }
  std::string describe() const override { return "connect to " + endpoint_.to_string(); }

 private:
  std::error_code prepare();
  std::error_code bind();
  EventLoop& loop() const { return dialer_.loop_; }
  System& system() const { return dialer_.loop_.system(); }

  Dialer& dialer_;
  Endpoint endpoint_;
  TimePoint started_;
  std::string_view phase_ = "socket";
  bool is_connected_ = false;  // true exactly when connect() said so
  int fd_ = -1;
};

std::error_code Dialer::Attempt::start() {
  if (const std::error_code error = prepare()) return error;
  phase_ = "connect";
  const SocketAddress address(endpoint_);
  const SystemResult result = system().connect(fd_, address.get(), address.bytes());
  is_connected_ = result.ok();
  if (!result.ok() && result.error != EINPROGRESS) return result.code();
  return loop().add_handler(fd_, Interest::write, *this, dialer_.place_);
}

std::error_code Dialer::Attempt::prepare() {
  const ConnectionOptions& options = *dialer_.options_;
  const SystemResult made = system().socket(SocketAddress(endpoint_).family(), SOCK_STREAM, 0);
  if (!made.ok()) return made.code();
  fd_ = made.fd();
  const SettingResult set = apply_settings(system(), fd_, options, endpoint_.family());
  if (set.error) {
    phase_ = set.phase;
    return set.error;
  }
  if (options.fast_open && !endpoint_.is_unix()) {  // a kernel that refuses does without
    const int on = 1;
    system().setsockopt(fd_, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
  }
  return options.bind.family() == Endpoint::Family::none ? std::error_code() : bind();
}

std::error_code Dialer::Attempt::bind() {
  phase_ = "bind";
  const Endpoint& from = dialer_.options_->bind;
  if (from.family() != endpoint_.family()) return system_error_code(EAFNOSUPPORT);
  const int on = 1;
  if (from.port() == 0) {  // the port is chosen with the peer, so many more are free: ip(7)
    system().setsockopt(fd_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  } else {
    system().setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  const SocketAddress address(from);
  return system().bind(fd_, address.get(), address.bytes()).code();
}

std::error_code Dialer::Attempt::check() const {
  if (is_connected_) return {};
  int error = 0;
  unsigned bytes = sizeof error;
  const SystemResult result = system().getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (!result.ok()) return result.code();
  if (error != 0) return system_error_code(error);
  SocketAddress peer;
  const SystemResult connected = system().getpeername(fd_, peer.get(), peer.bytes_pointer());
  if (connected.error == ENOTCONN) return system_error_code(EINPROGRESS);  // a spurious wake-up
  SocketAddress local;
  if (connected.ok() && system().getsockname(fd_, local.get(), local.bytes_pointer()).ok() &&
      local.endpoint().port() != 0 && local.endpoint() == peer.endpoint()) {
    return Errc::self_connect;  // TCP's simultaneous open
  }
  return {};
}

// Beginning

Dialer::Dialer(EventLoop& loop, std::shared_ptr<const ConnectionOptions> options, Done done,
               Place place)
    : loop_(loop), options_(std::move(options)), done_(std::move(done)), place_(place) {
  if (options_->connect_timeout <= Duration::zero()) return;
  timeout_ = loop_.call_later(
      options_->connect_timeout, [this] { on_timeout(); }, place);
}

Dialer::~Dialer() { lookup_.cancel(); }

void Dialer::dial(const Endpoint& peer) {
  endpoints_.push_back(peer);
  start_next();
}

void Dialer::dial(std::string_view host, std::uint16_t port) {
  try {
    return dial(Endpoint::from_address(host, port));
  } catch (const std::invalid_argument&) {
    // A name, then.
  }
  operation_ = "resolve";
  Resolver& resolver = options_->resolver != nullptr ? *options_->resolver : Resolver::of(loop_);
  lookup_ = resolver.resolve(
      host, port, wanted_family(options_->bind),
      [this](std::error_code error, const std::vector<Endpoint>& found) { on_found(error, found); },
      place_);
}

void Dialer::on_found(std::error_code error, const std::vector<Endpoint>& found) {
  if (error) return finish(error, -1, {});
  endpoints_ = interleaved(found);
  start_next();
}

// Attempts

/// Starts the next address that can be started, and sees to the one after it. When none is left
/// and none is running, that was the end.
void Dialer::start_next() {
  while (next_ < endpoints_.size()) {
    auto attempt = std::make_unique<Attempt>(*this, endpoints_[next_++]);
    const std::error_code error = attempt->start();
    operation_ = attempt->phase();
    if (error && starts_again(*attempt, error)) return;
    if (error) {
      note_failure(*attempt, error);
      continue;
    }
    running_.push_back(std::move(attempt));
    if (next_ == endpoints_.size()) return;
    next_start_ = loop_.call_later(
        options_->attempt_delay, [this] { start_next(); }, place_);
    return;
  }
  if (running_.empty()) finish_later(failures_.back().error);
}

/// A full backlog of a Unix socket is a matter of time: unix(7).
bool Dialer::starts_again(const Attempt& attempt, std::error_code error) {
  if (!attempt.endpoint().is_unix() || error != std::errc::resource_unavailable_try_again) {
    return false;
  }
  --next_;
  if (!waiting_since_) waiting_since_ = attempt.started();
  next_start_ = loop_.call_later(
      unix_retry_after, [this] { start_next(); }, place_);
  return true;
}

void Dialer::on_attempt(Attempt& attempt) {
  const std::error_code error = attempt.check();
  if (error == std::errc::operation_in_progress) return;
  operation_ = attempt.phase();
  if (!error) {
    const Endpoint peer = attempt.endpoint();
    return finish({}, attempt.take_socket(), peer);
  }
  note_failure(attempt, error);
  const auto is_it = [&](const auto& running) { return running.get() == &attempt; };
  running_.erase(std::find_if(running_.begin(), running_.end(), is_it));
  next_start_.cancel();
  start_next();
}

void Dialer::note_failure(const Attempt& attempt, std::error_code error) {
  failures_.push_back(
      DialAttempt{attempt.endpoint(), attempt.phase(), error, loop_.time() - attempt.started()});
}

// The end

void Dialer::on_timeout() {
  for (const auto& attempt : running_) {
    note_failure(*attempt, Errc::timed_out);
    operation_ = attempt->phase();  // whatever another one failed in meanwhile
  }
  if (waiting_since_) {
    failures_.push_back(DialAttempt{endpoints_[next_], "connect", system_error_code(EAGAIN),
                                    loop_.time() - *waiting_since_});
  }
  finish(Errc::timed_out, -1, {});
}

void Dialer::finish_later(std::error_code error) {
  deferred_ = loop_.call_soon([this, error] { finish(error, -1, {}); }, place_);
}

void Dialer::finish(std::error_code error, int fd, const Endpoint& peer) {
  Done done = std::move(done_);
  done(error, fd, peer);
}

std::string Dialer::name_of(std::string_view host, std::uint16_t port) {
  std::string name(host);
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  if (name.find(':') != std::string::npos) name = "[" + name + "]";
  return name + ":" + std::to_string(port);
}

std::string to_string(const DialAttempt& attempt) {
  const auto tenths = std::chrono::duration_cast<std::chrono::microseconds>(attempt.took) / 100;
  const std::string milliseconds =
      std::to_string(tenths.count() / 10) + "." + std::to_string(tenths.count() % 10);
  return attempt.peer.to_string() + ": " + std::string(attempt.phase) + ": " +
         attempt.error.message() + " after " + milliseconds + " ms";
}

}  // namespace pawl
