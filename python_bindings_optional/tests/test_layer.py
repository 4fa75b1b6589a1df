"""The layer, forward and backward, against the formulas in double."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from oracle import STORES, slope, worst

import shunt

T, H, I, E, K = 7, 12, 10, 6, 2
RENORMALIZED = dict(gates="renormalized")

FAMILIES = {
    "mixtral": (RENORMALIZED, "swiglu", {}),
    "olmoe": ({}, "swiglu", {}),
    "deepseek": (
        dict(score="sigmoid", gates="renormalized", scale=2.5, epsilon=1e-20),
        "swiglu",
        dict(choice_bias=(E,), shared_up=(2 * I, H), shared_down=(H, I)),
    ),
    "qwen": (
        {},
        "swiglu",
        dict(shared_up=(2 * I, H), shared_down=(H, I), shared_gate=(H,)),
    ),
    "gpt-oss": (
        dict(score="logits", gates="softmax_chosen"),
        "swiglu_clamped",
        dict(gate_bias=(E,), up_bias=(E, 2 * I), down_bias=(E, H)),
    ),
    "switch": ({}, "relu", {}),
}
FLOATS = {"gate_bias", "choice_bias"}  # always float32


def layer_of(rng, family, store="float32"):
    """x, the arrays as stored, their values, options, and the oracle's keywords."""
    routing, act, more = FAMILIES[family]
    put, get, _ = STORES[store]
    rows = 2 * I if act.startswith("swiglu") else I
    shapes = dict(gate=(E, H), up=(E, rows, H), down=(E, H, I), **more)
    stored = {
        name: (STORES["float32"][0] if name in FLOATS else put)(rng.standard_normal(s) * 0.5)
        for name, s in shapes.items()
    }
    values = {n: a if n in FLOATS else np.asarray(get(a), np.float64) for n, a in stored.items()}
    x = put(rng.standard_normal((T, H)))
    options = shunt.layer_options(top_k=K, act=act, route=shunt.route_options(**routing))
    return x, stored, values, options, dict(act=act, **routing)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("family", FAMILIES)
def test_forward_is_the_formula(rng, family, store):
    x, stored, values, options, formula = layer_of(rng, family, store)
    _, get, unit = STORES[store]
    y = shunt.moe_layer(x, shunt.Weights(**stored), options)
    assert y.dtype == x.dtype
    expected = oracle.moe(get(x), values, K, **formula)
    assert worst(get(y), expected) < (40 if store == "float32" else 10) * unit


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_slopes(rng, family):
    x, stored, values, options, formula = layer_of(rng, family)
    d_y = rng.standard_normal((T, H))
    w, saved = shunt.Weights(**stored), shunt.Saved()
    shunt.moe_layer(x, w, options, saved=saved)
    d_x, g = shunt.moe_layer_backward(x, w, d_y.astype(np.float32), saved, options)

    def loss(x, values):
        return (oracle.moe(x, values, K, **formula) * d_y.astype(np.float32)).sum()

    x = x.astype(np.float64)
    for _ in range(6):
        v = rng.standard_normal(x.shape)
        wanted = slope(lambda at: loss(at, values), x, v)
        assert (d_x * v).sum() == pytest.approx(wanted, rel=2e-4, abs=2e-3)
    for name in values:
        got = getattr(g, name, None)
        if name == "choice_bias":
            continue  # moves the choice only
        assert got is not None and got.shape == values[name].shape, name
        for _ in range(3):
            v = rng.standard_normal(values[name].shape)
            wanted = slope(lambda at: loss(x, {**values, name: at}), values[name], v)
            assert (got * v).sum() == pytest.approx(wanted, rel=2e-4, abs=2e-3), name


def run(x, w, options, d_y, **more):
    saved = shunt.Saved()
    y = shunt.moe_layer(x, w, options, saved=saved, **more)
    d_x, g = shunt.moe_layer_backward(x, w, d_y, saved, options, **more)
    shared = [] if g.shared_up is None else [oracle.stacked(g.shared_up).reshape(-1, H)]
    return [y, d_x, g.gate, oracle.stacked(g.up), oracle.stacked(g.down), *shared]


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b))


