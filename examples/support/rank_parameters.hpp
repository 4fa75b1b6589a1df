#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "crew.hpp"
#include "shunt/across/exchange.hpp"
#include "shunt/nn/rank_parameters.hpp"

namespace lm {

/// Throws the sentence of a status that is the same on all ranks.
inline void require_of_all(shunt::status const& answer) {
  if (!answer.ok()) throw agreed_problem(answer.message());
}

/// Experts in equal runs by rank, with the placement's memory.
class even_placement {
 public:
  even_placement(int ranks, int experts)
      : start_(static_cast<std::size_t>(ranks) + 1), expert_(static_cast<std::size_t>(experts)) {
    placement_ = shunt::place_evenly(shunt::view<shunt::index_t, 1>(start_),
                                     shunt::view<shunt::index_t, 1>(expert_));
  }
  even_placement(even_placement const&) = delete;
  even_placement& operator=(even_placement const&) = delete;
  [[nodiscard]] shunt::expert_placement const& get() const noexcept { return placement_; }

 private:
  std::vector<shunt::index_t> start_, expert_;
  shunt::expert_placement placement_;
};

/// A rank's part of `whole`, as its flat buffer has it.
inline void take_part(shunt::nn::model_config const& c, shunt::expert_placement const& p, int rank,
                      std::vector<float> const& whole, std::vector<float>& here) {
  shunt::nn::for_each_run(c, p, rank, [&](shunt::nn::rank_run const& run) {
    if (run.owner >= 0 && run.owner != rank) return;
    std::copy_n(whole.data() + run.in_whole, run.count, here.data() + run.here);
  });
}

/// The whole model's flat buffer on rank 0; elsewhere nothing. One rank after another sends its own to rank 0.
template <shunt::exchange X>
[[nodiscard]] std::vector<float> gather_parts(shunt::nn::model_config const& c,
                                              shunt::expert_placement const& p, X& transport,
                                              std::vector<float> const& here) {
  constexpr std::size_t piece = std::size_t{1} << 22;  // floats at a time
  int const rank = transport.rank(), ranks = transport.ranks();
  std::vector<float> whole, other;
  auto const put = [&](int owner, std::vector<float> const& from) {
    shunt::nn::for_each_run(c, p, owner, [&](shunt::nn::rank_run const& run) {
      if (run.owner != owner && (run.owner >= 0 || owner != 0)) return;
      std::copy_n(from.data() + run.here, run.count, whole.data() + run.in_whole);
    });
  };
  if (rank == 0) {
    whole.resize(static_cast<std::size_t>(shunt::nn::parameter_count(c)));
    put(0, here);
  }
  for (int owner = 1; owner < ranks && !c.dense; ++owner) {
    auto const count = static_cast<std::size_t>(
        shunt::nn::parameter_count(shunt::nn::config_of_rank(c, p, owner)));
    if (rank == 0) other.resize(count);
    for (std::size_t done = 0; done < count; done += piece) {
      auto const now = static_cast<shunt::offset_t>(std::min(piece, count - done));
      std::vector<shunt::offset_t> send(static_cast<std::size_t>(ranks) + 1, 0), recv(send);
      if (rank == owner) std::fill(send.begin() + 1, send.end(), now);
      if (rank == 0) std::fill(recv.begin() + owner + 1, recv.end(), now);
      require_of_all(transport.begin({rank == owner ? here.data() + done : nullptr,
                                      rank == 0 ? other.data() + done : nullptr, sizeof(float),
                                      shunt::view<shunt::offset_t, 1>(send),
                                      shunt::view<shunt::offset_t, 1>(recv)}));
      require_of_all(transport.finish());
    }
    if (rank == 0) put(owner, other);
  }
  return whole;
}

}  // namespace lm
