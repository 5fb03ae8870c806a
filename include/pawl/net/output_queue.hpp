// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/unique_fd.hpp"

namespace pawl {

class Scratch;

/// What a connection couldn't hand to the kernel yet, in pieces: bytes, ranges of files, bytes that
/// take descriptors along.
class PAWL_API OutputQueue {
 public:
  /// What a piece is or has beside bytes of its own.
  struct Attachment {
    UniqueFd file;  // the piece is a range of it, if there is one
    std::uint64_t offset = 0;
    std::uint64_t length = 0;   // of the range; both move on while it goes
    std::vector<UniqueFd> fds;  // that go with the first byte
  };

  OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;
  ~OutputQueue();

  bool empty() const { return bytes() == 0; }
  /// All that is still to go, in bytes.
  std::uint64_t bytes() const { return memory_bytes_ + file_bytes_; }
  /// What of it is kept in memory; the rest is in files.
  std::size_t memory_bytes() const { return memory_bytes_; }

  /// Copies. The first small ones go into a buffer that the loop's connections share, until
  /// `settle`; later ones are put together in buffers of `scratch`.
  void append(std::string_view bytes, Scratch& scratch);
  /// Copies nothing: remembers bytes that lie in the loop's read buffer, where they must be left
  /// alone until `settle` or `leave_read_buffer`. Only for an empty queue. False, and nothing is
  /// done, when they don't lie there, or are none or more than `room`.
  bool borrow(std::string_view bytes, std::size_t room, const Scratch& scratch);
  /// What was borrowed is copied, so that the read buffer can be used again.
  void leave_read_buffer(Scratch& scratch);
  /// The same as `append`, when there is nothing but what lies in the shared buffer, and that is to
  /// be had, and no more than `room` bytes come together. Else it does nothing and returns false.
  bool append_to_cork(std::string_view bytes, std::size_t room, Scratch& scratch);
  /// Takes a big one over as it is.
  void append(std::string&& bytes, Scratch& scratch);
  void append_file(UniqueFd file, std::uint64_t offset, std::uint64_t length, Scratch& scratch);
  /// `bytes` must not be empty.
  void append_fds(std::string_view bytes, std::vector<UniqueFd> fds, Scratch& scratch);

  /// Leaves the shared buffers, and keeps what is in it: what couldn't be sent at once stays.
  void settle(Scratch& scratch);

  /// True exactly when there is something, and all of it lies in a shared buffer.
  bool is_corked() const { return corked_ != nullptr; }
  /// What lies in a shared buffer: all there is, or nothing.
  std::string_view corked() const {
    return is_corked() ? std::string_view(corked_, memory_bytes_) : std::string_view();
  }
  /// All that lies there has gone.
  void uncork(Scratch& scratch);
  /// The bytes of the `index`th piece that is still to go; empty behind the last, and for a file.
  std::string_view piece(std::size_t index) const;
  /// What the `index`th piece has beside its bytes; null: nothing, or no such piece.
  Attachment* attachment(std::size_t index) const;
  /// True exactly when something that isn't bytes is still to go.
  bool has_attachments() const;
  /// The first `bytes` have gone.
  void consume(std::uint64_t bytes, Scratch& scratch);
  void clear(Scratch& scratch) { consume(bytes(), scratch); }

 private:
  struct Piece {
    std::string bytes;
    std::unique_ptr<Attachment> attachment;
    bool is_file() const { return attachment != nullptr && attachment->file; }
    std::uint64_t size() const;
  };

  bool enter_cork(Scratch& scratch);
  void give_back_cork(Scratch& scratch);
  void append_piece(std::string_view bytes, Scratch& scratch);
  void consume_pieces(std::uint64_t bytes, Scratch& scratch);
  bool fits_into_last(std::size_t bytes) const;
  void add_copy(std::string_view bytes, Scratch& scratch);
  bool consume_first(std::uint64_t bytes);

  const char* corked_ = nullptr;  // in a shared buffer: there is nothing but what lies there
  char* cork_ = nullptr;          // the shared buffer for output, while this has it
  std::vector<Piece> pieces_;
  std::size_t first_ = 0;     // the first piece that is still to go
  std::uint64_t offset_ = 0;  // what has gone of its bytes
  std::uint64_t file_bytes_ = 0;
  std::size_t memory_bytes_ = 0;
};

}  // namespace pawl
