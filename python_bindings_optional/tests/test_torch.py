"""shunt.torch: gradients against differences, and what a module of torch is expected to bear."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import shunt  # noqa: E402
from shunt.torch import MoELayer, moe_experts, moe_layer  # noqa: E402

T, H, I, E, K = 5, 4, 3, 4, 2


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20260101)
    torch.set_num_threads(1)  # for such sizes


def normal(*shape: int, scale: float = 1.0) -> Any:
    return (torch.randn(*shape) * scale).requires_grad_()


def slopes_are_right(f: Any, *inputs: Any) -> bool:
    """gradcheck of a float function: differences over 1/256 of arguments in double. Rounding costs
    2^-24 · 256 of a value, the third derivative 2^-16 / 6; a wrong term is far above both."""
    doubled = [t.detach().double().requires_grad_() for t in inputs]
    return torch.autograd.gradcheck(
        lambda *d: f(*(t.float() for t in d)).double(), doubled, eps=2**-8, atol=3e-4, rtol=3e-3
    )


def ids() -> Any:
    return torch.stack([torch.randperm(E)[:K] for _ in range(T)])


@pytest.mark.parametrize("act", ["swiglu", "situ_glu", "relu2"])
def test_gradients_of_experts(act: str) -> None:
    halves = 2 if act in ("swiglu", "geglu", "situ_glu") else 1
    expert = ids()

    def f(x: Any, gate: Any, up: Any, down: Any, up_bias: Any, down_bias: Any) -> Any:
        return moe_experts(x, expert, gate, up, down, up_bias=up_bias, down_bias=down_bias, act=act,
                           pairs=("gate_up", 1) if halves == 2 else None)  # fmt: skip

    assert slopes_are_right(
        f, normal(T, H), torch.rand(T, K), normal(E, halves * I, H, scale=0.4),
        normal(E, H, I, scale=0.4), normal(E, halves * I, scale=0.3), normal(E, H, scale=0.3),
    )  # fmt: skip


@pytest.mark.parametrize(
    "route",
    [
        shunt.route_options(gates="renormalized"),
        shunt.route_options(score="sigmoid", gates="renormalized", scale=2.5, epsilon=1e-20),
        shunt.route_options(score="sqrt_softplus", scale=1.5),
    ],
    ids=lambda r: f"{r.score}-{r.gates}",
)
def test_gradients_of_the_layer(route: Any) -> None:
    options = shunt.layer_options(top_k=K, route=route)
    forced = ids().int()  # a difference must not step over a change of the choice

    def f(x: Any, gate: Any, up: Any, down: Any, bias: Any, s_up: Any, s_down: Any, s: Any) -> Any:
        return moe_layer(x, gate, up, down, options, gate_bias=bias, shared_up=s_up,
                         shared_down=s_down, shared_gate=s, ids=forced).y  # fmt: skip

    assert slopes_are_right(
        f, normal(T, H), normal(E, H, scale=0.5), normal(E, 2 * I, H, scale=0.4),
        normal(E, H, I, scale=0.4), normal(E, scale=0.3), normal(6, H, scale=0.4),
        normal(H, 3, scale=0.4), normal(H, scale=0.4),
    )  # fmt: skip


def test_gradients_of_the_losses() -> None:
    options = shunt.layer_options(top_k=K)
    x, up, down = normal(T, H), normal(E, 2 * I, H), normal(E, H, I)
    forced = ids().int()

    def losses(gate: Any) -> Any:
        out = moe_layer(x, gate, up, down, options, ids=forced, observe=True)
        return torch.stack([out.balance_loss(), 0.1 * out.z_loss()])

    assert slopes_are_right(losses, normal(E, H, scale=0.5))


def test_losses_are_those_of_the_library() -> None:
    plain = shunt.layer_options(top_k=K, balance_loss=0.3, z_loss=0.02)
    layer = MoELayer(H, I, E, plain)
    x = normal(T, H)
    d_y = torch.randn(T, H)
    ((layer(x) * d_y).sum() + layer.aux_loss).backward()
    weights = shunt.Weights(*(p.detach() for p in (layer.gate, layer.up, layer.down)))
    saved, loss = shunt.Saved(), torch.empty(2)
    shunt.moe_layer(x.detach(), weights, plain, saved=saved, loss=loss)
    d_x, d = shunt.moe_layer_backward(x.detach(), weights, d_y, saved, plain)
    torch.testing.assert_close(layer.aux_loss.detach(), loss.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad, d_x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.gate.grad, d.gate, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [p for p in shunt.presets if p != "expert choice"])
def test_every_preset_trains(name: str) -> None:
    p = shunt.presets[name]
    groups, zero = p.route.groups, p.route.zero_experts
    changes: dict[str, Any] = {"hidden": 24, "intermediate": 10, "top_k": min(p.top_k, 3)}
    changes["experts"] = 4 * groups if groups > 1 else 9
    if zero:
        changes["route"] = shunt.route_options(scale=6.0, zero_experts=3)
    for key in ("latent", "shared_intermediate"):
        if {"latent": p.model_hidden, "shared_intermediate": p.shared_experts}[key]:
            changes[key] = 12
    layer = MoELayer.from_preset(name, **changes, balance_loss=0.01)
    x = normal(2, 11, 24)
    y = layer(x)
    assert y.shape == x.shape
    (y.square().mean() + layer.aux_loss).backward()
    for one in (x, *layer.parameters()):
        assert torch.isfinite(one.grad).all() and one.grad.abs().max() > 0
    of_slots = sum(layer.load[what] for what in ("slots", "zero", "unrouted"))
    assert of_slots == 22 * layer.options.top_k
    if layer.choice_bias is not None:
        layer.step_choice_bias(0.01)
        assert layer.choice_bias.abs().max() > 0


def test_a_layer_learns() -> None:
    layer = MoELayer(16, 12, 8, shunt.layer_options(top_k=2, balance_loss=0.01))
    goal = torch.nn.Linear(16, 16)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
    first = last = 0.0
    for step in range(60):
        x = torch.randn(64, 16)
        loss = (layer(x) - goal(x).detach()).square().mean()
        optimizer.zero_grad()
        (loss + layer.aux_loss).backward()
        optimizer.step()
        first, last = (float(loss.detach()), 0.0) if step == 0 else (first, float(loss.detach()))
    assert last < 0.6 * first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_near_float(dtype: Any) -> None:
    layer = MoELayer(16, 12, 8, shunt.layer_options(top_k=2))
    x = torch.randn(20, 16)
    narrow = copy.deepcopy(layer).to(dtype)
    wide = copy.deepcopy(narrow).float()
    x_wide, x_narrow = x.to(dtype).float().requires_grad_(), x.to(dtype).requires_grad_()
    wide(x_wide).sum().backward()
    narrow(x_narrow).sum().backward()
    step = torch.finfo(dtype).eps
    for a, b in zip((x_narrow, *narrow.parameters()), (x_wide, *wide.parameters())):
        assert a.grad.dtype == dtype
        assert (a.grad.float() - b.grad).norm() < 2 * step * b.grad.norm()


def test_any_strides_in_and_out() -> None:
    expert, gate = ids(), torch.rand(T, K)
    up, down = torch.randn(E, 2 * I, H), torch.randn(E, H, I)

    def run(x: Any, up: Any, down: Any) -> tuple[Any, ...]:
        leaves = [t.detach().requires_grad_() for t in (x, up, down)]
        y = moe_experts(leaves[0], expert, gate, leaves[1], leaves[2])
        y.sum().backward()  # whose gradient is one number, expanded
        return (y.detach(), *(t.grad for t in leaves))

    x = torch.randn(T, H)
    want = run(x, up, down)
    strided = (
        torch.stack([x, x], 2).reshape(T, 2 * H)[:, ::2],
        up.transpose(1, 2).contiguous().transpose(1, 2),
        down.transpose(1, 2).contiguous().transpose(1, 2),
    )
    assert not any(t.is_contiguous() for t in strided)
    for a, b in zip(want, run(*strided)):
        assert torch.equal(a, b)


def test_ids_that_name_no_expert() -> None:
    x, up, down = normal(T, H), normal(E, 2 * I, H), normal(E, H, I)
    expert, gate = ids(), torch.rand(T, K).requires_grad_()
    expert[2] = E  # as transformers marks experts of another rank
    expert[3, 0] = -1
    y = moe_experts(x, expert, gate, up, down)
    y.sum().backward()
    assert (y[2] == 0).all() and (x.grad[2] == 0).all()
    assert (gate.grad[2] == 0).all() and gate.grad[3, 0] == 0 and gate.grad[3, 1] != 0


def test_no_tokens() -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=K))
    y = layer(torch.empty(0, H))
    y.sum().backward()
    assert y.shape == (0, H) and (layer.up.grad == 0).all()


def test_sentences() -> None:
    x, gate, expert = torch.randn(T, H), torch.rand(T, K), ids()
    up, down = torch.randn(E, 2 * I, H), torch.randn(E, H, I)
    with pytest.raises(
        TypeError, match="moe_experts.x: its elements are torch.bfloat16; they must"
    ):
        moe_experts(x.bfloat16(), expert, gate, up, down)
    with pytest.raises(ValueError, match=r"moe_experts.x: extent 1 is 3; it must be 4"):
        moe_experts(x[:, :3], expert, gate, up, down)
    with pytest.raises(ValueError, match="moe_experts.expert: extent 1 is 2; it must be 1"):
        moe_experts(x, expert, gate[:, :1], up, down)
    with pytest.raises(ValueError, match="x is on meta"):
        moe_experts(x.to("meta"), expert, gate, up, down)
    with pytest.raises(ValueError, match="options.balance_loss is 0.1; under torch it must be 0.0"):
        moe_layer(x, torch.randn(E, H), up, down, shunt.layer_options(balance_loss=0.1))


def test_nothing_is_kept_without_gradients() -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=K)).eval()
    x = torch.randn(T, H)
    with torch.no_grad():
        free = layer(x)
    assert free.grad_fn is None
    assert torch.equal(free, layer(x).detach())


def test_a_changed_weight_is_noticed() -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=K))
    y = layer(torch.randn(T, H))
    with torch.no_grad():
        layer.up.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_two_threads() -> None:
    layer = MoELayer(32, 24, 8, shunt.layer_options(top_k=K))
    inputs = [torch.randn(50, 32) for _ in range(2)]

    def step(x: Any) -> Any:
        x = x.clone().requires_grad_()
        y = layer(x)
        return y.detach(), *torch.autograd.grad(y.square().sum(), [x, layer.up, layer.gate])

    want = [step(x) for x in inputs]
    got: list[list[Any]] = [[], []]

    def work(i: int) -> None:
        for _ in range(20):
            got[i].append(step(inputs[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(2):
        assert len(got[i]) == 20
        assert all(torch.equal(a, b) for run in got[i] for a, b in zip(run, want[i]))


def test_state_is_saved_and_copied() -> None:
    layer = MoELayer.from_preset("DeepSeek-V3", hidden=24, intermediate=10, experts=16, top_k=3,
                                 shared_intermediate=8)  # fmt: skip
    other = copy.deepcopy(layer)
    torch.nn.init.ones_(other.up)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(5, 24)
    assert torch.equal(layer(x), other(x))
    assert "choice_bias" in layer.state_dict()
    again = pickle.loads(pickle.dumps(layer))
    assert torch.equal(layer(x), again(x)) and again.options == layer.options


def test_draws_are_of_training_only_and_new_in_each_call() -> None:
    layer = MoELayer.from_preset("Switch-Base-128", hidden=24, intermediate=10, experts=9)
    x = torch.randn(20, 24)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    plain = layer(x)
    assert torch.equal(plain, layer(x))
    still = copy.deepcopy(layer)
    still.options = still.options.replace(route=shunt.route_options())
    assert torch.equal(plain, still(x))


def test_new_outputs_are_tensors_like_any() -> None:
    logits = torch.randn(3, 8)
    expert, gate = shunt.route(logits, 2)
    assert gate.is_contiguous() and gate.dtype == torch.float32 and gate.data_ptr() % 64 == 0
    part, before = gate[1:], gate[1:].clone()
    again = pickle.loads(pickle.dumps(expert))
    assert torch.equal(copy.deepcopy(expert), expert) and torch.equal(again, expert)
    del expert, gate
    for _ in range(50):  # others take what is free
        shunt.route(torch.randn(3, 8), 2)
    assert torch.equal(part, before)
    assert shunt.route(logits[:0], 2).gate.shape == (0, 2)
    with pytest.raises(TypeError, match="must be an array"):
        shunt.route(logits.to_sparse(), 2)
