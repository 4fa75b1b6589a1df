"""Every primitive and the layer on a CUDA device, against the host: the same bits."""

from __future__ import annotations

from types import SimpleNamespace

import device
import numpy as np
import pytest
from device import Array, Interface, Stream, empty
from oracle import two_lists
from test_layer import layer_of

import shunt

T, H, I, E, K = 6, 8, 7, 5, 2
f32, i32 = np.float32, np.int32
HOST = SimpleNamespace(put=lambda a: a, get=lambda a: a, on=None)
DEVICE = SimpleNamespace(put=Array.of, get=Array.host, on=shunt.on_cuda(empty=empty))
EXACT = SimpleNamespace(put=Array.of, get=Array.host,
                        on=shunt.on_cuda(products="exact", empty=empty))  # fmt: skip


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(f32)


def bits(rng, *shape):
    """bfloat16."""
    return (floats(rng, *shape).view(np.uint32) >> 16).astype(np.uint16)


def same_on_both(case, device=DEVICE, **arguments):
    """case(rng, at) → arrays: of the same numbers at both places, they must be the same bits."""
    results = []
    for at in (HOST, device):
        made = case(np.random.default_rng(7), at, **arguments)
        results.append([None if a is None else np.asarray(at.get(a)) for a in made])
    host, there = results
    assert len(host) == len(there) and any(a is not None and a.any() for a in host)
    for i, (a, b) in enumerate(zip(host, there)):
        assert (a is None) == (b is None), i
        if a is not None:
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), i


def routed(at, logits, options, **more):
    out = shunt.Routing(sequence_counts=at.put(np.zeros((1, E), i32)),
                        sequence_importance=at.put(np.zeros((1, E), f32)),
                        sequence_tokens=at.put(np.zeros(1, i32)))  # fmt: skip
    want = ("z", "counts", "importance", "tokens", "recorded", "report")
    return shunt.route(logits, K, options, out=out, want=want, on=at.on, **more)


@pytest.mark.parametrize("store", [floats, bits])
def test_route_its_losses_and_its_backward(store):
    def case(rng, at):
        logits, d_gate = at.put(store(rng, T, E)), at.put(floats(rng, T, K))
        options = shunt.route_options(score="sigmoid", gates="renormalized", scale=2.5)
        valid = at.put(np.array([1, 1, 0, 1, 1, 1], np.uint8))
        r = routed(at, logits, options, valid=valid, choice_bias=at.put(floats(rng, E)))
        loss, d_importance = shunt.balance_loss(r, on=at.on)
        sequence_loss, d_sequence = shunt.sequence_balance_loss(r, on=at.on)
        z_loss, d_z = shunt.z_loss(r, on=at.on)
        band, d_band = shunt.band_loss(r, low=0.9, high=1.1, load="counts", on=at.on)
        from_losses = (d_importance, d_sequence, d_z)
        d_logits = shunt.route_backward(logits, r.expert, d_gate, options, valid=valid,
                                        from_losses=from_losses, on=at.on)  # fmt: skip
        bias = shunt.sign_step(r.counts, at.put(np.zeros(E, f32)), 0.25, on=at.on)
        return [*r, *(getattr(r, n) for n in shunt.Routing.__slots__[2:] if n != "histogram"),
                loss, d_importance, sequence_loss, d_sequence, z_loss, d_z, band, d_band,
                d_logits, bias]  # fmt: skip

    same_on_both(case)


def test_expert_choice_and_quantiles():
    def case(rng, at):
        logits = at.put(floats(rng, T, E))
        chosen = shunt.route_expert_choice(logits, 3, on=at.on)
        d_logits = shunt.route_expert_choice_backward(
            logits, chosen.token, at.put(floats(rng, E, 3)), on=at.on
        )
        plan, gate = shunt.plan_from_expert_choice(chosen.token, T, gate=chosen.gate, on=at.on)
        out = shunt.Routing(histogram=at.put(np.zeros((E, 64), i32)))
        options = shunt.route_options(score="sigmoid")
        bias = at.put(np.zeros(E, f32))
        shunt.route(logits, K, options, choice_bias=bias, out=out, on=at.on)
        shunt.quantile_step(out.histogram, bias, K, on=at.on)
        return [chosen.token, chosen.gate, d_logits, gate, plan.offset, plan.row_slot,
                plan.slot_row, out.histogram, bias]  # fmt: skip

    same_on_both(case)


