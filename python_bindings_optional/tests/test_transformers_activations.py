"""Which activation of an experts module Shunt computes, and that it leaves alone what it does not
know."""

from __future__ import annotations

import functools
import math
import warnings
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
moe = pytest.importorskip("transformers.integrations.moe", reason="transformers is older than 5")

from transformers.activations import ACT2FN  # noqa: E402

import shunt.torch  # noqa: E402
from shunt.torch._activations import activation_of  # noqa: E402

F = torch.nn.functional
E, H, I, T, K = 3, 6, 5, 7, 2


@pytest.fixture(autouse=True)
def registered() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for such sizes
    shunt.torch.register()


class Base(torch.nn.Module):
    """Experts as transformers writes them: the eager forward that Shunt takes the place of."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        halves = 2 if config.gated else 1
        up = torch.nn.Parameter(torch.randn(E, halves * I, H) * config.scale)
        setattr(self, "gate_up_proj" if config.gated else "up_proj", up)
        self.down_proj = torch.nn.Parameter(torch.randn(E, H, I))
        self.act_fn = config.act

    def forward(self, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
        y = torch.zeros_like(hidden_states)
        for t in range(len(hidden_states)):
            for e, g in zip(top_k_index[t].tolist(), top_k_weights[t]):
                if self.has_gate:
                    row = self._apply_gate(self.gate_up_proj[e] @ hidden_states[t])
                else:
                    row = self.act_fn(self.up_proj[e] @ hidden_states[t])
                y = y.index_add(0, torch.tensor([t]), (g * (self.down_proj[e] @ row))[None])
        return y


def class_of(gated: bool) -> type:
    return moe.use_experts_implementation(type("Experts", (Base,), {}), has_gate=gated)


GATED, PLAIN = class_of(True), class_of(False)


def module(act: Any, gated: bool = True, scale: float = 1.0, kind: Any = None) -> Any:
    config = SimpleNamespace(act=act, gated=gated, scale=scale, _experts_implementation="shunt")
    return (kind or (GATED if gated else PLAIN))(config)


def results(m: Any, implementation: str) -> list[Any]:
    g = torch.Generator().manual_seed(4)
    m.config._experts_implementation = implementation
    x = torch.randn(T, H, generator=g).to(m.down_proj.dtype).requires_grad_()
    ids = torch.stack([torch.randperm(E, generator=g)[:K] for _ in range(T)])
    y = m(x, ids, torch.rand(T, K, generator=g).to(x.dtype))
    weights = [p for p in m.parameters() if p.requires_grad]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *weights])]


def is_itself(m: Any, computed: bool) -> None:
    """Switched it is the module that it was: computed by Shunt, or by its own forward."""
    want = results(m, "eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = results(m, "shunt")
    assert any("own forward runs" in str(w.message) for w in caught) != computed
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= 1e-5 * b.norm() if computed else torch.equal(a, b)


#: act_fn: the activation of Shunt's that it is behind a gate, and without one. None: none.
KNOWN: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "silu": (lambda: ACT2FN["silu"], "swiglu", None),
    "nn.SiLU": (torch.nn.SiLU, "swiglu", None),
    "F.silu": (lambda: F.silu, "swiglu", None),
    "a silu of its own": (lambda: lambda x: x * torch.sigmoid(x), "swiglu", None),
    "gelu": (lambda: ACT2FN["gelu"], "geglu", "gelu"),
    "nn.GELU": (torch.nn.GELU, "geglu", "gelu"),
    "F.gelu": (lambda: F.gelu, "geglu", "gelu"),
    "gelu_python": (lambda: ACT2FN["gelu_python"], "geglu", "gelu"),
    "nn.GELU tanh": (lambda: torch.nn.GELU("tanh"), None, "gelu_tanh"),
    "F.gelu tanh": (lambda: functools.partial(F.gelu, approximate="tanh"), None, "gelu_tanh"),
    "gelu_new": (lambda: ACT2FN["gelu_new"], None, "gelu_tanh"),
    "gelu_pytorch_tanh": (lambda: ACT2FN["gelu_pytorch_tanh"], None, "gelu_tanh"),
    "gelu_fast": (lambda: ACT2FN["gelu_fast"], None, "gelu_tanh"),
    "gelu_10": (lambda: ACT2FN["gelu_10"], None, None),
    "quick_gelu": (lambda: ACT2FN["quick_gelu"], None, None),
    "relu": (lambda: ACT2FN["relu"], None, "relu"),
    "relu2": (lambda: ACT2FN["relu2"], None, "relu2"),
    "relu6": (lambda: ACT2FN["relu6"], None, None),
    "leaky_relu": (lambda: ACT2FN["leaky_relu"], None, None),
    "linear": (lambda: ACT2FN["linear"], None, "identity"),
    "mish": (lambda: ACT2FN["mish"], None, None),
    "tanh": (lambda: ACT2FN["tanh"], None, None),
    "a clamp far out": (lambda: lambda x: F.silu(x).clamp(max=3000.0), None, None),
    "a bend far out": (lambda: lambda x: F.gelu(x) - 0.1 * F.relu(x - 900.0), None, None),
}


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("name", KNOWN)
def test_battery34_an_activation_is_taken_for_itself_only(name: str, gated: bool) -> None:
    make, *kinds = KNOWN[name]
    kind = kinds[0 if gated else 1]
    m = module(make(), gated)
    assert activation_of(m) == (None if kind is None else shunt.activation(kind))
    is_itself(m, computed=kind is not None)


def test_battery34_gelu_10_at_its_bend() -> None:
    """Outputs of its own where pre-activations pass 10."""
    m = module(ACT2FN["gelu_10"], gated=False, scale=8.0)
    with torch.no_grad():
        assert (F.linear(torch.randn(9, H), m.up_proj[0]) > 10).any()
    is_itself(m, computed=False)


def test_battery34_one_class_with_other_parameters_is_another() -> None:
    """In either order: what was found of one says nothing of the next."""
    plain, tanh = torch.nn.GELU(), torch.nn.GELU("tanh")
    for first, second in ((plain, tanh), (tanh, plain)):
        for act in (first, second, first):
            is_itself(module(act, gated=False), computed=True)
    m = module(torch.nn.GELU(), gated=False)
    is_itself(m, computed=True)
    m.act_fn.approximate = "tanh"  # and a change is noticed
    assert activation_of(m) == shunt.activation("gelu_tanh")
    is_itself(m, computed=True)


class Scaled(torch.nn.Module):
    """An activation of a user's, with a number that decides what it is."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(self.slope * x)


