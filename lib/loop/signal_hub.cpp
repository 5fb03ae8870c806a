// SPDX-License-Identifier: MIT
// Traps: the handler may run in any thread, at any moment, also while another thread changes the
// list; so it takes no lock and reads a list that is never changed, only replaced. Whoever replaces
// one waits until no handler is running before it frees the old one.
#include "loop/signal_hub.hpp"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <memory>
#include <mutex>
#include <vector>

#include "pawl/core/error.hpp"
#include "pawl/loop/mailbox.hpp"

namespace pawl::signal_hub {
namespace {

constexpr int highest_signal = 64;
using Listeners = std::vector<Mailbox*>;

struct Hub {
  std::mutex mutex;  // for whoever changes; the handler doesn't take it
  std::array<std::atomic<const Listeners*>, highest_signal + 1> listeners{};
  std::array<struct sigaction, highest_signal + 1> old_actions{};
  std::atomic<int> running_handlers{0};
};

// Never destroyed: a signal may come while the program ends.
Hub& hub() {
  static Hub& instance = *new Hub;
  return instance;
}

void on_signal(int signal) {
  const int saved_errno = errno;
  Hub& instance = hub();  // made long ago, by add()
  instance.running_handlers.fetch_add(1);
  const Listeners* list = instance.listeners[static_cast<std::size_t>(signal)].load();
  if (list != nullptr) {
    for (Mailbox* mailbox : *list) mailbox->raise(signal);
  }
  instance.running_handlers.fetch_sub(1);
  errno = saved_errno;
}

void replace(Hub& instance, int signal, std::unique_ptr<const Listeners> fresh) {
  auto& current = instance.listeners[static_cast<std::size_t>(signal)];
  const std::unique_ptr<const Listeners> old(current.exchange(fresh.release()));
  while (instance.running_handlers.load() != 0) ::sched_yield();
}

int install(Hub& instance, int signal) {
  struct sigaction action {};
  action.sa_handler = &on_signal;
  action.sa_flags = SA_RESTART;
  ::sigfillset(&action.sa_mask);
  return ::sigaction(signal, &action, &instance.old_actions[static_cast<std::size_t>(signal)]) == 0
             ? 0
             : errno;
}

void uninstall(Hub& instance, int signal) {
  struct sigaction current {};
  if (::sigaction(signal, nullptr, &current) != 0 || current.sa_handler != &on_signal) return;
  ::sigaction(signal, &instance.old_actions[static_cast<std::size_t>(signal)], nullptr);
}

}  // namespace

std::error_code add(int signal, Mailbox& mailbox) {
  if (signal < 1 || signal > highest_signal) return system_error_code(EINVAL);
  Hub& instance = hub();
  const std::lock_guard<std::mutex> lock(instance.mutex);
  const Listeners* old = instance.listeners[static_cast<std::size_t>(signal)].load();
  auto fresh = old == nullptr ? std::make_unique<Listeners>() : std::make_unique<Listeners>(*old);
  fresh->push_back(&mailbox);
  const bool is_first = old == nullptr;
  replace(instance, signal, std::move(fresh));  // first, so that no signal finds nobody
  const int error = is_first ? install(instance, signal) : 0;
  if (error != 0) replace(instance, signal, nullptr);
  return system_error_code(error);
}

void remove(int signal, Mailbox& mailbox) {
  Hub& instance = hub();
  const std::lock_guard<std::mutex> lock(instance.mutex);
  const Listeners* old = instance.listeners[static_cast<std::size_t>(signal)].load();
  if (old == nullptr) return;
  auto fresh = std::make_unique<Listeners>(*old);
  fresh->erase(std::remove(fresh->begin(), fresh->end(), &mailbox), fresh->end());
  if (fresh->empty()) {
    uninstall(instance, signal);
    fresh.reset();
  }
  replace(instance, signal, std::move(fresh));
}

}  // namespace pawl::signal_hub
