// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/time.hpp"

struct addrinfo;
struct mmsghdr;
struct msghdr;
struct sockaddr;

namespace pawl {

class Selector;

/// What a system call gave: a value, or the `errno` of its failure. Never both.
struct SystemResult {
  std::int64_t value = 0;
  int error = 0;  ///< an errno; 0 is success

  bool ok() const { return error == 0; }
  int fd() const { return static_cast<int>(value); }
  std::size_t bytes() const { return static_cast<std::size_t>(value); }
  std::error_code code() const { return system_error_code(error); }
  /// True exactly when a non-blocking call has nothing to do right now.
  PAWL_API bool would_block() const;
};

/// How a child process is to be started. Descriptors of -1 are inherited from this process.
struct SpawnRequest {
  /// [0] is the program; without a slash it is looked up in the PATH of the child's environment.
  std::vector<std::string> arguments;
  std::optional<std::vector<std::string>> environment;  ///< "NAME=value"; none: inherited
  int directory_fd = -1;                                ///< of `open_directory`
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  bool new_process_group = false;  ///< so that a signal can reach its children too
};

/// How a child process ended, as waitid(2) tells it.
struct ChildStatus {
  bool has_ended = false;
  int exit_code = 0;  ///< valid when `signal` is 0
  int signal = 0;     ///< the signal that killed it, or 0
};

/// The one seam between this library and the operating system.
///
/// As it stands it is a thin class over the Linux system calls. A derived class overrides what it
/// wants to fake: faults (EMFILE, short writes, EINTR) or a whole simulated machine.
///
/// Owns:     nothing.
/// Threads:  any; there is no state inside.
/// Promises: every call that fails with EINTR and may be repeated is repeated. Every descriptor
///           made here is non-blocking and close-on-exec. A send never raises SIGPIPE.
/// Fails:    by `SystemResult::error`; never throws but `std::bad_alloc`.
class PAWL_API System {
 public:
  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System();

  /// The kernel itself.
  static System& real();

  // Clock and entropy
  virtual TimePoint now();
  /// Fills the whole buffer.
  virtual SystemResult random(void* buffer, std::size_t bytes);

  // Sockets. Addresses are borrowed for the length of the call.
  virtual SystemResult socket(int family, int type, int protocol);
  virtual SystemResult socketpair(int family, int type, int protocol, int (&fds)[2]);
  virtual SystemResult bind(int fd, const sockaddr* address, unsigned address_bytes);
  virtual SystemResult listen(int fd, int backlog);
  virtual SystemResult accept(int fd, sockaddr* address, unsigned* address_bytes);
  /// EINPROGRESS is an error here like any other: the caller waits until it is writable.
  virtual SystemResult connect(int fd, const sockaddr* address, unsigned address_bytes);
  virtual SystemResult send(int fd, const void* data, std::size_t bytes);
  virtual SystemResult recv(int fd, void* buffer, std::size_t bytes);
  virtual SystemResult sendmsg(int fd, const msghdr* message, int flags);
  virtual SystemResult recvmsg(int fd, msghdr* message, int flags);
  /// Several datagrams in one call, each with its length in `msg_len`. The value is how many went
  /// or came; an error is that of the first one, which sendmmsg(2) hides behind those before it.
  virtual SystemResult sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
  virtual SystemResult recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
  virtual SystemResult shutdown(int fd, int how);
  virtual SystemResult getsockopt(int fd, int level, int name, void* value, unsigned* bytes);
  virtual SystemResult setsockopt(int fd, int level, int name, const void* value, unsigned bytes);
  /// Sends what `file` holds from `offset` on; fewer bytes where the socket or the file ends.
  /// ENOSYS, as of a kernel without it: a SIGPIPE that is pending leaves no way to raise none.
  virtual SystemResult sendfile(int fd, int file, std::uint64_t offset, std::size_t bytes);
  /// The value is how many bytes have come and weren't read (FIONREAD).
  virtual SystemResult unread_bytes(int fd);
  /// The value is how much of what was sent hasn't arrived (SIOCOUTQ): bytes that the peer of a TCP
  /// socket hasn't acknowledged, a FIN being one; memory that the peer of a Unix socket hasn't
  /// read.
  virtual SystemResult unacknowledged_bytes(int fd);
  /// The value is how much of that hasn't even left (SIOCOUTQNSD); TCP alone knows.
  virtual SystemResult untransmitted_bytes(int fd);
  virtual SystemResult getsockname(int fd, sockaddr* address, unsigned* address_bytes);
  virtual SystemResult getpeername(int fd, sockaddr* address, unsigned* address_bytes);

  // Names. Blocks as long as the system's resolver likes: call it from a thread of a pool.
  // The value is getaddrinfo(3)'s EAI_ code (0: success), the error its errno for EAI_SYSTEM.
  virtual SystemResult getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                   addrinfo** results);
  virtual void freeaddrinfo(addrinfo* results);
  /// Gives this machine's name, as gethostname(2).
  virtual SystemResult host_name(std::string& name);

  // Descriptors of any kind
  virtual SystemResult close(int fd);
  virtual SystemResult read(int fd, void* buffer, std::size_t bytes);
  virtual SystemResult write(int fd, const void* data, std::size_t bytes);
  virtual SystemResult pipe(int (&fds)[2]);
  virtual SystemResult set_non_blocking(int fd, bool is_non_blocking);
  virtual SystemResult set_close_on_exec(int fd);
  /// The value is 1 for a descriptor that never blocks, else 0.
  virtual SystemResult is_non_blocking(int fd);
  virtual SystemResult eventfd();
  /// Opens /dev/null for reading and writing.
  virtual SystemResult open_null();
  virtual bool is_open(int fd);
  /// Which file `fd` stands for, to tell it from another one under the same number.
  virtual SystemResult inode(int fd);

  // Files
  virtual SystemResult pread(int fd, void* buffer, std::size_t bytes, std::uint64_t offset);
  /// Reads the whole of a small file, such as those in /etc; waits for the disk. EFBIG: more than
  /// 16 MiB. `text` is valid when there is no error.
  virtual SystemResult read_file(const char* path, std::string& text);
  virtual SystemResult unlink(const char* path);
  /// Keeps others who ask for the same directory, the one of `path`, waiting until the descriptor
  /// that this gives is closed. Waits for them itself, a second at most: ETIMEDOUT.
  virtual SystemResult lock_directory_of(const char* path);
  /// Which socket stands at `path`, to tell it from another one there. ENOTSOCK: it is no socket.
  virtual SystemResult socket_inode(const char* path);

  // Processes and signals
  virtual SystemResult process_id();
  /// Opens a directory for a child to start in. One that can't be entered is an error here already.
  virtual SystemResult open_directory(const char* path);
  /// The value is the process id. The error of a program that can't be run is reported here. The
  /// child begins with no signal blocked or ignored. EINVAL: no program, or a NUL in a word.
  virtual SystemResult spawn(const SpawnRequest& request);
  virtual SystemResult pidfd_open(int pid);
  /// Reaps `pid` if it has ended; never waits.
  virtual SystemResult wait_child(int pid, ChildStatus& status);
  virtual SystemResult kill(int pid, int signal);

  /// A selector by name, as `pawl::make_selector`; a simulated machine brings its own. (Defined in
  /// the selector's floor.)
  virtual std::unique_ptr<Selector> make_selector(std::string_view name);
};

}  // namespace pawl
