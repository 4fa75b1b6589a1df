// The first rung: from a token's logits to its experts and their weights, and back.
// test:
#include <cstdio>
#include <vector>

#include <shunt/route.hpp>

int main() {
  // Four tokens, eight experts, two of them for each token: Mixtral's way, softmax over the chosen.
  constexpr shunt::index_t tokens = 4, experts = 8, top_k = 2;
  std::vector<float> const logits{
      0.1f,  2.0f, -1.0f, 0.3f, 0.0f,  1.0f,  -0.5f, 0.2f,   //
      1.5f,  0.0f, 0.7f,  1.5f, -2.0f, 0.1f,  0.4f,  -0.3f,  // a tie: the lower id comes first
      -1.0f, 0.2f, 0.1f,  0.0f, 3.0f,  -0.7f, 0.6f,  0.5f,   //
      0.4f,  0.9f, 2.5f,  0.3f, 0.2f,  0.1f,  -1.0f, 2.4f,
  };
  shunt::view<float const, 2> const z(logits.data(), {{tokens, experts}});

  // The caller owns every byte: results, and the scratch, whose size the library tells.
  std::vector<shunt::index_t> expert(tokens * top_k), counts(experts);
  std::vector<float> gate(tokens * top_k);
  shunt::on_host const on{};
  std::vector<std::byte> bytes(
      shunt::route_scratch_bytes(on, {.tokens = tokens, .experts = experts, .top_k = top_k}));

  shunt::routing<> chosen;
  chosen.expert = {expert.data(), {{tokens, top_k}}};
  chosen.gate = {gate.data(), {{tokens, top_k}}};
  chosen.counts = counts;
  shunt::route_options const options{.gates = shunt::gate_kind::renormalized};
  if (auto s = shunt::route(on, z, chosen, bytes, options); !s.ok()) {
    return std::puts(s.message()), 1;
  }
  for (int t = 0; t < tokens; ++t) {
    std::printf("token %d: expert %d x %.3f, expert %d x %.3f\n", t, chosen.expert(t, 0),
                static_cast<double>(chosen.gate(t, 0)), chosen.expert(t, 1),
                static_cast<double>(chosen.gate(t, 1)));
  }

  // Back: how would each logit have to move if every first gate should grow?
  std::vector<float> wish(tokens * top_k), d_logits(tokens * experts);
  for (std::size_t t = 0; t < tokens; ++t) wish[t * top_k] = 1.0f;
  shunt::route_gradients<> d;
  d.gate = shunt::view<float const, 2>(wish.data(), {{tokens, top_k}});
  if (auto s = shunt::route_backward(on, z, chosen, d,
                                     shunt::view<float, 2>(d_logits.data(), {{tokens, experts}}),
                                     bytes, options);
      !s.ok()) {
    return std::puts(s.message()), 1;
  }
  std::printf("token 0 of expert 1: %+.3f, of expert 5: %+.3f, of the others: 0\n",
              static_cast<double>(d_logits[1]), static_cast<double>(d_logits[5]));

  // What a wrong call says.
  chosen.gate = {gate.data(), {{tokens, 1}}};
  auto const wrong = shunt::route(on, z, chosen, bytes, options);
  std::printf("and a mistake: %s\n", wrong.message());
  return wrong.ok() ? 1 : 0;
}
