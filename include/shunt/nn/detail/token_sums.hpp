#pragma once
#include "shunt/across/agree.hpp"
#include "shunt/across/sum.hpp"
#include "shunt/moe_experts/memory.hpp"
#include "shunt/nn/detail/args.hpp"

/// Matrices of the tokens of all ranks, which sums over all tokens are made of. A sum over tokens is one chain in token
/// order. So that it stays that of one process, each rank has the tokens of all, but for some columns of the result only.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// The ranks' tokens, in blocks by rank, and the columns of a gradient that each rank has.
template <exchange X> struct token_blocks {
  among_ranks<X> const& among;
  char const* who;
  offset_t room;             // tokens of a rank, at most
  view<offset_t, 1> start;   // [R+1] first token of each rank, and of all
  view<offset_t, 1> copies;  // [R+1] as many as this rank has, to each

  [[nodiscard]] int ranks() const noexcept { return among.transport.ranks(); }
  [[nodiscard]] int rank() const noexcept { return among.transport.rank(); }
  [[nodiscard]] offset_t first() const noexcept { return start[rank()]; }
  [[nodiscard]] offset_t mine() const noexcept { return start[rank() + 1] - first(); }
  [[nodiscard]] offset_t all() const noexcept { return start[ranks()]; }
  /// Of any rank, at most.
  [[nodiscard]] offset_t longest() const noexcept {
    offset_t most = 0;
    for (int r = 0; r < ranks(); ++r) {
      if (start[r + 1] - start[r] > most) most = start[r + 1] - start[r];
    }
    return most;
  }

  /// Columns of a rank: as many on each, fewer on the last ones.
  [[nodiscard]] offset_t columns_each(offset_t columns) const noexcept {
    return (columns + ranks() - 1) / ranks();
  }
  [[nodiscard]] offset_t first_column(offset_t columns, int of_rank) const noexcept {
    offset_t const at = of_rank * columns_each(columns);
    return at < columns ? at : columns;
  }
  [[nodiscard]] offset_t column_count(offset_t columns, int of_rank) const noexcept {
    return first_column(columns, of_rank + 1) - first_column(columns, of_rank);
  }
  /// This rank's columns of a matrix.
  template <class T> [[nodiscard]] view<T, 2> own_columns(view<T, 2> m) const noexcept {
    offset_t const columns = m.extent(1);
    return {m.data() + first_column(columns, rank()),
            {{m.extent(0), column_count(columns, rank())}},
            {{m.stride(0), 1}}};
  }
  /// As many rows as this rank has tokens, to each rank, and those of each of them.
  [[nodiscard]] status begin(void const* send, void* recv, std::size_t row_bytes) const noexcept {
    status const done = among.transport.begin({send, recv, row_bytes, copies, start});
    return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
  }
  [[nodiscard]] status finish() const noexcept { return named(among.transport.finish()); }
  [[nodiscard]] status named(status const& done) const noexcept {
    return shunt::detail::met(who, among, done);
  }
};

/// Whole rows of all tokens, on every rank: complete after the exchange that begin() begins.
template <class T> struct rows_of_all {
  T *send, *recv;
  offset_t width;

  template <class X>
  [[nodiscard]] static rows_of_all carve(arena<>& from, token_blocks<X> const& blocks,
                                         offset_t width) noexcept {
    offset_t const count = blocks.room * blocks.ranks() * width;
    return {from.take<T>(count), from.take<T>(count), width};
  }
  /// Where this rank's rows may be put before.
  template <class X> [[nodiscard]] view<T, 2> mine(token_blocks<X> const& blocks) const noexcept {
    return {send, {{blocks.mine(), width}}};
  }
  template <class X>
  [[nodiscard]] status begin(token_blocks<X> const& blocks, view<T const, 2> rows) const noexcept {
    offset_t const tokens = rows.extent(0);
    auto const bytes = static_cast<std::size_t>(width) * sizeof(T);
    for (offset_t t = 0; rows.data() != send && t < tokens; ++t) {
      shunt::detail::copy_bytes(send + t * width, rows.data() + t * rows.stride(0), bytes);
    }
    for (int r = 1; r < blocks.ranks(); ++r) {
      shunt::detail::copy_bytes(send + r * tokens * width, send,
                                static_cast<std::size_t>(tokens) * bytes);
    }
    return blocks.begin(send, recv, bytes);
  }
  template <class X>
  [[nodiscard]] view<T const, 2> all(token_blocks<X> const& blocks) const noexcept {
    return {recv, {{blocks.all(), width}}};
  }
};

/// Of all tokens the columns of this rank.
template <class T> struct columns_of_all {
  T *send, *recv;
  offset_t columns, each;

  template <class X>
  [[nodiscard]] static columns_of_all carve(arena<>& from, token_blocks<X> const& blocks,
                                            offset_t columns) noexcept {
    offset_t const each = blocks.columns_each(columns), count = blocks.room * blocks.ranks() * each;
    return {from.take<T>(count), from.take<T>(count), columns, each};
  }
  template <class P, class X>
  [[nodiscard]] status begin(P const& on, token_blocks<X> const& blocks,
                             view<T const, 2> rows) const noexcept {
    model_backend<P>::cut_columns(on, rows, each, blocks.ranks(), send);
    return blocks.begin(send, recv, static_cast<std::size_t>(each) * sizeof(T));
  }
  template <class X>
  [[nodiscard]] view<T const, 2> all(token_blocks<X> const& blocks) const noexcept {
    return {recv, {{blocks.all(), blocks.column_count(columns, blocks.rank())}}, {{each, 1}}};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
