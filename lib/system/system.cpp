// SPDX-License-Identifier: MIT
#include "pawl/system/system.hpp"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <string>
#include <string_view>

#include "pawl/core/unique_fd.hpp"
#include "system/pipe_signal_block.hpp"

namespace pawl {
namespace {

SystemResult result_of(std::int64_t returned) {
  return returned < 0 ? SystemResult{-1, errno} : SystemResult{returned, 0};
}

template <typename Call>
SystemResult retry_on_eintr(Call call) {
  for (;;) {
    const std::int64_t returned = call();
    if (__builtin_expect(returned >= 0, true)) return SystemResult{returned, 0};
    if (errno != EINTR) return SystemResult{-1, errno};
  }
}

/// An ioctl that fills an int.
SystemResult ask(int fd, unsigned long question) {
  int answer = 0;
  const SystemResult result = result_of(::ioctl(fd, question, &answer));
  return result.ok() ? SystemResult{answer, 0} : result;
}

}  // namespace

bool SystemResult::would_block() const { return error == EAGAIN || error == EWOULDBLOCK; }

System::~System() = default;

System& System::real() {
  static System system;
  return system;
}

TimePoint System::now() { return std::chrono::steady_clock::now(); }

SystemResult System::random(void* buffer, std::size_t bytes) {
  // A signal ends a large request early, with what there is by then (getrandom(2)).
  std::size_t filled = 0;
  while (filled < bytes) {
    const SystemResult result = retry_on_eintr(
        [=] { return ::getrandom(static_cast<char*>(buffer) + filled, bytes - filled, 0); });
    if (!result.ok()) return result;
    filled += result.bytes();
  }
  return SystemResult{static_cast<std::int64_t>(filled), 0};
}

SystemResult System::socket(int family, int type, int protocol) {
  return result_of(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

SystemResult System::socketpair(int family, int type, int protocol, int (&fds)[2]) {
  return result_of(::socketpair(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol, fds));
}

SystemResult System::bind(int fd, const sockaddr* address, unsigned address_bytes) {
  return result_of(::bind(fd, address, address_bytes));
}

SystemResult System::listen(int fd, int backlog) { return result_of(::listen(fd, backlog)); }

SystemResult System::accept(int fd, sockaddr* address, unsigned* address_bytes) {
  return retry_on_eintr(
      [=] { return ::accept4(fd, address, address_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC); });
}

SystemResult System::connect(int fd, const sockaddr* address, unsigned address_bytes) {
  // Not repeated on EINTR: the attempt goes on in the kernel (connect(2)), which is EINPROGRESS.
  const SystemResult result = result_of(::connect(fd, address, address_bytes));
  return result.error == EINTR ? SystemResult{-1, EINPROGRESS} : result;
}

SystemResult System::send(int fd, const void* data, std::size_t bytes) {
  return retry_on_eintr([=] { return ::send(fd, data, bytes, MSG_NOSIGNAL); });
}

SystemResult System::recv(int fd, void* buffer, std::size_t bytes) {
  return retry_on_eintr([=] { return ::recv(fd, buffer, bytes, 0); });
}

SystemResult System::sendmsg(int fd, const msghdr* message, int flags) {
  return retry_on_eintr([=] { return ::sendmsg(fd, message, flags | MSG_NOSIGNAL); });
}

SystemResult System::recvmsg(int fd, msghdr* message, int flags) {
  return retry_on_eintr([=] { return ::recvmsg(fd, message, flags | MSG_CMSG_CLOEXEC); });
}

SystemResult System::sendfile(int fd, int file, std::uint64_t offset, std::size_t bytes) {
  PipeSignalBlock block;  // sendfile(2) knows no MSG_NOSIGNAL
  // The kernel's signal couldn't be told from the one that waits; of our own way there is none.
  if (block.was_pending()) return SystemResult{-1, ENOSYS};
  const SystemResult result = retry_on_eintr([=] {
    off_t position = static_cast<off_t>(offset);
    return ::sendfile(fd, file, &position, bytes);
  });
  // It may have sent a part before it failed, and then that is all that it says.
  if (!result.ok() || result.bytes() < bytes) block.take();
  return result;
}

SystemResult System::sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  return retry_on_eintr([=] { return ::sendmmsg(fd, messages, count, flags | MSG_NOSIGNAL); });
}

SystemResult System::recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  return retry_on_eintr(
      [=] { return ::recvmmsg(fd, messages, count, flags | MSG_CMSG_CLOEXEC, nullptr); });
}

SystemResult System::shutdown(int fd, int how) { return result_of(::shutdown(fd, how)); }

SystemResult System::getsockopt(int fd, int level, int name, void* value, unsigned* bytes) {
  return result_of(::getsockopt(fd, level, name, value, bytes));
}

SystemResult System::setsockopt(int fd, int level, int name, const void* value, unsigned bytes) {
  return result_of(::setsockopt(fd, level, name, value, bytes));
}

SystemResult System::unread_bytes(int fd) { return ask(fd, FIONREAD); }

SystemResult System::unacknowledged_bytes(int fd) { return ask(fd, SIOCOUTQ); }

SystemResult System::untransmitted_bytes(int fd) { return ask(fd, SIOCOUTQNSD); }

SystemResult System::getsockname(int fd, sockaddr* address, unsigned* address_bytes) {
  return result_of(::getsockname(fd, address, address_bytes));
}

SystemResult System::getpeername(int fd, sockaddr* address, unsigned* address_bytes) {
  return result_of(::getpeername(fd, address, address_bytes));
}

SystemResult System::getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                 addrinfo** results) {
  PipeSignalBlock block;  // glibc writes to name servers by TCP as if they couldn't go
  const int code = ::getaddrinfo(node, service, hints, results);
  const int error = code == EAI_SYSTEM ? errno : 0;
  block.take();
  return SystemResult{code, error};
}

