// A language model of the library's parts, small enough to read: learns a few lines by heart, then
// says them, one byte at a time, from its key/value cache.
//
// test:
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "shunt/nn/model.hpp"
#include "shunt/nn/schedule.hpp"

namespace nn = shunt::nn;

static int failed(shunt::status const& s) { return std::fprintf(stderr, "%s\n", s.message()), 1; }

namespace sizes {
constexpr shunt::index_t batch = 8, length = 64;
}

// The step's batch: each sequence begins anywhere in the text, and its last byte is a target alone.
static void draw(std::string const& text, int step, std::vector<shunt::index_t>& tokens) {
  using namespace sizes;
  for (shunt::index_t b = 0; b < batch; ++b) {
    std::uint64_t const place =
        static_cast<std::uint64_t>(step) * batch + static_cast<std::uint64_t>(b);
    std::size_t const at = shunt::random_at(7, place).word[0] % (text.size() - length);
    for (shunt::index_t i = 0; i <= length; ++i) {
      tokens[static_cast<std::size_t>(b * (length + 1) + i)] =
          static_cast<unsigned char>(text[at + static_cast<std::size_t>(i)]);
    }
  }
}

// Decoding: the prompt in one piece, then byte after byte, each the likeliest.
static shunt::status say(shunt::on_host const& on, nn::model_config const& config,
                         std::vector<float> const& weights, std::size_t bytes, std::string& said) {
  std::vector<float> memory(static_cast<std::size_t>(nn::model_cache_elements(config, 1, 128)));
  nn::model_cache<float> const cache{memory, 1, 128};
  std::vector<float> logits(256);
  std::vector<shunt::index_t> next(said.begin(), said.end());
  std::vector<std::byte> scratch(nn::model_decode_scratch_bytes<float>(on, config, 1, 12));
  shunt::index_t position = 0;
  while (said.size() < bytes) {
    auto const n = static_cast<shunt::index_t>(next.size());
    if (auto s = nn::model_decode<float>(on, config, {.values = weights}, {next.data(), {{1, n}}},
                                         position, cache, {logits.data(), {{1, 256}}}, scratch);
        !s.ok()) {
      return s;
    }
    position += n;
    auto const best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    next.assign(1, static_cast<shunt::index_t>(best));
    said += static_cast<char>(best);
  }
  return {};
}

int main() {
  using namespace sizes;
  std::string const text =
      "A shunt is a siding where wagons are sorted: each goes to the track that serves it best.\n"
      "An expert is such a track; the router is the man at the switch, and he learns his trade.\n";
  constexpr int steps = 200;

  nn::model_config config;
  config.layers = 2;
  config.width = 64;
  config.heads = 4;
  config.kv_heads = 2;
  config.experts = 8;
  config.top_k = 2;
  config.intermediate = 64;
  config.context = 128;

  // Everything is the caller's: weights, gradients, the optimizer's moments, scratch.
  shunt::on_host const on;
  auto const count = static_cast<std::size_t>(nn::parameter_count(config));
  std::vector<float> weights(count), gradients(count), first(count), second(count), norm(1),
      loss(1);
  std::vector<std::byte> work(nn::model_train_scratch_bytes<float>(on, config, batch, length));
  std::printf("%zu parameters, %lld of them active for a token\n", count,
              static_cast<long long>(nn::active_parameters(config)));
  if (auto s = nn::model_init(on, config, weights, 1); !s.ok()) return failed(s);

  std::vector<shunt::index_t> tokens(batch * (length + 1)), load(2 * 8);
  nn::cosine_schedule const schedule{.peak = 1e-2, .floor = 1e-3, .warm_up = 10, .steps = steps};
  for (int step = 0; step < steps; ++step) {
    draw(text, step, tokens);
    shunt::view<shunt::index_t const, 2> const batch_of(tokens.data(), {{batch, length + 1}});
    if (auto s = nn::model_train<float>(on, config, {.values = weights}, batch_of, gradients,
                                        {.loss = loss, .counts = {load.data(), {{2, 8}}}}, work);
        !s.ok()) {
      return failed(s);
    }
    nn::adamw_state<float> const state{weights, gradients, first, second};
    if (auto s = nn::model_update<float>(on, config, state, norm, work,
                                         {.rate = nn::rate_at(schedule, step),
                                          .weight_decay = 0.01f,
                                          .step = step + 1,
                                          .clip = 1.0f});
        !s.ok()) {
      return failed(s);
    }
    if (step % 40 == 0 || step + 1 == steps) {
      std::printf("step %3d  loss %.3f  |gradient| %.2f\n", step, double(loss[0]), double(norm[0]));
    }
  }
  std::printf("load of layer 0:");
  for (int e = 0; e < 8; ++e) std::printf(" %d", load[static_cast<std::size_t>(e)]);
  std::printf("\n");

  std::string said = text.substr(0, 12);
  if (auto s = say(on, config, weights, 60, said); !s.ok()) return failed(s);
  std::printf("it says: %s\n", said.c_str());
  return loss[0] < 0.5f ? 0 : 1;
}
