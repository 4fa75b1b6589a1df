#pragma once
// The shapes on which the benchmarks of dispatch and combine agree.
#include <shunt/route/presets.hpp>

#include "support/bench.hpp"

namespace bench {

/// Calls visit(shape, all_rows, add) for every number of threads, preset and token count.
/// all_rows: moving these rows is worth its time (the widest presets leave 4096 tokens out);
/// add(stage, type, skew, body) registers body(state, shape, threads).
template <class Visit> void for_each_move(Visit const& visit) {
  for (int const threads : thread_counts()) {
    for (shunt::preset const* const preset :
         {&shunt::presets::deepseek_v2_lite, &shunt::presets::qwen3_30b_a3b,
          &shunt::presets::qwen3_next_80b, &shunt::presets::deepseek_v3}) {
      for (shunt::index_t const tokens : {1, 64, 512, 4096}) {
        shunt::shape s = preset->sizes;
        s.tokens = tokens;
        auto const add_one = [&](std::string const& stage, std::string const& type,
                                 std::string const& skew, auto body) {
          add(name(stage, s, type, threads, skew),
              [=](benchmark::State& state) { body(state, s, threads); });
        };
        visit(s, tokens < 4096 || preset == &shunt::presets::deepseek_v2_lite, add_one);
      }
    }
  }
}

}  // namespace bench
