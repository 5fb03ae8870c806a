// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include "support/forked.hpp"
#include "support/sockets.hpp"

/// A child that holds copies of all that this process had open, for as long as this lives.
class CopyHolder {
 public:
  CopyHolder() {
    pid_ = start_fork([this] {
      pipe_.writer.reset();
      char byte = 0;
      return static_cast<int>(::read(pipe_.reader.get(), &byte, 1));
    });
  }
  ~CopyHolder() {
    pipe_.writer.reset();
    exit_code_of(pid_);
  }
  CopyHolder(const CopyHolder&) = delete;
  CopyHolder& operator=(const CopyHolder&) = delete;

 private:
  Pipe blocking_pipe() {
    Pipe pipe;
    make_blocking(pipe.reader.get());
    return pipe;
  }

  Pipe pipe_ = blocking_pipe();
  pid_t pid_ = -1;
};
