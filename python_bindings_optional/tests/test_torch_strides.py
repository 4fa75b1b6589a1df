"""The doors of torch with every tensor in every stride: forward and all gradients."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from strides import variants  # noqa: E402

import shunt  # noqa: E402
from shunt.torch import MoELayer, moe_experts, moe_layer  # noqa: E402

T, H, I, E, K, L = 6, 5, 4, 4, 2, 3
INTEGERS = ("expert", "ids", "token", "valid")


def floats(rng: Any, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def choices(rng: Any) -> Any:
    return np.stack([rng.permutation(E)[:K] for _ in range(T)])


def experts_call(rng: Any) -> tuple[dict[str, Any], Callable[..., Any]]:
    arrays = {"x": floats(rng, T, H), "expert": choices(rng), "gate": np.abs(floats(rng, T, K)),
              "up": floats(rng, E, 2 * I, H), "down": floats(rng, E, H, I),
              "up_bias": floats(rng, E, 2 * I), "down_bias": floats(rng, E, H)}  # fmt: skip
    return arrays, lambda **a: (moe_experts(**a),)


def weights(rng: Any) -> dict[str, Any]:
    return {"gate": floats(rng, E, H), "up": floats(rng, E, 2 * I, L), "down": floats(rng, E, L, I),
            "gate_bias": floats(rng, E), "up_bias": floats(rng, E, 2 * I),
            "down_bias": floats(rng, E, L), "shared_up": floats(rng, 2 * I, H),
            "shared_down": floats(rng, H, I), "shared_gate": floats(rng, H),
            "latent_down": floats(rng, L, H), "latent_up": floats(rng, H, L)}  # fmt: skip


def outputs(out: Any) -> tuple[Any, ...]:
    return out.y, out.importance, out.z


OPTIONS = shunt.layer_options(top_k=K, route=shunt.route_options(gates="renormalized"))


def layer_call(rng: Any) -> tuple[dict[str, Any], Callable[..., Any]]:
    arrays = {"x": floats(rng, T, H), **weights(rng), "choice_bias": floats(rng, E),
              "valid": np.array([1, 1, 0, 1, 1, 1], np.uint8)}  # fmt: skip
    return arrays, lambda **a: outputs(moe_layer(options=OPTIONS, observe=True, **a))


def forced_call(rng: Any) -> tuple[dict[str, Any], Callable[..., Any]]:
    arrays = {"x": floats(rng, T, H), **weights(rng), "ids": choices(rng),
              "token": rng.integers(0, T, T)}  # fmt: skip
    return arrays, lambda **a: outputs(moe_layer(options=OPTIONS, observe=True, **a))


def module_call(rng: Any) -> tuple[dict[str, Any], Callable[..., Any]]:
    torch.manual_seed(0)
    layer = MoELayer(H, I, E, OPTIONS)
    arrays = {"x": floats(rng, 2, T // 2, H), "ids": choices(rng),
              "valid": np.ones((2, T // 2), np.uint8),
              "token": rng.integers(0, T, (2, T // 2))}  # fmt: skip
    return arrays, lambda **a: (layer(**a),)


CALLS = {f.__name__: f for f in (experts_call, layer_call, forced_call, module_call)}


def tensor(array: Any) -> Any:
    """Of the array's strides."""
    return torch.from_numpy(array) if array.flags.writeable else of_one(array)


def of_one(array: Any) -> Any:
    """An expanded tensor of a broadcast array."""
    part = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides)]
    return torch.from_numpy(part.copy()).expand(array.shape)


def result(call: Any, tensors: dict[str, Any], slopes: dict[int, Any]) -> list[Any]:
    """Outputs, and the gradient to each tensor that has one."""
    leaves = {n: t.detach() if n in INTEGERS else t.detach().requires_grad_(n != "choice_bias")
              for n, t in tensors.items()}  # fmt: skip
    out = call(**leaves)
    d_out = [slopes[i] for i in range(len(out))]
    wanted = [t for t in leaves.values() if t.requires_grad]
    return [o.detach() for o in out] + list(torch.autograd.grad(out, wanted, d_out))


@pytest.mark.parametrize("name", CALLS)
def test_battery29_every_tensor_in_every_stride(name: str) -> None:
    """Equal to its contiguous copy, bit for bit, and none is refused."""
    rng = np.random.default_rng(3)
    arrays, call = CALLS[name](rng)
    tensors = {n: torch.from_numpy(a) for n, a in arrays.items()}
    plain = call(**tensors)
    slopes = {i: floats(rng, *o.shape) for i, o in enumerate(plain)}
    d_out = {i: torch.from_numpy(s) for i, s in slopes.items()}
    tried = 0
    for given, of in ((tensors, arrays), (d_out, slopes)):
        for argument in given:
            for variant, array in variants(of[argument].copy(), negative=False):
                strided = tensor(array)
                assert strided.stride() == tuple(s // array.itemsize for s in array.strides)
                got, want = (
                    result(call, {**tensors, argument: t}, d_out) if given is tensors
                    else result(call, tensors, {**d_out, argument: t})
                    for t in (strided, strided.contiguous().clone())
                )  # fmt: skip
                tried += 1
                for a, b in zip(got, want):
                    assert torch.equal(a, b), f"{argument}, {variant}"
    assert tried > 4 * len(arrays)


def test_battery29_gates_of_a_wider_tensor_and_of_one_number() -> None:
    """`wide[:, :K]` and `expand`, whose gradients must reach what they are views of."""
    torch.manual_seed(0)
    arrays, call = experts_call(np.random.default_rng(4))
    tensors = {n: torch.from_numpy(a) for n, a in arrays.items()}
    wide = torch.rand(T, 3 * K)
    for base, view in ((wide, lambda t: t[:, :K]), (wide, lambda t: t[:, ::3]),
                       (torch.rand(1), lambda t: t.expand(T, K)),
                       (torch.rand(T, 1), lambda t: t.expand(T, K)),
                       (torch.rand(K, T), lambda t: t.T)):  # fmt: skip
        got, want = [], []
        for put, change in ((got, lambda t: t), (want, lambda t: t.contiguous())):
            leaf, x = base.clone().requires_grad_(), tensors["x"].clone().requires_grad_()
            (y,) = call(**{**tensors, "x": x, "gate": change(view(leaf))})
            put += [y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, x])]
        assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_battery29_the_extension_module_takes_dense_gates_only() -> None:
    """Its backward reads them as one row, whoever calls it."""
    from shunt import _host

    arrays, _ = experts_call(np.random.default_rng(5))
    t = {n: torch.from_numpy(a) for n, a in arrays.items()}
    experts = (t["up"], t["down"], None, None, "gate_up", "swiglu")
    last = "the last axis has stride .; it must be 1"
    for gate, what in ((torch.rand(T, 3 * K)[:, :K], "axis 0 has stride .; it must be 2"),
                       (torch.rand(T, 1).expand(T, K), last), (torch.rand(K, T).T, last)):  # fmt: skip
        with pytest.raises(ValueError, match=f"moe_experts.gate: {what}"):
            _host.moe_experts(t["x"], t["expert"].int(), gate, experts, None, None, None)
    with pytest.raises(ValueError, match=f"moe_experts.gate: {last}"):
        _host.moe_experts(t["x"][:1], t["expert"][:1].int(), torch.rand(1, 2 * K)[:, ::2], experts,
                          None, None, None)  # fmt: skip
