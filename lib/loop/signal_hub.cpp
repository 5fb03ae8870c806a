// SPDX-License-Identifier: MIT
// Traps: the handler may run in any thread, at any moment, also while another thread changes the
// list; so it takes no lock, and whoever takes something out waits until no handler is running
// before it frees that. A child has its parent's dispositions, but not what they stand for: after
// fork(2) they are put back at once, and where nobody told (vfork(2), clone(2)) the handler sees it
// by the process's number.
#include "loop/signal_hub.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <memory>
#include <mutex>
#include <new>

#include "pawl/core/error.hpp"
#include "pawl/loop/mailbox.hpp"

namespace pawl::signal_hub {
namespace {

constexpr int highest_signal = 64;

struct Listener {
  Mailbox* mailbox;
  std::atomic<Listener*> next{nullptr};
};

struct Hub {
  std::mutex mutex;  // for whoever changes; the handler doesn't take it
  std::array<std::atomic<Listener*>, highest_signal + 1> listeners{};
  std::array<struct sigaction, highest_signal + 1> old_actions{};
  std::atomic<int> running_handlers{0};
  std::atomic<pid_t> process{::getpid()};  // that the listeners are in
};

void forget_parents_watches();

// Never destroyed: a signal may come while the program ends.
Hub& hub() {
  static Hub& instance = *[] {
    // Without memory for it, the handler tells.
    ::pthread_atfork(nullptr, nullptr, &forget_parents_watches);
    return new Hub;
  }();
  return instance;
}

void on_signal(int signal) {
  Hub& instance = hub();  // made long ago, by add()
  const auto index = static_cast<std::size_t>(signal);
  const int saved_errno = errno;
  if (::getpid() != instance.process.load()) {
    // It is blocked until this returns, and then finds what would be there without us.
    ::sigaction(signal, &instance.old_actions[index], nullptr);
    ::raise(signal);
    errno = saved_errno;
    return;
  }
  instance.running_handlers.fetch_add(1);
  for (Listener* each = instance.listeners[index].load(); each != nullptr;
       each = each->next.load()) {
    each->mailbox->raise(signal);
  }
  instance.running_handlers.fetch_sub(1);
  errno = saved_errno;
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

/// In a child, while it has but one thread.
void forget_parents_watches() {
  Hub& instance = hub();
  for (int signal = 1; signal <= highest_signal; ++signal) {
    auto& first = instance.listeners[static_cast<std::size_t>(signal)];
    if (first.load() == nullptr) continue;
    uninstall(instance, signal);
    while (Listener* each = first.load()) {
      first.store(each->next.load());
      delete each;
    }
  }
  ::new (&instance.mutex) std::mutex;  // whoever held it, or was in the handler, isn't here
  instance.running_handlers.store(0);
  instance.process.store(::getpid());
}

/// Where the list points to what stands for `mailbox`; or its end.
std::atomic<Listener*>& find(std::atomic<Listener*>& first, const Mailbox& mailbox) {
  std::atomic<Listener*>* link = &first;
  for (Listener* each = link->load(); each != nullptr && each->mailbox != &mailbox;
       each = link->load()) {
    link = &each->next;
  }
  return *link;
}

}  // namespace

std::error_code add(int signal, Mailbox& mailbox) {
  if (signal < 1 || signal > highest_signal) return system_error_code(EINVAL);
  Hub& instance = hub();
  if (::getpid() != instance.process.load()) forget_parents_watches();
  std::unique_ptr<Listener> fresh(new Listener{&mailbox});
  const std::lock_guard<std::mutex> lock(instance.mutex);
  auto& first = instance.listeners[static_cast<std::size_t>(signal)];
  const bool is_first = first.load() == nullptr;
  fresh->next.store(first.load());
  first.store(fresh.get());  // before it is installed, so that no signal finds nobody
  const int error = is_first ? install(instance, signal) : 0;
  if (error != 0) {
    first.store(nullptr);
    return system_error_code(error);  // and it never came to a handler
  }
  fresh.release();
  return {};
}

void remove(int signal, Mailbox& mailbox) noexcept {
  Hub& instance = hub();
  const std::lock_guard<std::mutex> lock(instance.mutex);
  auto& first = instance.listeners[static_cast<std::size_t>(signal)];
  std::atomic<Listener*>& link = find(first, mailbox);
  const std::unique_ptr<Listener> gone(link.load());
  if (gone == nullptr) return;
  const bool is_last = &link == &first && gone->next.load() == nullptr;
  if (is_last) uninstall(instance, signal);
  link.store(gone->next.load());
  while (instance.running_handlers.load() != 0) ::sched_yield();  // one may be looking at it
}

}  // namespace pawl::signal_hub
