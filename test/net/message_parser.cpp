// SPDX-License-Identifier: MIT
// Framing: what a stream means doesn't depend on how it was cut.
#include "pawl/net/message_parser.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/framing.hpp"
#include "support/allocation_counter.hpp"

using pawl::ByteOrder;
using pawl::Errc;
using pawl::Framing;
using pawl::LengthPrefix;
using pawl::MessageParser;

namespace {

using Status = MessageParser::Status;
using Events = std::vector<std::string>;

/// A framing for the beginning, and what a message changes about it.
struct Protocol {
  Framing first;
  std::function<void(MessageParser&, std::string_view)> after = [](auto&, auto) {};
};

/// What a parser makes of a stream in pieces: each message in <>, then how it ended.
Events events_of(const Protocol& protocol, const std::vector<std::string_view>& pieces) {
  MessageParser parser(protocol.first);
  Events events;
  const auto take_message = [&] {
    const std::string message(parser.message());
    events.push_back("<" + message + ">");
    protocol.after(parser, message);
  };
  for (std::string_view input : pieces) {
    while (!input.empty() || parser.is_due()) {
      const Status status = parser.next(input);
      if (status == Status::failed) {
        events.push_back(parser.error().message());
        return events;
      }
      if (status == Status::more) CHECK(input.empty());
      if (status == Status::message) take_message();
    }
  }
  Status end = parser.finish();
  if (end == Status::message) {
    take_message();
    end = parser.finish();
  }
  events.push_back(end == Status::ended ? "end" : parser.error().message());
  return events;
}

std::vector<std::string_view> cut_at(std::string_view stream, std::vector<std::size_t> places) {
  std::vector<std::string_view> pieces;
  std::size_t from = 0;
  places.push_back(stream.size());
  for (const std::size_t to : places) {
    pieces.push_back(stream.substr(from, to - from));
    from = to;
  }
  return pieces;
}

/// The stream whole, cut in two at every place, byte by byte, and cut at random.
void check(const Protocol& protocol, std::string_view stream, const Events& expected) {
  CAPTURE(stream.substr(0, 100));
  CHECK(events_of(protocol, {stream}) == expected);
  for (std::size_t place = 0; place <= stream.size(); ++place) {
    CAPTURE(place);
    REQUIRE(events_of(protocol, cut_at(stream, {place})) == expected);
  }
  std::vector<std::size_t> everywhere;
  for (std::size_t place = 1; place < stream.size(); ++place) everywhere.push_back(place);
  CHECK(events_of(protocol, cut_at(stream, everywhere)) == expected);
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::size_t> places;
    const unsigned one_in = 1 + random() % 8;
    for (const std::size_t place : everywhere) {
      if (random() % one_in == 0) places.push_back(place);
    }
    CAPTURE(round);
    REQUIRE(events_of(protocol, cut_at(stream, places)) == expected);
  }
}

const std::string too_long = "message is longer than the limit";
const std::string unexpected = "peer ended in the middle of a message";

}  // namespace

TEST_CASE("Lines end with LF or CRLF, which aren't part of them, however the stream is cut") {
  const Protocol lines{Framing::lines()};
  check(lines, "one\ntwo\r\n\n\r\nfour\r\r\nfi\rve\n",
        {"<one>", "<two>", "<>", "<>", "<four\r>", "<fi\rve>", "end"});
  check(lines, "", {"end"});
  check(lines, "one\ntwo", {"<one>", unexpected});
  check(lines, "one\n\r", {"<one>", unexpected});
}

TEST_CASE("A line may be as long as the limit says and no longer, however the stream is cut") {
  const Protocol lines{Framing::lines(3)};
  check(lines, "123\n123\r\n12\n", {"<123>", "<123>", "<12>", "end"});
  check(lines, "12\n1234\n12\n", {"<12>", too_long});
  check(lines, "12\n1234\r\n", {"<12>", too_long});
  check(lines, "123456789", {too_long});
  check(lines, "123\r", {unexpected});
  check(lines, "123\r\r\n", {too_long});
  check(Protocol{Framing::lines(0)}, "\n\r\n\n", {"<>", "<>", "<>", "end"});
  check(Protocol{Framing::lines(0)}, "x\n", {too_long});
}

TEST_CASE("A message ends at its delimiter, however that is cut and whatever looks like it") {
  check(Protocol{Framing::until("\r\n\r\n")}, "GET /\r\nHost: x\r\n\r\n\r\r\n\n\r\n\r\n\r\n\r\n",
        {"<GET /\r\nHost: x>", "<\r\r\n\n>", "<>", "end"});
  check(Protocol{Framing::until("aab")}, "aaabaabaaaab", {"<a>", "<>", "<aa>", "end"});
  check(Protocol{Framing::until("aaa")}, "aaaaaaabaaaa", {"<>", "<>", "<ab>", unexpected});
  check(Protocol{Framing::until("abab")}, "aababababab", {"<a>", "<>", unexpected});
  check(Protocol{Framing::until(std::string_view("\0\xff", 2))},
        std::string_view("x\0y\0\0\xff", 6), {std::string("<x\0y\0>", 6), "end"});
}

