#pragma once
#include <cstdint>
#include <cstdio>

#include "shunt/across/plan.hpp"

/// One all-gather by which every rank learns what every other wants, or what is wrong with it.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// A number that must be the same on all ranks.
struct agreed_number {
  char const* name = "";
  std::int64_t value = 0;
};

/// What a rank says of itself; the counts of its slots follow it.
struct rank_header {
  static constexpr int most_numbers = 24;
  std::int64_t number[most_numbers] = {};
  std::int64_t numbers = 0;
  std::int64_t most_rows = 0;  // that it can receive
  std::int64_t tokens = 0;     // valid ones: what losses are means over
  error code = error::none;
  char sentence[224] = {};

  template <int N> void set(agreed_number const (&list)[N]) noexcept {
    static_assert(N <= most_numbers);
    numbers = N;
    for (int i = 0; i < N; ++i) number[i] = list[i].value;
  }
  void set(status const& outcome) noexcept {
    code = outcome.code();
    std::snprintf(sentence, sizeof sentence, "%s", outcome.message());
  }
  /// The sentence, also where it came without an end.
  [[nodiscard]] status told_by(int rank) const noexcept {
    return status::fail(code, "rank %d: %.*s", rank, static_cast<int>(sizeof sentence) - 1,
                        sentence);
  }
};

/// The messages of all ranks. The first has one size for all callers, so that ranks that disagree on
/// everything can still say so: a header, then counts; counts beyond it go in a second one, once the ranks agree.
struct rank_messages {
  static constexpr offset_t bytes = 2048,
                            first = (bytes - static_cast<offset_t>(sizeof(rank_header))) /
                                    static_cast<offset_t>(sizeof(index_t));
  std::byte* head = nullptr;  // [R] of `bytes`; null where there was no memory for them
  index_t* tail = nullptr;    // [R] of counts - first
  index_t* mine = nullptr;    // [counts] of this rank
  offset_t counts = 0;
  int ranks = 0;

  static rank_messages carve(arena<>& from, int ranks, offset_t counts) noexcept {
    rank_messages m;
    m.ranks = ranks;
    m.counts = counts;
    m.head = from.take<std::byte>(bytes * ranks);
    m.mine = from.take<index_t>(counts);
    m.tail = from.take<index_t>((counts - first) * ranks);
    return m;
  }
  [[nodiscard]] offset_t in_head() const noexcept { return counts < first ? counts : first; }
  [[nodiscard]] offset_t in_tail() const noexcept { return counts - in_head(); }
  [[nodiscard]] rank_header const& header(int rank) const noexcept {
    return *reinterpret_cast<rank_header const*>(head + bytes * rank);
  }
  /// Count i of a rank.
  [[nodiscard]] index_t count(int rank, offset_t i) const noexcept {
    if (i >= first) return tail[in_tail() * rank + i - first];
    return reinterpret_cast<index_t const*>(&header(rank) + 1)[i];
  }
};

/// What all ranks conclude from the same headers: ok, or the same sentence. `list`: the names of the numbers.
template <int N>
[[nodiscard]] status conclude(char const* who, rank_messages const& m,
                              agreed_number const (&list)[N]) noexcept {
  for (int r = 0; r < m.ranks; ++r) {
    rank_header const& h = m.header(r);
    if (h.code != error::none) return h.told_by(r);
  }
  for (int r = 0; r < m.ranks; ++r) {
    if (m.header(r).numbers == N) continue;
    return status::fail(error::bad_argument,
                        "%s: rank %d makes another call; all must make the same", who, r);
  }
  for (int i = 0; i < N; ++i) {
    for (int r = 1; r < m.ranks; ++r) {
      std::int64_t const is = m.header(r).number[i], must = m.header(0).number[i];
      if (is == must) continue;
      return status::fail(error::bad_argument,
                          "%s.%s: rank %d has %lld and rank 0 %lld; all ranks must have the same",
                          who, list[i].name, r, static_cast<long long>(is),
                          static_cast<long long>(must));
    }
  }
  return {};
}

template <exchange X>
[[nodiscard]] status gather(char const* who, among_ranks<X> const& among, void const* in, void* out,
                            offset_t bytes) noexcept {
  if (among.report != nullptr) ++among.report->rounds;
  status const done = among.transport.all_gather(in, out, static_cast<std::size_t>(bytes));
  return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
}

/// Sends this rank's header and counts, and concludes from those of all. `own`: what this rank found wrong
/// before. A rank without memory for the messages takes part, and knows its own error only.
template <exchange X, int N>
[[nodiscard]] status agree(char const* who, among_ranks<X> const& among, rank_messages const& m,
                           status const& own, rank_header header,
                           agreed_number const (&list)[N]) noexcept {
  alignas(rank_header) std::byte message[rank_messages::bytes] = {};
  header.set(list);
  header.set(own);
  std::memcpy(message, &header, sizeof header);
  if (own.ok()) {
    copy_bytes(message + sizeof header, m.mine,
               static_cast<std::size_t>(m.in_head()) * sizeof(index_t));
  }
  status const met = gather(who, among, message, m.head, rank_messages::bytes);
  if (!met.ok()) return met;
  if (m.head == nullptr) {
    return status::fail(own.code(), "rank %d: %s", among.transport.rank(), own.message());
  }
  status const same = conclude(who, m, list);
  if (!same.ok() || m.in_tail() == 0) return same;
  return gather(who, among, m.mine + rank_messages::first, m.tail,
                m.in_tail() * static_cast<offset_t>(sizeof(index_t)));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
