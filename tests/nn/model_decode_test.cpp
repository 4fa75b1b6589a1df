// Decoding with a KV cache gives the bits of the whole sequence.
#include <gtest/gtest.h>

#include "shunt/nn/model.hpp"
#include "support/compare.hpp"
#include "support/host_configs.hpp"
#include "support/model_case.hpp"

namespace shunt {
namespace nn_model_decode_test {

using namespace test::model_case;
using test::guarded;
namespace oracle = test::oracle;

template <class T> void decoding_gives_the_bits_of_the_whole() {
  for (auto const& variant : variants()) {
    auto const& name = variant.first;
    auto const& c = variant.second;
    index_t const batch = 2, length = 21;
    auto const w = some_weights<T>(c, 9);
    auto const tokens = some_tokens(c, batch, length - 1, false);
    nn::model_weights<T> const weights{.values = w.as(w.size())};
    auto const feed = [&](on_host const& on, index_t piece) {
      guarded<T> memory(static_cast<std::size_t>(nn::model_cache_elements(c, batch, 40)));
      nn::model_cache<T> const cache{memory.as(memory.size()), batch, 40};
      guarded<float> logits(static_cast<std::size_t>(batch * c.vocabulary));
      guarded<std::byte> bytes(nn::model_decode_scratch_bytes<T>(on, c, batch, piece));
      for (index_t at = 0; at < length; at += piece) {
        index_t const n = std::min<index_t>(piece, length - at);
        view<index_t const, 2> const part(tokens.data() + at, {{batch, n}}, {{length, 1}});
        status const s = nn::model_decode<T>(on, c, weights, part, at, cache,
                                             logits.as(batch, c.vocabulary), bytes);
        EXPECT_TRUE(s.ok()) << s.message();
      }
      return logits;
    };
    auto const whole = feed(on_host{}, length);
    EXPECT_TRUE(test::all_finite(whole));
    for (index_t piece : {1, 4, 20}) {
      EXPECT_TRUE(test::same_bits(whole, feed({.threads = 2}, piece))) << name << " " << piece;
    }
    EXPECT_TRUE(test::same_bits(whole, feed({.threads = 1, .instructions = isa::portable}, 1)));

    // The loss of the last target, from evaluation, is that of these logits.
    guarded<index_t> next(static_cast<std::size_t>(batch * (length + 1)));
    for (index_t b = 0; b < batch; ++b) {
      for (index_t i = 0; i < length; ++i) {
        next[static_cast<std::size_t>(b * (length + 1) + i)] =
            tokens[static_cast<std::size_t>(b * length + i)];
      }
      next[static_cast<std::size_t>(b * (length + 1) + length)] = b + 3;
    }
    guarded<float> loss(1), token_loss(static_cast<std::size_t>(batch * length));
    guarded<std::byte> bytes(nn::model_evaluate_scratch_bytes<T>(on_host{}, c, batch, length));
    ASSERT_TRUE(nn::model_evaluate<T>(
                    on_host{}, c, weights, std::as_const(next).as(batch, length + 1),
                    {.loss = loss.as(1), .token_loss = token_loss.as(batch, length)}, bytes)
                    .ok());
    for (index_t b = 0; b < batch; ++b) {
      std::vector<double> z;
      for (index_t i = 0; i < c.vocabulary; ++i) {
        z.push_back(whole[static_cast<std::size_t>(b * c.vocabulary + i)]);
      }
      EXPECT_NEAR(token_loss[static_cast<std::size_t>((b + 1) * length - 1)],
                  oracle::cross_entropy(z, {b + 3}).mean, 1e-4)
          << name;
    }
  }
}
TEST(Model, DecodingInAnyPiecesGivesTheBitsOfTheWhole) {
  decoding_gives_the_bits_of_the_whole<float>();
}
TEST(Model, DecodingInAnyPiecesGivesTheBitsOfTheWholeInBf16) {
  decoding_gives_the_bits_of_the_whole<bf16>();
}

}  // namespace nn_model_decode_test
}  // namespace shunt
