#pragma once
#include <concepts>

#include "shunt/across/rows.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/route/routing.hpp"

namespace shunt::detail {

template <> struct across_backend<on_host> {
  /// What kind of products this rank runs: only those of bf16 have several (contract 2).
  template <class T> [[nodiscard]] static int arithmetic(on_host const& on) noexcept {
    isa const which = instructions_of(on);
    return !std::same_as<T, bf16> ? 0 : which == isa::amx ? 2 : which == isa::avx512_bf16 ? 1 : 0;
  }
  template <exchange X, class Sizes>
  [[nodiscard]] static status check(char const*, on_host const&, among_ranks<X> const&,
                                    Sizes const&) noexcept {
    return {};
  }
  /// The one gather, with the counts of this rank's slots, and what all conclude from it.
  template <exchange X, int N>
  [[nodiscard]] static status announce(char const* who, on_host const&, among_ranks<X> const& among,
                                       across_sizes const& n, view<index_t const, 2> expert,
                                       view<std::uint8_t const, 1> valid,
                                       across_plan_scratch<on_host> const& s, status const& own,
                                       rank_header header,
                                       agreed_number const (&list)[N]) noexcept {
    if (own.ok()) header.tokens = count_slots(n, expert, valid, s.messages.mine);
    return detail::agree(who, among, s.messages, own, header, list);
  }
  template <exchange X, int N>
  [[nodiscard]] static status announce(char const* who, on_host const&, among_ranks<X> const& among,
                                       rank_messages const& m, status const& own,
                                       agreed_number const (&list)[N]) noexcept {
    return detail::agree(who, among, m, own, rank_header{}, list);
  }
  /// What a device does once its messages have come.
  template <exchange X, class M, int N>
  [[nodiscard]] static status conclude(char const*, on_host const&, among_ranks<X> const&, M const&,
                                       status const&, agreed_number const (&)[N]) noexcept {
    return {};
  }
  template <exchange X>
  [[nodiscard]] static status plan(char const* who, on_host const& on, among_ranks<X> const& among,
                                   across_sizes const& n, view<index_t const, 2> expert,
                                   view<std::uint8_t const, 1> valid,
                                   across_plan_scratch<on_host> const& s,
                                   across_plan const& to) noexcept {
    return plan_agreed(who, on, among, n, expert, valid, s, to);
  }
  /// Slots of all ranks by expert, and their tokens, added to those of `before`.
  [[nodiscard]] static status load(on_host const&, across_sizes const& n,
                                   across_plan_scratch<on_host> const& s, routing<> const& before,
                                   view<index_t, 1> counts, view<index_t, 1> tokens) noexcept {
    rank_messages const& m = s.messages;
    for (offset_t e = 0; e < counts.extent(0); ++e) {
      counts[e] =
          static_cast<index_t>(wanted_by_all(n, m, e)) + (before.counts ? before.counts[e] : 0);
    }
    tokens[0] = before.tokens ? before.tokens[0] : 0;
    for (int r = 0; r < m.ranks; ++r) tokens[0] += static_cast<index_t>(m.header(r).tokens);
    return {};
  }
  template <exchange X>
  [[nodiscard]] static status report(on_host const&, among_ranks<X> const& among,
                                     across_sizes const& n, across_plan_scratch<on_host> const& s,
                                     across_plan const& plan, plan_report<> const& to) noexcept {
    report_plan(among, n, s, plan, to);
    return {};
  }

  /// to[i] = from[row[i]].
  template <class T>
  [[nodiscard]] static status gather_rows(on_host const& on, view<T const, 2> from,
                                          view<index_t const, 1> row, view<T, 2> to) noexcept {
    auto const bytes = static_cast<std::size_t>(to.extent(1)) * sizeof(T);
    offset_t const each = 1 + 65536 / (static_cast<offset_t>(bytes) + 1);
    host::parallel_ranges(on, to.extent(0), each, [&](offset_t first, offset_t last, int) {
      for (offset_t i = first; i < last; ++i) {
        copy_bytes(to.data() + i * to.stride(0), from.data() + row[i] * from.stride(0), bytes);
      }
    });
    return {};
  }
  template <class T>
  [[nodiscard]] static status in_order_of_arrival(on_host const& on, view<T const, 2> rows,
                                                  dispatch_plan<> const& received,
                                                  view<T, 2> arrived) noexcept {
    return detail::in_order_of_arrival(on, rows, received, arrived);
  }
  template <class T>
  [[nodiscard]] static status copy(on_host const&, view<T, 1> from, view<T, 1> to) noexcept {
    for (offset_t i = 0; i < to.extent(0); ++i) to[i] = from[i];
    return {};
  }
  template <class T> [[nodiscard]] static status clear(on_host const&, view<T, 1> to) noexcept {
    for (offset_t i = 0; i < to.extent(0); ++i) to[i] = T{};
    return {};
  }
  /// sum[0] = the parts, one after the other.
  [[nodiscard]] static status add_up(on_host const&, view<float, 1> parts,
                                     view<float, 1> sum) noexcept {
    float all = 0.0f;
    for (offset_t i = 0; i < parts.extent(0); ++i) all += parts[i];
    sum[0] = all;
    return {};
  }
};

}  // namespace shunt::detail
