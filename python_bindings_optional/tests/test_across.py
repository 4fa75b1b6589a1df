"""Experts across ranks: the bits of one process, one sentence on all ranks, ranks that die."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from across_ranks import on_pipes, on_processes, on_threads, results

import shunt
from shunt import across

H, I, E, K = 24, 20, 6, 2
TOKENS = {1: (41,), 2: (32, 9), 3: (32, 0, 9)}  # of each rank
MORE = {
    "plain": (dict(), dict()),
    "shared": (dict(score="sigmoid", gates="renormalized"),
               dict(choice_bias=(E,), shared_up=(2 * I, H), shared_down=(H, I))),
    "biases": (dict(score="logits", gates="softmax_chosen"),
               dict(gate_bias=(E,), up_bias=(E, 2 * I), down_bias=(E, H))),
}  # fmt: skip
OF_EXPERTS = ("up", "down", "up_bias", "down_bias")


class Layer:
    """A layer, its whole batch, and what one process makes of it."""

    def __init__(self, kind="plain", dtype=np.float32, seed=3, **options):
        r = np.random.default_rng(seed)
        routing, more = MORE[kind]
        shapes = dict(gate=(E, H), up=(E, 2 * I, H), down=(E, H, I), **more)
        floats = ("gate_bias", "choice_bias")
        self.arrays = {n: (r.standard_normal(s) * 0.4).astype(np.float32 if n in floats else dtype)
                       for n, s in shapes.items()}  # fmt: skip
        self.x, self.d_y = ((r.standard_normal((41, H))).astype(dtype) for _ in range(2))
        self.options = shunt.layer_options(
            top_k=K, route=shunt.route_options(**routing), **{"balance_loss": 0.02, **options}
        )

    def one(self):
        w, saved, loss = shunt.Weights(**self.arrays), shunt.Saved(), np.zeros(2, np.float32)
        seen = shunt.Routing(counts=np.empty(E, np.int32), importance=np.empty(E, np.float32))
        y = shunt.moe_layer(self.x, w, self.options, saved=saved, loss=loss, observe=seen)
        d_x, g = shunt.moe_layer_backward(self.x, w, self.d_y, saved, self.options)
        return dict(y=y, d_x=d_x, loss=loss, counts=seen.counts, importance=seen.importance), g

    def weights(self, experts):
        experts = list(experts)
        return shunt.Weights(
            **{n: a[experts] if n in OF_EXPERTS else a for n, a in self.arrays.items()}
        )

    def of_rank(self, among, tokens):
        """One rank's outputs and gradients; its tokens are a block of the batch."""
        first = sum(tokens[: among.rank])
        rows = slice(first, first + tokens[among.rank])
        w, saved, loss = (
            self.weights(among.placement.of(among.rank)),
            shunt.Saved(),
            np.zeros(2, np.float32),
        )
        seen = shunt.Routing(counts=np.empty(E, np.int32), importance=np.empty(E, np.float32))
        report = shunt.LayerReport()
        y = across.moe_layer(self.x[rows], w, among, self.options, saved=saved, loss=loss,
                             observe=seen, report=report)  # fmt: skip
        sent = among.report
        d_x, g = across.moe_layer_backward(
            self.x[rows], w, self.d_y[rows], saved, among, self.options
        )
        across.sum_gradients(g, among)
        assert report.totals["rows"] == K * tokens[among.rank]
        out = dict(y=y, d_x=d_x, loss=loss, counts=seen.counts, importance=seen.importance)
        gradients = {n: getattr(g, n) for n in g.__slots__ if getattr(g, n) is not None}
        return out, gradients, sent, across.gradient_norm(g, among)


def among_of(exchange, tokens, placement=None):
    return across.AmongRanks(exchange, placement or across.place_evenly(E, exchange.ranks),
                             most_tokens=max(tokens))  # fmt: skip


def expect_one_process(layer, ranks, got, placement=None):
    wanted, g = layer.one()
    placement = placement or across.place_evenly(E, ranks)
    for name in ("y", "d_x"):
        whole = np.concatenate([out[name] for out, *_ in got])
        assert whole.tobytes() == wanted[name].tobytes(), name
    assert len({norm for *_, norm in got}) == 1
    for rank, (out, gradients, *_) in enumerate(got):
        for name in ("loss", "counts", "importance"):
            assert out[name].tobytes() == wanted[name].tobytes(), name
        for name, is_ in gradients.items():
            must = getattr(g, name)
            if name in OF_EXPERTS:
                assert is_.tobytes() == must[list(placement.of(rank))].tobytes(), name
            else:
                np.testing.assert_allclose(is_, must, rtol=1e-4, atol=1e-4, err_msg=name)
                assert is_.tobytes() == got[0][1][name].tobytes(), name


@pytest.mark.parametrize("kind", MORE)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_processes_have_the_bits_of_one(ranks, kind):
    layer, tokens = Layer(kind), TOKENS[ranks]
    ends = on_pipes(ranks, lambda x: layer.of_rank(among_of(x, tokens), tokens))
    expect_one_process(layer, ranks, results(ends))


