// SPDX-License-Identifier: MIT
// getaddrinfo(3) blocks as long as it likes and can't be cancelled. So its threads are detached and
// nobody joins them: they share one heap object with the resolver, and one that hangs keeps that
// object and nothing else: no descriptor, no callback of the user's, no pointer to the loop.
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "net/resolver_backend.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/mailbox.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

std::error_code lookup_error(const SystemResult& result) {
  if (!result.ok()) return result.code();  // EAI_SYSTEM
  switch (result.value) {
    case 0: return {};
    case EAI_NONAME: return Errc::host_not_found;
#ifdef EAI_NODATA
    case EAI_NODATA: return Errc::no_address;
#endif
#ifdef EAI_ADDRFAMILY
    case EAI_ADDRFAMILY: return Errc::no_address;
#endif
    case EAI_AGAIN: return Errc::resolve_failed;
    case EAI_MEMORY: return system_error_code(ENOMEM);
    default: return Errc::bad_answer;  // EAI_FAIL
  }
}

ResolverAnswer look_up(System& system, const std::string& name, int family) {
  // Without AI_ADDRCONFIG, which c-ares doesn't know, and which on a machine that has nothing but
  // loopback hides addresses that work. Where no route leads comes last (RFC 6724, rule 1).
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* results = nullptr;
  const SystemResult result = system.getaddrinfo(name.c_str(), nullptr, &hints, &results);
  ResolverAnswer answer;
  answer.error = lookup_error(result);
  if (answer.error) return answer;
  const auto free = [&system](addrinfo* list) { system.freeaddrinfo(list); };
  const std::unique_ptr<addrinfo, decltype(free)> owner(results, free);
  for (const addrinfo* entry = results; entry != nullptr; entry = entry->ai_next) {
    answer.endpoints.push_back(Endpoint::from_sockaddr(entry->ai_addr, entry->ai_addrlen));
  }
  return answer;
}

class GetaddrinfoBackend final : public ResolverBackend {
 public:
  GetaddrinfoBackend(EventLoop& loop, const ResolverOptions& options, Sink sink)
      : sink_(std::move(sink)), shared_(std::make_shared<Shared>(loop.system(), loop.mailbox())) {
    shared_->owner = this;
    shared_->thread_limit = std::max<std::size_t>(options.threads, 1);
  }

  ~GetaddrinfoBackend() override {
    shared_->owner = nullptr;
    std::map<std::uint64_t, Question> unasked;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      shared_->mailbox.reset();
      shared_->questions.swap(unasked);
    }
    shared_->wake.notify_all();
  }

  void ask(std::uint64_t id, const std::string& name, AddressFamily family) override {
    bool is_thread_missing = false;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      is_thread_missing =
          shared_->questions.size() >= shared_->idle && shared_->threads < shared_->thread_limit;
      shared_->questions.emplace(id, Question{name, to_address_family(family)});
      if (is_thread_missing) ++shared_->threads;
    }
    shared_->wake.notify_one();
    if (is_thread_missing) start_thread(id);
  }

  void abandon(std::uint64_t id) override {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->questions.erase(id);
  }

 private:
  struct Question {
    std::string name;
    int family;
  };

  /// All that the threads see.
  struct Shared {
    Shared(System& system_, std::shared_ptr<Mailbox> mailbox_)
        : system(system_), mailbox(std::move(mailbox_)) {}

    System& system;
    GetaddrinfoBackend* owner = nullptr;  // of the loop's thread alone; null when it is gone
    std::size_t thread_limit = 1;
    std::mutex mutex;                  // guards the rest
    std::shared_ptr<Mailbox> mailbox;  // null when the resolver is gone, and the threads are to end
    std::map<std::uint64_t, Question> questions;  // in the order in which they were asked
    std::size_t threads = 0;
    std::size_t idle = 0;
    std::condition_variable wake;
  };

  void start_thread(std::uint64_t id) {
    try {
      std::thread([shared = shared_] { answer_questions(shared); }).detach();
      return;
    } catch (const std::system_error& error) {
      bool is_lost = false;
      {
        const std::lock_guard<std::mutex> lock(shared_->mutex);
        // With fewer threads it only waits longer; with none it would wait forever.
        if (--shared_->threads == 0) is_lost = shared_->questions.erase(id) > 0;
      }
      if (is_lost) sink_(id, ResolverAnswer{system_error_code(error.code().value()), {}, {}});
    }
  }

  // On a thread of its own.
  static void answer_questions(const std::shared_ptr<Shared>& shared) {
    ::pthread_setname_np(::pthread_self(), "pawl-resolver");
    std::unique_lock<std::mutex> lock(shared->mutex);
    for (;;) {
      ++shared->idle;
      shared->wake.wait(lock, [&] { return !shared->mailbox || !shared->questions.empty(); });
      --shared->idle;
      if (!shared->mailbox) return;
      auto question = shared->questions.extract(shared->questions.begin());
      lock.unlock();
      ResolverAnswer answer = safely_look_up(shared->system, question.mapped());
      lock.lock();
      // Under the lock, so that the mailbox, which has a descriptor, never ends on this thread.
      if (shared->mailbox) post(shared, question.key(), std::move(answer));
    }
  }

  static ResolverAnswer safely_look_up(System& system, const Question& question) {
    try {
      return look_up(system, question.name, question.family);
    } catch (const std::bad_alloc&) {
      return ResolverAnswer{system_error_code(ENOMEM), {}, {}};
    }
  }

  static void post(const std::shared_ptr<Shared>& shared, std::uint64_t id,
                   ResolverAnswer&& answer) {
    shared->mailbox->post([shared, id, answer = std::move(answer)]() mutable {
      if (shared->owner != nullptr) shared->owner->sink_(id, std::move(answer));
    });
  }

  Sink sink_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace

std::unique_ptr<ResolverBackend> make_getaddrinfo_backend(EventLoop& loop,
                                                          const ResolverOptions& options,
                                                          ResolverBackend::Sink sink) {
  return std::make_unique<GetaddrinfoBackend>(loop, options, std::move(sink));
}

int to_address_family(AddressFamily family) {
  switch (family) {
    case AddressFamily::ipv4: return AF_INET;
    case AddressFamily::ipv6: return AF_INET6;
    case AddressFamily::any: break;
  }
  return AF_UNSPEC;
}

}  // namespace pawl
