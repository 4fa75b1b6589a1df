// Grouped products of the experts on a GPU: Shunt's beside cuBLAS, dense (one product of all rows with
// one expert's weights: what no grouping costs) and grouped (cublasGemmGroupedBatchedEx, whose sizes
// the host must know). Elements drawn at random are held against sums in double.
#include <cmath>
#include <cstdint>

#include "cuda/timed.hpp"
#include "shunt/experts.cuh"
#include "support/inputs.hpp"
#ifdef SHUNT_BENCH_CUBLAS
#include <cublas_v2.h>
#endif

namespace bench::cuda {
namespace {

using shunt::bf16, shunt::index_t, shunt::offset_t, shunt::space;

/// R rows in segments of E experts, weights [E,N,D], results [R,N].
template <class T> struct problem {
  offset_t R, E, N, D;
  std::vector<index_t> offset;
  std::vector<T> a, w;

  problem(shunt::shape const& s, offset_t outs, offset_t ins, skew how)
      : R(offset_t{s.tokens} * s.top_k), E(s.experts), N(outs), D(ins), offset(1) {
    std::vector<index_t> count(static_cast<std::size_t>(E));
    for (index_t const e : chosen_experts(s, how, 1)) ++count[static_cast<std::size_t>(e)];
    for (index_t const c : count) offset.push_back(offset.back() + c);
    a = noise<T>(static_cast<std::size_t>(R * D), 1, 2);
    w = noise<T>(static_cast<std::size_t>(E * N * D), 1, 3);
  }
  [[nodiscard]] double flops() const { return 2.0 * double(R) * double(N) * double(D); }
  /// Weights of experts that have rows, rows, results.
  [[nodiscard]] double bytes() const {
    double touched = 0;
    for (std::size_t e = 0; e + 1 < offset.size(); ++e)
      touched += offset[e] < offset[e + 1] ? 1 : 0;
    return sizeof(T) * (touched * double(N * D) + double(R * D) + double(R * N));
  }
  /// What is wrong with c; `one`: all rows meet the first expert.
  [[nodiscard]] std::string verify(std::vector<T> const& c, bool one) const {
    rng draw(7);
    for (int i = 0; i < 200; ++i) {
      auto const r = static_cast<offset_t>(draw.uniform() * double(R));
      auto const n = static_cast<offset_t>(draw.uniform() * double(N));
      offset_t e = 0;
      while (!one && offset[static_cast<std::size_t>(e + 1)] <= r) ++e;
      double sum = 0, size = 0;
      for (offset_t k = 0; k < D; ++k) {
        double const p = double(shunt::to_float(a[static_cast<std::size_t>(r * D + k)])) *
                         double(shunt::to_float(w[static_cast<std::size_t>((e * N + n) * D + k)]));
        sum += p;
        size += std::abs(p);
      }
      double const got = shunt::to_float(c[static_cast<std::size_t>(r * N + n)]);
      double const bound = std::abs(sum) * (sizeof(T) == 2 ? 0x1p-8 : 0x1p-22) + size * 0x1p-20;
      if (!(std::abs(got - sum) <= bound)) {
        return "row " + std::to_string(r) + ", column " + std::to_string(n) + ": " +
               std::to_string(got) + ", not " + std::to_string(sum);
      }
    }
    return "";
  }
};

template <class T> struct memory {
  int copies;
  buffer<index_t> offset;
  buffer<T> a, w, c;
  explicit memory(problem<T> const& p)
      : copies(copies_of(p.bytes())),
        offset(p.offset),
        a(p.a, copies),
        w(p.w, copies),
        c(p.R * p.N, copies) {}
};

template <class T> void shunts(benchmark::State& state, problem<T> const& p) {
  memory<T> const m(p);
  measure(
      state, p.flops(), p.bytes(), m.copies, [&] { return p.verify(m.c.host(), false); },
      [&](shunt::on_cuda on, int i) {
        return said(shunt::grouped_gemm(on, m.a.as(i, p.R, p.D), m.w.as(i, p.E, p.N, p.D),
                                        {m.offset.as(0, p.E + 1)}, m.c.as(i, p.R, p.N)));
      });
}

#ifdef SHUNT_BENCH_CUBLAS
/// A handle with the memory that it needs under capture.
struct cublas {
  cublasHandle_t handle{};
  buffer<std::byte> work{32 << 20};
  cublas() {
    (void)cublasCreate(&handle);
    (void)cublasSetWorkspace(handle, work.data(), 32 << 20);
  }
  ~cublas() { (void)cublasDestroy(handle); }
  void on(cudaStream_t stream) const {
    (void)cublasSetStream(handle, stream);
    (void)cublasSetWorkspace(handle, work.data(), 32 << 20);
  }
};
inline std::string said(cublasStatus_t s) {
  return s == CUBLAS_STATUS_SUCCESS ? "" : std::string("cuBLAS: ") + cublasGetStatusString(s);
}
template <class T> constexpr cudaDataType_t type_of = sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F;

// Row-major c = a wᵀ is column-major cᵀ = w aᵀ.
template <class T> void dense(benchmark::State& state, problem<T> const& p) {
  memory<T> const m(p);
  cublas const blas;
  float const one = 1, zero = 0;
  double const bytes = sizeof(T) * double(p.N * p.D + p.R * p.D + p.R * p.N);
  measure(
      state, p.flops(), bytes, m.copies, [&] { return p.verify(m.c.host(), true); },
      [&](shunt::on_cuda on, int i) {
        blas.on(on.stream);
        return said(cublasGemmEx(blas.handle, CUBLAS_OP_T, CUBLAS_OP_N, int(p.N), int(p.R),
                                 int(p.D), &one, m.w.data(i), type_of<T>, int(p.D), m.a.data(i),
                                 type_of<T>, int(p.D), &zero, m.c.data(i), type_of<T>, int(p.N),
                                 CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
      });
}

template <class T> void grouped(benchmark::State& state, problem<T> const& p) {
  memory<T> const m(p);
  cublas const blas;
  std::vector<int> rows, outs, ins, each;
  std::vector<cublasOperation_t> turned, plain;
  std::vector<float> one, zero;
  std::vector<std::uintptr_t> at_w, at_a, at_c;  // of all copies, one after another
  for (int i = 0; i < m.copies; ++i) {
    for (offset_t e = 0; e < p.E; ++e) {
      offset_t const first = p.offset[static_cast<std::size_t>(e)];
      offset_t const count = p.offset[static_cast<std::size_t>(e + 1)] - first;
      if (count == 0) continue;
      at_w.push_back(reinterpret_cast<std::uintptr_t>(m.w.data(i) + e * p.N * p.D));
      at_a.push_back(reinterpret_cast<std::uintptr_t>(m.a.data(i) + first * p.D));
      at_c.push_back(reinterpret_cast<std::uintptr_t>(m.c.data(i) + first * p.N));
      if (i > 0) continue;
      rows.push_back(int(count)), outs.push_back(int(p.N)), ins.push_back(int(p.D));
      each.push_back(1), one.push_back(1), zero.push_back(0);
      turned.push_back(CUBLAS_OP_T), plain.push_back(CUBLAS_OP_N);
    }
  }
  buffer<std::uintptr_t> const w(at_w), a(at_a), c(at_c);
  measure(
      state, p.flops(), p.bytes(), m.copies, [&] { return p.verify(m.c.host(), false); },
      [&](shunt::on_cuda on, int i) {
        blas.on(on.stream);
        std::size_t const first = rows.size() * static_cast<std::size_t>(i);
        auto const inputs = [&](buffer<std::uintptr_t> const& from) {
          return reinterpret_cast<void const* const*>(from.data() + first);
        };
        return said(cublasGemmGroupedBatchedEx(
            blas.handle, turned.data(), plain.data(), outs.data(), rows.data(), ins.data(),
            one.data(), inputs(w), type_of<T>, ins.data(), inputs(a), type_of<T>, ins.data(),
            zero.data(), reinterpret_cast<void* const*>(c.data() + first), type_of<T>, outs.data(),
            int(rows.size()), each.data(), CUBLAS_COMPUTE_32F));
      });
}
#endif

template <class T> void add_all(char const* type) {
  struct one {
    shunt::shape s;
    offset_t outs, ins;
  };
  for (one const& o :
       {one{{.experts = 8, .top_k = 2}, 96, 160},  // for the software device
        one{{.experts = 64, .top_k = 6}, 2816, 2048}, one{{.experts = 64, .top_k = 6}, 2048, 1408},
        one{{.experts = 128, .top_k = 8}, 1536, 2048},
        one{{.experts = 128, .top_k = 8}, 2048, 768}}) {
    for (index_t const tokens : {1, 8, 64, 512, 4096}) {
      for (skew const how : {skew::uniform, skew::zipf}) {
        shunt::shape s = o.s;
        s.tokens = tokens;
        bool const tiny = s.experts == 8;
        if (tiny && (tokens != 64 || how != skew::zipf)) continue;
        std::string const name = "/E" + std::to_string(s.experts) + "_K" + std::to_string(s.top_k) +
                                 "_N" + std::to_string(o.outs) + "_D" + std::to_string(o.ins) +
                                 "/" + type + "/T" + std::to_string(tokens) + "/" + to_string(how);
        auto const with = [=](auto* body) {
          return [=](benchmark::State& state) { body(state, problem<T>(s, o.outs, o.ins, how)); };
        };
        add("grouped_gemm" + name, tiny, with(&shunts<T>));
#ifdef SHUNT_BENCH_CUBLAS
        add("cublas_grouped" + name, tiny, with(&grouped<T>));
        if (how == skew::uniform) add("cublas_dense" + name, tiny, with(&dense<T>));
#endif
      }
    }
  }
}

void register_all() {
  add_all<bf16>("bf16");
  add_all<float>("f32");
}

}  // namespace
}  // namespace bench::cuda

int main(int count, char** words) {
  return bench::cuda::run(count, words, bench::cuda::register_all);
}
