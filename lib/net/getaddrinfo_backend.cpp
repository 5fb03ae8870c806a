// SPDX-License-Identifier: MIT
// getaddrinfo(3) blocks as long as it likes and can't be cancelled. So its threads are detached and
// nobody joins them: they share one heap object with the resolver, and one that hangs keeps that
// object and nothing else: no descriptor, no callback of the user's, no pointer to the loop.
// Nor does it tell what it knows before it knows all (glibc 2.36: with one family's answer there
// and the other's lost, 15 s later).
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "loop/leak.hpp"
#include "loop/loop_parts.hpp"
#include "net/address_order.hpp"
#include "net/resolver_backend.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/function.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/mailbox.hpp"
#include "pawl/loop/scoped_handle.hpp"
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

// A name's two families are asked for in one call, because only so is a name that the hosts file
// has for one of them not asked elsewhere for the other. But that call waits for both; so when it
// takes this long each family is asked for alone.
constexpr Duration patience = std::chrono::milliseconds(200);

/// One call of getaddrinfo, from asking to answering. Made by the loop's thread, so that the others
/// need no memory for it.
struct Question {
  std::uint64_t id;
  std::string name;
  AddressFamily family;
  ResolverAnswer answer;
};
using Questions = std::list<Question>;

/// All that the threads see.
struct Shared {
  /// Questions about one family, or both, and the threads for them: while one family's questions
  /// hang, the others' don't.
  struct Lane {
    Questions waiting;  // in the order in which they were asked
    std::size_t threads = 0;
    std::size_t idle = 0;
    std::condition_variable wake;
  };

  Shared(System& system_, std::shared_ptr<Mailbox> mailbox_)
      : system(system_), mailbox(std::move(mailbox_)) {}
  Lane& lane_of(AddressFamily family) { return lanes[static_cast<std::size_t>(family)]; }

  System& system;
  Function<void()> on_answers;       // of the loop's thread alone; empty when the resolver is gone
  std::mutex mutex;                  // guards the rest
  std::shared_ptr<Mailbox> mailbox;  // null when the resolver is gone, and the threads are to end
  Lane lanes[3];
  Questions answered;    // until the loop takes them
  bool is_told = false;  // true exactly while a letter about them is on its way
};

// On threads of its own

ResolverAnswer safely_look_up(System& system, const Question& question) {
  try {
    return look_up(system, question.name, to_address_family(question.family));
  } catch (const std::bad_alloc&) {
    return ResolverAnswer{system_error_code(ENOMEM), {}, {}, {}};
  }
}