@pytest.mark.parametrize("store", [floats, bits])
def test_plan_dispatch_and_combine(store):
    def case(rng, at):
        logits, x = at.put(floats(rng, T, E)), at.put(store(rng, T, H))
        expert, gate = shunt.route(logits, K, on=at.on)
        wanted = at.put(np.zeros(E, i32))
        plan = shunt.plan_dispatch(expert, E, capacity=2, drop="by_gate", gate=gate, wanted=wanted,
                                   segment_multiple=2, on=at.on)  # fmt: skip
        token = shunt.row_tokens(plan, on=at.on)
        row_gate = shunt.gates_to_rows(gate, plan, on=at.on)
        back = shunt.rows_to_gates(row_gate, plan, on=at.on)
        rows = at.put(np.zeros((plan.rows, H), f32 if store is floats else np.uint16))
        shunt.dispatch(x, plan, out=rows, on=at.on)
        d_x, d_gate = shunt.dispatch_backward(rows, plan, gate=gate, x=x, on=at.on)
        y = shunt.combine(rows, plan, gate, residual=x, on=at.on)
        d_rows = at.put(np.zeros((plan.rows, H), f32 if store is floats else np.uint16))
        _, d_gate2 = shunt.combine_backward(y, plan, gate, rows, d_rows=d_rows, on=at.on)
        totals = at.put(np.array(list(plan.totals.values()), i32))
        figures = at.put(np.array(list(shunt.load_stats(plan, on=at.on).values()), f32))
        total = shunt.add_load(wanted, at.put(np.zeros(E, np.int64)), on=at.on)
        share = at.put(np.zeros(E, f32))
        shunt.load_stats(total, share=share, on=at.on)
        return [wanted, plan.offset, plan.slot_row, token, row_gate, back, rows, d_x, d_gate, y,
                d_rows, d_gate2, totals, figures, total, share]  # fmt: skip

    same_on_both(case)


def products(rng, at, store):
    x, w = at.put(store(rng, T, H)), at.put(store(rng, E, 2 * I, H))
    expert, gate = shunt.route(at.put(floats(rng, T, E)), K, on=at.on)
    plan = shunt.plan_dispatch(expert, E, on=at.on)
    dtype = f32 if store is floats else np.uint16
    pre, bias = at.put(np.zeros((T * K, 2 * I), dtype)), at.put(floats(rng, E, 2 * I))
    c = shunt.grouped_gemm(x, w, plan, act="swiglu", pairs="gate_up", gather=True, bias=bias,
                           pre=pre, scale=gate, on=at.on)  # fmt: skip
    packed = shunt.pack_weights(w, pairs="gate_up", on=at.on)
    again = shunt.grouped_gemm(x, packed, plan, act="swiglu", gather=True, bias=bias, scale=gate,
                               on=at.on)  # fmt: skip
    d_pre = shunt.activation_backward(at.put(store(rng, T * K, I)), pre, "swiglu", on=at.on)
    da = shunt.grouped_dgrad(d_pre, w, plan, on=at.on)
    d_bias = at.put(np.zeros((E, 2 * I), f32))
    dw = shunt.grouped_wgrad(d_pre, x, plan, gather_a=True, d_bias=d_bias, on=at.on)
    value = shunt.activation_forward(pre, "swiglu", scale=gate, rows=plan, on=at.on)
    gate_w = at.put(floats(rng, E, H))
    logits = shunt.gate_logits(x, gate_w, on=at.on)
    d = shunt.gate_logits_backward(logits, x, gate_w, on=at.on)
    return [c, pre, again, d_pre, da, dw, d_bias, value, logits, *d]


def test_products():
    same_on_both(products, store=floats)
    same_on_both(products, device=EXACT, store=bits)


def each(at, stack):
    return [at.put(one) for one in stack]


def all_in(arrays):
    """The arrays of nested lists."""
    return [a for one in arrays for a in (all_in(one) if isinstance(one, (list, tuple)) else [one])]


