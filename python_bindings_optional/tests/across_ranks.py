"""Ranks for tests: processes with pipes between them, or threads, and what they run."""

from __future__ import annotations

import multiprocessing
import threading
import traceback


class Pipes:
    """An exchange in plain Python: a pipe between each two processes. Of each pair the lower rank
    sends first, so that no two wait for each other."""

    def __init__(self, rank, ends):
        self.rank, self.ranks, self.ends = rank, len(ends), ends

    def _swap(self, send, receive):
        for r in range(self.ranks):
            if r == self.rank:
                continue
            for sends in (True, False) if self.rank < r else (False, True):
                if sends:
                    self.ends[r].send_bytes(send(r))
                else:
                    got = self.ends[r].recv_bytes()
                    to = receive(r)
                    if len(got) != len(to):
                        raise ValueError(f"rank {r} sent {len(got)} bytes; it must be {len(to)}")
                    to[:] = got

    def all_gather(self, send, receive):
        size = len(send)
        receive[self.rank * size : (self.rank + 1) * size] = send
        self._swap(lambda r: send, lambda r: receive[r * size : (r + 1) * size])

    def exchange(self, send, send_bytes, receive, receive_bytes):
        def part(buffer, counts, r):
            first = sum(counts[:r])
            return buffer[first : first + counts[r]]

        self._swap(lambda r: part(send, send_bytes, r), lambda r: part(receive, receive_bytes, r))


class Threads:
    """An exchange between threads of one process: it would stop if a call held the GIL."""

    def __init__(self, rank, table):
        self.rank, self.ranks, self.table = rank, len(table["show"]), table

    @staticmethod
    def table(ranks):
        return {"show": [None] * ranks, "barrier": threading.Barrier(ranks, timeout=60)}

    def _round(self, mine, read):
        self.table["show"][self.rank] = mine
        self.table["barrier"].wait()
        for r in range(self.ranks):
            read(r, self.table["show"][r])
        self.table["barrier"].wait()

    def all_gather(self, send, receive):
        size = len(send)

        def read(r, shown):
            receive[r * size : (r + 1) * size] = shown

        self._round(send, read)

    def exchange(self, send, send_bytes, receive, receive_bytes):
        def read(r, shown):
            theirs, counts = shown
            first, to = sum(counts[: self.rank]), sum(receive_bytes[:r])
            assert counts[self.rank] == receive_bytes[r]
            receive[to : to + receive_bytes[r]] = theirs[first : first + receive_bytes[r]]

        self._round((send, send_bytes), read)


def outcome(body, *arguments):
    try:
        return True, body(*arguments)
    except BaseException as wrong:
        return False, (type(wrong).__name__, str(wrong), traceback.format_exc())


def on_processes(ranks, make, body):
    """[outcome of body(make(rank)) in a process for each rank]; None of one that died."""
    fork = multiprocessing.get_context("fork")
    results = [fork.Pipe(duplex=False) for _ in range(ranks)]

    def child(rank):
        results[rank][1].send(outcome(lambda: body(make(rank))))

    processes = [fork.Process(target=child, args=(r,)) for r in range(ranks)]
    for p in processes:
        p.start()
    ends = []
    for p, (receive, send) in zip(processes, results):
        send.close()
        try:
            ends.append(receive.recv() if receive.poll(120) else (False, ("Timeout", "", "")))
        except EOFError:
            ends.append(None)
    for p in processes:
        p.join(10)
        p.kill()
    return ends


def on_pipes(ranks, body):
    fork = multiprocessing.get_context("fork")
    ends = [[None] * ranks for _ in range(ranks)]
    for a in range(ranks):
        for b in range(a):
            ends[a][b], ends[b][a] = fork.Pipe()
    return on_processes(ranks, lambda rank: Pipes(rank, ends[rank]), body)


def on_threads(ranks, body):
    table, ends = Threads.table(ranks), [None] * ranks

    def run(rank):
        ends[rank] = outcome(body, Threads(rank, table))

    threads = [threading.Thread(target=run, args=(r,)) for r in range(ranks)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return ends


def results(ends):
    for end in ends:
        assert end is not None and end[0], "a rank died" if end is None else end[1][2]
    return [end[1] for end in ends]
