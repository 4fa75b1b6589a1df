// Products with weights in fewer bits: a grouped GEMM whose experts' weights come from memory, with one
// row an expert (decoding: the bytes decide) and with 48 (the arithmetic does); experts_int8_rows: with rows
// rounded to int8. Bytes are the format's own: the packed weights that a call reads, rows and output.
#include <cstring>
#include <shunt/experts.hpp>
#include <shunt/route/presets.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"

namespace {

using shunt::index_t;
using shunt::on_host;
using shunt::view;

template <class W> char const* format_name() {
  if constexpr (std::same_as<W, float>) return "f32";
  if constexpr (std::same_as<W, shunt::bf16>) return "bf16";
  if constexpr (std::same_as<W, shunt::int8_channel>) return "int8";
  if constexpr (std::same_as<W, shunt::int8_group<32>>) return "int8_32";
  if constexpr (std::same_as<W, shunt::int8_group<128>>) return "int8_128";
  if constexpr (std::same_as<W, shunt::fp8_block>) return "fp8";
  if constexpr (std::same_as<W, shunt::mxfp4>) return "mxfp4";
  if constexpr (std::same_as<W, shunt::nvfp4>) return "nvfp4";
  if constexpr (std::same_as<W, shunt::int4_group<32>>) return "int4_32";
  if constexpr (std::same_as<W, shunt::int4_group<128>>) return "int4_128";
}

/// Experts packed in a format from one expert's noise, and rows for them.
template <class W> struct scene {
  std::int64_t E, N, K, R;
  std::vector<index_t> offset;
  std::vector<float> one, a, c;
  std::vector<W> packed;

  scene(index_t experts, index_t rows_each, index_t n, index_t k)
      : E(experts), N(n), K(k), R(experts * rows_each) {
    for (index_t e = 0; e <= experts; ++e) offset.push_back(e * rows_each);
    one = bench::noise<float>(static_cast<std::size_t>(N * K), 0.03, 1);
    a = bench::noise<float>(static_cast<std::size_t>(R * K), 1, 2);
    c.resize(static_cast<std::size_t>(R * N));
    shunt::expert_matrix<float> const from(view<float const, 3>(one.data(), {{1, N, K}}));
    auto const each = static_cast<std::size_t>(weights(1).packed_elements());
    packed.resize(each * static_cast<std::size_t>(E));
    auto first = view<W, 1>(packed.data(), {{static_cast<std::int64_t>(each)}});
    if constexpr (shunt::storage<W>) {
      std::vector<W> plain;
      for (float x : one) plain.push_back(shunt::from_float<W>(x));
      (void)shunt::pack_weights(on_host{}, view<W const, 3>(plain.data(), {{1, N, K}}), first);
    } else {
      (void)shunt::quantize_weights(on_host{}, from, first);
    }
    for (std::int64_t e = 1; e < E; ++e) {
      std::memcpy(packed.data() + static_cast<std::size_t>(e) * each, packed.data(),
                  each * sizeof(W));
    }
  }
  shunt::expert_matrix<W> weights(std::int64_t experts) const {
    return shunt::expert_matrix<W>::packed(packed.data(), experts, N, K);
  }
  double bytes() const {
    return static_cast<double>(packed.size() * sizeof(W)) +
           static_cast<double>((a.size() + c.size()) * sizeof(float));
  }
  /// Some outputs of the last expert against double; the rounding of the weights is allowed for.
  std::string verify() const {
    std::vector<double> want;
    std::vector<float> got;
    for (std::int64_t n = 0; n < N; n += 37) {
      double sum = 0;
      for (std::int64_t k = 0; k < K; ++k) {
        sum += static_cast<double>(a[static_cast<std::size_t>((R - 1) * K + k)]) *
               static_cast<double>(one[static_cast<std::size_t>(n * K + k)]);
      }
      want.push_back(sum);
      got.push_back(c[static_cast<std::size_t>((R - 1) * N + n)]);
    }
    return bench::compare(got.data(), want.data(), want.size(),
                          sizeof(W) == 4                   ? 1e-4
                          : shunt::detail::is_four_bits<W> ? 0.3
                                                           : 0.1);
  }
};

template <class W>
void measure_format(index_t experts, index_t rows, index_t n, index_t k, int threads,
                    bool int8_rows = false) {
  shunt::shape s{.tokens = experts * rows, .hidden = k, .intermediate = n, .experts = experts};
  bench::add(
      bench::name(int8_rows ? "experts_int8_rows" : "experts_format", s, format_name<W>(), threads),
      [=](benchmark::State& state) {
        scene<W> in(experts, rows, n, k);
        view<float const, 2> const a(in.a.data(), {{in.R, in.K}});
        view<float, 2> const c(in.c.data(), {{in.R, in.N}});
        double const flops = 2.0 * static_cast<double>(in.R * in.N * in.K);
        bench::measure(
            state, threads, {.flops = flops, .bytes = in.bytes()}, [&] { return in.verify(); },
            [&] {
              shunt::status const done =
                  shunt::grouped_gemm(on_host{.threads = threads}, a, in.weights(in.E), {in.offset},
                                      c, {}, {.int8_rows = int8_rows});
              if (!done.ok()) bench::fail(state, done.message());
            });
      });
}

}  // namespace

void bench::register_all() {
  // Enough experts that no cache holds even their mxfp4: 64 of Qwen3's first matrix, 107 MB.
  for (int const threads : bench::thread_counts()) {
    for (index_t const rows : {1, 4, 8, 48}) {
      index_t const experts = rows < 48 ? 128 : 16;
      measure_format<float>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::bf16>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int8_channel>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int8_group<32>>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int8_group<128>>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::fp8_block>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::mxfp4>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::nvfp4>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int4_group<32>>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int4_group<128>>(experts, rows, 1536, 2048, threads);
      measure_format<shunt::int8_channel>(experts, rows, 1536, 2048, threads, true);
      measure_format<shunt::mxfp4>(experts, rows, 1536, 2048, threads, true);
    }
  }
}
