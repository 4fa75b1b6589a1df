"""Checkpointing and types: what a training program of torch does to a layer."""

from __future__ import annotations

import copy
import os
from typing import Any, Iterator

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import shunt  # noqa: E402
from shunt.torch import MoELayer, moe_experts, moe_layer  # noqa: E402

T, H, I, E, K = 20, 24, 10, 9, 2
RANDOM = {
    "jitter": shunt.route_options(jitter=0.3),
    "random second": shunt.route_options(gates="renormalized", random_second=True),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20260101)
    torch.set_num_threads(1)  # for such sizes


@pytest.fixture
def default_type() -> Iterator[Any]:
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def step(layer: Any, x: Any, around: Any) -> list[Any]:
    """Output and gradients of one step, from one state of torch's generator."""
    torch.manual_seed(7)
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = around(layer, x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


def checkpointed(reentrant: bool) -> Any:
    return lambda layer, x: checkpoint(layer, x, use_reentrant=reentrant)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("route", RANDOM)
def test_battery35_a_recomputation_draws_the_same_numbers(route: str, reentrant: bool) -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=2, route=RANDOM[route]))
    x = torch.randn(T, H)
    want = step(layer, x, lambda layer, x: layer(x))
    got = step(layer, x, checkpointed(reentrant))
    assert all(torch.equal(a, b) for a, b in zip(got, want))
    # The numbers do matter, and are new ones in another call.
    torch.manual_seed(7)
    first, second = layer(x), layer(x)
    assert torch.equal(first, want[0]) and not torch.equal(first, second)


def test_battery35_two_layers_and_two_seeds_draw_apart() -> None:
    def run(seed: int, options: Any) -> Any:
        layer.options = layer.options.replace(route=options)
        torch.manual_seed(seed)
        return layer(x)

    layer = MoELayer(H, I, E, shunt.layer_options(top_k=2, route=RANDOM["jitter"]))
    x = torch.randn(T, H)
    one, other = shunt.route_options(jitter=0.3, seed=1), shunt.route_options(jitter=0.3, seed=2)
    assert torch.equal(run(3, one), run(3, one))
    assert not torch.equal(run(3, one), run(4, one))
    assert not torch.equal(run(3, one), run(3, other))


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


DOORS = ("moe_layer", "moe_experts")


def wide(door: str) -> Any:
    """A call whose saved state is far larger than its input: 64 MB of pre-activations."""
    tokens, hidden, inner, experts = 1024, 16, 2048, 4
    x = torch.randn(tokens, hidden)
    up = (torch.randn(experts, 2 * inner, hidden) / 16).requires_grad_()
    down = (torch.randn(experts, hidden, inner) / 16).requires_grad_()
    gate = torch.randn(experts, hidden).requires_grad_()
    expert, weight = torch.randint(0, experts, (tokens, 4)), torch.rand(tokens, 4)
    options = shunt.layer_options(top_k=4)

    def call(x: Any) -> Any:
        if door == "moe_layer":
            return moe_layer(x, gate, up, down, options).y
        return moe_experts(x, expert, weight, up, down)

    return call, x


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
@pytest.mark.parametrize("door", DOORS)
def test_battery35_checkpointing_frees_what_was_saved(door: str) -> None:
    call, x = wide(door)
    saved = 1024 * 4 * 2 * 2048 * 4  # bytes of one call's pre-activations

    def grown(around: Any, layers: int = 3) -> int:
        y = x.clone().requires_grad_()
        around(y)  # the scratch grows once
        before = resident()
        for _ in range(layers):
            y = around(y)
        return resident() - before

    assert grown(call) > 2.5 * saved
    assert grown(lambda x: checkpoint(call, x, use_reentrant=False)) < 0.5 * saved


@pytest.mark.parametrize("door", DOORS)
def test_battery35_what_was_saved_is_what_autograds_hooks_say(door: str) -> None:
    """All memory passes the hooks, and comes back from wherever they had put it."""
    call, x = wide(door)

    def run() -> list[Any]:
        leaf = x[:50].clone().requires_grad_()
        y = call(leaf) if door == "moe_layer" else moe_experts(leaf, *of_experts)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [leaf])]

    of_experts = (torch.randint(0, 4, (50, 4)), torch.rand(50, 4), torch.randn(4, 8, 16),
                  torch.randn(4, 16, 4))  # fmt: skip
    want, seen = run(), []

    def pack(t: Any) -> Any:
        seen.append(t)
        return t.clone().numpy()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: torch.from_numpy(a)):
        got = run()
    assert all(torch.equal(a, b) for a, b in zip(got, want))
    assert any(t.dtype == torch.uint8 and t.numel() > 50 * 4 for t in seen)


def test_battery35_saved_memory_of_another_call_is_refused() -> None:
    call, x = wide("moe_experts")
    leaf = x.clone().requires_grad_()
    for change, sentence in ((lambda t: t[:-1], "bytes; it must have the"),
                             (lambda t: torch.cat([t, t])[1 : 1 + len(t)], "start on 64 bytes"),
                             (lambda t: t.float(), "its elements are float32")):  # fmt: skip

        def unpack(t: Any, change: Any = change) -> Any:
            return change(t) if t.dtype == torch.uint8 else t

        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y = call(leaf)
            with pytest.raises((TypeError, ValueError), match=sentence):
                y.sum().backward()


