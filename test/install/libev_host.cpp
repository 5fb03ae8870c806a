// SPDX-License-Identifier: MIT
// A libev program with a pawl loop inside it; links libev itself, as pawl-ev says.
#include <ev.h>

#include <chrono>
#include <cstdio>
#include <pawl/loop/event_loop.hpp>
#include <pawl/loop/libev_host.hpp>
#include <string>

int main() {
  struct ev_loop* libev = ev_loop_new(EVFLAG_AUTO);
  int calls = 0;
  std::string selector;
  {
    pawl::EventLoop loop;
    pawl::LibevHost host(libev, loop);
    loop.call_soon([&calls] { ++calls; });
    loop.call_later(std::chrono::milliseconds(1), [&calls] { ++calls; });
    ev_run(libev, 0);
    host.rethrow_exception();
    selector = loop.selector().name();
  }
  ev_loop_destroy(libev);
  if (calls != 2) return 1;
  std::puts(selector.c_str());
  return 0;
}