/// Under the lock, so that the mailbox, which has a descriptor, never ends on this thread. False
/// when there is no memory for a letter.
bool tell(const std::shared_ptr<Shared>& shared) {
  if (shared->is_told) return true;
  try {
    shared->mailbox->post([shared] {
      if (shared->on_answers) shared->on_answers();
    });
    return shared->is_told = true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void answer_questions(const std::shared_ptr<Shared>& shared, AddressFamily family) {
  Shared::Lane& lane = shared->lane_of(family);
  Questions mine;
  std::unique_lock<std::mutex> lock(shared->mutex);
  for (;;) {
    ++lane.idle;
    lane.wake.wait(lock, [&] { return !shared->mailbox || !lane.waiting.empty(); });
    --lane.idle;
    if (!shared->mailbox) return;
    mine.splice(mine.end(), lane.waiting, lane.waiting.begin());
    lock.unlock();
    mine.front().answer = safely_look_up(shared->system, mine.front());
    lock.lock();
    if (!shared->mailbox) return;
    shared->answered.splice(shared->answered.end(), mine);
    while (shared->mailbox && !tell(shared)) {  // until there is memory again
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
  }
}

// On the loop's

class GetaddrinfoBackend final : public ResolverBackend {
 public:
  GetaddrinfoBackend(EventLoop& loop, const ResolverOptions& options, Sink sink)
      : loop_(loop),
        thread_limit_(std::max<std::size_t>(options.threads, 1)),
        sink_(std::move(sink)),
        shared_(std::make_shared<Shared>(loop.system(), loop.mailbox())) {
    shared_->on_answers = [this] { look(); };
  }

  ~GetaddrinfoBackend() override {
    shared_->on_answers = nullptr;
    // In a forked child there are no threads, and who held the lock never gives it back.
    if (loop_.parts().is_forked_child()) {
      leak(shared_);
      return;
    }
    Questions unasked;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      shared_->mailbox.reset();
      for (Shared::Lane& lane : shared_->lanes) unasked.splice(unasked.end(), lane.waiting);
      unasked.splice(unasked.end(), shared_->answered);
    }
    for (Shared::Lane& lane : shared_->lanes) lane.wake.notify_all();
  }

  void ask(std::uint64_t id, const std::string& name, AddressFamily family) override {
    Pending& pending = pending_.emplace(id, Pending{name, family, {}, {}, {}}).first->second;
    try {
      if (family == AddressFamily::any) {
        pending.next =
            loop_.call_later(patience, [this, id] { ask_alone(id, AddressFamily::ipv4); });
      }
      const std::error_code error = ask(id, pending, family);
      if (error) finish(id, ResolverAnswer{error, {}, {}, {}});
    } catch (...) {
      pending_.erase(id);
      throw;
    }
  }

  void abandon(std::uint64_t id) noexcept override {
    pending_.erase(id);
    if (loop_.parts().is_forked_child()) return;
    Questions unasked;
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    for (Shared::Lane& lane : shared_->lanes) {
      for (auto each = lane.waiting.begin(); each != lane.waiting.end();) {
        const auto next = std::next(each);
        if (each->id == id) unasked.splice(unasked.end(), lane.waiting, each);
        each = next;
      }
    }
  }

  void look() noexcept override {
    Questions answered;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      answered.swap(shared_->answered);
      shared_->is_told = false;
    }
    for (Question& question : answered) {
      try {
        take(question);
      } catch (const std::bad_alloc&) {
        finish(question.id, ResolverAnswer{system_error_code(ENOMEM), {}, {}, {}});
      }
    }
  }

 private:
  /// A lookup that waits for its whole answer.
  struct Pending {
    std::string name;
    AddressFamily family;
    std::optional<ResolverAnswer> ipv4;  // of a question about this family alone
    std::optional<ResolverAnswer> ipv6;
    ScopedHandle next;  // asks for a family alone

    std::optional<ResolverAnswer>& of(AddressFamily one) {
      return one == AddressFamily::ipv4 ? ipv4 : ipv6;
    }
  };

  /// An error when nobody will answer.
  std::error_code ask(std::uint64_t id, const Pending& pending, AddressFamily family) {
    Questions asked;
    asked.push_back(Question{id, pending.name, family, {}});
    Shared::Lane& lane = shared_->lane_of(family);
    bool is_thread_missing = false;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      is_thread_missing = lane.waiting.size() >= lane.idle && lane.threads < thread_limit_;
      lane.waiting.splice(lane.waiting.end(), asked);
      if (is_thread_missing) ++lane.threads;
    }
    lane.wake.notify_one();
    return is_thread_missing ? start_thread(id, family) : std::error_code();
  }

  std::error_code start_thread(std::uint64_t id, AddressFamily family) {
    std::error_code error;
    try {
      std::thread thread([shared = shared_, family] { answer_questions(shared, family); });
      // From here, so that it has its name before anyone can look.
      ::pthread_setname_np(thread.native_handle(), "pawl-resolver");
      thread.detach();
      return {};
    } catch (const std::system_error& why) {
      error = system_error_code(why.code().value());
    } catch (const std::bad_alloc&) {
      error = system_error_code(ENOMEM);
    }
    Questions lost;
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    Shared::Lane& lane = shared_->lane_of(family);
    // With fewer threads it only waits longer; with none it would wait forever.
    if (--lane.threads > 0 || lane.waiting.empty() || lane.waiting.back().id != id) return {};
    lost.splice(lost.end(), lane.waiting, std::prev(lane.waiting.end()));
    return error;
  }

  /// When the call for both families takes its time: what one of them says is better than nothing.
  void ask_alone(std::uint64_t id, AddressFamily family) noexcept {
    const auto found = pending_.find(id);
    if (found == pending_.end()) return;
    Pending& pending = found->second;
    pending.next = ScopedHandle();
    try {
      if (family == AddressFamily::ipv4) {
        pending.next =
            loop_.call_later(patience, [this, id] { ask_alone(id, AddressFamily::ipv6); });
      }
      ask(id, pending, family);
    } catch (const std::exception&) {
      // Then only the call for both is waited for.
    }
  }

  void take(Question& question) {
    const auto found = pending_.find(question.id);
    if (found == pending_.end()) return;
    Pending& pending = found->second;
    if (question.family == pending.family) {
      return finish(question.id, std::move(question.answer));
    }
    pending.of(question.family) = std::move(question.answer);
    if (pending.ipv4 && pending.ipv6) return finish(question.id, both(pending));
    const ResolverAnswer& alone = *pending.of(question.family);
    if (!alone.error) {
      ResolverAnswer part = alone;
      part.part = ResolverAnswer::Part::first;
      return sink_(question.id, std::move(part));
    }
    if (question.family == AddressFamily::ipv4) ask_alone(question.id, AddressFamily::ipv6);
  }

  void finish(std::uint64_t id, ResolverAnswer&& answer) noexcept {
    abandon(id);  // those of its questions that no thread has taken yet
    sink_(id, std::move(answer));
  }

  /// What the families' answers are together.
  ResolverAnswer both(Pending& pending) {
    ResolverAnswer& a = *pending.ipv4;
    ResolverAnswer& b = *pending.ipv6;
    if (a.error && b.error) return gravity(a.error) >= gravity(b.error) ? a : b;
    const std::error_code error = a.error ? a.error : b.error;
    ResolverAnswer whole;
    if (error && error != Errc::no_address && error != Errc::host_not_found) {
      whole.part = ResolverAnswer::Part::crippled;
    }
    whole.endpoints = std::move(a.endpoints);
    whole.endpoints.insert(whole.endpoints.end(), b.endpoints.begin(), b.endpoints.end());
    sort_addresses(loop_.system(), whole.endpoints);
    return whole;
  }

  static int gravity(std::error_code error) {
    if (error == Errc::host_not_found) return 0;
    return error == Errc::no_address ? 1 : 2;
  }

  EventLoop& loop_;
  const std::size_t thread_limit_;
  Sink sink_;
  std::map<std::uint64_t, Pending> pending_;
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
