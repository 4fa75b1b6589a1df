"""Experts across ranks over torch.distributed and mpi4py, and torch's way back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from across_ranks import on_pipes, on_processes, results
from test_across import OF_EXPERTS, TOKENS, E, Layer, among_of, expect_one_process

from shunt import across


def test_torch_distributed(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layer, tokens = Layer(), TOKENS[2]

    def group(rank):
        import torch.distributed as dist

        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{tmp_path}/meet", rank=rank, world_size=2)
        return across.OverTorch()

    got = results(on_processes(2, group, lambda x: layer.of_rank(among_of(x, tokens), tokens)))
    expect_one_process(layer, 2, got)


def test_torch_goes_backward_across_ranks():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import shunt.torch

    layer, tokens = Layer(balance_loss=0.0), TOKENS[2]
    # Tensors, and gradients that are wanted of all of them.
    names = ("gate", "up", "down")

    def run(x, d_y, experts, **more):
        at = [torch.tensor(layer.arrays[n][experts] if n in OF_EXPERTS else layer.arrays[n],
                           requires_grad=True) for n in names]  # fmt: skip
        x = torch.tensor(x, requires_grad=True)
        out = shunt.torch.moe_layer(x, *at, layer.options, observe=True, **more)
        (out.balance_loss() * 0.02).backward(retain_graph=True)
        out.y.backward(torch.tensor(d_y))
        return [t.detach().numpy() for t in (out.y, out.counts, x.grad, *(w.grad for w in at))]

    def body(x):
        torch.set_num_threads(1)
        among, first = among_of(x, tokens), 32 * x.rank
        rows = slice(first, first + tokens[x.rank])
        got = run(layer.x[rows], layer.d_y[rows], list(among.placement.of(x.rank)), among=among)
        across.sum_across(got[3], among)
        return got

    parts = results(on_pipes(2, body))
    whole = run(layer.x, layer.d_y, list(range(E)))
    for i, join in enumerate((True, False, True, False, True, True)):
        if join:
            assert np.concatenate([p[i] for p in parts]).tobytes() == whole[i].tobytes(), i
        else:
            np.testing.assert_allclose(parts[0][i], whole[i], rtol=1e-4, atol=1e-5)
            assert parts[0][i].tobytes() == parts[1][i].tobytes()


OVER_MPI = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from mpi4py import MPI
from test_across import K, Layer, TOKENS, across, among_of, expect_one_process

layer, tokens = Layer(), TOKENS[2]
across._exchanges._PIECE = 1000  # rows go in pieces
x = across.OverMpi(MPI.COMM_WORLD)
assert x.ranks == 2
got = MPI.COMM_WORLD.allgather(layer.of_rank(among_of(x, tokens), tokens))
expect_one_process(layer, 2, got)
print("the bits of one process")
"""


def test_mpi4py():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    home = os.environ.get("SHUNT_MPI", "")
    mpirun = shutil.which(f"{home}/bin/mpirun" if home else "mpirun")
    if mpirun is None:
        pytest.skip("there is no mpirun (SHUNT_MPI names an MPI's folder)")
    environment = dict(os.environ)
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
        environment.update({name: "1", name + "_CONFIRM": "1"})
    if os.path.isdir(f"{home}/lib/openmpi"):  # one that is not where it was built
        environment.update(OPAL_PREFIX=home, PMIX_PREFIX=home, PRTE_PREFIX=home,
                           LD_LIBRARY_PATH=f"{home}/lib/openmpi:{home}/lib")  # fmt: skip
    code = OVER_MPI.format(path=[p for p in sys.path if p])
    command = [mpirun, "--map-by", ":OVERSUBSCRIBE", "-n", "2", sys.executable, "-c", code]
    done = subprocess.run(command,
                          env=environment, capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the bits of one process") == 2
