#pragma once
#include <type_traits>

#include "shunt/backend/cuda/nn/attention/backward.cuh"
#include "shunt/backend/cuda/nn/attention/few.cuh"
#include "shunt/backend/cuda/nn/attention/forward.cuh"
#include "shunt/backend/cuda/nn/attention/mma.cuh"
#include "shunt/backend/cuda/nn/attention/mma_backward.cuh"
#include "shunt/backend/cuda/nn/cache_append.cuh"

// Causal attention with the host's bits. Nothing is packed: keys and values are read where they lie,
// and only backward needs scratch.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct attention_backend<on_cuda> {
  template <class T, int Rank> using memory = view<T, Rank, space::device>;

  static std::size_t forward_bytes(on_cuda const&, attention_shape const&) noexcept { return 0; }
  static std::size_t backward_bytes(on_cuda const&, attention_shape const& s) noexcept {
    auto a = arena<space::device>::measuring();
    (void)carve_deltas(a, s.batch, s.heads, s.length);
    return a.needed();
  }
  static std::size_t cached_bytes(on_cuda const&, index_t) noexcept { return 0; }

  template <class T>
  static status forward(on_cuda const& on, attention_call<T, space::device> const& c,
                        arena<space::device>) noexcept {
    cuda::attention_cut const cut(c.q.extent(0), c.q.extent(1), c.q.extent(2), c.k.extent(2),
                                  c.q.extent(3));
    if (cuda::takes_mma<T>(on, cut.head_dim)) {
      bool const aligned = cuda::mma_aligned(cut.head_dim, c.q, c.k, c.v, c.out);
      return launch_mma<false>(on, "attention", cut, c, cuda::device_cache<T>{}, aligned);
    }
    return launch<sizeof(T) == 4>(
        on, "attention", cut, [](auto quads) { return cuda::attend<quads.value, T, false>; }, c,
        cuda::device_cache<T>{}, cut);
  }
  template <class T>
  static status append(on_cuda const& on, memory<T const, 4> k, memory<T const, 4> v,
                       kv_cache<T, space::device> const& cache,
                       first_positions const& first) noexcept {
    return cuda::append_to_cache<T>(on, k, v, cache, first);
  }
  template <class T>
  static status cached(on_cuda const& on, attention_call<T, space::device> const& c,
                       kv_cache<T, space::device> const& cache, first_positions const& first,
                       arena<space::device>) noexcept {
    constexpr char const* who = "cache_attend";
    cuda::attention_cut cut(c.q.extent(0), c.q.extent(1), c.q.extent(2), cache.kv_heads,
                            c.q.extent(3), first);
    if (cuda::takes_mma<T>(on, cut.head_dim)) {
      memory<T, 1> const held(cache.memory, {{1}});
      bool const aligned =
          cuda::mma_aligned(cut.head_dim, c.q, c.out) && cuda::mma_aligned(0, held);
      return launch_mma<true>(on, who, cut, c, cache, aligned);
    }
    if constexpr (sizeof(T) == 4) {
      if (cut.rows <= cuda::few_rows && cut.head_dim <= cuda::few_depth) {
        bool const narrow = cut.parts < cuda::tuning::attention_parts || cut.head_dim <= 32;
        cut.panels_of(narrow ? 32 : 128);
        auto* const kernel = narrow ? cuda::attend_few<32, T> : cuda::attend_few<128, T>;
        return cuda::launch(on, who, cut.blocks(), cuda::tile_threads, kernel, c, cache, cut);
      }
    }
    return launch<sizeof(T) == 4>(
        on, who, cut, [](auto quads) { return cuda::attend<quads.value, T, true>; }, c, cache, cut);
  }
  template <class T>
  static status backward(on_cuda const& on, attention_backward_call<T, space::device> const& c,
                         arena<space::device> work) noexcept {
    constexpr char const* who = "attention_backward";
    float* const delta = carve_deltas(work, c.q.extent(0), c.q.extent(2), c.q.extent(1));
    if (status bad = work.check(who); !bad.ok()) return bad;
    cuda::attention_cut const rows(c.q.extent(0), c.q.extent(1), c.q.extent(2), c.k.extent(2),
                                   c.q.extent(3));
    cuda::attention_cut keys = rows;
    keys.tiles = pieces_of(keys.length, cuda::tile_side);
    status done = cuda::launch_warps(on, who, rows.parts * rows.rows, cuda::attention_deltas<T>, c,
                                     rows, delta);
    if constexpr (sizeof(T) == 2) {
      if (cuda::takes_mma<T>(on, rows.head_dim)) {
        if (!done.ok()) return done;
        return launch_mma_back(on, who, rows, keys, c, delta);
      }
    }
    if (done.ok()) {
      done = launch<sizeof(T) == 4>(
          on, who, rows, [](auto quads) { return cuda::attend_queries_back<quads.value, T>; }, c,
          rows, delta);
    }
    if (!done.ok()) return done;
    return launch<sizeof(T) == 4>(
        on, who, keys, [](auto quads) { return cuda::attend_keys_back<quads.value, T>; }, c, keys,
        delta);
  }

 private:
  static float* carve_deltas(arena<space::device>& a, offset_t batch, offset_t heads,
                             offset_t length) noexcept {
    return a.take<float>(batch * heads * length);
  }
  template <bool Cached, class T>
  static status launch_mma(on_cuda const& on, char const* who, cuda::attention_cut cut,
                           attention_call<T, space::device> const& c,
                           kv_cache<T, space::device> const& cache, bool aligned) noexcept {
    if constexpr (sizeof(T) == 2) {
      cut.panels_of(128);
      auto* const kernel =
          cut.head_dim <= 64 ? cuda::attend_mma<64, T, Cached> : cuda::attend_mma<128, T, Cached>;
      return cuda::launch(on, who, cut.blocks(), cuda::mma_threads, kernel, c, cache, cut, aligned);
    }
    return {};
  }
  template <class T>
  static status launch_mma_back(on_cuda const& on, char const* who, cuda::attention_cut rows,
                                cuda::attention_cut keys,
                                attention_backward_call<T, space::device> const& c,
                                float const* delta) noexcept {
    bool const aligned = cuda::mma_aligned(rows.head_dim, c.q, c.k, c.v, c.d_out);
    bool const narrow = rows.head_dim <= 64;
    rows.panels_of(128);
    keys.panels_of(64);
    auto* const of_rows =
        narrow ? cuda::attend_queries_back_mma<64, T> : cuda::attend_queries_back_mma<128, T>;
    auto* const of_keys =
        narrow ? cuda::attend_keys_back_mma<64, T> : cuda::attend_keys_back_mma<128, T>;
    status const done =
        cuda::launch(on, who, rows.blocks(), cuda::mma_threads, of_rows, c, rows, delta, aligned);
    if (!done.ok()) return done;
    return cuda::launch(on, who, keys.blocks(), cuda::mma_threads, of_keys, c, keys, delta,
                        aligned);
  }
  /// `kernel` of one quad of columns (Narrow: if there are so few) or of two.
  template <bool Narrow, class Kernel, class... Arguments>
  static status launch(on_cuda const& on, char const* who, cuda::attention_cut const& cut,
                       Kernel const& kernel, Arguments const&... arguments) noexcept {
    auto const of = [&](auto quads) {
      return cuda::launch(on, who, cut.blocks(), cuda::tile_threads, kernel(quads), arguments...);
    };
    if constexpr (Narrow) {
      if (cut.width == 64) return of(std::integral_constant<int, 1>{});
    }
    return of(std::integral_constant<int, 2>{});
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