void System::freeaddrinfo(addrinfo* results) { ::freeaddrinfo(results); }

SystemResult System::host_name(std::string& name) {
  char buffer[256] = "";  // longer than HOST_NAME_MAX, so that its end is always in it
  const SystemResult result = result_of(::gethostname(buffer, sizeof buffer - 1));
  if (result.ok()) name = buffer;
  return result;
}

SystemResult System::close(int fd) {
  // EINTR or not, on Linux the number is free again (close(2)); a second try could hit a stranger.
  return result_of(::close(fd));
}

SystemResult System::read(int fd, void* buffer, std::size_t bytes) {
  return retry_on_eintr([=] { return ::read(fd, buffer, bytes); });
}

SystemResult System::pread(int fd, void* buffer, std::size_t bytes, std::uint64_t offset) {
  return retry_on_eintr([=] { return ::pread(fd, buffer, bytes, static_cast<off_t>(offset)); });
}

SystemResult System::read_file(const char* path, std::string& text) {
  constexpr std::size_t limit = std::size_t{16} << 20;
  // A FIFO in its place must not hold anybody.
  const UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return SystemResult{-1, errno};
  text.clear();
  char buffer[4096];
  for (;;) {
    const SystemResult got =
        retry_on_eintr([&] { return ::read(file.get(), buffer, sizeof buffer); });
    if (!got.ok()) return got;
    if (got.bytes() == 0) return SystemResult{static_cast<std::int64_t>(text.size()), 0};
    if (text.size() + got.bytes() > limit) return SystemResult{-1, EFBIG};
    text.append(buffer, got.bytes());
  }
}

SystemResult System::unlink(const char* path) { return result_of(::unlink(path)); }

SystemResult System::lock_directory_of(const char* path) {
  const std::string_view whole = path;
  const std::size_t slash = whole.rfind('/');
  const std::string directory(slash == std::string_view::npos ? "." : whole.substr(0, slash + 1));
  const SystemResult opened =
      retry_on_eintr([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (!opened.ok()) return opened;
  constexpr int tries = 1000;
  for (int i = 0; i < tries; ++i) {
    // Not LOCK_EX alone: whoever may read the directory could hold us up for ever.
    if (::flock(opened.fd(), LOCK_EX | LOCK_NB) == 0) return opened;
    if (errno != EWOULDBLOCK && errno != EINTR) break;
    const timespec pause{0, 1'000'000};
    ::nanosleep(&pause, nullptr);
  }
  const int error = errno == EWOULDBLOCK || errno == EINTR ? ETIMEDOUT : errno;
  ::close(opened.fd());
  return SystemResult{-1, error};
}

SystemResult System::socket_inode(const char* path) {
  struct stat status {};
  if (::lstat(path, &status) < 0) return SystemResult{-1, errno};
  if (!S_ISSOCK(status.st_mode)) return SystemResult{-1, ENOTSOCK};
  return SystemResult{static_cast<std::int64_t>(status.st_ino), 0};
}

SystemResult System::process_id() { return SystemResult{::getpid(), 0}; }

SystemResult System::write(int fd, const void* data, std::size_t bytes) {
  return retry_on_eintr([=] { return ::write(fd, data, bytes); });
}

SystemResult System::pipe(int (&fds)[2]) { return result_of(::pipe2(fds, O_NONBLOCK | O_CLOEXEC)); }

SystemResult System::set_non_blocking(int fd, bool is_non_blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return SystemResult{-1, errno};
  const int wanted = is_non_blocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  return result_of(::fcntl(fd, F_SETFL, wanted));
}

SystemResult System::set_close_on_exec(int fd) {
  return result_of(::fcntl(fd, F_SETFD, FD_CLOEXEC));
}

SystemResult System::is_non_blocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return SystemResult{-1, errno};
  return SystemResult{(flags & O_NONBLOCK) != 0 ? 1 : 0, 0};
}

SystemResult System::eventfd() { return result_of(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

SystemResult System::open_null() {
  return retry_on_eintr([] { return ::open("/dev/null", O_RDWR | O_NONBLOCK | O_CLOEXEC); });
}

bool System::is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

SystemResult System::inode(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) < 0) return SystemResult{-1, errno};
  return SystemResult{static_cast<std::int64_t>(status.st_ino), 0};
}

}  // namespace pawl
