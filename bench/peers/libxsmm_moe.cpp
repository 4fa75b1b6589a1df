// libxsmm: its generated kernels over blocks of an expert's outputs, threads over (expert, block).
// The library multiplies by columns, C' = A'·B', and has no transposed A'. So either W is A': packed
// once into strips [I/n][H][n]; or the rows are A', transposed in each call, and W lies as it is.
#include <libxsmm.h>
#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "peers/feed_forward.hpp"

namespace bench::peers {
namespace {

constexpr std::size_t lane = 8;     ///< transposed rows are rounded up to it
constexpr std::size_t depth = 512;  ///< of one kernel call: a block of operands stays in L2

/// Outputs of a block: of the AVX2 kernels those of 32 were faster than of 16 and 64, and depths of 256
/// and 2048 no faster than 512. 0: none divides them.
std::size_t block_of(std::size_t outputs) {
  bool const wide = libxsmm_get_target_archid() >= LIBXSMM_X86_AVX512;
  for (std::size_t const n : {64, 32, 16}) {
    if (outputs % n == 0 && (n < 64 || wide)) return n;
  }
  return 0;
}

/// c' [m,n] = a' [m,k] · b' [k,n], all by columns, in pieces of `depth`; each piece adds to c'.
void multiply(float const* a, std::size_t lda, float const* b, std::size_t ldb, float* c,
              std::size_t ldc, std::size_t m, std::size_t n, std::size_t k) {
  int const a_step = int(lda), b_step = int(ldb), c_step = int(ldc);
  float const one = 1;
  int const plain = LIBXSMM_GEMM_FLAG_NONE, no_prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
  for (std::size_t at = 0; at < k; at += depth) {
    float const beta = at == 0 ? 0.0f : 1.0f;
    auto const kernel = libxsmm_smmdispatch(int(m), int(n), int(std::min(depth, k - at)), &a_step,
                                            &b_step, &c_step, &one, &beta, &plain, &no_prefetch);
    if (kernel == nullptr) {
      std::fprintf(stderr, "peers: libxsmm made no kernel of %zu x %zu\n", m, n);
      std::exit(1);
    }
    kernel(a + at * lda, b + at, c);
  }
}

class strips : public contestant<float> {
 public:
  explicit strips(problem<float> const& of)
      : contestant(of, "libxsmm", layout::packed),
        i_(block_of(of.I())),
        h_(block_of(of.H())),
        act_(of.R() * of.I()),
        pre_(std::size_t(of.threads), std::vector<float>(of.R() * 2 * i_)) {
    pack(of.up, up_, 2 * of.E() * of.I(), of.H(), i_);
    pack(of.down, down_, of.E() * of.H(), of.I(), h_);
  }

  void run(batch<float> const& in, float* y) override {
    auto const& offset = in.offset;
    std::size_t const H = p.H(), I = p.I(), first = I / i_, second = H / h_;
#pragma omp parallel num_threads(p.threads)
    {
#pragma omp for schedule(dynamic)
      for (std::size_t task = 0; task < p.E() * first; ++task) {
        std::size_t const e = task / first, i = task % first * i_;
        std::size_t const at = std::size_t(offset[e]), rows = std::size_t(offset[e + 1]) - at;
        if (rows == 0) continue;
        float* const pre = pre_[std::size_t(omp_get_thread_num())].data();
        float const* const x = in.x.data() + at * H;
        float const* const w = up_.data() + (e * 2 * I + i) * H;
        multiply(w, i_, x, H, pre, 2 * i_, i_, rows, H);
        multiply(w + I * H, i_, x, H, pre + i_, 2 * i_, i_, rows, H);
        swiglu_rows(pre, act_.data() + at * I + i, I, rows, i_);
      }
#pragma omp for schedule(dynamic)
      for (std::size_t task = 0; task < p.E() * second; ++task) {
        std::size_t const e = task / second, h = task % second * h_;
        std::size_t const at = std::size_t(offset[e]), rows = std::size_t(offset[e + 1]) - at;
        if (rows == 0) continue;
        multiply(down_.data() + (e * H + h) * I, h_, act_.data() + at * I, I, y + at * H + h, H, h_,
                 rows, I);
      }
    }
  }

