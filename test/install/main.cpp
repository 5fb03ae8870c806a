// SPDX-License-Identifier: MIT
// What a program that uses an installed pawl looks like: it prints the name of its selector.
#include <chrono>
#include <cstdio>
#include <pawl/loop/event_loop.hpp>
#include <stdexcept>
#include <string>

// The library and the program have to agree on what an empty callback is.
static bool empty_is_refused(pawl::EventLoop& loop) {
  loop.set_exception_handler({});
  try {
    loop.call_soon({});
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

int main() {
  pawl::EventLoop loop;
  if (!empty_is_refused(loop)) return 1;
  int calls = 0;
  loop.call_soon([&calls] { ++calls; });
  loop.call_later(std::chrono::milliseconds(1), [&calls] { ++calls; });
  loop.run();
  if (calls != 2) return 1;
  std::puts(std::string(loop.selector().name()).c_str());
  return 0;
}