TEST_CASE("Delimited messages have a limit too, however the stream is cut") {
  const Protocol protocol{Framing::until("--", 4)};
  check(protocol, "1234--123---1--", {"<1234>", "<123>", "<-1>", "end"});
  check(protocol, "12345--", {too_long});
  check(protocol, "1234-5--", {too_long});
  check(protocol, "1234-", {unexpected});
  check(protocol, "12345", {unexpected});  // the last byte might begin a delimiter
  check(protocol, "123456", {too_long});
}

TEST_CASE("Messages of a known length are told by it, however the stream is cut") {
  check(Protocol{Framing::exactly(3)}, "abcdefghi", {"<abc>", "<def>", "<ghi>", "end"});
  check(Protocol{Framing::exactly(3)}, "abcde", {"<abc>", unexpected});
  check(Protocol{Framing::exactly(3, 2)}, "abc", {too_long});
}

TEST_CASE("A length in front of a message may have 1, 2, 4 or 8 bytes of either order") {
  const unsigned bytes = GENERATE(1U, 2U, 4U, 8U);
  const ByteOrder order = GENERATE(ByteOrder::big, ByteOrder::little);
  const LengthPrefix prefix{bytes, order};
  const std::string longest = noise(bytes == 1 ? 255 : 300);
  const std::string stream =
      prefix.of(5) + "hello" + prefix.of(0) + prefix.of(longest.size()) + longest;
  check(Protocol{Framing::prefixed(prefix)}, stream, {"<hello>", "<>", "<" + longest + ">", "end"});
  check(Protocol{Framing::prefixed(prefix)}, prefix.of(5) + "hell", {unexpected});
  check(Protocol{Framing::prefixed(prefix, 4)}, prefix.of(4) + "1234" + prefix.of(5) + "12345",
        {"<1234>", too_long});
  if (bytes > 1) check(Protocol{Framing::prefixed(prefix)}, std::string("\0", 1), {unexpected});
}

