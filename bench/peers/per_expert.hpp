#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "peers/feed_forward.hpp"

namespace bench::peers {

/// A library that multiplies one expert's rows at a time: expert after expert on the library's own
/// threads, or a thread for each expert (`by_expert`, named so), the library on one.
template <class T> class per_expert : public contestant<T> {
 public:
  per_expert(problem<T> const& of, std::string const& library, bool by_expert, layout weights)
      : contestant<T>(of, by_expert ? library + "_by_expert" : library, weights),
        by_expert_(by_expert),
        pre_(of.R() * 2 * of.I()),
        act_(of.R() * of.I()) {}

  void run(batch<T> const& in, T* y) override {
    use_threads(by_expert_ ? 1 : p.threads);
    if (by_expert_) {
#pragma omp parallel for schedule(dynamic) num_threads(p.threads)
      for (std::size_t e = 0; e < p.E(); ++e) {
        auto const first = std::size_t(in.offset[e]), rows = std::size_t(in.offset[e + 1]) - first;
        up_rows(e, in);
        if (rows > 0) swiglu_rows(pre_of(first), act_of(first), p.I(), rows, p.I());
        down_rows(e, in, y);
      }
    } else {
      for (std::size_t e = 0; e < p.E(); ++e) up_rows(e, in);
      swiglu_all(pre_.data(), act_.data(), p.R(), p.I(), p.threads);
      for (std::size_t e = 0; e < p.E(); ++e) down_rows(e, in, y);
    }
  }

 protected:
  using contestant<T>::p;
  /// How many threads the library takes for a product that the calling thread asks for.
  virtual void use_threads(int count) = 0;
  /// c [rows,2I] = x [rows,H] · up[e]', and c [rows,H] = x [rows,I] · down[e]', on any thread.
  virtual void up(std::size_t e, std::size_t rows, T const* x, T* c) = 0;
  virtual void down(std::size_t e, std::size_t rows, T const* x, T* c) = 0;

 private:
  T* pre_of(std::size_t row) { return pre_.data() + row * 2 * p.I(); }
  T* act_of(std::size_t row) { return act_.data() + row * p.I(); }
  void up_rows(std::size_t e, batch<T> const& in) {
    auto const first = std::size_t(in.offset[e]);
    up(e, std::size_t(in.offset[e + 1]) - first, in.x.data() + first * p.H(), pre_of(first));
  }
  void down_rows(std::size_t e, batch<T> const& in, T* y) {
    auto const first = std::size_t(in.offset[e]);
    down(e, std::size_t(in.offset[e + 1]) - first, act_of(first), y + first * p.H());
  }

  bool by_expert_;
  std::vector<T> pre_, act_;
};

}  // namespace bench::peers
