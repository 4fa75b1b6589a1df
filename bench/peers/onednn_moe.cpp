// oneDNN: a matmul primitive for each number of rows that occurs, made once and kept. Weights as they
// lie, or reordered once into what the library asks for; its own threads inside one product, or a
// thread for each expert.
#include <omp.h>

#include <dnnl.hpp>
#include <map>

#include "peers/per_expert.hpp"

namespace bench::peers {
namespace {

using dnnl::matmul;
using dnnl::memory;
using tag = memory::format_tag;

template <class T>
constexpr auto type_of =
    std::is_same_v<T, float> ? memory::data_type::f32 : memory::data_type::bf16;

memory::desc rows_of(memory::dim rows, memory::dim columns, memory::data_type type) {
  return {{rows, columns}, type, tag::ab};
}

/// c [m,N] = a [m,K] · W [N,K] transposed, for any m. The primitives are made ahead of the calls.
template <class T> class product {
 public:
  product(dnnl::engine const& on, memory::dim N, memory::dim K)
      : on_(on), N_(N), K_(K), plain_({K, N}, type_of<T>, tag::ba), weights_(plain_) {}

  /// The order that the library would like for about `rows` rows; false where that is the plain one.
  bool ask_for_order(memory::dim rows) {
    weights_ = make(rows, memory::desc({K_, N_}, type_of<T>, tag::any)).weights_desc();
    return weights_ != plain_;
  }
  [[nodiscard]] memory::desc const& weights() const { return weights_; }
  [[nodiscard]] memory::desc const& plain() const { return plain_; }

  void prepare(memory::dim rows) {
    if (rows == 0 || ready_.count(rows) != 0) return;
    auto const made = make(rows, weights_);
    ready_.emplace(rows, kept{matmul(made), made.scratchpad_desc()});
  }
  void operator()(dnnl::stream& in, memory::dim rows, T const* a, void const* w, T* c,
                  std::vector<char>& scratch) const {
    if (rows == 0) return;
    kept const& one = ready_.at(rows);
    if (scratch.size() < one.scratch.get_size()) scratch.resize(one.scratch.get_size());
    one.run.execute(in,
                    {{DNNL_ARG_SRC, memory(rows_of(rows, K_, type_of<T>), on_, const_cast<T*>(a))},
                     {DNNL_ARG_WEIGHTS, memory(weights_, on_, const_cast<void*>(w))},
                     {DNNL_ARG_DST, memory(rows_of(rows, N_, type_of<T>), on_, c)},
                     {DNNL_ARG_SCRATCHPAD, memory(one.scratch, on_, scratch.data())}});
  }

 private:
  struct kept {
    matmul run;
    memory::desc scratch;
  };
  [[nodiscard]] matmul::primitive_desc make(memory::dim rows, memory::desc const& w) const {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    auto const a = rows_of(rows, K_, type_of<T>), c = rows_of(rows, N_, type_of<T>);
#if DNNL_VERSION_MAJOR < 3
    return {matmul::desc(a, w, c), attributes, on_};
#else
    return {on_, a, w, c, attributes};
#endif
  }

  dnnl::engine on_;
  memory::dim N_, K_;
  memory::desc plain_, weights_;
  std::map<memory::dim, kept> ready_;
};

/// The weights in the library's own order, for one contestant or more.
struct packed_weights {
  std::vector<paged<char>> up, down;
};

template <class T> class onednn : public per_expert<T> {
  using per_expert<T>::p;

 public:
  /// Throws dnnl::error where the library has no such product on this processor, and a sentence where
  /// it has no order of its own.
  onednn(problem<T> const& of, bool by_expert, layout weights,
         std::shared_ptr<packed_weights> const& packed)
      : per_expert<T>(of, "onednn", by_expert, weights),
        first_(on_, 2 * of.s.intermediate, of.s.hidden),
        second_(on_, of.s.hidden, of.s.intermediate),
        scratch_(std::size_t(of.threads)),
        packed_(packed) {
    if (weights == layout::packed) pack();
    for (int t = 0; t < of.threads; ++t) streams_.emplace_back(on_);
    prepare();
  }

  void prepare() override {
    for (auto const& in : p.batches) {
      for (std::size_t e = 0; e < p.E(); ++e) {
        first_.prepare(in.offset[e + 1] - in.offset[e]);
        second_.prepare(in.offset[e + 1] - in.offset[e]);
      }
    }
  }

 private:
  void pack() {
    memory::dim const usual = std::max<memory::dim>(1, p.s.tokens * p.s.top_k / p.s.experts);
    bool const ordered = first_.ask_for_order(usual);
    if (!second_.ask_for_order(usual) && !ordered) throw "its order is the plain one here";
    if (!packed_->up.empty()) return;
    pack(first_, p.up, packed_->up);
    pack(second_, p.down, packed_->down);
  }
  void pack(product<T> const& of, paged<T> const& from, std::vector<paged<char>>& to) {
    dnnl::stream in(on_);
    std::size_t const each = from.size() / p.E();
    for (std::size_t e = 0; e < p.E(); ++e) {
      to.emplace_back(of.weights().get_size());
      memory source(of.plain(), on_, const_cast<T*>(from.data() + e * each));
      memory target(of.weights(), on_, to.back().data());
      dnnl::reorder(source, target).execute(in, source, target);
    }
    in.wait();
  }
  /// Inside another parallel region OpenMP gives one thread, whatever is asked for.
  void use_threads(int) override { omp_set_num_threads(p.threads); }
  void up(std::size_t e, std::size_t rows, T const* x, T* c) override {
    multiply(first_, own_order() ? packed_->up[e].data() : (void const*)p.up_of(e), rows, x, c);
  }
  void down(std::size_t e, std::size_t rows, T const* x, T* c) override {
    multiply(second_, own_order() ? packed_->down[e].data() : (void const*)p.down_of(e), rows, x,
             c);
  }
  void multiply(product<T> const& by, void const* w, std::size_t rows, T const* x, T* c) {
    auto const mine = std::size_t(omp_get_thread_num());
    by(streams_[mine], memory::dim(rows), x, w, c, scratch_[mine]);
  }
  [[nodiscard]] bool own_order() const { return this->weights() == layout::packed; }

  dnnl::engine on_{dnnl::engine::kind::cpu, 0};
  product<T> first_, second_;
  std::vector<std::vector<char>> scratch_;
  std::shared_ptr<packed_weights> packed_;
  std::vector<dnnl::stream> streams_;
};

}  // namespace

template <class T>
contestants<T> of_onednn(problem<T> const& p, std::vector<std::string>& left_out) {
  contestants<T> all;
  std::string const what = std::is_same_v<T, float> ? "onednn, f32" : "onednn, bf16";
  for (layout const weights : {layout::plain, layout::packed}) {
    std::string const which = what + (weights == layout::plain ? ", plain: " : ", packed: ");
    auto const packed = std::make_shared<packed_weights>();
    try {
      for (bool const by_expert : {false, true}) {
        all.push_back(std::make_unique<onednn<T>>(p, by_expert, weights, packed));
      }
    } catch (dnnl::error const& e) {
      left_out.push_back(which + "no such product on this processor (" + e.what() + ")");
    } catch (char const* sentence) { left_out.push_back(which + sentence); }
  }
  return all;
}
template contestants<float> of_onednn(problem<float> const&, std::vector<std::string>&);
template contestants<bf16> of_onednn(problem<bf16> const&, std::vector<std::string>&);

}  // namespace bench::peers