TEST_CASE("A length prefix is the number in its order, and refuses what doesn't fit") {
  CHECK(LengthPrefix{1}.of(255) == "\xff");
  CHECK(LengthPrefix{2}.of(0x1234) == "\x12\x34");
  CHECK(LengthPrefix{2, ByteOrder::little}.of(0x1234) == "\x34\x12");
  CHECK(LengthPrefix{}.of(0x12345678) == "\x12\x34\x56\x78");
  CHECK(LengthPrefix{8}.of(0x1234) == std::string("\0\0\0\0\0\0\x12\x34", 8));
  CHECK_THROWS_AS(LengthPrefix{1}.of(256), std::length_error);
  CHECK_THROWS_AS((LengthPrefix{2, ByteOrder::little}.of(65'536)), std::length_error);
  CHECK_THROWS_AS(LengthPrefix{3}.of(1), std::invalid_argument);
  CHECK_THROWS_AS(Framing::prefixed(LengthPrefix{0}), std::invalid_argument);
  CHECK_THROWS_AS(Framing::prefixed(LengthPrefix{16}), std::invalid_argument);
  CHECK_THROWS_AS(Framing::until(""), std::invalid_argument);
}

TEST_CASE("A length that no memory could hold is too long, and takes none") {
  constexpr unsigned width = sizeof(std::size_t);
  MessageParser parser(Framing::prefixed(LengthPrefix{width}));
  const std::string all(width, '\xff');
  std::string_view input = all;
  CHECK(parser.next(input) == Status::failed);
  CHECK(parser.error() == Errc::message_too_long);
  CHECK(parser.next(input) == Status::failed);
  CHECK(parser.finish() == Status::failed);

  MessageParser patient(
      Framing::prefixed(LengthPrefix{width}, std::numeric_limits<std::size_t>::max()));
  const HeldBytes held;
  input = all;
  CHECK(patient.next(input) == Status::more);
  input = "x";
  CHECK(patient.next(input) == Status::more);
  CHECK(held.count() < 100);
}

TEST_CASE("All until the end is one message, which may be empty, however the stream is cut") {
  check(Protocol{Framing::until_end()}, "all\nof it", {"<all\nof it>", "end"});
  check(Protocol{Framing::until_end()}, "", {"<>", "end"});
  check(Protocol{Framing::until_end(3)}, "123", {"<123>", "end"});
  check(Protocol{Framing::until_end(3)}, "1234", {too_long});
}

TEST_CASE("All until the end is too long as soon as more than the limit is there") {
  MessageParser parser(Framing::until_end(10));
  std::string_view input = "12345678";
  CHECK(parser.next(input) == Status::more);
  input = "90";
  CHECK(parser.next(input) == Status::more);
  SECTION("just so long") {
    CHECK(parser.finish() == Status::message);
    CHECK(parser.message() == "1234567890");
  }
  SECTION("longer") {
    input = "1";
    CHECK(parser.next(input) == Status::failed);
    CHECK(parser.error() == Errc::message_too_long);
  }
}

TEST_CASE("A parser that has failed stays so") {
  MessageParser parser(Framing::lines(3));
  std::string_view input = "12345\n123\n";
  CHECK(parser.next(input) == Status::failed);
  input = "123\n";
  CHECK(parser.next(input) == Status::failed);
  CHECK(parser.finish() == Status::failed);
  CHECK(parser.error() == Errc::message_too_long);
}

TEST_CASE("The framing may change after each message, however the stream is cut") {
  // A line says how the next message is framed.
  const Protocol protocol{
      Framing::lines(), [](MessageParser& parser, std::string_view message) {
        const bool is_header = message.substr(0, 1) == "#";
        if (!is_header) return parser.set_framing(Framing::lines());
        if (message == "#prefixed") return parser.set_framing(Framing::prefixed(LengthPrefix{1}));
        if (message == "#rest") return parser.set_framing(Framing::until_end());
        parser.set_framing(Framing::exactly(std::stoul(std::string(message.substr(1)))));
      }};
  check(protocol, "#3\nabcline\n#0\n#2\n\r\n#prefixed\n\4wordend\n#rest\nall\n#3\n",
        {"<#3>", "<abc>", "<line>", "<#0>", "<>", "<#2>", "<\r\n>", "<#prefixed>", "<word>",
         "<end>", "<#rest>", "<all\n#3\n>", "end"});
  check(protocol, "#0\n", {"<#0>", "<>", "end"});
  check(protocol, "#5\nabc", {"<#5>", unexpected});
}

TEST_CASE("A framing can't change in the middle of a message, but its bytes can be taken back") {
  MessageParser parser(Framing::prefixed(LengthPrefix{2}));
  std::string_view input("\0\5hel", 5);
  CHECK(parser.next(input) == Status::more);
  CHECK_FALSE(parser.is_between());
  CHECK(parser.partial() == "hel");
  CHECK_THROWS_AS(parser.set_framing(Framing::lines()), std::logic_error);
  CHECK(parser.take_back() == std::string("\0\5hel", 5));
  CHECK(parser.is_between());
  CHECK(parser.partial().empty());
  parser.set_framing(Framing::exactly(2));
  input = "ab";
  CHECK(parser.next(input) == Status::message);
  CHECK(parser.take_back().empty());
  CHECK(parser.message() == "ab");
}

TEST_CASE("Messages of no bytes without end are a logic error instead of an endless loop") {
  MessageParser parser(Framing::exactly(0));
  std::string_view input = "x";
  CHECK(parser.is_due());
  CHECK(parser.next(input) == Status::message);
  CHECK(parser.message().empty());
  CHECK_FALSE(parser.is_due());
  CHECK_THROWS_AS(parser.next(input), std::logic_error);
  parser.set_framing(Framing::exactly(1));
  CHECK(parser.next(input) == Status::message);
}

TEST_CASE("A message that lies whole in the input isn't copied") {
  const std::string text = noise(10'000);
  const LengthPrefix prefix{4};
  const std::string stream = prefix.of(text.size()) + text + prefix.of(text.size()) + text;
  MessageParser parser(Framing::prefixed(prefix));
  std::string_view input = stream;
  const AllocationCounter counter;
  for (const std::size_t place : {4U, 10'008U}) {
    REQUIRE(parser.next(input) == Status::message);
    CHECK(parser.message().data() == stream.data() + place);
  }
  parser.set_framing(Framing::lines());
  const std::string_view lines = "one\ntwo\n";
  input = lines;
  REQUIRE(parser.next(input) == Status::message);
  REQUIRE(parser.next(input) == Status::message);
  CHECK(parser.message().data() == lines.data() + 4);
  CHECK(counter.count() == 0);
}

TEST_CASE("A big message that came in pieces leaves no big buffer behind") {
  MessageParser parser(Framing::lines());
  const std::string half(500'000, 'x');
  const HeldBytes held;
  std::string_view input = half;
  CHECK(parser.next(input) == Status::more);
  input = "\nn";
  CHECK(parser.next(input) == Status::message);
  CHECK(parser.message().size() == 500'000);
  CHECK(parser.next(input) == Status::more);
  CHECK(held.count() < 10'000);
}
