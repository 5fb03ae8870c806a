// SPDX-License-Identifier: MIT
#include "pawl/core/error.hpp"

#include <string>

namespace pawl {
namespace {

const char* phrase(Errc value) {
  switch (value) {
    case Errc::already_registered: return "descriptor is already registered";
    case Errc::not_registered: return "descriptor is not registered";
    case Errc::used_after_fork: return "used in a forked child; make a new one there";
    case Errc::wrong_thread: return "called from a thread that is not the loop's";
    case Errc::loop_closed: return "event loop is closed";
    case Errc::timed_out: return "timed out";
    case Errc::write_limit: return "too many unsent bytes";
    case Errc::aborted: return "aborted by this side";
    case Errc::unsent_data: return "closed with bytes unsent";
    case Errc::host_not_found: return "host not found";
    case Errc::resolve_failed: return "no name server gave an answer";
    case Errc::self_connect: return "socket was connected to itself";
    case Errc::server_closed: return "server was closed";
    case Errc::file_ended: return "file ended before the length to send";
    case Errc::bad_name: return "no host can have this name (beyond ASCII, give the A-label)";
    case Errc::no_address: return "host has no address of this family";
    case Errc::bad_answer: return "name server's answer made no sense";
    case Errc::message_too_long: return "message is longer than the limit";
    case Errc::unexpected_end: return "peer ended in the middle of a message";
    case Errc::broken_promise: return "promise was dropped before it was kept";
    case Errc::other_exception: return "an exception without an error code";
    case Errc::queue_shut_down: return "queue is shut down";
  }
  return "unknown pawl error";
}

class Category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "pawl"; }
  std::string message(int value) const override { return phrase(static_cast<Errc>(value)); }

  std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<Errc>(value)) {
      case Errc::already_registered: return std::errc::file_exists;
      case Errc::not_registered: return std::errc::no_such_file_or_directory;
      case Errc::timed_out: return std::errc::timed_out;
      case Errc::write_limit: return std::errc::no_buffer_space;
      case Errc::aborted: return std::errc::connection_aborted;
      case Errc::bad_name: return std::errc::invalid_argument;
      case Errc::resolve_failed: return std::errc::resource_unavailable_try_again;
      case Errc::message_too_long: return std::errc::message_size;
      case Errc::wrong_thread: return std::errc::operation_not_permitted;
      default: return {value, *this};
    }
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const Category category;
  return category;
}

std::error_code make_error_code(Errc value) noexcept {
  return {static_cast<int>(value), error_category()};
}

}  // namespace pawl
