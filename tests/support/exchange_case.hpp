#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "shunt/across/exchange.hpp"

namespace shunt::test {

/// What rank `from` sends to rank `to` in a round: a count of rows, and their bytes.
inline offset_t rows_between(int round, int from, int to) {
  unsigned const h = static_cast<unsigned>(round * 7919 + from * 104729 + to * 1299709 + 17);
  return h % 5 == 0 ? 0 : static_cast<offset_t>(h % 23);  // often nothing
}
inline std::uint8_t byte_of(int round, int from, int to, offset_t row, std::size_t at) {
  return static_cast<std::uint8_t>(round * 31 + from * 59 + to * 83 + row * 7 +
                                   static_cast<offset_t>(at) * 3);
}

/// All calls of an exchange, with values that tell who sent them. Empty, or what was wrong.
template <exchange X> std::string exchange_rounds(X& x, int rounds) {
  int const me = x.rank(), ranks = x.ranks();
  auto const fail = [&](int round, char const* what, status const& s = {}) {
    return "rank " + std::to_string(me) + ", round " + std::to_string(round) + ": " + what + " " +
           s.message();
  };
  for (int round = 0; round < rounds; ++round) {
    std::size_t const bytes = static_cast<std::size_t>(round * 37 % 301);
    std::vector<std::uint8_t> in(bytes), out(bytes * static_cast<std::size_t>(ranks) + 1, 0xee);
    for (std::size_t i = 0; i < bytes; ++i) in[i] = byte_of(round, me, 99, 0, i);
    if (status s = x.all_gather(in.data(), out.data(), bytes); !s.ok())
      return fail(round, "gather", s);
    for (int r = 0; r < ranks; ++r) {
      for (std::size_t i = 0; i < bytes; ++i) {
        if (out[static_cast<std::size_t>(r) * bytes + i] != byte_of(round, r, 99, 0, i)) {
          return fail(round, "gathered bytes differ");
        }
      }
    }
    if (status s = x.all_gather(in.data(), nullptr, bytes); !s.ok())
      return fail(round, "gather", s);
    if (out.back() != 0xee) return fail(round, "gathered too much");

    // Two exchanges of rows at once.
    constexpr int lists = 2;
    std::vector<std::uint8_t> send[lists], recv[lists];
    std::vector<offset_t> sent[lists], received[lists];
    for (int i = 0; i < lists; ++i) {
      std::size_t const width = i == 0 ? 3 : 1 + static_cast<std::size_t>(round % 70);
      int const tag = round * lists + i;
      sent[i] = received[i] = {0};
      for (int r = 0; r < ranks; ++r) {
        sent[i].push_back(sent[i].back() + rows_between(tag, me, r));
        received[i].push_back(received[i].back() + rows_between(tag, r, me));
        for (offset_t row = 0; row < rows_between(tag, me, r); ++row) {
          for (std::size_t b = 0; b < width; ++b) send[i].push_back(byte_of(tag, me, r, row, b));
        }
      }
      recv[i].assign(static_cast<std::size_t>(received[i].back()) * width, 0xee);
      status const s = x.begin({send[i].data(), recv[i].data(), width,
                                view<offset_t const, 1>(sent[i].data(), ranks + 1),
                                view<offset_t const, 1>(received[i].data(), ranks + 1)});
      if (!s.ok()) return fail(round, "begin", s);
    }
    if (status s = x.finish(); !s.ok()) return fail(round, "finish", s);
    for (int i = 0; i < lists; ++i) {
      std::size_t const width = i == 0 ? 3 : 1 + static_cast<std::size_t>(round % 70);
      std::size_t at = 0;
      for (int r = 0; r < ranks; ++r) {
        for (offset_t row = 0; row < rows_between(round * lists + i, r, me); ++row) {
          for (std::size_t b = 0; b < width; ++b, ++at) {
            if (recv[i][at] != byte_of(round * lists + i, r, me, row, b)) {
              return fail(round, "received bytes differ");
            }
          }
        }
      }
    }

    // A chain: each rank adds to what the one before has passed on.
    std::vector<std::int64_t> sum(1 + bytes, 0);
    auto const size = sum.size() * sizeof sum[0];
    if (status s = x.carry(sum.data(), size); !s.ok()) return fail(round, "carry", s);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      if (sum[i] != std::int64_t{me} * (me - 1) / 2 + me * static_cast<std::int64_t>(i)) {
        return fail(round, "carried numbers differ");
      }
      sum[i] += me + static_cast<std::int64_t>(i);
    }
    if (status s = x.pass_on(sum.data(), size); !s.ok()) return fail(round, "pass_on", s);
  }
  return "";
}

}  // namespace shunt::test
