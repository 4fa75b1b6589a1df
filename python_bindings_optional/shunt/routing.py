"""What a router writes."""

from __future__ import annotations

from typing import Any, Optional

Array = Any


class Routing:
    """Arrays of route(): expert, gate [T,K], and what else is wanted.

    recorded [T,K] int16 · z [T] · counts [E] int32 · importance [E] · tokens [1] int32 ·
    sequence_counts [N,E] int32 · sequence_importance [N,E] · sequence_tokens [N] int32 ·
    histogram [E,bins] int32 · report [8] int64. None: not wanted.
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

    def _wanted(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__[2:])

    def __iter__(self) -> Any:
        """expert, gate = route(...)."""
        return iter((self.expert, self.gate))