def test_battery34_a_users_class_is_judged_by_its_numbers() -> None:
    for slope, computed in ((1.702, False), (1.0, True), (1.001, False)):
        is_itself(module(Scaled(slope)), computed)
    m = module(Scaled(1.0))
    is_itself(m, computed=True)
    m.act_fn.slope = 2.0
    is_itself(m, computed=False)


def test_battery34_what_learns_or_draws_is_left_alone() -> None:
    is_itself(module(torch.nn.PReLU(), gated=False), computed=False)
    noisy = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout(0.5))
    m = module(noisy)
    assert activation_of(m.train()) is None
    is_itself(m.eval(), computed=True)
    hooked = torch.nn.SiLU()
    hooked.register_forward_hook(lambda _m, _i, y: 2 * y)
    is_itself(module(hooked), computed=False)


def capped(limit: float) -> type:
    def _apply_gate(self: Any, gate_up: Any) -> Any:
        gate, up = gate_up.chunk(2, dim=-1)
        return self.act_fn(gate.clamp(max=self.limit)) * up.clamp(-self.limit, self.limit)

    return moe.use_experts_implementation(
        type("Capped", (Base,), {"_apply_gate": _apply_gate, "limit": limit})
    )


def test_battery34_a_gate_of_its_own_is_judged_by_what_it_computes() -> None:
    for limit in (0.5, 7.0, 5000.0):
        m = module(F.silu, scale=4.0, kind=capped(limit))
        assert activation_of(m) == shunt.activation("swiglu_capped", limit)
        is_itself(m, computed=True)
    m.limit = 1.0
    assert activation_of(m) == shunt.activation("swiglu_capped", 1.0)
    m._apply_gate = lambda gate_up: gate_up.chunk(2, dim=-1)[0]
    is_itself(m, computed=False)


def test_battery34_experts_that_shunt_does_not_compute_run_themselves() -> None:
    m = module(F.silu)
    m.double()
    with pytest.warns(RuntimeWarning, match="Experts has weights of torch.float64"):
        y = results(m, "shunt")[0]
    assert torch.equal(y, results(m, "eager")[0])


@pytest.fixture
def default_type() -> Iterator[Any]:
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_battery37_the_door_of_transformers_under_any_default_type(
    default: Any, default_type: Any
) -> None:
    clamped = module(F.silu, kind=capped(7.0))
    named = module(ACT2FN["gelu"], gated=False)
    want = [results(m, "shunt") for m in (clamped, named)]
    shunt.torch._activations._FOUND.clear()
    g = torch.Generator().manual_seed(4)
    default_type(default)
    for m, before in zip((clamped, named), want):
        g.manual_seed(4)
        x = torch.randn(T, H, generator=g, dtype=torch.float32).requires_grad_()
        ids = torch.stack([torch.randperm(E, generator=g)[:K] for _ in range(T)])
        y = m(x, ids, torch.rand(T, K, generator=g, dtype=torch.float32))
        got = [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *m.parameters()])]
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, before))
        assert math.isfinite(float(y.detach().sum()))
