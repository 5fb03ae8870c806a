// SPDX-License-Identifier: MIT
#include "pawl/net/relay.hpp"

#include <list>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "loop/loop_parts.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"

namespace pawl {
namespace {

/// What the two sides of a relay share.
struct RelayLink : std::enable_shared_from_this<RelayLink> {
  RelayLink(Connection& a, Connection& b, Function<void(std::error_code)>&& then);

  EventLoop& loop;
  Connection* sides[2];  // null when it is DONE or gone
  Function<void(std::error_code)> done;
  std::error_code error;                           // the first
  std::list<std::shared_ptr<RelayLink>> place{1};  // among those that couldn't be posted

  Connection* other(int side) const { return sides[1 - side]; }
  void leave(int side) noexcept;
  void post();
};

/// A loop's relays that are over, and that there was no memory to post.
class UntoldRelays final : private RetryList::Entry {
 public:
  explicit UntoldRelays(EventLoop& loop) : loop_(loop) {}
  void add(RelayLink& link) {
    link.place.front() = link.shared_from_this();
    links_.splice(links_.end(), link.place);
    loop_.parts().retries.add(*this);
  }

 private:
  void retry() override {
    for (; !links_.empty(); links_.pop_front()) links_.front()->post();
  }

  EventLoop& loop_;
  std::list<std::shared_ptr<RelayLink>> links_;
};

RelayLink::RelayLink(Connection& a, Connection& b, Function<void(std::error_code)>&& then)
    : loop(a.loop()), sides{&a, &b}, done(std::move(then)) {
  loop.parts().services.of<UntoldRelays>(loop);
}

void RelayLink::post() {
  auto tell = [link = shared_from_this()] {
    Function<void(std::error_code)> callback = std::move(link->done);
    callback(link->error);
  };
  loop.call_soon(std::move(tell));
}

/// When both have left, `done` follows; not from here, where a destructor may be on the stack.
void RelayLink::leave(int side) noexcept {
  sides[side] = nullptr;
  if (sides[1 - side] != nullptr || !done) return;
  try {
    post();
  } catch (const std::bad_alloc&) {
    loop.parts().services.of<UntoldRelays>(loop).add(*this);
  }
}

}  // namespace

/// One side, held by the callbacks of its connection: it goes with them.
class RelaySide {
 public:
  static std::shared_ptr<RelaySide> join(Connection& connection,
                                         const std::shared_ptr<RelayLink>& link, int index);
  RelaySide(std::shared_ptr<RelayLink> link, int side) : link_(std::move(link)), side_(side) {}
  RelaySide(const RelaySide&) = delete;
  RelaySide& operator=(const RelaySide&) = delete;
  /// Destroyed before it was DONE, or its callbacks were set anew.
  ~RelaySide() {
    if (link_->sides[side_] == nullptr) return;
    if (Connection* other = link_->other(side_)) other->abort();
    link_->leave(side_);
  }

  /// What happened to its connection before there was a relay.
  void begin(Connection& self) {
    if (self.state() == ConnectionState::done) return on_closed(self, self.error());
    Connection* other = link_->other(side_);
    if (other == nullptr) return;
    if (self.has_peer_ended()) other->shutdown();
    other->is_congested() ? self.pause_reading() : self.resume_reading();
  }
  void on_data(Connection& self, std::string_view bytes) {
    Connection* other = link_->other(side_);
    if (other == nullptr) return;
    if (other->is_closing()) return other->abort();  // by its owner, in the middle of this stream
    const std::string_view rest = other->write_what_fits(bytes);
    if (!rest.empty()) self.unread(rest);
    if (other->is_congested() || !rest.empty()) self.pause_reading();
  }
  void on_drained() {
    if (Connection* other = link_->other(side_)) other->resume_reading();
  }
  void on_eof() {
    if (Connection* other = link_->other(side_)) other->shutdown();
  }
  void on_closed(const Connection& self, std::error_code error) {
    const std::shared_ptr<RelayLink> link = link_;
    if (link->sides[side_] == nullptr) return;  // it was DONE when the relay began
    if (error && !link->error) link->error = error;
    if (Connection* other = link->other(side_)) {
      end_other(*other, error, self.has_peer_ended());
    }
    link->leave(side_);
  }

 private:
  /// A stream that was cut must not look whole, and one that was whole must not be cut.
  static void end_other(Connection& other, std::error_code error, bool was_whole) {
    const bool ends_well = !error || (was_whole && other.has_undelivered());
    ends_well ? other.close() : other.abort();
  }

  std::shared_ptr<RelayLink> link_;
  const int side_;
};

std::shared_ptr<RelaySide> RelaySide::join(Connection& connection,
                                           const std::shared_ptr<RelayLink>& link, int index) {
  const auto side = std::make_shared<RelaySide>(link, index);
  connection.set_allow_half_open(true);
  connection.fails_at_once_ = true;  // what is unread would be lost with the other side's output
  connection.on_data(
      [side](Connection& self, std::string_view bytes) { side->on_data(self, bytes); });
  connection.on_drained([side](Connection&) { side->on_drained(); });
  connection.on_eof([side](Connection&) { side->on_eof(); });
  connection.on_closed(
      [side](Connection& self, std::error_code error) { side->on_closed(self, error); });
  return side;
}

void relay(Connection& a, Connection& b, Function<void(std::error_code)> done) {
  const auto link = std::make_shared<RelayLink>(a, b, std::move(done));
  try {
    const std::shared_ptr<RelaySide> sides[] = {RelaySide::join(a, link, 0),
                                                RelaySide::join(b, link, 1)};
    sides[0]->begin(a);
    sides[1]->begin(b);
  } catch (...) {  // out of memory: half a relay is none
    link->sides[0] = link->sides[1] = nullptr;
    a.abort();
    b.abort();
    throw;
  }
}

}  // namespace pawl
