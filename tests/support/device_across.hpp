#pragma once
#include <algorithm>
#include <functional>
#include <vector>

#include "shunt/across.cuh"
#include "support/across_layer.hpp"
#include "support/device_mirror.hpp"

/// A rank of the layer on a device: what it computes comes back into rank_of_layer, which compares.
namespace shunt::test {

/// Pinned memory: the device reads it when its stream comes to it, and not before.
class pinned_bytes {
 public:
  explicit pinned_bytes(std::size_t bytes) : size_(bytes) {
    EXPECT_EQ(cudaMallocHost(&data_, bytes + 1), cudaSuccess);
  }
  pinned_bytes(pinned_bytes const&) = delete;
  ~pinned_bytes() { EXPECT_EQ(cudaFreeHost(data_), cudaSuccess); }
  [[nodiscard]] arena<> all() const { return {data_, size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

/// Both memories of a call, in as many bytes as asked for.
class across_memory {
 public:
  explicit across_memory(across_bytes bytes)
      : device_(static_cast<offset_t>(bytes.device)), host_(bytes.host) {}
  [[nodiscard]] across_arena all() const { return {{device_.data(), device_.size()}, host_.all()}; }

 private:
  on_device<std::byte> device_;
  pinned_bytes host_;
};

/// How a call is made: as one, or as begin, the caller's own wait, and finish.
enum class call_form { whole, parts };

template <class T> class device_rank_of_layer : public rank_of_layer<T> {
 public:
  using rank_of_layer<T>::rank_of_layer;
  static constexpr space S = space::device;
  bool without_memory = false;      ///< forward is given no scratch
  bool untouched_on_device = true;  ///< after an error: y and the counts are as they were

  /// How the calls that `enqueue` makes are run, and their results brought back. `x`: the tokens on the device.
  using driver = std::function<void(std::function<void()> const& enqueue,
                                    std::function<void()> const& bring, T* x)>;
  static void run_once(std::function<void()> const& enqueue, std::function<void()> const& bring,
                       T*) {
    enqueue();
    bring();
  }

  template <exchange X>
  void run_on_device(X& transport, on_cuda const& on, layer_options<activation> const& whole,
                     call_form form = call_form::whole, bool train = true,
                     driver const& drive = run_once) {
    layer_formula const& f = this->s.is.f;
    auto const T_r = static_cast<index_t>(this->tokens);
    among_ranks<X> const among{.transport = transport,
                               .placement = this->p.view_of(),
                               .most_tokens = f.tokens,
                               .report = &this->traffic};
    device_mirror mirror;
    auto const w = device_weights(mirror);
    auto o = mirror.in(this->options(whole));
    if (whole.ids) o.ids = mirror.in(view<index_t const, 2>(this->options(whole).ids.wide()));
    view<T const, 2, S> const x = mirror.in(this->x()), d_y = mirror.in(this->d_y());
    on_device<T> y_there(size(this->y)), d_x_there(size(this->d_x));
    results to(*this, f);
    moe_across_outputs<T, S> out = to.outputs(f, o, T_r);
    across_memory const work(moe_layer_across_scratch_bytes(on, among, T_r, w, o, train)),
        kept(moe_across_saved_bytes(among, T_r, w, o));
    across_arena from = kept.all();
    auto const keep = carve_moe_across_saved(from, among, T_r, w, o);
    if (train) out.saved = &keep;
    auto const y_view = y_there.as(T_r, f.width), d_x_view = d_x_there.as(T_r, f.width);
    EXPECT_EQ(cudaMemset(y_there.data(), 0xff, y_there.size() * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // what was copied is on another stream
    across_arena const scratch = without_memory ? across_arena{} : work.all();
    across_memory const again(moe_layer_across_backward_scratch_bytes(on, among, T_r, w, o));
    auto const wait = [&](status& done) {
      if constexpr (device_exchange<X>) {
        if (done.ok()) done = transport.take_messages(nullptr);
      }
      return done.ok();
    };
    auto const enqueue = [&] {
      status &one = this->forward, &two = this->backward;
      if (form == call_form::whole) {
        one = moe_layer_across(on, among, x, w, y_view, out, scratch, o);
      } else {
        one = moe_layer_across_begin(on, among, x, w, y_view, out, scratch, o);
        if (wait(one)) one = moe_layer_across_finish(on, among, x, w, y_view, out, scratch, o);
      }
      if (!one.ok() || !train) return;
      moe_gradients<S> const g = to.gradients(*this);
      if (form == call_form::whole) {
        two = moe_layer_across_backward(on, among, x, w, d_y, keep, d_x_view, g, again.all(), o);
        return;
      }
      two =
          moe_layer_across_backward_begin(on, among, x, w, d_y, keep, d_x_view, g, again.all(), o);
      if (wait(two)) {
        two = moe_layer_across_backward_finish(on, among, x, w, d_y, keep, d_x_view, g, again.all(),
                                               o);
      }
    };
    auto const bring = [&] {
      EXPECT_EQ(cudaStreamSynchronize(on.stream), cudaSuccess);
      if (!this->forward.ok()) {
        untouched_on_device = all_ones(y_there) && all_ones(to.counts);
        return;
      }
      take(y_there, this->y);
      to.bring(*this);
      if (!train) return;
      take(d_x_there, this->d_x);
      bring_choice(keep.layer.choice);
    };
    drive(enqueue, bring, const_cast<T*>(x.data()));
  }

 private:
  template <class C> static offset_t size(C const& c) { return static_cast<offset_t>(c.size()); }
  template <class V> static void take(on_device<V> const& from, guarded<V>& to) {
    auto const all = from.host();
    std::copy(all.begin(), all.end(), to.begin());
  }
  template <class V> static bool all_ones(on_device<V> const& m) {
    auto const all = m.host();
    auto const* const bytes = reinterpret_cast<unsigned char const*>(all.data());
    return std::all_of(bytes, bytes + all.size() * sizeof(V),
                       [](unsigned char b) { return b == 0xff; });
  }
  /// Device memory for everything that a rank writes beside y and d_x: bytes of ones, which are NaN.
  struct results {
    on_device<float> up, down, up_bias, down_bias, gate, importance, loss;
    on_device<index_t> counts, total, wanted, kept;
    results(rank_of_layer<T> const& r, layer_formula const&)
        : up(size(r.up)),
          down(size(r.down)),
          up_bias(size(r.up_bias)),
          down_bias(size(r.down_bias)),
          gate(size(r.gate)),
          importance(size(r.importance)),
          loss(2),
          counts(size(r.counts)),
          total(1),
          wanted(size(r.wanted)),
          kept(size(r.kept)) {
      each([](auto const& m) {
        if (m.size() > 0) {
          EXPECT_EQ(cudaMemset(m.data(), 0xff, m.size() * sizeof(*m.data())), cudaSuccess);
        }
      });
    }
    template <class Each> void each(Each const& do_it) {
      do_it(up), do_it(down), do_it(up_bias), do_it(down_bias), do_it(gate), do_it(importance);
      do_it(loss), do_it(counts), do_it(total), do_it(wanted), do_it(kept);
    }
    moe_across_outputs<T, S> outputs(layer_formula const& f, layer_options<activation, S> const& o,
                                     index_t) {
      moe_across_outputs<T, S> out;
      out.route.counts = counts.as(f.experts);
      out.route.tokens = total.as(1);
      if (f.balance > 0) out.route.importance = importance.as(f.experts);
      out.plan.wanted = wanted.as(wanted.size());
      out.plan.kept = kept.as(kept.size());
      if (o.balance_loss != 0.0f || o.z_loss != 0.0f) out.loss = loss.as(2);
      return out;
    }
    moe_gradients<S> gradients(device_rank_of_layer const& r) {
      layer_formula const& f = r.s.is.f;
      auto const L = r.experts.size();
      moe_gradients<S> g;
      g.gate = gate.as(f.experts, f.width);
      g.up = expert_gradient<S>(up.as(L, f.halves() * f.intermediate, f.hidden));
      if (f.halves() == 2) g.up = g.up.in_pairs(r.s.layout());
      g.down = expert_gradient<S>(down.as(L, f.hidden, f.intermediate));
      if (f.biases) {
        g.up_bias = up_bias.as(L, f.halves() * f.intermediate);
        g.down_bias = down_bias.as(L, f.hidden);
      }
      return g;
    }
    void bring(rank_of_layer<T>& to) {
      take(up, to.up), take(down, to.down), take(up_bias, to.up_bias);
      take(down_bias, to.down_bias), take(gate, to.gate), take(importance, to.importance);
      take(loss, to.loss), take(counts, to.counts), take(total, to.total);
      take(wanted, to.wanted), take(kept, to.kept);
    }
  };
  moe_weights<T, T, S> device_weights(device_mirror& mirror) {
    layer_formula const& f = this->s.is.f;
    auto const L = static_cast<offset_t>(this->experts.size());
    auto w = mirror.in(this->s.weights());
    auto const part = [&](guarded<T> const& all, offset_t each) {
      std::vector<T> mine;
      for (index_t e : this->experts) {
        mine.insert(mine.end(), all.data() + e * each, all.data() + (e + 1) * each);
      }
      mine.push_back(T{});  // a rank without experts has no null pointers
      return mirror.in(view<T const, 1>(mine.data(), {{static_cast<offset_t>(mine.size())}}))
          .data();
    };
    offset_t const N = f.halves() * f.intermediate, H = f.hidden, I = f.intermediate;
    w.up = expert_matrix<T, S>(view<T const, 3, S>(part(this->s.up, N * H), {{L, N, H}}));
    if (f.halves() == 2) w.up = w.up.in_pairs(this->s.layout());
    w.down = expert_matrix<T, S>(view<T const, 3, S>(part(this->s.down, H * I), {{L, H, I}}));
    if (f.biases) {
      w.up_bias = view<T const, 2, S>(part(this->s.up_bias, N), {{L, N}});
      w.down_bias = view<T const, 2, S>(part(this->s.down_bias, H), {{L, H}});
    }
    return w;
  }
  void bring_choice(routing<S> const& choice) {
    auto const bring = [](auto const& from, auto& to) {
      to.resize(static_cast<std::size_t>(from.size()));
      if (to.empty()) return;
      EXPECT_EQ(
          cudaMemcpy(to.data(), from.data(), to.size() * sizeof(to[0]), cudaMemcpyDeviceToHost),
          cudaSuccess);
    };
    bring(choice.expert, expert_);
    bring(choice.gate, gate_);
    this->saved.layer.choice.expert = {expert_.data(), choice.expert.extents()};
    this->saved.layer.choice.gate = {gate_.data(), choice.gate.extents()};
  }
  std::vector<index_t> expert_;
  std::vector<float> gate_;
};

}  // namespace shunt::test