@pytest.mark.parametrize("options", [{"memory": "recompute"}, {"capacity": 9}, {"z_loss": 0.1}])
def test_options_and_a_placement_of_ones_own(options):
    layer, tokens = Layer(**options), TOKENS[2]
    placement = across.Placement((0, 2, 6), (1, 4, 0, 2, 3, 5), E)
    body = lambda x: layer.of_rank(among_of(x, tokens, placement), tokens)  # noqa: E731
    if "z_loss" in options:  # its sum is the ranks' shares, added in their order
        got = results(on_pipes(2, body))
        np.testing.assert_allclose(got[0][0]["loss"], layer.one()[0]["loss"], rtol=1e-5)
        for out, *_ in got:
            out["loss"] = layer.one()[0]["loss"]
    elif "capacity" in options:
        layer.__dict__.update(Layer(capacity=9, balance_loss=0.0).__dict__)
        x, w = layer.x, shunt.Weights(**layer.arrays)
        y = shunt.moe_layer(x, w, layer.options)

        def forward(x):
            among, first = among_of(x, tokens, placement), 32 * x.rank
            mine = layer.x[first : first + tokens[x.rank]]
            return across.moe_layer(mine, layer.weights(placement.of(x.rank)), among, layer.options)

        assert np.concatenate(results(on_pipes(2, forward))).tobytes() == y.tobytes()
        return
    else:
        got = results(on_pipes(2, body))
    expect_one_process(layer, 2, got, placement)


def test_float16_and_threads_of_one_process():
    """Threads: a call that held the GIL would stop both."""
    layer, tokens = Layer("shared", np.float16), TOKENS[3]
    ends = on_threads(3, lambda x: layer.of_rank(among_of(x, tokens), tokens))
    expect_one_process(layer, 3, results(ends))


def test_bytes_are_those_of_the_formula():
    layer, tokens = Layer(), TOKENS[2]
    got = results(on_pipes(2, lambda x: layer.of_rank(among_of(x, tokens), tokens)))
    ids = shunt.route(shunt.gate_logits(layer.x, layer.arrays["gate"]), K).expert
    leaves = [int((ids[:32] >= 3).sum()), int((ids[32:] < 3).sum())]
    for rank, (*_, sent, _) in enumerate(got):
        assert sent["bytes_sent"] == 4 * H * (leaves[rank] + leaves[1 - rank])
        assert sent["rows_sent"] == sum(leaves) == sent["rows_received"]


def test_tokens_that_are_sent_once():
    layer, tokens = Layer(), TOKENS[2]

    def body(x):
        among = across.AmongRanks(
            x, across.place_evenly(E, 2), most_tokens=max(tokens), send_once=True
        )
        return layer.of_rank(among, tokens)

    got = results(on_pipes(2, body))
    expect_one_process(layer, 2, got)
    ids = shunt.route(shunt.gate_logits(layer.x, layer.arrays["gate"]), K).expert
    away = [ids[:32] >= 3, ids[32:] < 3]
    for rank, (*_, sent, _) in enumerate(got):
        slots, others = int(away[rank].sum()), int(away[1 - rank].sum())
        assert sent["bytes_sent"] == 4 * H * (int(away[rank].any(axis=1).sum()) + others) + 4 * slots


def test_copies_of_an_expert():
    layer, tokens = Layer(balance_loss=0.0), TOKENS[2]
    placement = across.Placement((0, 4, 8), (0, 1, 2, 5, 1, 3, 4, 5), E)
    got = results(on_pipes(2, lambda x: layer.of_rank(among_of(x, tokens, placement), tokens)))
    wanted, g = layer.one()
    for name in ("y", "d_x"):
        assert np.concatenate([out[name] for out, *_ in got]).tobytes() == wanted[name].tobytes()
    parts = np.zeros_like(g.up)
    for rank, (_, gradients, *_) in enumerate(got):
        parts[list(placement.of(rank))] += gradients["up"]
    np.testing.assert_allclose(parts, g.up, rtol=1e-4, atol=1e-4)


def broken(how):
    """Rank 1 does what is wrong; both ranks raise."""
    layer, tokens = Layer(), TOKENS[2]

    def body(x):
        among = among_of(x, tokens)
        w, mine = layer.weights(among.placement.of(x.rank)), layer.x[: tokens[x.rank]]
        given = dict(x=mine, weights=w, options=layer.options)
        if x.rank == 1:
            given.update(how(given))
        out = np.full_like(mine, 7)
        try:
            across.moe_layer(given["x"], given["weights"], among, given["options"], out=out)
        except (TypeError, ValueError) as wrong:
            assert (out == 7).all()
            again = across.moe_layer(mine, w, among, layer.options)  # the ranks are together
            assert np.isfinite(again).all()
            return type(wrong).__name__, str(wrong)

    return results(on_pipes(2, body))


