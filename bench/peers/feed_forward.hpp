#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <shunt/core/numeric.hpp>
#include <shunt/core/shape.hpp>
#include <shunt/experts/formats.hpp>

#include "support/pages.hpp"

/// The routed feed-forward that all libraries compute here, as an inference engine would with each.

namespace bench::peers {

using shunt::bf16;
using shunt::index_t;

/// How tokens were routed, and the rows that this makes of them.
template <class T> struct batch {
  std::vector<index_t> chosen;  ///< [T,K] experts
  std::vector<index_t> offset;  ///< [E+1] the rows of each
  std::vector<index_t> slot;    ///< [R] which of [T,K] a row is of
  std::vector<T> x;             ///< [R,H], the rows in the order of the experts
};

/// Weights, and the batches that go through them one after another: set_tokens() makes others, no
/// larger than the first. y[r] = down[e] · (silu(gate[e] · x[r]) ∘ (up[e] · x[r])) for the rows r of each expert e.
template <class T> struct problem {
  shunt::shape s;
  int threads;
  paged<T> up;            ///< [E, 2I, H], an expert's gate rows before its up rows
  paged<T> down;          ///< [E, H, I]
  std::vector<T> tokens;  ///< [T, H]
  std::vector<batch<T>> batches;
  int repeats = 1;  ///< how often they are gone through in a turn

  problem(shunt::shape const& s, int threads);  ///< weights, and batches of s.tokens
  void set_tokens(index_t tokens);

  [[nodiscard]] std::size_t E() const { return std::size_t(s.experts); }
  [[nodiscard]] std::size_t H() const { return std::size_t(s.hidden); }
  [[nodiscard]] std::size_t I() const { return std::size_t(s.intermediate); }
  [[nodiscard]] std::size_t R() const { return std::size_t(s.tokens) * std::size_t(s.top_k); }
  [[nodiscard]] T const* up_of(std::size_t e) const { return up.data() + e * 2 * I() * H(); }
  [[nodiscard]] T const* down_of(std::size_t e) const { return down.data() + e * H() * I(); }
};

/// Weights as the model has them, or a copy that the library made once in an order of its own.
enum class layout { plain, packed };

/// One way to compute the problem with one library.
template <class T> class contestant {
 public:
  contestant(problem<T> const& of, std::string name, layout weights)
      : p(of), name_(std::move(name)), weights_(weights) {}
  contestant(contestant const&) = delete;
  virtual ~contestant() = default;
  [[nodiscard]] std::string const& name() const { return name_; }
  [[nodiscard]] layout weights() const { return weights_; }
  /// Called when the batches have changed.
  virtual void prepare() {}
  /// y [R,H] of the batch, a row for each of its rows.
  virtual void run(batch<T> const& in, T* y) = 0;
  /// Puts into y what run() had to leave elsewhere, in an order or type of the library's own. Not timed.
  virtual void finish(batch<T> const&, T*) {}

 protected:
  problem<T> const& p;

 private:
  std::string name_;
  layout weights_;
};

/// Their scratch is made for the batches that the problem has now.
template <class T> using contestants = std::vector<std::unique_ptr<contestant<T>>>;

/// What a library can do with T here; `left_out` gets a line for each way that it cannot.
template <class T> contestants<T> of_shunt(problem<T> const&);
/// Weights as they lie: what all others are compared with.
template <class T> std::unique_ptr<contestant<T>> reference(problem<T> const&);
/// The weights rounded to a format: rows kept, and rows rounded to int8 too.
template <shunt::quantized F> contestants<float> of_shunt_as(problem<float> const&);
template <class T>
contestants<T> of_openblas(problem<T> const&, std::vector<std::string>& left_out);
template <class T> contestants<T> of_onednn(problem<T> const&, std::vector<std::string>& left_out);
template <class T> contestants<T> of_libxsmm(problem<T> const&, std::vector<std::string>& left_out);
template <class T> contestants<T> of_ggml(problem<T> const&, std::vector<std::string>& left_out);
/// The weights rounded to the library's format beside Shunt's F.
template <shunt::quantized F>
contestants<float> of_ggml_as(problem<float> const&, std::vector<std::string>& left_out);

/// out [rows,width] = silu(gate) ∘ up of pre [rows, 2·width], gate columns first, on the calling
/// thread. None of the libraries has it for rows like these: all of them are given Shunt's.
template <class T>
void swiglu_rows(T const* pre, T* out, std::size_t out_stride, std::size_t rows, std::size_t width);

/// The same of [0, rows) on OpenMP's threads: another pool beside a library's would fight with it.
template <class T>
void swiglu_all(T const* pre, T* out, std::size_t rows, std::size_t width, int threads);

}  // namespace bench::peers
