// Shunt's side: two grouped products, the activation inside the first. Also the activation that the
// other libraries are given.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <shunt/experts.hpp>

#include "peers/feed_forward.hpp"

namespace bench::peers {
namespace {

using shunt::expert_matrix;
using shunt::offset_t;
using shunt::on_host;
using shunt::view;

void must(shunt::status const& done) {
  if (done.ok()) return;
  std::fprintf(stderr, "peers: %s\n", done.message());
  std::exit(1);
}

/// Rows of T, weights of W.
template <class T, class W = T> class ours : public contestant<T> {
  using contestant<T>::p;

 public:
  ours(problem<T> const& of, layout weights, bool int8_rows = false)
      : contestant<T>(of, int8_rows ? "shunt_int8_rows" : "shunt", weights),
        act_(of.R() * of.I()),
        options_{.int8_rows = int8_rows} {
    auto const& s = of.s;
    expert_matrix<T> const up{
        view<T const, 3>(of.up.data(), {{s.experts, 2 * s.intermediate, s.hidden}}),
        shunt::pair_layout{}};
    expert_matrix<T> const down =
        view<T const, 3>(of.down.data(), {{s.experts, s.hidden, s.intermediate}});
    if constexpr (std::same_as<T, W>) {
      up_ = up;
      down_ = down;
      if (weights == layout::plain) return;
    }
    packed_up_.resize(std::size_t(packed_first(nullptr).packed_elements()));
    packed_down_.resize(std::size_t(packed_second(nullptr).packed_elements()));
    pack(up, packed_up_);
    pack(down, packed_down_);
    up_ = packed_first(packed_up_.data());
    down_ = packed_second(packed_down_.data());
  }
  void run(batch<T> const& in, T* y) override {
    on_host const on{.threads = p.threads};
    auto const R = offset_t(p.R());
    shunt::segments<> const rows{in.offset};
    view<T, 2> const act(act_.data(), {{R, p.s.intermediate}});
    must(grouped_gemm(on, view<T const, 2>(in.x.data(), {{R, p.s.hidden}}), up_, rows, act,
                      shunt::swiglu{}, options_));
    must(grouped_gemm(on, act, down_, rows, view<T, 2>(y, {{R, p.s.hidden}}), {}, options_));
  }

 private:
  expert_matrix<W> packed_first(W const* data) const {
    return expert_matrix<W>::packed(data, p.s.experts, 2 * p.s.intermediate, p.s.hidden,
                                    shunt::pair_layout{});
  }
  expert_matrix<W> packed_second(W const* data) const {
    return expert_matrix<W>::packed(data, p.s.experts, p.s.hidden, p.s.intermediate);
  }
  static void pack(expert_matrix<T> const& from, paged<W>& to) {
    if constexpr (std::same_as<T, W>) {
      must(shunt::pack_weights(on_host{}, from, view<W, 1>(to)));
    } else {
      must(shunt::quantize_weights(on_host{}, from, view<W, 1>(to)));
    }
  }
  std::vector<T> act_;
  shunt::gemm_options<> options_;
  paged<W> packed_up_, packed_down_;
  expert_matrix<W> up_, down_;
};

}  // namespace

template <class T> std::unique_ptr<contestant<T>> reference(problem<T> const& p) {
  return std::make_unique<ours<T>>(p, layout::plain);
}
template std::unique_ptr<contestant<float>> reference(problem<float> const&);
template std::unique_ptr<contestant<bf16>> reference(problem<bf16> const&);

template <class T> contestants<T> of_shunt(problem<T> const& p) {
  contestants<T> all;
  all.push_back(std::make_unique<ours<T>>(p, layout::plain));
  all.push_back(std::make_unique<ours<T>>(p, layout::packed));
  return all;
}
template contestants<float> of_shunt(problem<float> const&);
template contestants<bf16> of_shunt(problem<bf16> const&);

template <shunt::quantized F> contestants<float> of_shunt_as(problem<float> const& p) {
  contestants<float> all;
  for (bool const int8_rows : {false, true}) {
    all.push_back(std::make_unique<ours<float, F>>(p, layout::packed, int8_rows));
  }
  return all;
}
template contestants<float> of_shunt_as<shunt::int8_channel>(problem<float> const&);
template contestants<float> of_shunt_as<shunt::mxfp4>(problem<float> const&);

template <class T>
void swiglu_rows(T const* pre, T* out, std::size_t out_stride, std::size_t rows,
                 std::size_t width) {
  auto const R = offset_t(rows), I = offset_t(width);
  view<T, 2> const to(out, {{R, I}}, {{offset_t(out_stride), 1}});
  must(activation_forward(on_host{.threads = 1}, view<T const, 2>(pre, {{R, 2 * I}}),
                          shunt::swiglu{}, to));
}
template void swiglu_rows(float const*, float*, std::size_t, std::size_t, std::size_t);
template void swiglu_rows(bf16 const*, bf16*, std::size_t, std::size_t, std::size_t);

template <class T>
void swiglu_all(T const* pre, T* out, std::size_t rows, std::size_t width, int threads) {
  constexpr std::size_t piece = 16;
#pragma omp parallel for num_threads(threads)
  for (std::size_t at = 0; at < rows; at += piece) {
    swiglu_rows(pre + at * 2 * width, out + at * width, width, std::min(piece, rows - at), width);
  }
}
template void swiglu_all(float const*, float*, std::size_t, std::size_t, int);
template void swiglu_all(bf16 const*, bf16*, std::size_t, std::size_t, int);

}  // namespace bench::peers
