// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "pawl/core/api.hpp"

namespace pawl {

/// Throws the `std::logic_error` of a call to an empty `Function`.
[[noreturn]] PAWL_API void throw_empty_function_call();

template <typename Signature>
class Function;

/// A callable that is moved, never copied.
///
/// Owns:     what was put in. Up to 48 bytes (and 8-byte alignment, and a move that can't throw)
///           it lies inside, without an allocation; anything else is put on the heap.
/// Promises: calling an empty one throws `std::logic_error`; it never crashes.
template <typename Result, typename... Arguments>
class Function<Result(Arguments...)> {
 public:
  static constexpr std::size_t inline_bytes = 48;

  /// True exactly when making one of a `Callable` neither allocates nor throws nor can give an
  /// empty one.
  template <typename Callable, typename Target = std::decay_t<Callable>>
  static constexpr bool is_made_inside() {
    return std::is_class_v<Target> && !std::is_same_v<Target, Function> &&
           std::is_nothrow_constructible_v<Function, Callable>;
  }

  Function() noexcept = default;
  Function(std::nullptr_t) noexcept {}

  /// Takes any callable. A null function pointer gives an empty `Function`.
  template <typename Callable, typename Target = std::decay_t<Callable>,
            typename = std::enable_if_t<!std::is_same_v<Target, Function> &&
                                        std::is_invocable_r_v<Result, Target&, Arguments...>>>
  Function(Callable&& callable) noexcept(
      fits_inline<Target>&& std::is_nothrow_constructible_v<Target, Callable>) {
    if constexpr (std::is_pointer_v<std::remove_reference_t<Callable>>) {
      if (callable == nullptr) return;
    }
    if constexpr (fits_inline<Target>) {
      ::new (static_cast<void*>(buffer_)) Target(std::forward<Callable>(callable));
    } else {
      ::new (static_cast<void*>(buffer_)) Target*(new Target(std::forward<Callable>(callable)));
    }
    operations_ = &Model<Target>::operations;
  }

  Function(Function&& other) noexcept { take(other); }

  Function& operator=(Function&& other) noexcept {
    if (this == &other) return *this;
    Function old;  // dies last: `other` may be among its captures
    if (!dies_as_nothing()) old.take(*this);
    take(other);
    return *this;
  }

  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  ~Function() { destroy(); }

  /// Runs the callable. Throws `std::logic_error` when there is none.
  Result operator()(Arguments... arguments) {
    if (operations_ == nullptr) throw_empty_function_call();
    return operations_->invoke(std::forward<Arguments>(arguments)..., buffer_);
  }

  /// The same, for who knows that there is one.
  Result call(Arguments... arguments) {
    return operations_->invoke(std::forward<Arguments>(arguments)..., buffer_);
  }

  /// True exactly when there is something to call.
  explicit operator bool() const noexcept { return operations_ != nullptr; }

  /// True exactly when it is empty or has trivial captures: destroying it then does nothing.
  bool dies_as_nothing() const noexcept {
    return operations_ == nullptr || operations_->destroy == nullptr;
  }

  /// Destroys what is inside, now. It may assign to this `Function` while it dies.
  void reset() noexcept {
    if (dies_as_nothing()) {
      operations_ = nullptr;
      return;
    }
    Function old;
    old.take(*this);
  }

 private:
  /// Small plain values go on in registers, anything else by reference.
  template <typename Argument>
  static constexpr bool goes_by_value = std::is_trivially_copyable_v<Argument> &&
                                        sizeof(Argument) <= 2 * sizeof(void*);
  template <typename Argument>
  using Passed = std::conditional_t<goes_by_value<Argument>, Argument, Argument&&>;

  struct Operations {
    // The buffer comes last: without captures, the arguments are where the target wants them.
    Result (*invoke)(Passed<Arguments>... arguments, void* buffer);
    void (*relocate)(void* from, void* to) noexcept;  // null: copying the bytes is enough
    void (*destroy)(void* buffer) noexcept;           // null: nothing to do
  };

  template <typename Target>
  static constexpr bool fits_inline =
      sizeof(Target) <= inline_bytes &&
      alignof(Target) <= alignof(void*) && std::is_nothrow_move_constructible_v<Target>;

  template <typename Target>
  struct Model {
    static Target& target(void* buffer) {
      if constexpr (fits_inline<Target>) {
        return *std::launder(static_cast<Target*>(buffer));
      } else {
        return **std::launder(static_cast<Target**>(buffer));
      }
    }
    static Result invoke(Passed<Arguments>... arguments, void* buffer) {
      if constexpr (std::is_void_v<Result>) {
        target(buffer)(std::forward<Arguments>(arguments)...);
      } else {
        return target(buffer)(std::forward<Arguments>(arguments)...);
      }
    }
    static void relocate(void* from, void* to) noexcept {
      ::new (to) Target(std::move(target(from)));
      target(from).~Target();
    }
    static void destroy(void* buffer) noexcept {
      if constexpr (fits_inline<Target>) {
        target(buffer).~Target();
      } else {
        delete &target(buffer);
      }
    }
    static constexpr bool moves_as_bytes =
        !fits_inline<Target> || std::is_trivially_copyable_v<Target>;
    static constexpr bool destroys_as_nothing =
        fits_inline<Target> && std::is_trivially_destructible_v<Target>;
    static constexpr Operations operations{&invoke, moves_as_bytes ? nullptr : &relocate,
                                           destroys_as_nothing ? nullptr : &destroy};
  };

  void take(Function& other) noexcept {
    operations_ = std::exchange(other.operations_, nullptr);
    if (operations_ == nullptr) return;
    if (operations_->relocate != nullptr) {
      operations_->relocate(other.buffer_, buffer_);
    } else {
      copy_words(other);
    }
  }

  /// Copies all of the buffer, so that it needs no call. A load that is wider than the stores
  /// before it waits until they have left the store buffer (Intel's optimization manual, "store
  /// forwarding"), and the captures have mostly just been stored, word by word: so are they copied.
  void copy_words(const Function& other) noexcept {
// g++ sees that not all of them were ever written.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC unroll 6
    for (std::size_t i = 0; i < inline_bytes; i += sizeof(std::uintptr_t)) {
      std::uintptr_t word;
      std::memcpy(&word, other.buffer_ + i, sizeof word);
      asm("" : "+r"(word));  // no instruction; keeps the compiler from joining two words
      std::memcpy(buffer_ + i, &word, sizeof word);
    }
#pragma GCC diagnostic pop
  }

  void destroy() noexcept {
    if (!dies_as_nothing()) operations_->destroy(buffer_);
  }

  const Operations* operations_ = nullptr;  // null: empty
  alignas(void*) unsigned char buffer_[inline_bytes];
};

}  // namespace pawl
