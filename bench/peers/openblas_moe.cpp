// OpenBLAS: an sgemm for each expert's rows and matrix, on the library's own threads; or a thread for
// each expert, the library on one. A single row goes to sgemv.
#include <cblas.h>

#include "peers/per_expert.hpp"

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

class openblas : public per_expert<float> {
 public:
  openblas(problem<float> const& of, bool by_expert)
      : per_expert(of, "openblas", by_expert, layout::plain) {}

 private:
  void use_threads(int count) override { openblas_set_num_threads(count); }
  void up(std::size_t e, std::size_t rows, float const* x, float* c) override {
    multiply(x, p.up_of(e), c, int(rows), 2 * p.s.intermediate, p.s.hidden);
  }
  void down(std::size_t e, std::size_t rows, float const* x, float* c) override {
    multiply(x, p.down_of(e), c, int(rows), p.s.hidden, p.s.intermediate);
  }
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
