// SPDX-License-Identifier: MIT
#include "pawl/net/listener.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "loop/loop_parts.hpp"
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

bool is_out_of_room(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
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
  if (endpoint.family() == Endpoint::Family::unix_path) file_ = std::move(file);
}

void Listener::watch() {
  SocketAddress local;
  loop_.system().getsockname(fd_.get(), local.get(), local.bytes_pointer());
  local_ = local.endpoint();
  if (const std::error_code error = loop_.add_handler(fd_.get(), Interest::read, *this, place_)) {
    throw_error(error, "watch", local_.to_string());
  }
}

Listener::~Listener() {
  if (fd_) loop_.remove_handler(fd_.get());
}

void Listener::on_exhausted(Function<void(std::error_code)> callback) {
  on_exhausted_ = std::make_shared<Function<void(std::error_code)>>(std::move(callback));
}

void Listener::pause() {
  retry_.cancel();
  step(ListenerEvent::pause);
}

void Listener::resume() { step(ListenerEvent::resume); }

void Listener::close() {
  if (state() == ListenerState::done) return;
  step(ListenerEvent::close);
  retry_.cancel();
  loop_.remove_handler(fd_.get());
  file_.reset();  // first: once nobody listens, the path is a successor's to take
  fd_.reset();
}

void Listener::on_ready(Interest) {
  const std::uint64_t pass = loop_.parts().pass_number;
  // One accept, and no second one just to see EAGAIN, unless they come in pass after pass.
  batch_ = pass == last_pass_ + 1 ? std::min(batch_ * 2, options_.accept_budget) : 1;
  last_pass_ = pass;
  const std::shared_ptr<AcceptCallback> on_accept = on_accept_;
  for (std::size_t i = 0; i < batch_; ++i) {
    const bool goes_on = accept_one(*on_accept);
    const bool is_destroyed = on_accept.use_count() == 1;  // by the callback
    if (is_destroyed || !goes_on || state() != ListenerState::listening) return;
  }
}

/// False when there is nothing more to accept now.
bool Listener::accept_one(AcceptCallback& on_accept) {
  SocketAddress peer;
  const SystemResult accepted = loop_.system().accept(fd_.get(), peer.get(), peer.bytes_pointer());
  if (accepted.ok()) {
    is_told_ = false;
    on_accept(UniqueFd(accepted.fd()), peer.endpoint());
    return true;
  }
  if (accepted.would_block()) return false;
  if (is_out_of_room(accepted.error)) {
    on_no_room(accepted.error);
    return false;
  }
  return true;  // accept(2): an error of the network that the connection had; the next may be fine
}

void Listener::on_no_room(int error) {
  step(ListenerEvent::no_room);
  retry_ = loop_.call_later(
      options_.retry_after, [this] { step(ListenerEvent::retry); }, place_);
  const auto on_exhausted = on_exhausted_;
  if (std::exchange(is_told_, true) || on_exhausted == nullptr || !*on_exhausted) return;
  (*on_exhausted)(system_error_code(error));
}

void Listener::step(ListenerEvent event) {
  machine_.step(event, loop_.observer(), this, local_.to_string());
  if (state() == ListenerState::done) return;
  const bool listens = state() == ListenerState::listening;
  loop_.modify_handler(fd_.get(), listens ? Interest::read : Interest::none);
}

std::string Listener::describe() const {
  return "listener at " + local_.to_string() + " " + std::string(to_string(state()));
}

}  // namespace pawl
