// SPDX-License-Identifier: MIT
// Traps: close(2) resets who is in the accept queue; the kernel says how many there are for TCP
// alone; a socket that listens no more is readable for ever; a number that stands for something
// else now isn't ours to close.
#include "pawl/net/listener.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/label.hpp"
#include "loop/loop_parts.hpp"
#include "net/accept_error.hpp"
#include "net/shared_socket.hpp"
#include "net/socket_address.hpp"
#include "net/socket_settings.hpp"
#include "net/unix_socket_file.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

[[noreturn]] void throw_error(std::error_code error, std::string_view operation,
                              const std::string& name) {
  throw std::system_error(error, "Listener at " + name + ": " + std::string(operation));
}

[[noreturn]] void throw_error(const SystemResult& result, std::string_view operation,
                              const std::string& name) {
  throw_error(result.code(), operation, name);
}

}  // namespace

std::string_view to_string(ListenerState state) { return listener_table.name(state); }

Listener::Listener(EventLoop& loop, AcceptCallback&& on_accept, ListenerOptions&& options,
                   Place place)
    : loop_(loop),
      options_(std::move(options)),
      on_accept_(std::make_shared<AcceptCallback>(std::move(on_accept))),
      place_(place) {
  options_.accept_budget = std::max<std::size_t>(options_.accept_budget, 1);
}

Listener::Listener(EventLoop& loop, const Endpoint& endpoint, AcceptCallback on_accept,
                   ListenerOptions options, Place place)
    : Listener(loop, std::move(on_accept), std::move(options), place) {
  open(endpoint);
  watch();
}

Listener::Listener(EventLoop& loop, UniqueFd socket, AcceptCallback on_accept,
                   ListenerOptions options, Place place)
    : Listener(loop, std::move(on_accept), std::move(options), place) {
  fd_ = std::move(socket);
  is_taken_over_ = true;
  System& system = loop.system();
  int listens = 0;
  unsigned bytes = sizeof listens;
  SystemResult result = system.getsockopt(fd_.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes);
  if (result.ok() && listens == 0) result.error = EINVAL;
  if (result.ok()) result = system.set_non_blocking(fd_.get(), true);
  const std::string name = "descriptor " + std::to_string(fd_.get());
  if (!result.ok()) throw_error(result, "is no listening socket", name);
  watch();
}

void Listener::open(const Endpoint& endpoint) {
  System& system = loop_.system();
  const std::string name = endpoint.to_string();
  const SystemResult made = system.socket(SocketAddress(endpoint).family(), SOCK_STREAM, 0);
  if (!made.ok()) throw_error(made, "socket", name);
  fd_ = UniqueFd(made.fd());
  const int on = 1;
  if (!endpoint.is_unix()) {
    system.setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  if (endpoint.family() == Endpoint::Family::ipv6) {  // said either way: sysctl may default it
    const int is_only = options_.is_ipv6_only ? 1 : 0;
    const SystemResult set =
        system.setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &is_only, sizeof is_only);
    if (!set.ok()) throw_error(set, "IPV6_V6ONLY", name);
  }
  const SettingResult settings = apply_settings(system, fd_.get(), options_, endpoint.family());
  if (settings.error) throw_error(settings.error, settings.phase, name);
  if (options_.reuse_port) {
    const SystemResult set = system.setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (!set.ok()) throw_error(set, "SO_REUSEPORT", name);
  }
  auto file = std::make_unique<UnixSocketFile>();
  const SystemResult bound = file->bind(system, fd_.get(), SOCK_STREAM, endpoint);
  if (!bound.ok()) throw_error(bound, "bind", name);
  if (options_.fast_open_queue > 0) {  // a kernel that refuses does without
    system.setsockopt(fd_.get(), IPPROTO_TCP, TCP_FASTOPEN, &options_.fast_open_queue,
                      sizeof options_.fast_open_queue);
  }
  const SystemResult listening = system.listen(fd_.get(), options_.backlog);
  if (!listening.ok()) throw_error(listening, "listen", name);
  file->unlock();
  if (endpoint.family() == Endpoint::Family::unix_path) file_ = std::move(file);
}