def layer(rng, at, family, store="float32", lists=False, apart=()):
    x, stored, _, options, _ = layer_of(rng, family, store)
    w = shunt.Weights(**{n: two_lists(a, at.put) if n in apart else
                         each(at, a) if lists and a.ndim == 3 else at.put(a)
                         for n, a in stored.items()})  # fmt: skip
    x, d_y = at.put(x), at.put(np.ones_like(x))
    saved, report = shunt.Saved(), shunt.LayerReport()
    seen = shunt.Routing(counts=at.put(np.zeros(len(stored["gate"]), i32)))
    y = shunt.moe_layer(x, w, options, saved=saved, report=report, observe=seen, on=at.on)
    inference = shunt.moe_layer(x, w, options, on=at.on)
    d_x, g = shunt.moe_layer_backward(x, w, d_y, saved, options, on=at.on)
    figures = [*report.figures.values(), *report.totals.values()]
    of_weights = all_in(g._arrays())
    return [y, inference, d_x, seen.counts, at.put(np.array(figures, np.float64)), *of_weights]


@pytest.mark.parametrize("family", ["deepseek", "qwen", "gpt-oss"])
def test_layer(family):
    same_on_both(layer, family=family)


def test_layer_of_lists():
    same_on_both(layer, family="mixtral", lists=True)
    same_on_both(layer, family="gpt-oss", lists=True, apart=["up"])
    same_on_both(layer, family="deepseek", apart=["up", "shared_up"])


@pytest.mark.parametrize("lists", [lambda at, w: each(at, w), lambda at, w: two_lists(w, at.put)])
def test_products_of_lists(lists):
    def case(rng, at):
        x, w = at.put(floats(rng, T, H)), lists(at, floats(rng, E, 2 * I, H))
        expert, _ = shunt.route(at.put(floats(rng, T, E)), K, on=at.on)
        plan = shunt.plan_dispatch(expert, E, on=at.on)
        dc, dw = at.put(floats(rng, T * K, 2 * I)), lists(at, np.zeros((E, 2 * I, H), f32))
        c = shunt.grouped_gemm(x, w, plan, act="swiglu", pairs="gate_up", gather=True, on=at.on)
        da = shunt.grouped_dgrad(dc, w, plan, on=at.on)
        assert shunt.grouped_wgrad(dc, x, plan, dw=dw, gather_a=True, on=at.on) is dw
        packed = shunt.pack_weights(w, on=at.on)
        return [c, da, *all_in(dw), shunt.grouped_gemm(x, packed, plan, gather=True, on=at.on)]

    same_on_both(case)


def test_addresses_of_a_long_list():
    """Put on the device by launches of 256 each."""
    def case(rng, at):
        a, w = at.put(floats(rng, 300, 1)), each(at, floats(rng, 300, 1, 1))
        rows = at.put(np.arange(301, dtype=i32))
        apart = two_lists(floats(rng, 300, 2, 1), at.put)
        return [shunt.grouped_gemm(a, w, rows, on=at.on),
                shunt.grouped_gemm(a, apart, rows, act="swiglu", on=at.on)]  # fmt: skip

    same_on_both(case)


def test_layer_of_sixteen_bits():
    same_on_both(layer, device=EXACT, family="mixtral", store="bfloat16")


def test_tensor_cores_are_near_the_host():
    both = [at.get(layer(np.random.default_rng(7), at, "mixtral", "bfloat16")[0])
            for at in (HOST, DEVICE)]  # fmt: skip
    host, there = ((y.astype(np.uint32) << 16).view(f32) for y in both)
    assert np.abs(host).max() > 0.5
    np.testing.assert_allclose(there, host, rtol=2**-6, atol=2**-6)


def test_experts_alone():
    def case(rng, at):
        x, d_y = at.put(floats(rng, T, H)), at.put(floats(rng, T, H))
        expert, gate = shunt.route(at.put(floats(rng, T, E)), K, on=at.on)
        experts = (at.put(floats(rng, E, 2 * I, H)), each(at, floats(rng, E, H, I)), None,
                   at.put(floats(rng, E, H)), "gate_up", "swiglu")  # fmt: skip
        module, where = shunt._backend.backend(at.on, x)
        saved = shunt.Saved()
        y = module.moe_experts(x, expert, gate, experts, saved, None, where)
        d_down = each(at, np.zeros((E, H, I), f32))
        d_gate, d_up, d_bias = (at.put(np.zeros(s, f32)) for s in ((T, K), (E, 2 * I, H), (E, H)))
        d = (d_gate, d_up, d_down, None, d_bias)
        d_x = module.moe_experts_backward(x, expert, gate, experts, d_y, saved, d, None, where)
        return [y, d_x, d_gate, d_up, *d_down, d_bias]

    same_on_both(case)


