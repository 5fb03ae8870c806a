// SPDX-License-Identifier: MIT
// Takes the place of cares_backend.cpp in a build without c-ares.
#include "net/resolver_backend.hpp"

namespace pawl {

bool has_cares_backend() { return false; }

std::unique_ptr<ResolverBackend> make_cares_backend(EventLoop&, const ResolverOptions&,
                                                    ResolverBackend::Sink) {
  return nullptr;
}

}  // namespace pawl
