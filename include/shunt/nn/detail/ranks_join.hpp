#pragma once
#include <algorithm>
#include <cstring>

#include "shunt/nn/detail/across_ranks.hpp"
#include "shunt/nn/detail/norm_across.hpp"

/// How the ranks of a model begin a call: memory, and what they must agree on.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// Bytes of the longest sum over the tokens of all ranks.
template <storage T, exchange X>
[[nodiscard]] std::size_t ranks_work_bytes(token_blocks<X> const& blocks, model_config const& here,
                                           bool training) noexcept {
  std::size_t most = 0;
  auto const measure = [&](auto const& carve_it) {
    auto from = arena<>::measuring();
    carve_it(from);
    if (from.needed() > most) most = from.needed();
  };
  measure([&](arena<>& a) { static_cast<void>(rows_of_all<float>::carve(a, blocks, 1)); });
  if (!training) return most;
  for_each_replicated(here, [&](model_parameter const& p, offset_t columns) {
    measure([&](arena<>& a) {
      static_cast<void>(rows_of_all<float>::carve(a, blocks, p.size() / columns));
      static_cast<void>(columns_of_all<T>::carve(a, blocks, columns));
      if (p.rank > 1) return;  // of a norm, two
      static_cast<void>(columns_of_all<T>::carve(a, blocks, columns));
      static_cast<void>(shunt::detail::carve_part(
          a, rms_norm_backward_scratch_bytes(blocks.room * blocks.ranks(),
                                             blocks.columns_each(columns))));
    });
  });
  measure([&](arena<>& a) { static_cast<void>(gradient_slices::carve(a, blocks, here)); });
  return most;
}

/// What a call across ranks has in addition to a call of one process.
template <exchange X> struct ranks_memory {
  static constexpr offset_t counts = 3;  // tokens, room for tokens, targets: of each rank
  shunt::detail::rank_messages messages;
  across_ranks<X> group;
};

template <storage T, exchange X>
[[nodiscard]] ranks_memory<X> carve_ranks(arena<>& from, char const* who,
                                          among_ranks<X> const& among, model_config const& here,
                                          offset_t tokens, bool training) noexcept {
  using shunt::detail::carve;
  int const ranks = among.transport.ranks();
  offset_t const room = among.most_tokens > tokens ? among.most_tokens : tokens;
  ranks_memory<X> m{shunt::detail::rank_messages::carve(from, ranks, ranks_memory<X>::counts),
                    {{among, who, room, {}, {}}, 0, {}, nullptr, nullptr, {}}};
  across_ranks<X>& g = m.group;
  g.blocks.start = carve<offset_t, 1, space::host>(from, {{ranks + 1}});
  g.blocks.copies = carve<offset_t, 1, space::host>(from, {{ranks + 1}});
  if (ranks == 1) return m;
  if (training && !here.dense) {
    offset_t const shared = here.shared_intermediate;
    g.d_logits = carve<float, 2, space::host>(from, {{tokens, here.experts}});
    g.shared_d_pre = from.take<T>(tokens * 2 * shared);
    g.shared_act = from.take<T>(tokens * shared);
  }
  g.work = shunt::detail::carve_part(from, ranks_work_bytes<T>(g.blocks, here, training));
  return m;
}

/// A model's configuration as one number, to be compared between ranks.
[[nodiscard]] inline std::int64_t config_number(model_config const& c) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  auto const add = [&](auto value) {
    unsigned char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    for (unsigned char b : bytes) h = (h ^ b) * 0x100000001b3u;
  };
  add(c.vocabulary), add(c.layers), add(c.width), add(c.heads), add(c.kv_heads), add(c.context);
  add(c.dense), add(c.experts), add(c.top_k), add(c.intermediate), add(c.shared_intermediate);
  add(c.tied_head), add(c.norm_epsilon), add(c.rotary_base), add(c.balance_loss), add(c.z_loss);
  add(shunt::detail::route_number(c.route));
  return static_cast<std::int64_t>(h >> 1);
}

