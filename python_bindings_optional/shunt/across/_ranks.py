"""Who the ranks are, and which experts each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence, Tuple, TypeVar

from .. import _host

Made = TypeVar("Made")


@dataclass(frozen=True)
class Placement:
    """Experts on ranks: rank r has places [start[r], start[r+1]), of ascending experts, which is
    the order of its weights. An expert may have a place on several ranks (copies), on each of them
    one; every expert has at least one.

    start [R+1] · expert [P], the expert of each place · experts: E that have weights, zero experts
    not counted
    """

    start: Tuple[int, ...]
    expert: Tuple[int, ...]
    experts: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(int(n) for n in self.start))
        object.__setattr__(self, "expert", tuple(int(n) for n in self.expert))

    @property
    def ranks(self) -> int:
        return len(self.start) - 1

    def of(self, rank: int) -> Tuple[int, ...]:
        """The experts of a rank: weights.up[list(placement.of(rank))] are its own."""
        return self.expert[self.start[rank] : self.start[rank + 1]]


def place_evenly(experts: int, ranks: int) -> Placement:
    """Experts in equal runs by rank, the first ranks one more where they do not divide."""
    if ranks < 1:
        raise ValueError(f"place_evenly.ranks is {ranks}; it must be 1 or more")
    each, more = divmod(experts, ranks)
    start = [0]
    for rank in range(ranks):
        start.append(start[-1] + each + (rank < more))
    return Placement(tuple(start), tuple(range(experts)), experts)


def place_on_survivors(before: Placement, survives: Sequence[Any]) -> Placement:
    """Places of the ranks that are left: they keep the experts they have, and those that lived on
    lost ranks alone go, in ascending order, each to the rank with the fewest places.

    survives [R] of the ranks before: true where the rank is left, as rank_processes.recover says.
    """
    start, expert = _host.place_on_survivors(
        list(before.start), list(before.expert), before.experts, [bool(is_) for is_ in survives]
    )
    return Placement(start, expert, before.experts)


class AmongRanks(_host.AmongRanks):
    """A rank among the others: how it reaches them, who holds which expert, what it has memory for.

    transport: an Exchange, or a rank_processes · placement: the same on all ranks · most_tokens: no
    rank has more in a call; 0: all have as many as this one · most_rows: rows that this rank's
    experts may receive in a call, more is an error on all ranks; 0: whatever the tokens choose ·
    send_once: a token goes once to each rank, however many of its experts are there; the same on
    all ranks, and the same bits

    One call at a time. All ranks make the same calls in the same order, also without tokens.
    """

    def __init__(
        self,
        transport: Any,
        placement: Placement,
        *,
        most_tokens: int = 0,
        most_rows: int = 0,
        send_once: bool = False,
    ) -> None:
        if not isinstance(placement, Placement):
            raise TypeError(
                f"placement is {type(placement).__name__}; it must be a shunt.across.Placement"
            )
        super().__init__(transport, list(placement.start), list(placement.expert),
                         placement.experts, most_tokens, most_rows, send_once)  # fmt: skip
        self.transport, self.placement = transport, placement


def on_all(among: AmongRanks, who: str, make: Callable[[], Made]) -> Made:
    """What `make` returns; where it raises, the other ranks get that as this rank's error."""
    try:
        return make()
    except Exception as wrong:
        among.refuse(who, str(wrong))
        raise


def checked(among: Any, name: str) -> AmongRanks:
    if isinstance(among, AmongRanks):
        return among
    raise TypeError(f"{name} is {type(among).__name__}; it must be a shunt.across.AmongRanks")
