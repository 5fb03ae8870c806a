// SPDX-License-Identifier: MIT
#include "pawl/core/function.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "support/allocation_counter.hpp"

using pawl::Function;

namespace {

/// Counts its living instances in a number outside, so that a second destruction shows too.
struct Witness {
  explicit Witness(int& alive) : alive_(&alive) { ++*alive_; }
  Witness(const Witness& other) : alive_(other.alive_) { ++*alive_; }
  Witness(Witness&& other) noexcept : alive_(other.alive_) { ++*alive_; }
  Witness& operator=(const Witness&) = delete;
  Witness& operator=(Witness&&) = delete;
  ~Witness() { --*alive_; }
  int* alive_;
};

struct ThrowingMove {
  explicit ThrowingMove(int& moves) : moves_(&moves) {}
  ThrowingMove(const ThrowingMove&) = default;
  ThrowingMove(ThrowingMove&& other) noexcept(false) : moves_(other.moves_) { ++*moves_; }
  int operator()() const { return *moves_; }
  int* moves_;
};

struct alignas(32) OverAligned {
  std::uintptr_t operator()() const { return reinterpret_cast<std::uintptr_t>(this); }
  char padding[8] = {};
};

int twice(int value) { return 2 * value; }

static_assert(sizeof(OverAligned) <= Function<void()>::inline_bytes, "else it proves nothing");

}  // namespace

static_assert(!std::is_copy_constructible_v<Function<void()>>);
static_assert(!std::is_copy_assignable_v<Function<void()>>);
static_assert(std::is_nothrow_move_constructible_v<Function<void()>>);
static_assert(std::is_nothrow_move_assignable_v<Function<void()>>);
static_assert(std::is_constructible_v<Function<int(int)>, int (*)(int)>);
static_assert(!std::is_constructible_v<Function<int(int)>, int (*)(std::string)>);
static_assert(!std::is_constructible_v<Function<int()>, void (*)()>);
static_assert(sizeof(Function<void()>) == Function<void()>::inline_bytes + sizeof(void*));

TEST_CASE("A Function that captures this and a shared_ptr doesn't allocate") {
  const auto shared = std::make_shared<int>(5);
  const int* self = shared.get();
  const AllocationCounter allocations;
  Function<int()> function = [self, shared] { return *self + *shared; };
  Function<int()> moved = std::move(function);
  CHECK(allocations.count() == 0);
  CHECK(moved() == 10);
}

TEST_CASE("A Function of 48 bytes doesn't allocate, one of 49 does") {
  std::array<char, 48> fits{};
  std::array<char, 49> too_big{};
  fits[47] = 'a';
  too_big[48] = 'b';
  const AllocationCounter allocations;
  Function<char()> small = [fits] { return fits[47]; };
  const long after_small = allocations.count();
  Function<char()> big = [too_big] { return too_big[48]; };
  const long after_big = allocations.count();
  Function<char()> moved = std::move(big);
  CHECK(after_small == 0);
  CHECK(after_big == 1);
  CHECK(allocations.count() == 1);
  CHECK(small() == 'a');
  CHECK(moved() == 'b');
}

TEST_CASE("A callable whose move may throw lies on the heap and is never moved again") {
  int moves = 0;
  const AllocationCounter allocations;
  Function<int()> function{ThrowingMove(moves)};
  const long on_heap = allocations.count();
  Function<int()> moved = std::move(function);
  CHECK(on_heap == 1);
  CHECK(moved() == 1);
}

TEST_CASE("An over-aligned callable lies on the heap at an aligned address") {
  const AllocationCounter allocations;
  Function<std::uintptr_t()> function{OverAligned{}};
  const long on_heap = allocations.count();
  Function<std::uintptr_t()> moved = std::move(function);
  CHECK(on_heap == 1);
  CHECK(moved() % alignof(OverAligned) == 0);
}

TEST_CASE("Calling an empty Function throws a logic_error that says so") {
  const std::string text = "pawl::Function: called while empty (moved from, or never set)";
  Function<void()> never_set;
  CHECK_THROWS_AS(never_set(), std::logic_error);
  CHECK_THROWS_WITH(never_set(), text);

  Function<int&(int)> from_null = nullptr;
  CHECK_THROWS_WITH(from_null(1), text);

  Function<int(int)> from_null_pointer = static_cast<int (*)(int)>(nullptr);
  CHECK_FALSE(from_null_pointer);
  CHECK_THROWS_WITH(from_null_pointer(1), text);

  Function<int(int)> moved_from = &twice;
  const Function<int(int)> target = std::move(moved_from);
  CHECK_THROWS_WITH(moved_from(1), text);

  Function<int(int)> was_reset = &twice;
  was_reset.reset();
  CHECK_THROWS_WITH(was_reset(1), text);
}

TEST_CASE("A Function is true exactly when there is something to call") {
  Function<void()> function;
  CHECK_FALSE(function);
  function = [] {};
  CHECK(function);
  Function<void()> other = std::move(function);
  CHECK(other);
  CHECK_FALSE(function);
  other = nullptr;
  CHECK_FALSE(other);
}