def test_layouts_threads_and_memory_give_the_same_bits(rng):
    x, s, _, options, _ = layer_of(rng, "mixtral")
    d_y = rng.standard_normal((T, H)).astype(np.float32)
    plain = run(x, shunt.Weights(**s), options, d_y)
    gate, up, down = s["gate"], s["up"], s["down"]
    layouts = {
        "transposed": shunt.Weights(gate, up.transpose(0, 2, 1).copy().transpose(0, 2, 1), down),
        "list": shunt.Weights(gate, list(up), [d.copy() for d in down]),
        "strided": shunt.Weights(np.repeat(gate, 2, 0)[::2], np.repeat(up, 2, 0)[::2],
                                 np.pad(down, ((0, 0), (0, 0), (0, 5)))[..., :I]),
        "backwards": shunt.Weights(gate, up[::-1].copy()[::-1], down[:, ::-1].copy()[:, ::-1]),
        "packed": shunt.Weights(gate, shunt.pack_weights(up, pairs="gate_up"),
                                shunt.pack_weights(down)),
    }  # fmt: skip
    for name, w in layouts.items():
        assert same(plain, run(x, w, options, d_y)), name
    for threads in (1, 2):
        on = shunt.on_host(threads=threads)
        assert same(plain, run(x, shunt.Weights(**s), options, d_y, on=on)), threads
    assert same(plain, run(x, shunt.Weights(**s), options, d_y, on=shunt.on_host(isa="portable")))
    assert same(plain, run(x, shunt.Weights(**s), options.replace(memory="recompute"), d_y))
    wide_x = np.pad(x, ((0, 0), (3, 4)))[:, 3 : 3 + H]
    assert same(plain, run(wide_x, shunt.Weights(**s), options, d_y))
    assert same(plain, run(x[::-1].copy()[::-1], shunt.Weights(**s), options, d_y))


@pytest.mark.parametrize("order,block", [("up_gate", 0), ("gate_up", 1), ("up_gate", 3)])
def test_pairs_lie_as_the_caller_says(rng, order, block):
    x, s, _, options, _ = layer_of(rng, "gpt-oss")
    d_y = rng.standard_normal((T, H)).astype(np.float32)
    halves = [range(I), range(I, 2 * I)]
    if order == "up_gate":
        halves.reverse()
    at = []
    step = block or I
    for first in range(0, I, step):
        for half in halves:
            at += list(half[first : first + step])
    moved = dict(s, up=s["up"][:, at].copy(), up_bias=s["up_bias"][:, at].copy())
    plain = run(x, shunt.Weights(**s), options, d_y)
    other = run(x, shunt.Weights(**moved, pairs=(order, block)), options, d_y)
    plain[3] = plain[3][:, at]
    assert same(plain, other)


@pytest.mark.parametrize("family", ["mixtral", "deepseek", "gpt-oss"])
def test_gate_and_up_may_be_arrays_of_their_own(rng, family):
    x, s, _, options, _ = layer_of(rng, family)
    d_y = rng.standard_normal((T, H)).astype(np.float32)
    plain = run(x, shunt.Weights(**s), options, d_y)
    apart = {n: oracle.two_lists(s[n]) for n in ("up", "shared_up") if n in s}
    w = shunt.Weights(**{**s, **apart})
    assert same(plain, run(x, w, options, d_y))
    wide = {n: np.pad(s[n], [*[(0, 0)] * (s[n].ndim - 1), (0, 3)]) for n in apart}
    views = {n: oracle.two_lists(a, lambda one: one[:, :H]) for n, a in wide.items()}
    assert same(plain, run(x, shunt.Weights(**{**s, **views}, pairs="gate_up"), options, d_y))
    # Gradients lie apart where the weights do not, and the other way round; and are added to.
    ones = np.ones_like(s["up"])
    for lying, onto in ((s, oracle.two_lists(ones)), (apart, ones)):
        w, saved, g = shunt.Weights(**{**s, **lying}), shunt.Saved(), shunt.Gradients(up=onto)
        shunt.moe_layer(x, w, options, saved=saved)
        shunt.moe_layer_backward(x, w, d_y, saved, options, gradients=g)
        assert np.array_equal(oracle.stacked(g.up), plain[3])
        shunt.moe_layer_backward(x, w, d_y, saved, options.replace(accumulate=True),
                                 gradients=g)  # fmt: skip
        np.testing.assert_allclose(oracle.stacked(g.up), 2 * plain[3], rtol=1e-6)


def test_outputs_may_be_given(rng):
    x, s, _, options, _ = layer_of(rng, "mixtral")
    w, saved = shunt.Weights(**s), shunt.Saved()
    out = np.full((T, H), np.nan, np.float32)
    assert shunt.moe_layer(x, w, options, out=out, saved=saved) is out
    assert np.array_equal(out, shunt.moe_layer(x, w, options))
    assert saved.filled and saved.nbytes > 0
    d_x = np.full((T, H), np.nan, np.float32)
    given = shunt.Gradients(up=[np.ones((2 * I, H), np.float32) for _ in range(E)])
    got, g = shunt.moe_layer_backward(x, w, out, saved, options, gradients=given, d_x=d_x)
    assert got is d_x and g is given and np.isfinite(d_x).all() and g.gate is None
    fresh = shunt.moe_layer_backward(x, w, out, saved, options)[1]
    assert same(fresh.up, given.up)
    added = shunt.Gradients(up=np.ones((E, 2 * I, H), np.float32))
    onto = options.replace(accumulate=True)
    shunt.moe_layer_backward(x, w, out, saved, onto, gradients=added)
    np.testing.assert_allclose(added.up, fresh.up + 1, atol=1e-5)
    residual = x.copy()
    shunt.moe_layer(x, w, options.replace(add_to_y=True), out=residual)
    np.testing.assert_allclose(residual, x + out, atol=1e-5)