def test_the_stream_is_the_callers(rng):
    host = floats(rng, T, E)
    plain = shunt.route(host, K)
    logits = Array.of(host)
    shunt.route(logits, K, on=DEVICE.on)
    assert set(logits.streams) == {1}  # what DLPack calls the legacy default stream
    with Stream() as stream:
        logits = Array.of(host)
        r = shunt.route(logits, K, on=shunt.on_cuda(stream=stream, empty=empty))
        assert set(logits.streams) == {stream}
        assert np.array_equal(r.gate.host(), plain.gate)
        expert, gate = Array((T, K), i32), Array((T, K), f32)
        named = Interface(Array.of(host), stream)
        on = shunt.on_cuda(scratch=Array((1 << 12,), np.uint8))
        shunt.route(named, K, out=shunt.Routing(expert, Interface(gate)), on=on)
        assert gate.streams == [] and set(expert.streams) == {stream}
        assert np.array_equal(gate.host(), plain.gate)


def test_a_captured_layer_is_replayed(rng):
    """No call waits for the device, allocates by itself or reads what is there."""
    x, stored, _, options, _ = layer_of(rng, "mixtral")
    w = shunt.Weights(Array.of(stored["gate"]), each(DEVICE, stored["up"]),
                      Array.of(stored["down"]))  # fmt: skip
    other = x[::-1].copy()
    from_, to = Array.of(x), Array(x.shape, f32)
    scratch = Array((1 << 20,), np.uint8)
    check, call = device.check, device.runtime
    with Stream() as stream:
        on = shunt.on_cuda(stream=stream, scratch=scratch)
        graph, executable = device.c_void_p(), device.c_void_p()
        handle = device.c_void_p(stream)
        check(call.cudaStreamBeginCapture(handle, 1))
        shunt.moe_layer(from_, w, options, out=to, on=on)
        check(call.cudaStreamEndCapture(handle, device.byref(graph)))
        check(call.cudaGraphInstantiate(device.byref(executable), graph, device.c_size_t(0)))
        for tokens in (x, other):
            from_.write(tokens)
            check(call.cudaGraphLaunch(executable, handle))
            expected = shunt.moe_layer(tokens, shunt.Weights(**stored), options)
            assert np.array_equal(to.host(), expected)
        check(call.cudaGraphExecDestroy(executable))
        check(call.cudaGraphDestroy(graph))


def test_arrays_lie_in_one_place(rng):
    host = floats(rng, T, E)
    with pytest.raises(ValueError, match="route.valid lies in host memory; it must lie in device"):
        shunt.route(Array.of(host), K, valid=np.ones(T, np.uint8), on=DEVICE.on)
    with pytest.raises(ValueError, match="route.logits lies in host memory"):
        shunt.route(host, K, on=DEVICE.on)
    with pytest.raises(ValueError, match="route.logits lies in device memory"):
        shunt.route(Array.of(host), K, on=shunt.on_host())
    gate, up, down = floats(rng, E, H), floats(rng, E, 2 * I, H), floats(rng, E, H, I)
    with pytest.raises(ValueError, match="Weights.up lies in host memory"):
        shunt.Weights(Array.of(gate), up, down)
    with pytest.raises(ValueError, match="the weights lie in host memory"):
        shunt.moe_layer(Array.of(floats(rng, T, H)), shunt.Weights(gate, up, down), on=DEVICE.on)
    with pytest.raises(ValueError, match="Weights.up lies in host memory"):
        shunt.Weights(Array.of(gate), [Array.of(up[0]), *up[1:]], Array.of(down))
    plan = shunt.plan_dispatch(shunt.route(host, K).expert, E)
    with pytest.raises(ValueError, match="dispatch.plan lies in host memory"):
        shunt.dispatch(Array.of(floats(rng, T, H)), plan, on=DEVICE.on)
    with pytest.raises(ValueError, match="load_stats.plan lies in host memory"):
        shunt.load_stats(plan, on=DEVICE.on)


