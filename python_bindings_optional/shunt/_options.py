"""Options, by the names and with the defaults of the C++ structs. All of them are immutable."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import _host

# Keywords only, where dataclasses can say so (Python 3.10).
_options = dataclass(frozen=True, **({"kw_only": True} if sys.version_info >= (3, 10) else {}))


def _keep(options: Any, made: Any) -> None:
    object.__setattr__(options, "_made", made)


def _values(options: Any) -> list[Any]:
    return [getattr(options, f.name) for f in fields(options)]


class _remade:
    """Copied and pickled by its values: what it keeps of the extension module is made anew."""

    def __reduce__(self) -> Any:
        return _again, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})


def _again(kind: type, values: dict[str, Any]) -> Any:
    return kind(**values)


@dataclass(frozen=True)
class activation(_remade):
    """An activation with numbers of its own: `activation("swiglu_capped", 7.0)`.

    a, b: alpha and limit of swiglu_clamped, the limit of swiglu_capped, b1 and b2 of situ_glu;
    None: the published ones. A name alone is enough wherever an activation is taken.
    """

    kind: str
    a: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        _keep(self, _host.Activation(self.kind, self.a, self.b))


@dataclass(frozen=True)
class on_host(_remade):
    """Runs on the host: on so many threads (0: all cores), with that instruction set ("best": the fastest on this
    processor; "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16" or "amx"). Results do not depend on the
    threads, nor on the set but for products whose operands are both bf16: of experts on "avx512_bf16", all on "amx"."""

    threads: int = 0
    isa: str | None = None

    def __post_init__(self) -> None:
        _keep(self, _host.HostPolicy(self.threads, self.isa or "best"))


@dataclass(frozen=True, eq=False)
class on_cuda(_remade):
    """Runs on a CUDA device: enqueued on a stream, never waited for.

    stream: a stream's handle; None: the one that is current in torch or CuPy, the one that a CUDA
    array interface names, else the legacy default stream · device: None: that of the arrays ·
    products: "best" (tensor cores for two of 16 bits), "exact" (the host's bits), "tf32" · scratch:
    uint8 array that calls work in, one stream at a time; None: a new one for each call, of the
    arrays' library · empty: makes arrays, empty(shape, "float32"), in memory that is free on the
    stream; needed for outputs, plans and Saved of libraries that are neither torch nor CuPy.
    """

    stream: int | None = None
    device: int | None = None
    products: str = "best"
    scratch: Any = None
    empty: Any = None

    def __post_init__(self) -> None:
        for name in ("stream", "device"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"on_cuda.{name} is {value!r}; it must be None or 0 and more")
        if self.products not in ("best", "exact", "tf32"):
            raise ValueError(
                f"on_cuda.products is {self.products!r}; it must be one of best, exact, tf32"
            )


@_options
class route_options(_remade):
    """How a router chooses and weighs. The defaults are OLMoE's: softmax, top-k, raw."""

    score: str = "softmax"  # softmax, sigmoid, sqrt_softplus, logits
    gates: str = "raw"  # raw, renormalized, softmax_chosen
    scale: float = 1.0
    epsilon: float = 0.0
    groups: int = 1
    top_groups: int = 1
    group_by: str = "best"  # best, sum_of_two_best
    jitter: float = 0.0
    random_second: bool = False
    seed: int = 0
    first_token: int = 0
    zero_experts: int = 0
    gate_on_input: bool = False
    accumulate: bool = False

    def __post_init__(self) -> None:
        _keep(self, _host.make_route_options(*_values(self)))


@_options
class layer_options(_remade):
    """Options of moe_layer and moe_layer_backward: give both the same."""

    top_k: int = 1
    tokens_per_expert: int = 0
    route: route_options = field(default_factory=route_options)
    act: str | activation = "swiglu"
    capacity: int = 0
    drop: str = "by_position"  # by_position, by_choice, by_gate
    first_expert: int = 0
    zero_experts_here: bool = True
    add_to_y: bool = False
    memory: str = "save"  # save, recompute
    accumulate: bool = False  # add to the gradients given, instead of overwriting them
    balance_loss: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        values = _values(self)
        values[2] = made(self.route, route_options, "layer_options.route")
        values[3] = act_of(self.act)
        _keep(self, _host.make_layer_options(*values))

    def replace(self, **changes: Any) -> layer_options:
        return replace(self, **changes)


def made(value: Any, kind: type, name: str) -> Any:
    """What the extension module takes for `value`, which must be of `kind`."""
    if isinstance(value, kind):
        return value._made  # type: ignore[attr-defined]
    raise TypeError(f"{name} is {type(value).__name__}; it must be a shunt.{kind.__name__}")


def act_of(act: str | activation) -> Any:
    """What the extension module takes for an activation."""
    return act._made if isinstance(act, activation) else act