void Listener::watch() {
  SocketAddress local;
  const SystemResult result =
      loop_.system().getsockname(fd_.get(), local.get(), local.bytes_pointer());
  if (!result.ok()) throw_error(result, "getsockname", "descriptor " + std::to_string(fd_.get()));
  local_ = local.endpoint();
  if (const std::error_code error = loop_.add_handler(fd_.get(), Interest::read, *this, place_)) {
    throw_error(error, "watch", local_.to_string());
  }
}

Listener::~Listener() {
  if (!fd_) return;
  loop_.parts().end_handler(fd_.get());
  if (!is_taken_over_) stop_for_all_holders();
}

void Listener::on_exhausted(Function<void(std::error_code)> callback) {
  on_exhausted_ = std::make_shared<Function<void(std::error_code)>>(std::move(callback));
}

void Listener::on_failed(Function<void(std::error_code)> callback) {
  on_failed_ = std::make_shared<Function<void(std::error_code)>>(std::move(callback));
}

void Listener::pause() {
  retry_.cancel();
  step(ListenerEvent::pause);
}

void Listener::resume() { go_on(ListenerEvent::resume); }

/// Accepts again, unless its owner doesn't want that.
void Listener::go_on(ListenerEvent event) {
  if (state() == ListenerState::held) look_soon();  // first: it may fail
  step(event);
}

// Accepting

bool Listener::accepts() const {
  return state() == ListenerState::listening || state() == ListenerState::draining;
}

void Listener::on_ready(Interest events) {
  // A hang-up, while nothing was waited for.
  if (events == Interest::none && !accepts() && !does_listen()) return fail(EINVAL);
  if (!accepts()) return;
  const std::size_t batch = next_batch();
  const std::shared_ptr<AcceptCallback> on_accept = on_accept_;
  for (std::size_t i = 0; i < batch; ++i) {
    const bool goes_on = accept_one(*on_accept);
    const bool is_destroyed = on_accept.use_count() == 1;  // by the callback
    if (is_destroyed || !goes_on || !accepts() || loop_.parts().is_forked_child()) return;
    if (state() == ListenerState::draining && --left_ == 0) return finish();
  }
  if (state() == ListenerState::draining) look_soon();
}

/// When the backlog is empty no readiness tells of it.
void Listener::look_soon() {
  look_ = loop_.call_soon([this] { on_ready(Interest::read); }, place_);
}

/// One accept, and no second one just to see EAGAIN, unless they come in pass after pass.
std::size_t Listener::next_batch() {
  if (state() == ListenerState::draining) return options_.accept_budget;
  const std::uint64_t pass = loop_.parts().pass_number;
  batch_ = pass == last_pass_ + 1 ? std::min(batch_ * 2, options_.accept_budget) : 1;
  last_pass_ = pass;
  return batch_;
}

/// False when there is nothing more to accept now.
bool Listener::accept_one(AcceptCallback& on_accept) {
  SocketAddress peer;
  const SystemResult accepted = loop_.system().accept(fd_.get(), peer.get(), peer.bytes_pointer());
  if (accepted.ok()) {
    UniqueFd socket(accepted.fd());  // before anything else wants memory
    is_told_ = false;
    skipped_ = 0;
    on_accept(std::move(socket), peer.endpoint());
    return true;
  }
  switch (classify_accept_error(accepted.error)) {
    case AcceptError::nobody:
      skipped_ = 0;
      if (state() == ListenerState::draining) finish();
      return false;
    case AcceptError::connection:
      if (++skipped_ <= most_skipped) return true;
      skipped_ = 0;
      [[fallthrough]];
    case AcceptError::pause: on_no_room(accepted.error); return false;
    case AcceptError::lasting: fail(accepted.error); return false;
  }
  return false;
}