class OfAnotherDevice(Array):
    def __dlpack_device__(self):
        return (2, 1)

    def __dlpack__(self, **more):
        super().__dlpack__(**more)
        self.exports[-1].managed.tensor.device_id = 1
        return self.exports[-1].capsule()


def test_arrays_lie_on_one_device(rng):
    there = OfAnotherDevice((E,), f32)
    with pytest.raises(ValueError, match="bias lies on CUDA device 1; it must lie on device 0,"):
        shunt.route(Array.of(floats(rng, T, E)), K, choice_bias=there, on=DEVICE.on)
    up, down = Array.of(floats(rng, E, 2 * I, H)), Array.of(floats(rng, E, H, I))
    with pytest.raises(ValueError, match="up lies on CUDA device 0; it must lie on device 1"):
        shunt.Weights(OfAnotherDevice((E, H), f32), up, down)
    shunt.Weights(*(OfAnotherDevice(s, f32) for s in ((E, H), (E, 2 * I, H), (E, H, I))))


def test_memory_that_is_missing_is_asked_for(rng):
    logits = Array.of(floats(rng, T, E))
    missing = r"an array .6, 2. of int32 is needed, and shunt cannot make a Array on a device; give"
    with pytest.raises(ValueError, match=missing):
        shunt.route(logits, K)
    out = shunt.Routing(expert := Array((T, K), i32), Array((T, K), f32))
    with pytest.raises(ValueError, match=r"of uint8 is needed.* by on=shunt.on_cuda.scratch"):
        shunt.route(logits, K, out=out)
    shunt.route(logits, K, out=out, on=shunt.on_cuda(scratch=Array((1 << 12,), np.uint8)))
    assert np.array_equal(expert.host(), shunt.route(logits.host(), K).expert)
    small = shunt.on_cuda(scratch=Array((64,), np.uint8), empty=empty)
    with pytest.raises(ValueError, match="the arena has 64 bytes; it must have"):
        shunt.plan_dispatch(expert, E, on=small)
    for_lists = {"rows": Array.of(np.arange(E + 1, dtype=i32)), "out": Array((E, 1), f32)}
    a, w = Array.of(floats(rng, E, H)), each(DEVICE, floats(rng, E, 1, H))
    with pytest.raises(ValueError, match="on_cuda.scratch has 32 bytes; the addresses of the arr"):
        shunt.grouped_gemm(a, w, **for_lists, on=shunt.on_cuda(scratch=Array((32,), np.uint8)))
    shunt.grouped_gemm(a, w, **for_lists, on=shunt.on_cuda(scratch=Array((64,), np.uint8)))
    saved = shunt.Saved()
    x, stored, _, options, _ = layer_of(rng, "mixtral")
    shunt.moe_layer(x, shunt.Weights(**stored), options, saved=saved)
    w = shunt.Weights(**{n: Array.of(a) for n, a in stored.items()})
    x = Array.of(x)
    with pytest.raises(ValueError, match="saved was made by another call"):
        shunt.moe_layer_backward(x, w, x, saved, options, on=DEVICE.on)


def test_options_of_the_device_are_checked():
    with pytest.raises(ValueError, match="on_cuda.products is 'fast'; it must be one of best"):
        shunt.on_cuda(products="fast")
    with pytest.raises(ValueError, match="on_cuda.stream is -1"):
        shunt.on_cuda(stream=-1)
    with pytest.raises(RuntimeError, match="on_cuda.device is 4096: CUDA says: "):
        shunt.route(Array((1, 1), f32), 1, on=shunt.on_cuda(device=4096))


@pytest.mark.skipif(device.devices() < 2, reason="there is one CUDA device")
def test_the_current_device_is_restored(rng):
    before, now = device.c_int(), device.c_int()
    check = device.check
    check(device.runtime.cudaSetDevice(1))
    try:
        shunt.route(Array.of(floats(rng, T, E)), K, on=shunt.on_cuda(device=0, empty=empty))
        check(device.runtime.cudaGetDevice(device.byref(now)))
        assert now.value == 1
    finally:
        check(device.runtime.cudaSetDevice(before))
