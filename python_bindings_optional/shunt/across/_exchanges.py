"""What moves the bytes: the protocol, and two libraries that serve it."""

from __future__ import annotations

import ctypes
from typing import Any, Optional, Protocol, Sequence

import numpy as np

_PIECE = 1 << 30  # bytes of one message


class Exchange(Protocol):
    """What AmongRanks takes: any object with these. Ranks make the same calls in the same order,
    also with nothing to send. Nothing is summed. The buffers are Shunt's for the time of a call:
    keep none.

    What a call raises ends the primitive on this rank, and is raised from it. Set a deadline where
    the library has one: a rank that died is otherwise waited for.
    """

    rank: int
    ranks: int

    def all_gather(self, send: memoryview, receive: memoryview) -> None:
        """receive[r * len(send) : (r + 1) * len(send)] = send of rank r. All bring as many
        bytes."""

    def exchange(
        self,
        send: memoryview,
        send_bytes: Sequence[int],
        receive: memoryview,
        receive_bytes: Sequence[int],
    ) -> None:
        """send_bytes[r] bytes go to rank r, receive_bytes[r] come from it; both buffers are
        contiguous by rank. This rank's own part may be left out: Shunt copies it."""


class _Messages:
    """Both calls of an exchange by messages between two ranks: a subclass begins one (_receive and
    _send, of a piece from or to a rank) and waits for all that were begun (_wait)."""

    rank: int
    ranks: int

    def all_gather(self, send: memoryview, receive: memoryview) -> None:
        size = len(send)
        receive[self.rank * size : (self.rank + 1) * size] = send
        self._move(lambda r: send, lambda r: receive[r * size : (r + 1) * size])

    def exchange(
        self,
        send: memoryview,
        send_bytes: Sequence[int],
        receive: memoryview,
        receive_bytes: Sequence[int],
    ) -> None:
        out, into = _offsets(send_bytes), _offsets(receive_bytes)
        self._move(lambda r: send[out[r] : out[r + 1]], lambda r: receive[into[r] : into[r + 1]])

    def _move(self, to: Any, of: Any) -> None:
        open_, others = [], [r for r in range(self.ranks) if r != self.rank]
        for begin, part in ((self._receive, of), (self._send, to)):
            for r in others:
                for piece in _pieces(part(r)):
                    open_.append(begin(piece, r))
        self._wait(open_)

    def _receive(self, piece: memoryview, rank: int) -> Any:
        raise NotImplementedError

    def _send(self, piece: memoryview, rank: int) -> Any:
        raise NotImplementedError

    def _wait(self, requests: list[Any]) -> None:
        raise NotImplementedError


class OverMpi(_Messages):
    """The exchange of a communicator of mpi4py: point-to-point messages, and no collective call.

    shunt.across.OverMpi(MPI.COMM_WORLD)
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi, self.comm = MPI, comm.Dup()
        self.rank, self.ranks = self.comm.Get_rank(), self.comm.Get_size()

    def _receive(self, piece: memoryview, rank: int) -> Any:
        return self.comm.Irecv([piece, len(piece), self._mpi.BYTE], rank, 0)

    def _send(self, piece: memoryview, rank: int) -> Any:
        return self.comm.Isend([piece, len(piece), self._mpi.BYTE], rank, 0)

    def _wait(self, requests: list[Any]) -> None:
        self._mpi.Request.Waitall(requests)


class OverTorch(_Messages):
    """The exchange of a process group of torch.distributed whose backend moves host memory (gloo,
    mpi); None: the default group. The group's timeout is the deadline.

    shunt.across.OverTorch()
    """

    def __init__(self, group: Optional[Any] = None) -> None:
        import torch
        import torch.distributed as dist

        self._torch, self._dist, self._group = torch, dist, group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        whole = group is None
        self._global = [r if whole else dist.get_global_rank(group, r) for r in range(self.ranks)]

    def _receive(self, piece: memoryview, rank: int) -> Any:
        return self._dist.irecv(self._tensor(piece), self._global[rank], group=self._group)

    def _send(self, piece: memoryview, rank: int) -> Any:
        return self._dist.isend(self._tensor(piece), self._global[rank], group=self._group)

    def _wait(self, requests: list[Any]) -> None:
        for request in requests:
            request.wait()

    def _tensor(self, piece: memoryview) -> Any:
        """The bytes as they lie; torch has no tensors that may only be read."""
        first = np.frombuffer(piece, np.uint8).ctypes.data
        return self._torch.frombuffer((ctypes.c_uint8 * len(piece)).from_address(first),
                                      dtype=self._torch.uint8)  # fmt: skip


def _offsets(counts: Sequence[int]) -> list[int]:
    at = [0]
    for count in counts:
        at.append(at[-1] + count)
    return at


def _pieces(part: memoryview) -> list[memoryview]:
    return [part[i : i + _PIECE] for i in range(0, len(part), _PIECE)]