TEST_CASE("A Function knows whether destroying it does nothing") {
  struct Plain {
    std::uint64_t words[6];
    void operator()() {}
  };
  struct Big {
    std::uint64_t words[7];
    void operator()() {}
  };
  CHECK(Function<void()>().dies_as_nothing());
  CHECK(Function<void()>([] {}).dies_as_nothing());
  CHECK(Function<void()>(Plain{}).dies_as_nothing());
  CHECK_FALSE(Function<void()>(Big{}).dies_as_nothing());  // it lies on the heap
  Function<void()> owner([shared = std::make_shared<int>(1)] {});
  CHECK_FALSE(owner.dies_as_nothing());
  owner.reset();
  CHECK(owner.dies_as_nothing());
}

TEST_CASE("What a Function holds is destroyed exactly once") {
  int alive = 0;
  std::array<char, 64> ballast{};
  const bool on_heap = GENERATE(false, true);
  CAPTURE(on_heap);
  const auto make = [&]() -> Function<int()> {
    if (on_heap) return [w = Witness(alive), ballast] { return *w.alive_ + ballast[0]; };
    return [w = Witness(alive)] { return *w.alive_; };
  };

  SECTION("at the end of its scope") {
    { Function<int()> function = make(); }
    CHECK(alive == 0);
  }
  SECTION("by reset, at once and only then") {
    Function<int()> function = make();
    CHECK(alive == 1);
    function.reset();
    CHECK(alive == 0);
    function.reset();
    CHECK(alive == 0);
  }
  SECTION("when another is assigned") {
    Function<int()> function = make();
    function = make();
    CHECK(alive == 1);
    function = nullptr;
    CHECK(alive == 0);
  }
  SECTION("after any number of moves") {
    {
      Function<int()> first = make();
      Function<int()> second = std::move(first);
      first = std::move(second);
      second = std::move(first);
      CHECK(alive == 1);
      CHECK(second() == 1);
    }
    CHECK(alive == 0);
  }
  SECTION("after a move to itself, which changes nothing") {
    {
      Function<int()> function = make();
      Function<int()>& same = function;
      function = std::move(same);
      REQUIRE(function);
      CHECK(function() == 1);
    }
    CHECK(alive == 0);
  }
}

TEST_CASE("A Function can be replaced by one that its own captures own") {
  struct Node {
    Function<int()> next;
  };
  auto node = std::make_unique<Node>();
  Node* inner = node.get();
  inner->next = [] { return 2; };
  Function<int()> function = [node = std::move(node)] { return 1; };
  function = std::move(inner->next);
  CHECK(function() == 2);
}

TEST_CASE("What a Function holds may reset it or assign to it while it dies") {
  struct Successor {
    Successor(Function<int()>& target, bool assigns) : target_(&target), assigns_(assigns) {}
    Successor(Successor&& other) noexcept
        : target_(std::exchange(other.target_, nullptr)), assigns_(other.assigns_) {}
    Successor(const Successor&) = delete;
    Successor& operator=(const Successor&) = delete;
    Successor& operator=(Successor&&) = delete;
    ~Successor() {
      if (target_ == nullptr) return;
      target_->reset();
      if (assigns_) *target_ = [] { return 2; };
    }
    int operator()() const { return 1; }
    Function<int()>* target_;
    bool assigns_;
  };
  Function<int()> function;
  SECTION("a reset") {
    function = Successor(function, false);
    function.reset();
    CHECK_FALSE(function);
  }
  SECTION("an assignment") {
    function = Successor(function, true);
    CHECK(function() == 1);
    function.reset();
    REQUIRE(function);
    CHECK(function() == 2);
  }
}

TEST_CASE("A mutable lambda keeps its state in the Function, across moves") {
  Function<int()> count = [n = 0]() mutable { return ++n; };
  CHECK(count() == 1);
  CHECK(count() == 2);
  Function<int()> moved = std::move(count);
  CHECK(moved() == 3);
}

TEST_CASE("A Function returns values, references, move-only things and nothing") {
  int number = 1;
  Function<int&()> reference = [&number]() -> int& { return number; };
  reference() = 7;
  CHECK(number == 7);
  CHECK(&reference() == &number);

  Function<std::unique_ptr<int>(int)> maker = [](int n) { return std::make_unique<int>(n); };
  CHECK(*maker(3) == 3);

  Function<void(int)> ignores_result = &twice;
  ignores_result(4);

  Function<std::string()> converts = [] { return "text"; };
  CHECK(converts() == "text");
}

TEST_CASE("Arguments reach the callable without a copy") {
  Function<int(std::unique_ptr<int>)> by_value = [](std::unique_ptr<int> p) { return *p; };
  CHECK(by_value(std::make_unique<int>(9)) == 9);

  int alive = 0;
  Function<int(const Witness&)> by_reference = [](const Witness& w) { return *w.alive_; };
  CHECK(by_reference(Witness(alive)) == 1);

  std::string text = "a";
  Function<void(std::string&)> changes = [](std::string& s) { s += "b"; };
  changes(text);
  CHECK(text == "ab");
}

TEST_CASE("An exception leaves a Function, which can be called again") {
  Function<int(bool)> function = [](bool fails) {
    if (fails) throw std::runtime_error("from inside");
    return 1;
  };
  CHECK_THROWS_WITH(function(true), "from inside");
  CHECK(function(false) == 1);
}

TEST_CASE("A Function can hold a Function of another signature") {
  Function<int(int)> inner = &twice;
  Function<long(short)> outer = std::move(inner);
  CHECK(outer(21) == 42);
}
