"""Tensors whose memory is not what their values are: refused with a sentence, or given way to their
values where torch has them."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import shunt  # noqa: E402
from shunt.torch import MoELayer, moe_experts, moe_layer  # noqa: E402

T, H, I, E, K = 6, 8, 4, 4, 2


@pytest.fixture(scope="module", autouse=True)
def one_rank() -> Iterator[None]:
    """A process group of this process alone, for the tensors of torch.distributed."""
    dist = torch.distributed
    if not dist.is_available():
        pytest.skip("torch was built without distributed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def fake(t: Any) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode().from_tensor(t)


def dtensor(t: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    return distribute_tensor(t, init_device_mesh("cpu", (1,)), [Replicate()])


def functional(t: Any) -> Any:
    return torch._to_functional_tensor(t)


def wrapped_functional(t: Any) -> Any:
    from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

    with FunctionalTensorMode():
        return FunctionalTensor.to_functional(t)


class Twice(torch.Tensor):
    """A wrapper: a tensor kept elsewhere, times two."""

    @staticmethod
    def __new__(cls, of: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, of.shape, dtype=of.dtype)

    def __init__(self, of: Any) -> None:
        self.of = of

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].of)
        plain = [a.of * 2 if isinstance(a, cls) else a for a in args]
        return func(*plain, **(kwargs or {}))


def freed(t: Any) -> Any:
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def zero(t: Any) -> Any:
    return torch._efficientzerotensor(t.shape, dtype=t.dtype)


def nested(t: Any) -> Any:
    return torch.nested.nested_tensor(list(t), layout=torch.jagged)


WITHOUT = [fake, dtensor, functional, wrapped_functional, Twice, freed, zero]


def tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"x": torch.randn(T, H), "expert": torch.randint(0, E, (T, K), dtype=torch.int32),
            "gate": torch.rand(T, K), "up": torch.randn(E, 2 * I, H),
            "down": torch.randn(E, H, I), "up_bias": torch.randn(E, 2 * I),
            "down_bias": torch.randn(E, H)}  # fmt: skip


def layer_tensors() -> dict[str, Any]:
    t = tensors()
    del t["expert"]
    return {**t, "gate": torch.randn(E, H), "gate_bias": torch.randn(E),
            "choice_bias": torch.randn(E), "valid": torch.ones(T, dtype=torch.uint8),
            "ids": torch.tensor([[0, 1]] * T, dtype=torch.int32)}  # fmt: skip


def of_experts(**t: Any) -> Any:
    return moe_experts(**t)


def of_layer(**t: Any) -> Any:
    return moe_layer(options=shunt.layer_options(top_k=K), **t).y


def of_library(**t: Any) -> Any:
    """The plain functions, with tensors in the place of arrays."""
    names = ("gate", "up", "down", "gate_bias", "choice_bias", "up_bias", "down_bias")
    w = shunt.Weights(**{n: t.pop(n) for n in names})
    return shunt.moe_layer(t.pop("x"), w, shunt.layer_options(top_k=K), **t)


DOORS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "moe_experts": (of_experts, tensors),
    "moe_layer": (of_layer, layer_tensors),
    "shunt.moe_layer": (of_library, layer_tensors),
}


@pytest.mark.parametrize("make", WITHOUT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("door", DOORS)
def test_battery30_tensors_without_memory_are_refused(door: str, make: Any) -> None:
    call, given = DOORS[door]
    call(**given())
    for name, t in given().items():
        with pytest.raises((TypeError, ValueError), match="no memory") as raised:
            call(**{**given(), name: make(t)})
        assert any(word in str(raised.value) for word in (name, name.replace("_", "."))), name


@pytest.mark.parametrize("make", [nested, torch.Tensor.to_sparse, torch.Tensor.to_mkldnn])
def test_battery30_other_layouts_are_refused(make: Any) -> None:
    logits = torch.randn(T, E)
    with pytest.raises(TypeError, match="route.logits is"):
        shunt.route(make(logits), K)
    with pytest.raises(TypeError, match="route.logits is"):  # within a function transform
        torch.func.vmap(lambda t: shunt.route(t, K).gate)(logits[None])


def test_battery30_weights_freed_between_forward_and_backward() -> None:
    t = tensors()
    up = t["up"].requires_grad_()
    y = moe_experts(**t)
    up.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="moe_experts.up has elements and no memory"):
        y.sum().backward()


def negated(t: Any) -> Any:
    return torch._neg_view(-t)


def of_conjugate(t: Any) -> Any:
    """The imaginary part of a conjugate: negated, with stride 2."""
    return torch.complex(torch.zeros_like(t), -t).conj().imag


@pytest.mark.parametrize("make", [negated, of_conjugate])
@pytest.mark.parametrize("door", ["moe_experts", "moe_layer"])
def test_battery30_negated_views_give_way_to_their_values(door: str, make: Any) -> None:
    call, given = DOORS[door]

    def run(t: dict[str, Any], d_y: Any) -> list[Any]:
        leaves = {n: v.detach().requires_grad_() if v.is_floating_point() else v
                  for n, v in t.items()}  # fmt: skip
        y = call(**leaves)
        wanted = [v for n, v in leaves.items() if v.requires_grad and n != "choice_bias"]
        return [y.detach(), *torch.autograd.grad(y, wanted, d_y)]

    d_y = torch.randn(T, H)
    want = run(given(), d_y)
    floating = [n for n, t in given().items() if t.is_floating_point()]
    for name in (*floating, "d_y"):
        t, slope = given(), d_y
        if name == "d_y":
            slope = make(d_y)
            assert slope.is_neg()
        else:
            t[name] = make(t[name])
            assert t[name].is_neg()
        got = run(t, slope)
        assert all(torch.equal(a, b) for a, b in zip(got, want)), name


def test_battery30_negated_views_of_the_plain_functions() -> None:
    logits = torch.randn(T, E)
    want = shunt.route(logits, K)
    assert torch.equal(shunt.route(negated(logits), K).gate, want.gate)
    with pytest.raises(ValueError, match="route.gate is a negated view"):
        shunt.route(logits, K, out=shunt.Routing(gate=negated(torch.rand(T, K))))
    t = layer_tensors()
    with pytest.raises(ValueError, match="Weights.up is a negated view"):
        shunt.Weights(t["gate"], negated(t["up"]), t["down"])


def test_battery30_a_collective_under_way_is_waited_for() -> None:
    import torch.distributed._functional_collectives as collectives

    def under_way(t: Any) -> Any:
        made = collectives.all_reduce(t, "sum", torch.distributed.group.WORLD)
        assert type(made) is not torch.Tensor
        return made

    for door in ("moe_experts", "moe_layer"):
        call, given = DOORS[door]
        want = call(**given())
        for name, t in given().items():
            assert torch.equal(call(**{**given(), name: under_way(t)}), want), name
    logits = under_way(torch.randn(T, E))
    with pytest.raises(TypeError, match="route.logits is .*AsyncCollectiveTensor, which has no"):
        shunt.route(logits, K)
    logits.trigger_wait()


def test_battery30_plain_subclasses_are_taken() -> None:
    class Named(torch.Tensor):
        pass

    logits = torch.randn(T, E)
    want = shunt.route(logits, K)
    for given in (logits.as_subclass(Named), torch.nn.Parameter(logits, requires_grad=False)):
        assert torch.equal(shunt.route(given, K).gate, want.gate)
    with torch.inference_mode():
        assert torch.equal(shunt.route(logits.clone(), K).gate, want.gate)


def test_battery30_a_module_with_parameters_of_dtensors() -> None:
    layer = MoELayer(H, I, E, shunt.layer_options(top_k=K))
    x = torch.randn(T, H)
    layer(x)
    layer.up = torch.nn.Parameter(dtensor(layer.up.detach()))
    with pytest.raises(TypeError, match=r"Weights.up is a .*DTensor, .*to_local\(\)"):
        layer(x)
