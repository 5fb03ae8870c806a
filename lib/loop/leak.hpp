// SPDX-License-Identifier: MIT
#pragma once

#include <new>
#include <type_traits>
#include <utility>

namespace pawl {

/// Takes what `object` owns and never frees it.
///
/// For a forked child: of what another thread held when the process forked nobody knows the state,
/// and a thread that isn't there can be neither joined nor detached.
template <typename Type>
void leak(Type& object) noexcept {
  static_assert(std::is_nothrow_move_constructible_v<Type>);
  alignas(Type) unsigned char grave[sizeof(Type)];
  ::new (grave) Type(std::move(object));
}

}  // namespace pawl