def test_d_x_of_sixteen_bit_layers_may_be_float(rng):
    x, s, _, options, _ = layer_of(rng, "mixtral", "bfloat16")
    s["gate"] = oracle.from_bf16(s["gate"])  # a float gate beside bf16 experts
    w, saved = shunt.Weights(**s), shunt.Saved()
    y = shunt.moe_layer(x, w, options, saved=saved)
    wide = np.empty((T, H), np.float32)
    narrow, _ = shunt.moe_layer_backward(x, w, y, saved, options)
    shunt.moe_layer_backward(x, w, y, saved, options, d_x=wide)
    assert narrow.dtype == np.uint16 and np.array_equal(narrow, oracle.to_bf16(wide))


def test_ml_dtypes_bfloat16_is_taken_as_it_is(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x, s, _, options, _ = layer_of(rng, "mixtral", "bfloat16")
    named = {n: a.view(ml_dtypes.bfloat16) for n, a in s.items()}
    y = shunt.moe_layer(x.view(ml_dtypes.bfloat16), shunt.Weights(**named), options)
    assert y.dtype == ml_dtypes.bfloat16
    assert np.array_equal(y.view(np.uint16), shunt.moe_layer(x, shunt.Weights(**s), options))


def test_padding_choice_losses_and_frozen_experts(rng):
    x, s, values, options, formula = layer_of(rng, "mixtral")
    w = shunt.Weights(**s)
    valid = np.array([1, 1, 0, 1, 1, 0, 1], bool)
    y = shunt.moe_layer(x, w, options, valid=valid)
    full = shunt.moe_layer(x, w, options)
    assert not y[~valid].any() and np.array_equal(y[valid], full[valid])

    ids = np.array([[1, 4]] * T, np.int32)
    forced = shunt.moe_layer(x, w, options, ids=ids)
    expected = oracle.moe(x, values, K, **formula, expert=ids)
    assert worst(forced, expected) < 1e-5
    table = np.array([[5, 0], [1, 4]], np.int16)
    token = np.ones(T, np.int32)
    assert np.array_equal(forced, shunt.moe_layer(x, w, options, ids=table, token=token))

    with_losses = options.replace(balance_loss=0.01, z_loss=0.001)
    loss, report = np.zeros(2, np.float32), shunt.LayerReport()
    seen = shunt.Routing(counts=np.zeros(E, np.int32))
    saved = shunt.Saved()
    shunt.moe_layer(x, w, with_losses, loss=loss, observe=seen, report=report, saved=saved)
    logits = x.astype(np.float64) @ values["gate"].T
    z = np.log(np.exp(logits).sum(-1))
    f = seen.counts / (T * K)
    assert loss[0] == pytest.approx(0.01 * E * (f * oracle.softmax(logits).mean(0)).sum(), rel=1e-5)
    assert loss[1] == pytest.approx(0.001 * (z**2).mean(), rel=1e-5)
    assert seen.counts.sum() == T * K == report.figures["slots"] == report.totals["rows"]

    frozen = np.array([0, 1, 0, 0, 0, 0], np.uint8)
    g = shunt.Gradients(up=np.full((E, 2 * I, H), 7, np.float32))
    shunt.moe_layer_backward(x, w, full, saved, with_losses, frozen=frozen, gradients=g)
    assert (g.up[1] == 7).all() and not (g.up[0] == 7).any()


def test_a_saved_state_belongs_to_its_call(rng):
    x, s, _, options, _ = layer_of(rng, "mixtral")
    w, saved = shunt.Weights(**s), shunt.Saved()
    with pytest.raises(ValueError, match="saved is empty"):
        shunt.moe_layer_backward(x, w, x, saved, options)
    shunt.moe_layer(x, w, options, saved=saved)
    for other in (options.replace(top_k=3), options.replace(memory="recompute"),
                  options.replace(z_loss=0.1)):  # fmt: skip
        with pytest.raises(ValueError, match="made by another call"):
            shunt.moe_layer_backward(x, w, x, saved, other)
    with pytest.raises(ValueError, match="made by another call"):
        shunt.moe_layer_backward(x[:3], w, x[:3], saved, options)
    shunt.moe_layer_backward(x, w, x, saved, options)  # still good


def test_no_tokens_are_a_batch(rng):
    x, s, _, options, _ = layer_of(rng, "qwen")
    w, saved = shunt.Weights(**s), shunt.Saved()
    y = shunt.moe_layer(x[:0], w, options, saved=saved)
    d_x, g = shunt.moe_layer_backward(x[:0], w, y, saved, options)
    assert y.shape == d_x.shape == (0, H) and not g.up.any()


def test_three_lines_show_a_published_layer(rng):
    x, s, _, _, _ = layer_of(rng, "mixtral")
    y = shunt.moe_layer(x, shunt.Weights(**s), shunt.presets["Mixtral-8x7B"].options())
    options = shunt.layer_options(top_k=2, route=shunt.route_options(gates="renormalized"))
    assert np.array_equal(y, shunt.moe_layer(x, shunt.Weights(**s), options))
