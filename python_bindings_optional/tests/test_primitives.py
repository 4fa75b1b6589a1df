"""Every primitive by itself, against plain NumPy in double."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from oracle import STORES, slope, worst

import shunt

T, H, I, E, K = 11, 9, 8, 6, 3
f32 = np.float32


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(f32)


def ids(rng, tokens=T, experts=E, top_k=K):
    return np.stack([rng.permutation(experts)[:top_k] for _ in range(tokens)]).astype(np.int32)


ROUTERS = [
    dict(),
    dict(gates="renormalized", scale=2.5, epsilon=1e-6),
    dict(score="sigmoid", gates="renormalized"),
    dict(score="logits", gates="softmax_chosen"),
]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("rules", ROUTERS)
def test_route(rng, rules, store):
    put, get, _ = STORES[store]
    logits = put(rng.standard_normal((T, E)) * 2)
    r = shunt.route(logits, K, shunt.route_options(**rules),
                    want=("z", "counts", "importance", "tokens", "recorded", "report"))  # fmt: skip
    z = get(logits).astype(np.float64)
    expert, gate = oracle.route(z, K, **rules)
    assert np.array_equal(r.expert, expert) and r.expert.dtype == np.int32
    assert worst(r.gate, gate) < 1e-5
    assert np.array_equal(r.recorded, expert) and r.tokens[0] == T == r.report[0]
    assert np.array_equal(r.counts, np.bincount(expert.ravel(), minlength=E))
    assert worst(r.z, np.log(np.exp(z).sum(-1))) < 1e-5
    s = oracle.sigmoid(z) if rules.get("score") == "sigmoid" else oracle.softmax(z)
    assert worst(r.importance, (s / s.sum(-1, keepdims=True)).sum(0)) < 1e-5
    again = shunt.route(logits, K, shunt.route_options(**rules), ids=r.recorded)
    assert np.array_equal(again.gate, r.gate)


@pytest.mark.parametrize("rules", ROUTERS)
def test_route_backward(rng, rules):
    logits, d_gate, options = floats(rng, T, E), floats(rng, T, K), shunt.route_options(**rules)
    expert, _ = shunt.route(logits, K, options)
    d = shunt.route_backward(logits, expert, d_gate, options)
    for _ in range(8):
        v = rng.standard_normal(logits.shape)
        wanted = slope(
            lambda at: (oracle.route(at, K, **rules, expert=expert)[1] * d_gate).sum(),
            logits.astype(np.float64), v)  # fmt: skip
        assert (d * v).sum() == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    in_place = logits.copy()
    assert shunt.route_backward(in_place, expert, d_gate, options, d_logits=in_place) is in_place
    assert np.array_equal(in_place, d)


def test_losses_and_their_way_to_the_logits(rng):
    logits = floats(rng, T, E)
    r = shunt.route(
        logits,
        K,
        out=shunt.Routing(
            sequence_counts=np.zeros((1, E), np.int32),
            sequence_importance=np.zeros((1, E), f32),
            sequence_tokens=np.zeros(1, np.int32),
        ),
        want=("z", "counts", "importance", "tokens"),
    )
    p = oracle.softmax(logits.astype(np.float64))
    f = r.counts / (T * K)
    loss, d_importance = shunt.balance_loss(r, coefficient=0.5)
    assert loss[0] == pytest.approx(0.5 * E * (f * p.mean(0)).sum(), rel=1e-5)
    per_sequence, d_sequence = shunt.sequence_balance_loss(r, coefficient=0.5)
    assert per_sequence[0] == pytest.approx(loss[0], rel=1e-6)
    assert np.allclose(d_sequence[0], d_importance)
    z_value, d_z = shunt.z_loss(r, coefficient=0.5)
    z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    assert z_value[0] == pytest.approx(0.5 * (z**2).mean(), rel=1e-5)
    both, _ = shunt.z_loss(r, coefficient=0.5, accumulate=True, loss=loss.copy(), d_z=d_z.copy())
    assert both[0] == pytest.approx(loss[0] + z_value[0])
    band, _ = shunt.band_loss(r, low=0.9, high=1.1, load="counts", coefficient=1.0)
    load = E * f
    expected = np.maximum(load - 1.1, 0).sum() + np.maximum(0.9 - load, 0).sum()
    assert band[0] == pytest.approx(expected, rel=1e-5) and expected > 0
    d = shunt.route_backward(logits, r.expert, np.zeros((T, K), f32),
                             from_losses=(d_importance, None, d_z))  # fmt: skip
    v = rng.standard_normal(logits.shape)

    def losses(at):
        s = np.log(np.exp(at).sum(-1))
        return 0.5 * E * (f * oracle.softmax(at).mean(0)).sum() + 0.5 * (s**2).mean()

    wanted = slope(losses, logits.astype(np.float64), v)
    assert (d * v).sum() == pytest.approx(wanted, rel=1e-4)


def test_bias_steps(rng):
    counts, bias = np.array([1, 5, 3, 3], np.int32), np.zeros(4, f32)
    assert shunt.sign_step(counts, bias, 0.25) is bias
    assert bias.tolist() == [0.25, -0.25, 0, 0]
    logits, choice_bias = floats(rng, 512, E), np.zeros(E, f32)
    histogram = np.zeros((E, 1000), np.int32)
    r = shunt.route(logits + np.arange(E, dtype=f32), 2, choice_bias=choice_bias,
                    out=shunt.Routing(histogram=histogram), want=["counts"])  # fmt: skip
    before = r.counts.max()
    shunt.quantile_step(histogram, choice_bias, 2)
    after = shunt.route(logits + np.arange(E, dtype=f32), 2, choice_bias=choice_bias,
                        want=["counts"]).counts.max()  # fmt: skip
    assert after < before


def test_gate_logits_and_backward(rng):
    x, w, bias = floats(rng, T, H), floats(rng, E, H), floats(rng, E)
    logits = shunt.gate_logits(x, w, bias=bias)
    assert worst(logits, x.astype(np.float64) @ w.T + bias) < 1e-5
    d = floats(rng, T, E)
    d_x, d_w, d_bias = shunt.gate_logits_backward(d, x, w)
    assert worst(d_x, d.astype(np.float64) @ w) < 1e-5
    assert worst(d_w, d.T.astype(np.float64) @ x) < 1e-5
    assert worst(d_bias, d.astype(np.float64).sum(0)) < 1e-5
    twice = shunt.gate_logits_backward(
        d, x, w, d_x=d_x.copy(), d_w=d_w.copy(), d_bias=d_bias.copy(), add_x=True, add_weights=True
    )
    assert np.allclose(twice[0], 2 * d_x) and np.allclose(twice[1], 2 * d_w)
    half = shunt.gate_logits(x.astype(np.float16), w)
    assert worst(half, x.astype(np.float16).astype(np.float64) @ w.T) < 1e-5


def test_expert_choice(rng):
    logits, chosen = floats(rng, T, E), 4
    token, gate = shunt.route_expert_choice(logits, chosen)
    s = oracle.softmax(logits.astype(np.float64))
    best = np.sort(np.argsort(-s, axis=0, kind="stable")[:chosen].T, axis=-1)
    assert np.array_equal(token, best)
    assert worst(gate, np.take_along_axis(s.T, best, -1)) < 1e-5
    plan, dense = shunt.plan_from_expert_choice(token, T, gate=gate)
    assert np.count_nonzero(dense) == E * chosen and plan.rows == E * chosen
    x = floats(rng, T, H)
    y = shunt.combine(shunt.dispatch(x, plan), plan, dense)
    assert worst(y, x * dense.astype(np.float64).sum(-1, keepdims=True)) < 1e-5
    d_gate = floats(rng, E, chosen)
    d = shunt.route_expert_choice_backward(logits, token, d_gate)
    v = rng.standard_normal(logits.shape)
    wanted = slope(lambda at: (np.take_along_axis(oracle.softmax(at).T, best, -1) * d_gate).sum(),
                   logits.astype(np.float64), v)  # fmt: skip
    assert (d * v).sum() == pytest.approx(wanted, rel=1e-4)


def test_plan(rng):
    expert = ids(rng)
    expert[2, 1] = -1
    plan = shunt.plan_dispatch(expert, E)
    order = [s for e in range(E) for s in np.flatnonzero(expert.ravel() == e)]
    assert plan.row_slot[: len(order)].tolist() == order and plan.row_slot[
        len(order) :
    ].tolist() == [-1]
    assert plan.offset.tolist() == [0, *np.cumsum(np.bincount(expert[expert >= 0], minlength=E))]
    assert all(plan.row_slot[r] == s for s, r in enumerate(plan.slot_row) if r >= 0)
    assert (plan.tokens, plan.top_k, plan.experts, plan.rows) == (T, K, E, T * K)
    assert plan.totals["rows"] == len(order) and plan.totals["unrouted"] == 1
    assert shunt.row_tokens(plan)[: len(order)].tolist() == [s // K for s in order]
    with pytest.raises(ValueError):
        plan.row_slot[0] = 1  # given out to read only
    wanted, kept = np.zeros(E, np.int32), np.zeros(E, np.int32)
    small = shunt.plan_dispatch(expert, E, capacity=2, wanted=wanted, kept=kept)
    assert kept.max() == 2 and (wanted - kept).sum() == small.totals["dropped"] > 0
    shard = shunt.plan_dispatch(expert, 2, first_expert=1, experts=E)
    assert shard.totals["foreign"] == (expert >= 0).sum() - np.isin(expert, [1, 2]).sum()
    padded = shunt.plan_dispatch(expert, E, segment_multiple=4)
    assert not (padded.offset % 4).any()


@pytest.mark.parametrize("store", STORES)
def test_dispatch_and_combine(rng, store):
    put, get, unit = STORES[store]
    x, rows = put(floats(rng, T, H)), put(floats(rng, T * K, H))
    gate, plan = floats(rng, T, K), shunt.plan_dispatch(ids(rng), E)
    token, slot = plan.row_slot // K, plan.row_slot
    flat = gate.ravel()[slot][:, None].astype(np.float64)
    assert np.array_equal(get(shunt.dispatch(x, plan)), get(x)[token])
    assert worst(get(shunt.dispatch(x, plan, gate=gate)), get(x)[token] * flat) < 4 * unit
    expected = np.zeros((T, H))
    np.add.at(expected, token, get(rows).astype(np.float64) * flat)
    y = shunt.combine(rows, plan, gate)
    assert y.dtype == rows.dtype and worst(get(y), expected) < 8 * unit
    wide = np.empty((T, H), f32)
    assert worst(shunt.combine(rows, plan, gate, out=wide), expected) < 2e-6
    residual = put(floats(rng, T, H))
    more = get(residual) + get(shunt.combine(rows, plan, gate))
    assert (
        worst(get(shunt.combine(rows, plan, gate, residual=residual, out=residual)), more)
        < 8 * unit
    )
    # The transposes.
    plain = np.zeros((T, H))
    np.add.at(plain, token, get(rows).astype(np.float64))
    d_x, none = shunt.dispatch_backward(rows, plan)
    assert none is None and worst(get(d_x), plain) < 8 * unit
    _, d_gate = shunt.dispatch_backward(rows, plan, gate=gate, x=x)
    dots = (get(rows).astype(np.float64) * get(x)[token]).sum(-1)
    assert worst(d_gate.ravel()[slot], dots) < 1e-5
    d_rows, d_gate = shunt.combine_backward(x, plan, gate, rows)
    assert worst(get(d_rows), get(x)[token] * flat) < 4 * unit
    assert worst(d_gate.ravel()[slot], dots) < 1e-5
    assert np.array_equal(shunt.rows_to_gates(shunt.gates_to_rows(gate, plan), plan), gate)


def test_combine_beside_the_experts(rng):
    rows, gate, x = floats(rng, T * K, H), floats(rng, T, K), floats(rng, T, H)
    expert, shared, opening = ids(rng), floats(rng, T, H), floats(rng, T)
    plan = shunt.plan_dispatch(expert, E - 1, experts=E - 1, zero_experts=1)
    y = shunt.combine(rows, plan, gate, shared=shared, shared_gate=opening,
                      zero=(expert, x, E - 1, 1))  # fmt: skip
    expected = shared * opening[:, None].astype(np.float64)
    for t in range(T):
        for k in range(K):
            row = plan.slot_row[t * K + k]
            expected[t] += gate[t, k] * (x[t] if expert[t, k] == E - 1 else rows[row])
    assert worst(y, expected) < 1e-5
    d_y, d_shared, d_opening = floats(rng, T, H), np.empty((T, H), f32), np.empty(T, f32)
    d_x, d_residual = np.empty((T, H), f32), np.empty((T, H), f32)
    shunt.combine_backward(d_y, plan, gate, shared=shared, shared_gate=opening,
                           zero=(expert, x, E - 1, 1), d_shared=d_shared, d_shared_gate=d_opening,
                           d_x=d_x, d_residual=d_residual)  # fmt: skip
    assert np.allclose(d_shared, opening[:, None] * d_y) and np.array_equal(d_residual, d_y)
    assert np.allclose(d_opening, (d_y * shared).sum(-1), atol=1e-5)
    assert np.allclose(d_x, d_y * (gate * (expert == E - 1)).sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("act", oracle.activations)
def test_grouped_gemm_and_activations(rng, act):
    gated = act.startswith("swiglu")
    rows = 2 * I if gated else I
    w, bias, x, gate = (
        floats(rng, E, rows, H),
        floats(rng, E, rows),
        floats(rng, T, H),
        floats(rng, T, K),
    )
    plan = shunt.plan_dispatch(ids(rng), E)
    e_of = np.repeat(np.arange(E), np.diff(plan.offset))
    token, factor = plan.row_slot // K, gate.ravel()[plan.row_slot]
    pre = np.empty((T * K, rows), f32)
    c = shunt.grouped_gemm(x, w, plan, act=act, gather=True, bias=bias, pre=pre, scale=gate)
    wanted = np.einsum("rnk,rk->rn", w[e_of].astype(np.float64), x[token]) + bias[e_of]
    f = oracle.activations[act]
    assert worst(pre, wanted) < 1e-5
    assert worst(c, f(wanted) * factor[:, None]) < 1e-5
    by_rows = shunt.grouped_gemm(
        shunt.dispatch(x, plan), w, plan.offset, act=act, bias=bias, scale=factor
    )
    assert np.array_equal(c, by_rows)
    packed = shunt.pack_weights(w, pairs="gate_up" if gated else None)
    assert packed.shape == (E, rows, H)
    assert np.array_equal(
        c, shunt.grouped_gemm(x, packed, plan, act=act, gather=True, bias=bias, scale=gate)
    )
    value = shunt.activation_forward(pre, act, scale=factor)
    assert np.array_equal(value, c)

    d_act, d_scale, again = floats(rng, *c.shape), np.empty(T * K, f32), np.empty(c.shape, f32)
    d_pre = shunt.activation_backward(d_act, pre, act, scale=factor, act_out=again, d_scale=d_scale)
    v = rng.standard_normal(pre.shape)
    slope_of_it = slope(
        lambda at: (f(at) * factor[:, None] * d_act).sum(), pre.astype(np.float64), v
    )
    assert (d_pre * v).sum() == pytest.approx(slope_of_it, rel=1e-4, abs=1e-3)
    assert (
        np.array_equal(again, c)
        and worst(d_scale, (f(pre.astype(np.float64)) * d_act).sum(-1)) < 1e-4
    )

    da = shunt.grouped_dgrad(d_pre, w, plan)
    assert worst(da, np.einsum("rnk,rn->rk", w[e_of].astype(np.float64), d_pre)) < 1e-5
    d_bias = np.empty((E, rows), f32)
    dw = shunt.grouped_wgrad(d_pre, x, plan, gather_a=True, d_bias=d_bias)
    expected = np.zeros((E, rows, H))
    np.add.at(expected, e_of, d_pre[:, :, None].astype(np.float64) * x[token][:, None, :])
    assert dw.shape == w.shape and worst(dw, expected) < 1e-5
    expected_bias = np.zeros((E, rows))
    np.add.at(expected_bias, e_of, d_pre)
    assert worst(d_bias, expected_bias) < 1e-5
    each = [np.zeros((rows, H), f32) for _ in range(E)]
    shunt.grouped_wgrad(d_pre, x, plan, dw=each, gather_a=True)
    assert np.array_equal(np.stack(each), dw)
    if gated:
        apart, d_apart = oracle.two_lists(w), oracle.two_lists(np.zeros_like(w))
        for it in (apart, shunt.pack_weights(apart)):
            again = shunt.grouped_gemm(x, it, plan, act=act, gather=True, bias=bias, scale=gate)
            assert np.array_equal(again, c)
        assert np.array_equal(shunt.grouped_dgrad(d_pre, apart, plan), da)
        assert shunt.grouped_wgrad(d_pre, x, plan, dw=d_apart, gather_a=True) is d_apart
        assert np.array_equal(oracle.stacked(d_apart), dw)


def test_products_of_sixteen_bits(rng):
    a, w = oracle.to_bf16(floats(rng, T, H)), oracle.to_bf16(floats(rng, E, I, H))
    offsets = np.array([0, 2, 2, 5, 6, 9, T], np.int32)
    e_of = np.repeat(np.arange(E), np.diff(offsets))
    expected = np.einsum(
        "rnk,rk->rn", oracle.from_bf16(w)[e_of].astype(np.float64), oracle.from_bf16(a)
    )
    wide = np.empty((T, I), f32)
    assert worst(shunt.grouped_gemm(a, w, offsets, out=wide), expected) < 1e-5
    narrow = shunt.grouped_gemm(a, w, offsets)
    assert np.array_equal(narrow, oracle.to_bf16(wide))


def test_stats(rng):
    counts = np.array([4, 4, 4, 4], np.int32)
    figures = shunt.load_stats(counts)
    assert figures["entropy"] == pytest.approx(2) and figures["utilization"] == 1
    assert figures["slots"] == 16 and figures["jsd"] == pytest.approx(0, abs=1e-6)
    total, share = np.zeros(4, np.int64), np.empty(4, f32)
    assert shunt.add_load(counts, total) is total
    shunt.add_load(np.array([8, 0, 0, 0], np.int32), total)
    figures = shunt.load_stats(total, share=share)
    assert total.tolist() == [12, 4, 4, 4] and share[0] == 0.5
    assert figures["max_violation"] == pytest.approx(1)
    plan = shunt.plan_dispatch(ids(rng), E, capacity=3)
    assert shunt.load_stats(plan)["dropped"] == plan.totals["dropped"] > 0