def test_battery44_a_second_backward_and_a_step_of_the_bias_between() -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=K), choice_bias=True)
    x = torch.randn(T, H)
    y = layer(x)
    first = torch.autograd.grad(y.sum(), list(layer.parameters()), retain_graph=True)
    layer.step_choice_bias(0.5)
    again = torch.autograd.grad(y.sum(), list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again))


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_battery37_any_default_type(default: Any, default_type: Any) -> None:
    """Of torch: neither what a call makes for itself, nor its results, depend on it."""
    options = shunt.layer_options(top_k=K, balance_loss=0.1, z_loss=0.01,
                                  route=shunt.route_options(jitter=0.1))  # fmt: skip
    layer = MoELayer(H, I, E, options, choice_bias=True, dtype=torch.float32)
    x = torch.randn(T, H)
    ids, gate = torch.randint(0, E, (T, K)), torch.rand(T, K)

    def run() -> list[Any]:
        torch.manual_seed(1)
        layer.zero_grad()
        y = layer(x)
        y.square().sum().add(layer.aux_loss).backward()
        layer.step_choice_bias(0.0)
        once = moe_experts(x, ids, gate, layer.up, layer.down)
        return [y.detach(), layer.aux_loss.detach(), layer.counts, once.detach(),
                *(p.grad.clone() for p in layer.parameters())]  # fmt: skip

    want = run()
    default_type(default)
    got = run()
    for a, b in zip(got, want):
        assert a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16, torch.float16, torch.float64],
                         ids=str)  # fmt: skip
def test_battery37_a_layer_made_under_a_default_type(default: Any, default_type: Any) -> None:
    default_type(default)
    layer = MoELayer.from_preset("DeepSeek-V3", hidden=H, intermediate=I, experts=16, top_k=3,
                                 shared_intermediate=8, z_loss=0.01)  # fmt: skip
    stored = torch.float32 if default == torch.float64 else default
    assert {p.dtype for p in layer.parameters()} == {stored}
    assert layer.choice_bias.dtype == torch.float32
    x = torch.randn(3, 5, H).requires_grad_()
    y = layer(x)
    (y.square().mean() + layer.aux_loss).backward()
    assert y.dtype == x.grad.dtype == default and y.shape == x.shape
    assert torch.isfinite(y).all() and x.grad.abs().max() > 0
    layer.step_choice_bias()
    with pytest.raises(TypeError, match="dtype is torch.float64; it must be float32, bfloat16"):
        MoELayer(H, I, E, shunt.layer_options(), dtype=torch.float64)


def biased() -> Any:
    """A layer whose bias has values that bfloat16 does not."""
    layer = MoELayer(H, I, 16, shunt.layer_options(top_k=K), choice_bias=True)
    with torch.no_grad():
        layer.choice_bias.copy_(torch.arange(16) * 1e-3 + 7.0)
    return layer


CONVERSIONS = {
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "double and back": lambda m: m.double().float(),
    "to(dtype)": lambda m: m.to(torch.bfloat16),
    "to(device, dtype)": lambda m: m.to("cpu", torch.float16),
    "to(like)": lambda m: m.to(torch.zeros(1, dtype=torch.bfloat16)),
    "type": lambda m: m.type(torch.bfloat16),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_battery38_the_bias_of_the_choice_stays_float(name: str) -> None:
    layer = biased()
    want = layer.choice_bias.clone()
    model = CONVERSIONS[name](torch.nn.Sequential(layer, torch.nn.Linear(H, H)))
    assert model[0] is layer and layer.choice_bias.dtype == torch.float32
    assert torch.equal(layer.choice_bias, want)
    assert dict(layer.named_buffers())["choice_bias"] is layer.choice_bias
    assert layer.up.dtype == model[1].weight.dtype
    layer(torch.randn(T, H).to(layer.up.dtype)).sum().backward()
    before = layer.choice_bias.clone()
    layer.step_choice_bias(1e-4)
    moved = (layer.choice_bias - before).abs()
    assert moved.max() > 0 and moved.max() < 2e-4


def test_battery38_a_move_takes_the_bias_along() -> None:
    layer = biased()
    away = copy.deepcopy(layer).to("meta", torch.bfloat16)
    assert away.choice_bias.is_meta and away.choice_bias.dtype == torch.float32
    back = away.to_empty(device="cpu")
    assert back.choice_bias.device.type == "cpu" and back.choice_bias.dtype == torch.float32
    without = MoELayer(H, I, E, shunt.layer_options(top_k=K)).bfloat16()
    assert without.choice_bias is None and without.up.dtype == torch.bfloat16


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_battery38_a_loaded_bias_is_float(stored: Any, assign: bool) -> None:
    source = biased()
    state = {name: t.to(stored) for name, t in source.state_dict().items()}
    layer = biased().bfloat16()
    with torch.no_grad():
        layer.choice_bias.zero_()
    layer.load_state_dict(state, assign=assign)
    assert layer.choice_bias.dtype == torch.float32
    assert torch.equal(layer.choice_bias, state["choice_bias"].float())
    if stored == torch.float32:
        assert torch.equal(layer.choice_bias, source.choice_bias)
    layer(torch.randn(T, H).to(layer.up.dtype))
    layer.step_choice_bias(1e-4)
