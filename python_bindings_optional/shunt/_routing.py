"""The router: logits to expert ids and gates, and back."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Iterable, Iterator, Optional, Tuple

from ._arrays import zeros
from ._backend import backend
from ._options import made, route_options

Array = Any
LossGradients = Optional[Tuple[Optional[Array], Optional[Array], Optional[Array]]]

_NO_OPTIONS = route_options()
#: Entries of Routing.report, by their place.
route_events = ("tokens", "non_finite_tokens", "non_finite_logits", "empty_tokens",
                "unfilled_slots", "ids_out_of_range", "ids_repeated",
                "second_dropped")  # fmt: skip


class Routing:
    """Arrays of route(): expert, gate [T,K], and what else is wanted.

    recorded [T,K] int16 · z [T] · counts [E] int32 · importance [E] · tokens [1] int32 ·
    sequence_counts [N,E] int32 · sequence_importance [N,E] · sequence_tokens [N] int32 ·
    histogram [E,bins] int32 · report [8] int64: by route_events. None: not wanted.
    """

    __slots__ = ("expert", "gate", "recorded", "z", "counts", "importance", "tokens",
                 "sequence_counts", "sequence_importance", "sequence_tokens", "histogram",
                 "report")  # fmt: skip

    def __init__(
        self,
        expert: Optional[Array] = None,
        gate: Optional[Array] = None,
        *,
        recorded: Optional[Array] = None,
        z: Optional[Array] = None,
        counts: Optional[Array] = None,
        importance: Optional[Array] = None,
        tokens: Optional[Array] = None,
        sequence_counts: Optional[Array] = None,
        sequence_importance: Optional[Array] = None,
        sequence_tokens: Optional[Array] = None,
        histogram: Optional[Array] = None,
        report: Optional[Array] = None,
    ) -> None:
        self.expert, self.gate, self.recorded, self.z = expert, gate, recorded, z
        self.counts, self.importance, self.tokens = counts, importance, tokens
        self.sequence_counts, self.sequence_importance = sequence_counts, sequence_importance
        self.sequence_tokens, self.histogram, self.report = sequence_tokens, histogram, report

    def __iter__(self) -> Iterator[Array]:
        """expert, gate = route(...)."""
        return iter((self.expert, self.gate))


_wanted = attrgetter(*Routing.__slots__[2:])


def _chosen(expert: Array, gate: Array) -> Routing:
    """Routing(expert, gate), in half the time."""
    r = Routing.__new__(Routing)
    r.expert, r.gate = expert, gate
    r.recorded = r.z = r.counts = r.importance = r.tokens = r.sequence_counts = None
    r.sequence_importance = r.sequence_tokens = r.histogram = r.report = None
    return r


def wanted_of(routing: Optional[Routing], name: str) -> Optional[Tuple[Any, ...]]:
    """What the extension module takes for the arrays behind gate; None where there are none."""
    if routing is None:
        return None
    if not isinstance(routing, Routing):
        raise TypeError(f"{name} is {type(routing).__name__}; it must be a shunt.Routing or None")
    return _wanted(routing)


def _add_wanted(
    out: Routing, want: Iterable[str], logits: Array, top_k: int, where: Any
) -> None:
    """New arrays for the names in `want` that `out` has none for."""
    tokens, experts = logits.shape
    shapes = {
        "recorded": ((tokens, top_k), "int16"),
        "z": ((tokens,), "float32"),
        "counts": ((experts,), "int32"),
        "importance": ((experts,), "float32"),
        "tokens": ((1,), "int32"),
        "report": ((len(route_events),), "int64"),
    }
    for name in want:
        if name not in shapes:
            raise ValueError(
                f"route.want has '{name}'; it must be one of {', '.join(shapes)} (what has another "
                "extent is given in out)"
            )
        if getattr(out, name) is None:
            setattr(out, name, zeros(logits, *shapes[name], where))


def route(
    logits: Array,
    top_k: int,
    options: route_options = _NO_OPTIONS,
    *,
    choice_bias: Optional[Array] = None,
    valid: Optional[Array] = None,
    ids: Optional[Array] = None,
    token: Optional[Array] = None,
    out: Optional[Routing] = None,
    want: Iterable[str] = (),
    on: Any = None,
) -> Routing:
    """Chooses top_k experts for each token of logits [T,E] and weighs them.

    out: arrays to be written; those that are None are not wanted, but for expert and gate ·
    want: names of further outputs to be made new.
    """
    module, where = backend(on, logits)
    options_made = made(options, route_options, "route.options")
    if out is None and not want:
        return _chosen(*module.route(
            logits, top_k, options_made, choice_bias, valid, ids, token, None, None, None, where
        ))  # fmt: skip
    result = Routing() if out is None else out
    wanted = wanted_of(result, "route.out")
    if want:
        _add_wanted(result, want, logits, top_k, where)
        wanted = _wanted(result)
    result.expert, result.gate = module.route(
        logits, top_k, options_made, choice_bias, valid, ids, token, wanted,
        result.expert, result.gate, where,
    )  # fmt: skip
    return result


def route_backward(
    logits: Array,
    expert: Array,
    d_gate: Array,
    options: route_options = _NO_OPTIONS,
    *,
    choice_bias: Optional[Array] = None,
    valid: Optional[Array] = None,
    ids: Optional[Array] = None,
    token: Optional[Array] = None,
    from_losses: LossGradients = None,
    d_logits: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """d_logits [T,E] from d_gate [T,K] and, with from_losses, the gradients of losses to
    (importance, sequence_importance, z). d_logits may be logits."""
    module, where = backend(on, logits)
    return module.route_backward(
        logits, expert, d_gate, made(options, route_options, "route_backward.options"),
        choice_bias, valid, ids, token, from_losses, d_logits, where,
    )  # fmt: skip


class ExpertChoice:
    """What route_expert_choice writes: token, gate [E,C]; counts [E], coverage [T] int32 and
    report [8] int64 where they were given."""

    __slots__ = ("token", "gate", "counts", "coverage", "report")

    def __init__(
        self,
        token: Optional[Array] = None,
        gate: Optional[Array] = None,
        *,
        counts: Optional[Array] = None,
        coverage: Optional[Array] = None,
        report: Optional[Array] = None,
    ) -> None:
        self.token, self.gate = token, gate
        self.counts, self.coverage, self.report = counts, coverage, report

    def __iter__(self) -> Iterator[Array]:
        """token, gate = route_expert_choice(...)."""
        return iter((self.token, self.gate))


def route_expert_choice(
    logits: Array,
    chosen: int,
    options: route_options = _NO_OPTIONS,
    *,
    valid: Optional[Array] = None,
    out: Optional[ExpertChoice] = None,
    on: Any = None,
) -> ExpertChoice:
    """Each expert takes the `chosen` valid tokens that score highest with it."""
    module, where = backend(on, logits)
    if out is not None and not isinstance(out, ExpertChoice):
        raise TypeError(
            f"route_expert_choice.out is {type(out).__name__}; it must be a shunt.ExpertChoice"
        )
    result = ExpertChoice() if out is None else out
    result.token, result.gate = module.route_expert_choice(
        logits, chosen, made(options, route_options, "route_expert_choice.options"), valid,
        result.token, result.gate, result.counts, result.coverage, result.report, where,
    )  # fmt: skip
    return result


def route_expert_choice_backward(
    logits: Array,
    token: Array,
    d_gate: Array,
    options: route_options = _NO_OPTIONS,
    *,
    valid: Optional[Array] = None,
    d_logits: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """d_logits [T,E] from d_gate [E,C]."""
    module, where = backend(on, logits)
    return module.route_expert_choice_backward(
        logits, token, d_gate, made(options, route_options, "route_expert_choice_backward.options"),
        valid, d_logits, where,
    )  # fmt: skip


def gate_logits(
    x: Array, w: Array, *, bias: Optional[Array] = None, out: Optional[Array] = None, on: Any = None
) -> Array:
    """logits [T,E] float32 = x [T,H] · w [E,H] transposed (+ bias [E])."""
    module, where = backend(on, x)
    return module.gate_logits(x, w, bias, out, where)


def gate_logits_backward(
    d_logits: Array,
    x: Array,
    w: Array,
    *,
    d_x: Optional[Array] = None,
    d_w: Optional[Array] = None,
    d_bias: Optional[Array] = None,
    add_x: bool = False,
    add_weights: bool = False,
    on: Any = None,
) -> Tuple[Array, Array, Array]:
    """(d_x, d_w, d_bias); add_x, add_weights: onto what the given arrays hold."""
    module, where = backend(on, d_logits)
    return module.gate_logits_backward(d_logits, x, w, add_x, add_weights, d_x, d_w, d_bias, where)