/// What a model across ranks can be made of.
template <exchange X>
[[nodiscard]] status check_ranks(char const* who, among_ranks<X> const& among,
                                 model_config const& c) noexcept {
  expert_placement const& p = among.placement;
  if (status bad = first_of(check_config(c), has_all_experts(who, c)); !bad.ok() || c.dense) {
    return bad;
  }
  shunt::check::argument const experts(who, "placement.experts");
  if (status bad = first_of(check::placement(who, p, among.transport.ranks()),
                            check::extent(experts, 0, p.experts, c.experts, "model_config"));
      !bad.ok()) {
    return bad;
  }
  if (p.places() == p.experts) return {};
  return status::fail(error::unsupported,
                      "%s.placement has %d places for %d experts; a model needs one for each: the "
                      "copies of an expert would part",
                      who, p.places(), p.experts);
}

/// The rank's configuration; where it has none, that of a model without anything: a rank that is wrong takes part in
/// the agreement too.
template <exchange X>
[[nodiscard]] model_config config_here(status const& own, among_ranks<X> const& among,
                                       model_config const& c) noexcept {
  if (own.ok()) return config_of_rank(c, among.placement, among.transport.rank());
  model_config none;
  none.layers = 0;
  none.dense = true;
  return none;
}

/// All ranks go on, or all return the same sentence. Then the group knows the tokens and targets of all.
template <storage T, exchange X>
[[nodiscard]] status join(on_host const& on, char const* who, int call, ranks_memory<X>& m,
                          status own, model_config const& c, view<index_t const, 2> tokens,
                          bool biased, model_train_options const& options) noexcept {
  token_blocks<X>& blocks = m.group.blocks;
  offset_t const batch = tokens.extent(0), length = tokens.extent(1) - 1;
  offset_t targets = 0;
  for (offset_t b = 0; b < batch && own.ok(); ++b) {
    for (offset_t s = 1; s <= length; ++s) targets += tokens(b, s) >= 0 ? 1 : 0;
  }
  m.group.valid = targets;
  if (m.group.alone()) {
    if (!own.ok()) return own;
    blocks.start[0] = 0;
    blocks.start[1] = batch * length;
    return own;
  }
  if (own.ok()) {
    m.messages.mine[0] = static_cast<index_t>(batch * length);
    m.messages.mine[1] = static_cast<index_t>(blocks.room);
    m.messages.mine[2] = static_cast<index_t>(targets);
  }
  shunt::detail::agreed_number const same[] = {
      {"call (1: train, 2: evaluate)", call},
      {"model_config (as one number)", config_number(c)},
      {"weights: bytes of an element", sizeof(T)},
      {"weights.choice_bias (1: given)", biased},
      {"tokens: extent 1", length + 1},
      {"options.accumulate", options.accumulate},
      {"options.divisor", options.divisor},
      {"the processor's arithmetic (SHUNT_ISA)",
       shunt::detail::across_backend<on_host>::template arithmetic<T>(on)}};
  if (status met = shunt::detail::agree(who, blocks.among, m.messages, own,
                                        shunt::detail::rank_header{}, same);
      !met.ok()) {
    return met;
  }
  m.group.valid = 0;
  for (int r = 0; r <= blocks.ranks(); ++r) {
    blocks.copies[r] = r * batch * length;
    blocks.start[r] = r == 0 ? 0 : blocks.start[r - 1] + m.messages.count(r - 1, 0);
    if (r < blocks.ranks()) m.group.valid += m.messages.count(r, 2);
  }
  if (status bad = check::between("tokens of all ranks", blocks.all(), 0,
                                  std::numeric_limits<index_t>::max());
      !bad.ok()) {
    return bad;
  }
  for (int r = 0; r < blocks.ranks(); ++r) {
    if (m.messages.count(r, 1) >= blocks.longest()) continue;
    return status::fail(error::arena_too_small,
                        "%s: a rank has %lld tokens; rank %d has memory for %d of each "
                        "(among.most_tokens)",
                        who, static_cast<long long>(blocks.longest()), r, m.messages.count(r, 1));
  }
  return {};
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