 private:
  static void pack(paged<float> const& from, paged<float>& to, std::size_t rows,
                   std::size_t columns, std::size_t block) {
    to.resize(from.size());
#pragma omp parallel for
    for (std::size_t strip = 0; strip < rows / block; ++strip) {
      std::size_t const at = strip * block * columns;
      libxsmm_otrans(to.data() + at, from.data() + at, sizeof(float), int(columns), int(block),
                     int(columns), int(block));
    }
  }
  std::size_t i_, h_;
  std::vector<float> act_;
  paged<float> up_, down_;
  std::vector<std::vector<float>> pre_;
};

class transposed_rows : public contestant<float> {
 public:
  explicit transposed_rows(problem<float> const& of)
      : contestant(of, "libxsmm", layout::plain),
        i_(block_of(of.I())),
        h_(block_of(of.H())),
        x_((of.R() + of.E() * lane) * of.H()),
        act_((of.R() + of.E() * lane) * of.I()),
        piece_(std::size_t(of.threads),
               std::vector<float>((of.R() + lane) * std::max(2 * i_, h_))) {}

  void run(batch<float> const& in, float* y) override {
    auto const& offset = in.offset;
    std::size_t const H = p.H(), I = p.I(), first = I / i_, second = H / h_;
    auto const at = [&](std::size_t e) { return std::size_t(offset[e]); };
    auto const rows = [&](std::size_t e) { return at(e + 1) - at(e); };
    auto const round = [&](std::size_t e) { return (rows(e) + lane - 1) / lane * lane; };
    auto const from = [&](std::size_t e) { return at(e) + e * lane; };  // of its rounded rows
#pragma omp parallel num_threads(p.threads)
    {
      float* const piece = piece_[std::size_t(omp_get_thread_num())].data();
#pragma omp for schedule(dynamic)
      for (std::size_t e = 0; e < p.E(); ++e) {
        if (rows(e) == 0) continue;
        libxsmm_otrans(x_.data() + from(e) * H, in.x.data() + at(e) * H, sizeof(float), int(H),
                       int(rows(e)), int(H), int(round(e)));
      }
#pragma omp for schedule(dynamic)
      for (std::size_t task = 0; task < p.E() * first; ++task) {
        std::size_t const e = task / first, i = task % first * i_, m = round(e);
        if (m == 0) continue;
        float const *const x = x_.data() + from(e) * H, *const w = p.up_of(e) + i * H;
        multiply(x, m, w, H, piece, m, m, i_, H);
        multiply(x, m, w + I * H, H, piece + i_ * m, m, m, i_, H);
        swiglu_rows(piece, act_.data() + from(e) * I + i * m, i_ * m, 1, i_ * m);
      }
#pragma omp for schedule(dynamic)
      for (std::size_t task = 0; task < p.E() * second; ++task) {
        std::size_t const e = task / second, h = task % second * h_, m = round(e);
        if (m == 0) continue;
        multiply(act_.data() + from(e) * I, m, p.down_of(e) + h * I, I, piece, m, m, h_, I);
        libxsmm_otrans(y + at(e) * H + h, piece, sizeof(float), int(rows(e)), int(h_), int(m),
                       int(H));
      }
    }
  }

 private:
  std::size_t i_, h_;
  std::vector<float> x_, act_;
  std::vector<std::vector<float>> piece_;
};

}  // namespace

template <>
contestants<float> of_libxsmm(problem<float> const& p, std::vector<std::string>& left_out) {
  libxsmm_init();
  if (block_of(p.I()) == 0 || block_of(p.H()) == 0) {
    left_out.push_back("libxsmm: H or I is no multiple of 16");
    return {};
  }
  contestants<float> all;
  all.push_back(std::make_unique<transposed_rows>(p));
  all.push_back(std::make_unique<strips>(p));
  return all;
}
template <> contestants<bf16> of_libxsmm(problem<bf16> const&, std::vector<std::string>& left_out) {
  left_out.push_back(
      "libxsmm, bf16: it makes no such kernels below AVX-512, and is not asked for them here");
  return {};
}

}  // namespace bench::peers
