#pragma once
/// across.hpp with its CUDA backend: pass on_cuda{stream}, device memory, and a transport between devices
/// (shunt/across/nccl.cuh, shunt/across/peers.cuh).
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/across.hpp"
#include "shunt/across/device_exchange.hpp"
#include "shunt/backend/cuda/across.cuh"
#include "shunt/layer.cuh"

namespace shunt {

/// Bytes that a call across ranks needs on a device, and on its host.
struct across_bytes {
  std::size_t device = 0;  ///< of device memory
  std::size_t host = 0;    ///< of host memory
};
/// Those bytes. The host's are numbers of ranks and experts, which the call reads and writes itself: any host memory
/// will do, and pinned memory makes the one copy to the device asynchronous. They stay as they are until the call's work
/// is done; what a graph captured, as long as it is replayed.
struct across_arena {
  arena<space::device> device = {};  ///< of device memory
  arena<> host = {};                 ///< of host memory
};
/// What moves the rows of a device: a device_exchange, a peer_exchange, or a single rank.
template <class X>
concept across_devices =
    exchange<X> && (device_exchange<X> || peer_exchange<X> || std::same_as<X, alone>);

inline namespace SHUNT_ABI {

/// The same as of a host, in two memories; `from.device.fits() && from.host.fits()` tells whether they sufficed.
template <across_devices X, storage T, storage G, any_activation A>
[[nodiscard]] moe_across_saved<T, space::device> carve_moe_across_saved(
    across_arena& from, among_ranks<X> const& among, index_t tokens,
    moe_weights<T, G, space::device> const& weights,
    layer_options<A, space::device> const& options) noexcept {
  if (among.transport.ranks() == 1) {
    moe_across_saved<T, space::device> s;
    s.layer = carve_moe_saved(from.device, tokens, weights, options);
    return s;
  }
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  return detail::carve_across_saved<T>(from.device, from.host, n, options, true);
}
/// Bytes of a moe_across_saved for a batch of `tokens` of this rank.
template <across_devices X, storage T, storage G, any_activation A>
[[nodiscard]] across_bytes moe_across_saved_bytes(
    among_ranks<X> const& among, index_t tokens, moe_weights<T, G, space::device> const& weights,
    layer_options<A, space::device> const& options) noexcept {
  across_arena from{arena<space::device>::measuring(), arena<>::measuring()};
  static_cast<void>(carve_moe_across_saved(from, among, tokens, weights, options));
  return {from.device.needed(), from.host.needed()};
}
/// Bytes of scratch that moe_layer_across needs. With `training`, where outputs.saved is given, it needs less.
template <across_devices X, storage T, storage G, any_activation A>
[[nodiscard]] across_bytes moe_layer_across_scratch_bytes(
    on_cuda const& on, among_ranks<X> const& among, index_t tokens,
    moe_weights<T, G, space::device> const& weights, layer_options<A, space::device> const& options,
    bool training = false) noexcept {
  if (among.transport.ranks() == 1) {
    return {moe_layer_scratch_bytes(on, tokens, weights, options, training), 0};
  }
  auto from = arena<space::device>::measuring();
  auto counts = arena<>::measuring();
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  using scratch = detail::across_forward_scratch<T, on_cuda>;
  static_cast<void>(scratch::carve(on, from, counts, n, options, training));
  if (!training) {
    static_cast<void>(detail::carve_across_saved<T>(from, counts, n, options, false));
  }
  return {from.needed(), counts.needed()};
}
/// Bytes of scratch that moe_layer_across_backward needs.
template <across_devices X, storage T, storage G, any_activation A>
[[nodiscard]] across_bytes moe_layer_across_backward_scratch_bytes(
    on_cuda const& on, among_ranks<X> const& among, index_t tokens,
    moe_weights<T, G, space::device> const& weights,
    layer_options<A, space::device> const& options) noexcept {
  if (among.transport.ranks() == 1) {
    return {moe_layer_backward_scratch_bytes(on, tokens, weights, options), 0};
  }
  auto from = arena<space::device>::measuring();
  auto counts = arena<>::measuring();
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  using scratch = detail::across_backward_scratch<T, on_cuda>;
  static_cast<void>(scratch::carve(on, from, counts, n, bool(weights.down_bias), true, options));
  return {from.needed(), counts.needed()};
}

}  // namespace SHUNT_ABI

namespace detail {
inline namespace SHUNT_ABI {

/// The three forms of a call, for what its caller passed.
template <class X, class In, class T, class G, class Y, class A>
status layer_across_on_device(on_cuda const& on, among_ranks<X> const& among, In x,
                              moe_weights<T, G, space::device> const& weights, Y y,
                              moe_across_outputs<T, space::device> const& outputs,
                              across_arena work, layer_options<A, space::device> const& options,
                              across_phase phase) noexcept {
  static_assert(std::same_as<element_t<In>, T> && std::same_as<element_t<Y>, T>,
                "shunt::moe_layer_across: x and y must have the weights' storage type");
  return run_layer_across<on_cuda, X, T, G, T, A>(on, among, as_input<on_cuda, 2>(x), weights,
                                                  as_output<on_cuda, 2>(y), outputs, work.device,
                                                  work.host, options, phase);
}
template <class X, class In, class T, class G, class DY, class DX, class A>
status layer_across_backward_on_device(on_cuda const& on, among_ranks<X> const& among, In x,
                                       moe_weights<T, G, space::device> const& weights, DY d_y,
                                       moe_across_saved<T, space::device> const& saved, DX d_x,
                                       moe_gradients<space::device> const& gradients,
                                       across_arena work,
                                       layer_options<A, space::device> const& options,
                                       across_phase phase) noexcept {
  using D = element_t<DX>;
  static_assert(std::same_as<element_t<In>, T> && std::same_as<element_t<DY>, T>,
                "shunt::moe_layer_across_backward: x and d_y must have the weights' storage type");
  static_assert(std::same_as<D, T> || std::same_as<D, float>,
                "shunt::moe_layer_across_backward: d_x must have the weights' storage type, or "
                "float");
  return run_layer_across_backward<on_cuda, X, T, G, D, A>(
      on, among, as_input<on_cuda, 2>(x), weights, as_input<on_cuda, 2>(d_y), saved,
      as_output<on_cuda, 2>(d_x), gradients, work.device, work.host, options, phase);
}

}  // namespace SHUNT_ABI
}  // namespace detail

/// moe_layer_across on a device. How many rows go where is known on the device first and needed on the host, so a call
/// over a device_exchange has three forms: this one waits once for on.stream, by the transport and at most until its
/// deadline; moe_layer_across_begin and moe_layer_across_finish leave that wait to the caller. What follows the wait is
/// enqueued. Over a peer_exchange nothing waits, and the call can be captured.
/// Shapes  as on a host; x, weights, y and outputs in device memory
/// Types   as moe_layer
/// Order   as on a host: the bits of moe_layer on a device over the tokens of all ranks. Ranks whose products differ
///         (on.products) are refused where bits would.
/// Aliasing y shares no memory with x or the weights.
/// Errors  as on a host; a stream that is not the transport's. An error after the wait is the stream's or the
///         transport's to tell: y and reports may be written then.
/// Cost    as on a host; the host waits once, and once more where counts do not fit beside the header. Never allocates.
/// Source  GShard (Lepikhin et al., 2020)
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, output<on_cuda, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer_across(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, Y y,
    std::type_identity_t<moe_across_outputs<T, space::device>> const& outputs, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_on_device(on, among, x, weights, y, outputs, work, options,
                                        detail::across_phase::whole);
}
/// What comes before the wait: logits, choice, counts, the gather of them. Enqueued; a rank with an error takes part,
/// and gets its sentence, as all do, from moe_layer_across_finish.
/// Shapes  as moe_layer_across; give both the same arguments, the same memory and, between them, the stream no other
///         call across ranks
/// Types   as moe_layer_across
/// Order   as moe_layer_across
/// Aliasing as moe_layer_across
/// Errors  of the runtime and the transport
/// Cost    never waits, never allocates
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, output<on_cuda, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_begin(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, Y y,
    std::type_identity_t<moe_across_outputs<T, space::device>> const& outputs, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_on_device(on, among, x, weights, y, outputs, work, options,
                                        detail::across_phase::begin);
}
/// The rest, once the stream has done what begin enqueued: then it does not wait.
/// Shapes  as moe_layer_across_begin
/// Types   as moe_layer_across
/// Order   as moe_layer_across
/// Aliasing as moe_layer_across
/// Errors  as moe_layer_across
/// Cost    as moe_layer_across
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, output<on_cuda, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_finish(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, Y y,
    std::type_identity_t<moe_across_outputs<T, space::device>> const& outputs, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_on_device(on, among, x, weights, y, outputs, work, options,
                                        detail::across_phase::finish);
}

/// The gradients of moe_layer_across on a device: as on a host, with the wait of moe_layer_across. Its messages carry
/// errors and options alone, as rows go where forward's went.
/// Shapes  as on a host, in device memory
/// Types   as moe_layer_backward
/// Order   as on a host
/// Aliasing none
/// Errors  as moe_layer_across
/// Cost    as on a host; the host waits once. Never allocates.
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, input<on_cuda, 2> DY,
          output<on_cuda, 2> DX, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_backward(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, DY d_y,
    std::type_identity_t<moe_across_saved<T, space::device>> const& saved, DX d_x,
    moe_gradients<space::device> const& gradients, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_backward_on_device(on, among, x, weights, d_y, saved, d_x, gradients,
                                                 work, options, detail::across_phase::whole);
}
/// What comes before the wait of moe_layer_across_backward.
/// Shapes  as moe_layer_across_backward; give both the same arguments
/// Types   as moe_layer_backward
/// Order   as moe_layer_across_backward
/// Aliasing none
/// Errors  of the runtime and the transport
/// Cost    never waits, never allocates
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, input<on_cuda, 2> DY,
          output<on_cuda, 2> DX, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_backward_begin(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, DY d_y,
    std::type_identity_t<moe_across_saved<T, space::device>> const& saved, DX d_x,
    moe_gradients<space::device> const& gradients, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_backward_on_device(on, among, x, weights, d_y, saved, d_x, gradients,
                                                 work, options, detail::across_phase::begin);
}
/// The rest, once the stream has done what begin enqueued: then it does not wait.
/// Shapes  as moe_layer_across_backward_begin
/// Types   as moe_layer_backward
/// Order   as moe_layer_across_backward
/// Aliasing none
/// Errors  as moe_layer_across
/// Cost    as moe_layer_across_backward
template <across_devices X, input<on_cuda, 2> In, storage T, storage G, input<on_cuda, 2> DY,
          output<on_cuda, 2> DX, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_backward_finish(
    on_cuda const& on, among_ranks<X> const& among, In x,
    moe_weights<T, G, space::device> const& weights, DY d_y,
    std::type_identity_t<moe_across_saved<T, space::device>> const& saved, DX d_x,
    moe_gradients<space::device> const& gradients, across_arena work,
    layer_options<A, space::device> const& options = {}) noexcept {
  return detail::layer_across_backward_on_device(on, among, x, weights, d_y, saved, d_x, gradients,
                                                 work, options, detail::across_phase::finish);
}

}  // namespace shunt
