// SPDX-License-Identifier: MIT
#include "pawl/net/relay.hpp"

#include <memory>
#include <string_view>
#include <utility>

#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"

namespace pawl {
namespace {

/// What the two sides of a relay share.
struct Link {
  EventLoop& loop;
  Connection* sides[2];  // null when it is DONE or gone
  Function<void(std::error_code)> done;
  std::error_code error;  // the first

  Connection* other(int side) const { return sides[1 - side]; }
  void leave(int side);
};

/// When both have left, `done` follows; not from here, where a destructor may be on the stack.
void Link::leave(int side) {
  sides[side] = nullptr;
  if (sides[1 - side] != nullptr || !done) return;
  loop.call_soon([done = std::move(done), error = error]() mutable { done(error); });
}

}  // namespace

/// One side, held by the callbacks of its connection: it goes with them.
class RelaySide {
 public:
  static std::shared_ptr<RelaySide> join(Connection& connection, const std::shared_ptr<Link>& link,
                                         int index);
  RelaySide(std::shared_ptr<Link> link, int side) : link_(std::move(link)), side_(side) {}
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
    other->write(bytes);
    if (other->is_congested()) self.pause_reading();
  }
  void on_drained() {
    if (Connection* other = link_->other(side_)) other->resume_reading();
  }
  void on_eof() {
    if (Connection* other = link_->other(side_)) other->shutdown();
  }
  void on_closed(const Connection& self, std::error_code error) {
    const std::shared_ptr<Link> link = link_;
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

  std::shared_ptr<Link> link_;
  const int side_;
};

std::shared_ptr<RelaySide> RelaySide::join(Connection& connection,
                                           const std::shared_ptr<Link>& link, int index) {
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
  const auto link =
      std::make_shared<Link>(Link{a.loop(), {&a, &b}, std::move(done), std::error_code()});
  const std::shared_ptr<RelaySide> sides[] = {RelaySide::join(a, link, 0),
                                              RelaySide::join(b, link, 1)};
  sides[0]->begin(a);
  sides[1]->begin(b);
}

}  // namespace pawl