void Listener::on_no_room(int error) {
  retry_ = loop_.call_later(  // first: it may fail
      options_.retry_after, [this] { go_on(ListenerEvent::retry); }, place_);
  step(ListenerEvent::no_room);
  const auto on_exhausted = on_exhausted_;
  if (std::exchange(is_told_, true) || on_exhausted == nullptr || !*on_exhausted) return;
  (*on_exhausted)(system_error_code(error));
}

/// False when another holder of the socket has shut it down.
bool Listener::does_listen() const {
  int listens = 0;
  unsigned bytes = sizeof listens;
  const SystemResult asked =
      loop_.system().getsockopt(fd_.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes);
  return !asked.ok() || listens != 0;
}

// Ends

void Listener::close(Duration grace) {
  if (state() == ListenerState::done) return;
  if (grace <= Duration::zero()) return finish();
  const bool is_draining = state() == ListenerState::draining || state() == ListenerState::held;
  left_ = is_draining ? left_ : waiting();
  if (left_ == 0) return finish();
  ScopedHandle end = loop_.call_later(  // both first: they may fail
      grace, [this] { finish(); }, place_);
  look_soon();
  grace_ = std::move(end);
  if (is_draining) return;
  retry_.cancel();
  file_.reset();  // whoever comes from now on is a successor's
  step(ListenerEvent::drain);
}

/// How many to accept at most before the backlog is empty; more may come meanwhile.
std::size_t Listener::waiting() const {
  const auto backlog = static_cast<std::size_t>(std::max(options_.backlog, 1));
  if (local_.is_unix()) return backlog + 1;  // which the kernel doesn't tell
  tcp_info info{};
  unsigned bytes = sizeof info;
  const SystemResult asked =
      loop_.system().getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &bytes);
  if (!asked.ok()) return backlog + 1;
  if (info.tcpi_unacked == 0) return 0;
  // tcp_get_info() in the kernel: of a listening socket these are the queue and its limit.
  return std::max<std::size_t>(info.tcpi_unacked, info.tcpi_sacked) + 1;
}

void Listener::finish() {
  if (state() != ListenerState::done) end(ListenerEvent::close);
}

void Listener::fail(int error) {
  error_ = system_error_code(error);
  if (is_number_gone(error)) {
    loop_.parts().end_handler(fd_.get());
    fd_.release();
  }
  const auto on_failed = on_failed_;
  end(ListenerEvent::failed);
  if (on_failed != nullptr && *on_failed) return (*on_failed)(system_error_code(error));
  if (loop_.is_debug()) loop_.report(describe());
}

void Listener::end(ListenerEvent event) {
  step(event);
  retry_.cancel();
  look_.cancel();
  grace_.cancel();
  if (fd_) loop_.parts().end_handler(fd_.get());
  file_.reset();  // first: once nobody listens, the path is a successor's to take
  if (fd_ && !is_taken_over_) stop_for_all_holders();
  fd_.reset();
  if (on_drained_) on_drained_();
}

void Listener::stop_for_all_holders() {
  if (!loop_.parts().shares_with_children()) return;
  stop_listening_for_all_holders(loop_.system(), fd_.get());
}

// State

void Listener::step(ListenerEvent event) {
  Observer* observer = loop_.observer();
  std::string name;
  if (observer != nullptr) name = label_or_none([this] { return local_.to_string(); });
  machine_.step(event, observer, this, name);
  if (state() == ListenerState::done) return;
  loop_.modify_handler(fd_.get(), accepts() ? Interest::read : Interest::none);
}

std::string Listener::describe() const {
  const std::string text =
      "listener at " + local_.to_string() + " " + std::string(to_string(state()));
  return error_ ? text + ": accept: " + error_.message() : text;
}

}  // namespace pawl
