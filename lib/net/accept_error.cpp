// SPDX-License-Identifier: MIT
#include "net/accept_error.hpp"

#include <cerrno>

namespace pawl {

AcceptError classify_accept_error(int error) {
  switch (error) {
    case EAGAIN: return AcceptError::nobody;
    // accept(2): errors of the network that the connection had, "should be treated like EAGAIN by
    // retrying". EOPNOTSUPP is said of a socket that can't listen too: see most_skipped.
    case ECONNABORTED:
    case ECONNRESET:
    case ETIMEDOUT:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH: return AcceptError::connection;
    // EINVAL: it doesn't listen any more, because another holder has shut it down.
    case EBADF:
    case EFAULT:
    case EINVAL:
    case ENOTSOCK: return AcceptError::lasting;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSR; EPERM, EACCES of a firewall or a security module;
    // ENOSYS of a sandbox; and what nobody has thought of.
    default: return AcceptError::pause;
  }
}

bool is_number_gone(int error) { return error == EBADF || error == ENOTSOCK; }

}  // namespace pawl