@pytest.mark.parametrize("how, sentence", [
    (lambda g: {"x": g["x"].astype(np.float64)}, "moe_layer.x has element type float64"),
    (lambda g: {"x": g["x"][:, ::2]}, "moe_layer_across.x: extent 1 is 12"),
    (lambda g: {"options": 3}, "moe_layer.options is int; it must be a shunt.layer_options"),
    (lambda g: {"weights": None}, "moe_layer.weights is NoneType; it must be a shunt.Weights"),
])  # fmt: skip
def test_what_one_rank_gets_wrong_all_are_told(how, sentence):
    (kind, of_other), (_, own) = broken(how)
    assert kind == "ValueError" and of_other.startswith("rank 1: ") and of_other.endswith(own)
    assert sentence.split(" has ")[0] in own


def test_options_that_differ_are_one_sentence():
    (_, a), (_, b) = broken(lambda g: {"options": g["options"].replace(top_k=3)})
    assert a == b and "options.top_k: rank 1 has 3 and rank 0 2" in a
    (_, a), (_, b) = broken(lambda g: {"options": g["options"].replace(capacity=2, drop="by_gate")})
    assert a == b and a.startswith("rank 1: ") and "by_gate" in a


def test_what_the_exchange_raises_is_raised():
    class Broken:
        rank, ranks = 0, 2

        def __init__(self, wrong):
            self.wrong, self.kept = wrong, []

        def all_gather(self, send, receive):
            self.kept += [send, receive]
            raise self.wrong

        exchange = None

    layer = Layer()
    for wrong in (RuntimeError("the cable is out"), KeyboardInterrupt()):
        exchange = Broken(wrong)
        with pytest.raises(type(wrong)) as raised:
            across.moe_layer(
                layer.x, layer.weights(range(3)), among_of(exchange, (41, 41)), layer.options
            )
        assert raised.value is wrong
        with pytest.raises(ValueError, match="released"):  # Shunt's memory is nobody else's
            exchange.kept[0][0]
        with pytest.raises(ValueError, match="a list cannot be summed"):
            across.sum_across([1.0], among_of(exchange, (41, 41)))


def test_arguments_that_need_no_other_rank():
    class One:
        rank, ranks, all_gather, exchange = 0, 1, None, None

    with pytest.raises(TypeError, match="shunt.across.Placement"):
        across.AmongRanks(One(), None)
    with pytest.raises(
        TypeError, match="moe_layer.among is int; it must be a shunt.across.AmongRanks"
    ):
        across.moe_layer(None, None, 3)
    with pytest.raises(AttributeError, match="all_gather"):
        across.AmongRanks(object(), across.place_evenly(E, 1))
    One.rank = 5
    with pytest.raises(ValueError, match="rank is 5 and ranks 1"):
        across.AmongRanks(One(), across.place_evenly(E, 1))
    with pytest.raises(ValueError, match="place_evenly.ranks is 0; it must be 1 or more"):
        across.place_evenly(E, 0)
    for wrong in (0, 33):
        with pytest.raises(
            ValueError, match=f"ProcessTable.ranks is {wrong}; it must be from 1 to 32"
        ):
            across.ProcessTable(wrong)
    with pytest.raises(ValueError, match="rank_processes.seat is 2; it must be from 0 to 1"):
        across.rank_processes(across.ProcessTable(2), 2)


def test_saved_of_other_ranks_is_refused():
    layer = Layer()

    class One:
        rank, ranks, all_gather, exchange = 0, 1, None, None

    w, saved, among = shunt.Weights(**layer.arrays), shunt.Saved(), among_of(One(), (41,))
    shunt.moe_layer(layer.x, w, layer.options, saved=saved)
    with pytest.raises(ValueError, match="made by another call of across.moe_layer"):
        across.moe_layer_backward(layer.x, w, layer.d_y, saved, among, layer.options)
    across.moe_layer(layer.x, w, among, layer.options, saved=saved)
    with pytest.raises(ValueError, match="made by another call of moe_layer"):
        shunt.moe_layer_backward(layer.x, w, layer.d_y, saved, layer.options)


def test_rank_processes_and_one_that_is_killed():
    layer, tokens = Layer(), TOKENS[3]
    table = across.ProcessTable(3, box_bytes=4096)

    def body(x):
        got = layer.of_rank(among_of(x, tokens), tokens)
        if x.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        among = among_of(x, tokens)
        with pytest.raises(ConnectionError, match="rank 1 of 3 died or left"):
            layer.of_rank(among, tokens)
        survives = x.recover()
        assert survives == [True, False, True] and x.ranks == 2
        placement = across.place_on_survivors(among.placement, survives)
        assert placement == across.Placement((0, 3, 6), (0, 1, 2, 3, 4, 5), E)
        return layer.of_rank(among_of(x, (32, 9), placement), (32, 9))

    ends = on_processes(3, lambda rank: across.rank_processes(table, rank, deadline=30.0), body)
    assert ends[1] is None
    expect_one_process(layer, 2, results([ends[0], ends[2]]))
