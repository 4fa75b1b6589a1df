// No include guard: rotation of the pairs of one head.
namespace nn {

/// (a, b) → (a·c − b·s, b·c + a·s), `turn` being +1, or −1 for the way back. Halves: a is x[i] and b
/// is x[i + half]; adjacent: a is x[2i] and b is x[2i + 1].
template <class T>
void rotate_tokens(rotary_args<T> const& a, std::int64_t first, std::int64_t last) noexcept {
  std::int64_t const half = a.pairs;
  vf const turn = fill(a.turn);
  for (std::int64_t t = first; t < last; ++t) {
    std::int64_t const batch = t / a.length, place = t % a.length;
    std::int64_t const begin =
        a.first.at == nullptr ? a.first.number : a.first.at[batch * a.first.step];
    std::int64_t const position = begin + place;
    if (position < 0 || position >= a.positions) continue;
    float const* const cosine = a.cosine + position * a.cosine_row;
    float const* const sine = a.sine + position * a.sine_row;
    for (std::int64_t h = 0; h < a.heads; ++h) {
      T* const x = a.x + batch * a.batch_step + place * a.token_step + h * a.head_step;
      if (a.adjacent) {
        for (std::int64_t i = 0; i < half; ++i) {
          vf const c = fill(cosine[i]), s = fill(sine[i]) * turn;
          vf const p = fill(widen(x[2 * i])), q = fill(widen(x[2 * i + 1]));
          store_first(x + 2 * i, fma(p, c, -(q * s)), 1);
          store_first(x + 2 * i + 1, fma(q, c, p * s), 1);
        }
        continue;
      }
      for (std::int64_t i = 0; i < half; i += lanes) {
        std::int64_t const left = half - i;
        vf const c = load_up_to(cosine + i, left), s = load_up_to(sine + i, left) * turn;
        vf const p = load_up_to(x + i, left), q = load_up_to(x + half + i, left);
        store_up_to(x + i, fma(p, c, -(q * s)), left);
        store_up_to(x + half + i, fma(q, c, p * s), left);
      }
    }
  }
}

}  // namespace nn
