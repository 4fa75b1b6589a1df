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

template <class T> class ours : public contestant<T> {
  using contestant<T>::p;

 public:
  ours(problem<T> const& of, layout weights)
      : contestant<T>(of, "shunt", weights), act_(of.R() * of.I()) {
    auto const& s = of.s;
    up_ = {view<T const, 3>(of.up.data(), {{s.experts, 2 * s.intermediate, s.hidden}}),
           shunt::pair_layout{}};
    down_ = view<T const, 3>(of.down.data(), {{s.experts, s.hidden, s.intermediate}});
    if (weights == layout::plain) return;
    pack(up_, packed_up_);
    pack(down_, packed_down_);
    up_ = expert_matrix<T>::packed(packed_up_.data(), s.experts, 2 * s.intermediate, s.hidden,
                                   shunt::pair_layout{});
    down_ = expert_matrix<T>::packed(packed_down_.data(), s.experts, s.hidden, s.intermediate);
  }
  void run(index_t const* offset, T* y) override {
    on_host const on{.threads = p.threads};
    auto const R = offset_t(p.R());
    shunt::segments<> const rows{view<index_t const, 1>(offset, {{p.s.experts + 1}})};
    view<T, 2> const act(act_.data(), {{R, p.s.intermediate}});
    must(grouped_gemm(on, view<T const, 2>(p.x.data(), {{R, p.s.hidden}}), up_, rows, act,
                      shunt::swiglu{}));
    must(grouped_gemm(on, act, down_, rows, view<T, 2>(y, {{R, p.s.hidden}})));
  }

 private:
  static void pack(expert_matrix<T> const& from, paged<T>& to) {
    to.resize(std::size_t(from.packed_elements()));
    must(shunt::pack_weights(on_host{}, from, view<T, 1>(to)));
  }
  std::vector<T> act_;
  paged<T> packed_up_, packed_down_;
  expert_matrix<T> up_, down_;
};

}  // namespace

template <class T> contestants<T> of_shunt(problem<T> const& p) {
  contestants<T> all;
  all.push_back(std::make_unique<ours<T>>(p, layout::plain));
  all.push_back(std::make_unique<ours<T>>(p, layout::packed));
  return all;
}
template contestants<float> of_shunt(problem<float> const&);
template contestants<bf16> of_shunt(problem<bf16> const&);

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
