// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/unique_fd.hpp"

namespace pawl {

class System;

/// A socket that the program was started with.
struct InheritedSocket {
  UniqueFd socket;
  std::string name;  ///< FileDescriptorName= of the socket unit; may be empty
};

/// The sockets that systemd, or whoever follows its protocol (sd_listen_fds(3): LISTEN_PID,
/// LISTEN_FDS, LISTEN_FDNAMES), handed over to this process; for `Listener` and `Server`. The first
/// call takes them all and removes the three variables, so that neither a second call nor a child
/// process takes them again. Call it before there are threads: the environment has no lock.
PAWL_API std::vector<InheritedSocket> inherited_sockets();
PAWL_API std::vector<InheritedSocket> inherited_sockets(System& system);

}  // namespace pawl
