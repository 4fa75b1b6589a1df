// OpenBLAS: an sgemm for each expert's rows and matrix, on the library's own threads; or a thread for
// each expert, the library on one. A single row goes to sgemv.
#include <cblas.h>

#include "peers/feed_forward.hpp"

namespace bench::peers {
namespace {

void multiply(float const* a, float const* w, float* c, int rows, int columns, int depth) {
  if (rows == 0) return;
  if (rows == 1) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, columns, depth, 1, w, depth, a, 1, 0, c, 1);
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, depth, 1, a, depth, w,
                depth, 0, c, columns);
  }
}

class openblas : public contestant<float> {
 public:
  openblas(problem<float> const& of, bool by_expert)
      : contestant(of, by_expert ? "openblas_by_expert" : "openblas", layout::plain),
        by_expert_(by_expert),
        pre_(of.R() * 2 * of.I()),
        act_(of.R() * of.I()) {}

  void run(index_t const* offset, float* y) override {
    openblas_set_num_threads(by_expert_ ? 1 : p.threads);
    if (by_expert_) {
#pragma omp parallel for schedule(dynamic) num_threads(p.threads)
      for (std::size_t e = 0; e < p.E(); ++e) {
        auto const first = std::size_t(offset[e]), rows = std::size_t(offset[e + 1]) - first;
        up(e, offset);
        if (rows > 0) swiglu_rows(pre_of(first), act_of(first), p.I(), rows, p.I());
        down(e, offset, y);
      }
    } else {
      for (std::size_t e = 0; e < p.E(); ++e) up(e, offset);
      swiglu_all(pre_.data(), act_.data(), p.R(), p.I(), p.threads);
      for (std::size_t e = 0; e < p.E(); ++e) down(e, offset, y);
    }
  }

 private:
  float* pre_of(std::size_t row) { return pre_.data() + row * 2 * p.I(); }
  float* act_of(std::size_t row) { return act_.data() + row * p.I(); }
  void up(std::size_t e, index_t const* offset) {
    auto const first = std::size_t(offset[e]);
    multiply(p.x.data() + first * p.H(), p.up_of(e), pre_of(first), offset[e + 1] - offset[e],
             2 * p.s.intermediate, p.s.hidden);
  }
  void down(std::size_t e, index_t const* offset, float* y) {
    auto const first = std::size_t(offset[e]);
    multiply(act_of(first), p.down_of(e), y + first * p.H(), offset[e + 1] - offset[e], p.s.hidden,
             p.s.intermediate);
  }

  bool by_expert_;
  std::vector<float> pre_, act_;
};

}  // namespace

template <>
contestants<float> of_openblas(problem<float> const& p, std::vector<std::string>& left_out) {
  left_out.push_back("openblas, packed weights: its interface has none");
  contestants<float> all;
  all.push_back(std::make_unique<openblas>(p, false));
  all.push_back(std::make_unique<openblas>(p, true));
  return all;
}
template <>
contestants<bf16> of_openblas(problem<bf16> const&, std::vector<std::string>& left_out) {
  left_out.push_back("openblas, bf16: distributions build it without");
  return {};
}

}  // namespace bench::peers
