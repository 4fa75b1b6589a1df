"""The module in a process: threads, the GIL, forks, other libraries, references."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import shunt

H, I, E = 32, 48, 8
OPTIONS = shunt.layer_options(top_k=2)


def layer(rng, tokens):
    def f(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    return f(tokens, H), shunt.Weights(f(E, H), f(E, 2 * I, H), f(E, H, I))


def both_ways(x, w):
    saved = shunt.Saved()
    y = shunt.moe_layer(x, w, OPTIONS, saved=saved)
    d_x, g = shunt.moe_layer_backward(x, w, y, saved, OPTIONS)
    return y, d_x, g.up


def test_two_threads_at_once(rng):
    """Each has scratch of its own, and both get what one alone gets."""
    work = [layer(rng, tokens) for tokens in (5, 64)]
    alone = [both_ways(*w) for w in work]
    wrong = []

    def repeat(mine):
        for _ in range(40):
            for a, b in zip(both_ways(*work[mine]), alone[mine]):
                if not np.array_equal(a, b):
                    wrong.append(mine)

    threads = [threading.Thread(target=repeat, args=(mine,)) for mine in (0, 1, 0)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_one_saved_state_is_not_shared_by_writers(rng):
    x, w = layer(rng, 512)
    saved, refused, good = shunt.Saved(), [], []

    def fill():
        for _ in range(20):
            try:
                shunt.moe_layer(x, w, OPTIONS, saved=saved, on=shunt.on_host(threads=1))
                good.append(1)
            except ValueError as e:
                refused.append(str(e))

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert good and all("in use by a call in another thread" in r for r in refused)


def test_the_gil_is_released(rng):
    """While one thread is in a long call, another goes on."""
    x, w = layer(rng, 20000)
    inside, steps = threading.Event(), []

    def call():
        inside.set()
        shunt.moe_layer(x, w, OPTIONS, on=shunt.on_host(threads=1))
        inside.clear()

    thread = threading.Thread(target=call)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1.0)  # nobody is made to give the GIL up
    try:
        thread.start()
        inside.wait()
        while inside.is_set() and len(steps) < 1000:
            steps.append(time.perf_counter())
            time.sleep(0)
    finally:
        sys.setswitchinterval(switch)
        thread.join()
    assert len(steps) > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_works_alone(rng):
    """It has none of the pool's threads; it must neither wait for them nor give other bits."""
    x, w = layer(rng, 64)
    here = shunt.moe_layer(x, w, OPTIONS)
    context = multiprocessing.get_context("fork")
    there = context.SimpleQueue()
    child = context.Process(target=lambda: there.put(shunt.moe_layer(x, w, OPTIONS).tobytes()))
    child.start()
    child.join(30)
    assert child.exitcode == 0, "the child waits for threads that it does not have"
    assert there.get() == here.tobytes()


def run_apart(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True,
                          text=True, timeout=120, env=os.environ)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


LAYER = """
    import numpy as np, shunt
    r = np.random.default_rng(1)
    f = lambda *s: r.standard_normal(s).astype(np.float32)
    w = shunt.Weights(f(8, 32), f(8, 96, 32), f(8, 32, 48))
    y = shunt.moe_layer(f(64, 32), w, shunt.layer_options(top_k=2))
    print(y.astype(np.float64).sum().hex())
"""


def test_beside_another_librarys_openmp(tmp_path):
    """A library with OpenMP threads of its own, loaded first and used in between."""
    source = tmp_path / "other.cpp"
    source.write_text(
        "#include <omp.h>\n"
        'extern "C" int used() { int n = 0;\n'
        "#pragma omp parallel reduction(+ : n)\n  n += 1;\n  return n; }\n"
    )
    library = tmp_path / "libother.so"
    compiler = os.environ.get("CXX", "c++")
    try:
        made = subprocess.run([compiler, "-shared", "-fPIC", "-fopenmp", source, "-o", library],
                              capture_output=True, text=True)  # fmt: skip
    except OSError:
        pytest.skip(f"there is no {compiler}")
    if made.returncode != 0:
        pytest.skip(f"{compiler} -fopenmp does not work here")
    alone = run_apart(LAYER)
    beside = run_apart(
        f"import ctypes\nother = ctypes.CDLL({str(library)!r})\nassert other.used() >= 1\n"
        + textwrap.dedent(LAYER)
        + "assert other.used() >= 1\n"
    )
    assert alone == beside


def test_beside_torch():
    pytest.importorskip("torch", reason="torch is not installed")
    beside = run_apart(
        "import torch\ntorch.ones(64, 64) @ torch.ones(64, 64)\n" + textwrap.dedent(LAYER)
    )
    assert run_apart(LAYER) == beside


def references(*objects):
    return [sys.getrefcount(o) for o in objects]


def test_nothing_is_kept_that_is_not_needed(rng):
    x, w = layer(rng, 8)
    out, options, saved = np.empty_like(x), OPTIONS.replace(z_loss=0.1), shunt.Saved()
    loss, wrong = np.zeros(2, np.float32), x.astype(np.float64)
    held = (x, w, w.up, out, options, saved, loss, wrong)

    def calls():
        for _ in range(50):
            shunt.moe_layer(x, w, options, out=out, saved=saved, loss=loss)
            shunt.moe_layer_backward(x, w, out, saved, options)
            plan = shunt.plan_dispatch(shunt.route(x, 2).expert, H)
            shunt.combine(shunt.dispatch(x, plan), plan)
            assert plan.row_slot.shape == (16,)
            for bad in (wrong, None):
                try:
                    shunt.moe_layer(bad, w, options)
                except TypeError:
                    pass

    calls()
    gc.collect()
    before, objects = references(*held), len(gc.get_objects())
    calls()
    gc.collect()
    assert references(*held) == before
    assert len(gc.get_objects()) - objects < 20


def test_weights_keep_their_arrays_alive(rng):
    x, w = layer(rng, 4)
    y = shunt.moe_layer(x, w, OPTIONS)

    def weights():
        r = np.random.default_rng(20260101)
        return layer(r, 4)[1]

    for _ in range(4):
        fresh = weights()
        gc.collect()
        junk = [np.full((E, 2 * I, H), np.nan, np.float32) for _ in range(4)]
        assert np.array_equal(shunt.moe_layer(x, fresh, OPTIONS), y)
        del junk


def test_a_plans_arrays_keep_it_alive():
    ids = np.array([[0, 1], [1, 2]], np.int32)
    part = shunt.plan_dispatch(ids, 3).row_slot
    gc.collect()
    assert part.tolist() == [0, 1, 2, 3] and part.base is not None
