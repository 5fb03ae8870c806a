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
#include <cstddef>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/connect_result.hpp"
#include "net/shared_socket.hpp"
#include "net/socket_address.hpp"
#include "net/socket_settings.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr Duration unix_retry_after = std::chrono::milliseconds(10);
/// Waited for the other family's addresses when all that came have failed.
constexpr Duration last_patience = std::chrono::seconds(1);

/// RFC 8305 §4: the families in turn, beginning with `family`; each in the order given.
std::vector<Endpoint> interleaved(const std::vector<Endpoint>& found, Endpoint::Family family) {
  std::vector<Endpoint> first;
  std::vector<Endpoint> other;
  for (const Endpoint& endpoint : found) {
    (endpoint.family() == family ? first : other).push_back(endpoint);
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
    loop().parts().end_handler(fd_);
    if (loop().parts().shares_with_children()) {
      end_for_all_holders(system(), fd_, SocketEnd::reset);
    }
    system().close(fd_);
  }

  /// No error: `Dialer::on_attempt` follows.
  std::error_code start();
  void on_ready(Interest) override { dialer_.on_attempt(*this); }
  /// EINPROGRESS: not yet. The same, however often it is asked, from when it is known.
  std::error_code check();
  int take_socket() {
    loop().parts().end_handler(fd_);
    return std::exchange(fd_, -1);
  }

  const Endpoint& endpoint() const { return endpoint_; }
  TimePoint started() const { return started_; }
  std::string_view phase() const { return phase_; }
  std::string describe() const override { return "connect to " + endpoint_.to_string(); }

 private:
  std::error_code prepare();
  std::error_code bind();
  std::error_code look() const;
  EventLoop& loop() const { return dialer_.loop_; }
  System& system() const { return dialer_.loop_.system(); }

  Dialer& dialer_;
  Endpoint endpoint_;
  TimePoint started_;
  std::string_view phase_ = "socket";
  bool is_connected_ = false;  // true exactly when the kernel said so
  std::error_code failure_;
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

std::error_code Dialer::Attempt::check() {
  if (is_connected_) return {};
  if (!failure_) failure_ = look();  // the kernel tells an error once
  if (failure_ == std::errc::operation_in_progress) return std::exchange(failure_, {});
  is_connected_ = !failure_;
  return failure_;
}

std::error_code Dialer::Attempt::look() const {
  if (const std::error_code error = connect_result(system(), fd_)) return error;
  SocketAddress peer;
  SocketAddress local;
  if (system().getpeername(fd_, peer.get(), peer.bytes_pointer()).ok() &&
      system().getsockname(fd_, local.get(), local.bytes_pointer()).ok() &&
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
  deadline_ = add_saturated(loop_.time(), options_->connect_timeout);
  timeout_ = loop_.call_at(
      deadline_, [this] { on_timeout(); }, place);
}

Dialer::~Dialer() { lookup_.cancel(); }

void Dialer::dial(const Endpoint& peer) {
  endpoints_.push_back(peer);
  start_attempts();
}

void Dialer::dial(std::string_view host, std::uint16_t port) {
  try {
    return dial(Endpoint::from_address(host, port));
  } catch (const std::invalid_argument&) {
    // A name, then.
  }
  operation_ = "resolve";
  is_resolving_ = true;
  Resolver& resolver = options_->resolver != nullptr ? *options_->resolver : Resolver::of(loop_);
  lookup_ = resolver.resolve_in_parts(
      host, port, wanted_family(options_->bind), options_->resolution_delay,
      [this](std::error_code error, const std::vector<Endpoint>& found, bool is_all) {
        on_found(error, found, is_all);
      },
      place_);
}

void Dialer::on_found(std::error_code error, const std::vector<Endpoint>& found, bool is_all) {
  is_resolving_ = !is_all;
  if (error && endpoints_.empty()) return finish(error, -1, {});
  const auto go_on = [&] {
    add(found);
    if (running_.empty()) return start_attempts();
    if (next_ == endpoints_.size() || is_next_start_due_) return;
    arm_next_start(add_saturated(running_.back()->started(), options_->attempt_delay));
  };
  if (!has_memory_for(go_on)) finish(system_error_code(ENOMEM), -1, {});
}

/// Puts what isn't there yet among those that weren't tried yet (RFC 8305 §5): all in the order in
/// which they were found, the families in turn, beginning with the one that wasn't tried last.
void Dialer::add(const std::vector<Endpoint>& found) {
  const auto tried_end = endpoints_.begin() + static_cast<std::ptrdiff_t>(next_);
  std::vector<Endpoint> untried;
  for (const Endpoint& endpoint : found) {
    if (std::find(endpoints_.begin(), tried_end, endpoint) == tried_end) {
      untried.push_back(endpoint);
    }
  }
  if (untried.empty()) return;
  Endpoint::Family family = untried.front().family();
  if (next_ > 0 && endpoints_[next_ - 1].family() == family) {
    const auto is_other = [&](const Endpoint& each) { return each.family() != family; };
    const auto other = std::find_if(untried.begin(), untried.end(), is_other);
    if (other != untried.end()) family = other->family();
  }
  std::vector<Endpoint> all(endpoints_.begin(), tried_end);
  for (Endpoint& endpoint : interleaved(untried, family)) all.push_back(std::move(endpoint));
  endpoints_ = std::move(all);
}

// Attempts

/// Starts the next address that can be started, and sees to the one after it. When none is left
/// and none is running, that was the end.
void Dialer::start_attempts() {
  next_start_.cancel();
  deferred_.cancel();
  is_next_start_due_ = false;
  while (next_ < endpoints_.size()) {
    auto attempt = std::make_unique<Attempt>(*this, endpoints_[next_]);
    running_.reserve(running_.size() + 1);
    ++next_;
    const std::error_code error = attempt->start();
    operation_ = attempt->phase();
    if (error && starts_again(*attempt, error)) return;
    if (error) {
      note_failure(*attempt, error);
      continue;
    }
    running_.push_back(std::move(attempt));
    if (next_ == endpoints_.size()) return;
    return arm_next_start(add_saturated(loop_.time(), options_->attempt_delay));
  }
  if (running_.empty()) give_up();
}

void Dialer::start_next() {
  if (!has_memory_for([this] { start_attempts(); })) finish(system_error_code(ENOMEM), -1, {});
}

void Dialer::arm_next_start(TimePoint when) {
  next_start_ = loop_.call_at(
      when, [this] { on_attempt_delay(); }, place_);
  is_next_start_due_ = true;
}

/// One that is running may have been answered while this process stood still.
void Dialer::on_attempt_delay() {
  if (Attempt* attempt = connected()) return succeed(*attempt);
  start_next();
}

/// A full backlog of a Unix socket is a matter of time: unix(7).
bool Dialer::starts_again(const Attempt& attempt, std::error_code error) {
  if (!attempt.endpoint().is_unix() || error != std::errc::resource_unavailable_try_again) {
    return false;
  }
  --next_;
  if (!waiting_since_) waiting_since_ = attempt.started();
  arm_next_start(add_saturated(loop_.time(), unix_retry_after));
  return true;
}

void Dialer::on_attempt(Attempt& attempt) {
  const std::error_code error = attempt.check();
  if (error == std::errc::operation_in_progress) return;
  if (!error) return succeed(attempt);
  operation_ = attempt.phase();
  const auto go_on = [&] {
    drop(attempt, error);
    start_attempts();
  };
  if (!has_memory_for(go_on)) finish(system_error_code(ENOMEM), -1, {});
}

void Dialer::drop(Attempt& attempt, std::error_code error) {
  note_failure(attempt, error);
  const auto is_it = [&](const auto& running) { return running.get() == &attempt; };
  running_.erase(std::find_if(running_.begin(), running_.end(), is_it));
}

void Dialer::note_failure(const Attempt& attempt, std::error_code error) {
  failures_.push_back(
      DialAttempt{attempt.endpoint(), attempt.phase(), error, loop_.time() - attempt.started()});
}

/// One that is connected, whether the loop has seen it yet or not; else null.
Dialer::Attempt* Dialer::connected() const {
  for (const auto& attempt : running_) {
    if (!attempt->check()) return attempt.get();
  }
  return nullptr;
}

// The end

/// The deadline measures the peer and the name servers: what they did while this process stood
/// still counts.
void Dialer::on_timeout() {
  if (Attempt* attempt = connected()) return succeed(*attempt);
  bool is_over = true;
  const auto step = [&] {
    is_over = was_put_off_ || !moves_late();
    if (is_over) return note_timeouts();
    was_put_off_ = true;
    timeout_ = loop_.call_later(
        options_->connect_timeout, [this] { on_timeout(); }, place_);
  };
  if (!has_memory_for(step)) return finish(system_error_code(ENOMEM), -1, {});
  if (is_over)
    finish(is_silent() ? make_error_code(Errc::timed_out) : failures_.back().error, -1, {});
}

/// False when each address has said what is wrong with it, if only this process had looked.
bool Dialer::is_silent() const {
  if (is_resolving_ || waiting_since_ || next_ < endpoints_.size() || failures_.empty())
    return true;
  return std::any_of(running_.begin(), running_.end(), [](const auto& attempt) {
    return attempt->check() == std::errc::operation_in_progress;
  });
}

/// True exactly when something got on only after the deadline was over.
bool Dialer::moves_late() {
  if (is_resolving_ && running_.empty() && lookup_.look()) return true;
  return std::any_of(running_.begin(), running_.end(),
                     [this](const auto& attempt) { return attempt->started() > deadline_; });
}

void Dialer::note_timeouts() {
  for (const auto& attempt : running_) {
    const std::error_code error = attempt->check();
    const bool is_silent = error == std::errc::operation_in_progress;
    note_failure(*attempt, is_silent ? make_error_code(Errc::timed_out) : error);
    operation_ = attempt->phase();  // whatever another one failed in meanwhile
  }
  if (waiting_since_) {
    failures_.push_back(DialAttempt{endpoints_[next_], "connect", system_error_code(EAGAIN),
                                    loop_.time() - *waiting_since_});
  }
}

/// All that came have failed. More may come, but not for long. Never from inside the user's call.
void Dialer::give_up() {
  const Duration delay = is_resolving_ ? last_patience : Duration::zero();
  deferred_ = loop_.call_later(
      delay, [this] { finish(failures_.back().error, -1, {}); }, place_);
}

void Dialer::succeed(Attempt& attempt) {
  operation_ = attempt.phase();
  Endpoint peer;
  if (!has_memory_for([&] { peer = attempt.endpoint(); })) {
    return finish(system_error_code(ENOMEM), -1, {});
  }
  finish({}, attempt.take_socket(), peer);
}

void Dialer::finish(std::error_code error, int fd, const Endpoint& peer) {
  Done done = std::move(done_);
  done(error, fd, peer);
}

/// Makes a step of the dial, in which no code of the user's may run. False when there was no memory
/// for it: then the dial is to end, which takes none.
template <typename Step>
bool Dialer::has_memory_for(Step step) {
  try {
    step();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
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
