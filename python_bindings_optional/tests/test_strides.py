"""Every array of every public function, in every stride that it may have."""

from __future__ import annotations

import importlib.util
import inspect
import warnings

import numpy as np
import pytest
from calls import cases
from strides import rows_contiguous, variants

import shunt

CASES = {f"{i:02}-{c.function}": c for i, c in enumerate(cases())}


def of_numpy(array):
    return array


def of_torch(array):
    """A tensor of the array's memory and strides."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an array that is broadcast cannot be written to
        return torch.from_numpy(array)


def flat(results):
    """The arrays and numbers in what a call returned."""
    for to_numpy in ("numpy", "host"):
        if hasattr(results, to_numpy):
            return [getattr(results, to_numpy)()]
    if isinstance(results, np.ndarray):
        return [results]
    if isinstance(results, dict):
        return [np.float64(v) for v in results.values()]
    if isinstance(results, (tuple, list)):
        return [a for r in results for a in flat(r)]
    if results is None:
        return []
    return [a for n in type(results).__slots__ for a in flat(getattr(results, n))]


def run(case, library, name, array):
    """What the call returned and wrote, with `array` in the place of the argument `name`."""
    arrays = {n: library(a.copy()) for n, a in case.arrays().items()}
    arrays[name] = library(array)
    results = flat(case(arrays))
    return [np.array(a) for a in (*results, *flat([arrays[n] for n in case.writes]))]


def try_every_stride(case, library, *, negative=True, only=None):
    """Equal to its contiguous copy, bit for bit. Where rows are not contiguous a sentence will do,
    before anything is written; of the experts' matrices not even there."""
    tried = refused = 0
    for argument, array in case.arrays().items():
        written = argument in case.writes
        for variant, strided in variants(array.copy(), written=written, negative=negative):
            if only is not None and variant not in only:
                continue
            what = f"{argument}, {variant}"
            want = run(case, library, argument, np.ascontiguousarray(strided).copy())
            tried += 1
            before = strided.copy()
            try:
                got = run(case, library, argument, strided)
            except ValueError as sentence:
                assert "stride" in str(sentence) or "contiguous" in str(sentence), what
                assert not rows_contiguous(strided) and argument not in case.anyhow, what
                assert np.array_equal(strided, before, equal_nan=strided.dtype.kind == "f"), what
                refused += 1
                continue
            assert len(got) == len(want)
            for a, b in zip(got, want):
                assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), what
    assert tried > refused


LIBRARIES = [of_numpy] + ([of_torch] if importlib.util.find_spec("torch") else [])


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CASES)
def test_battery29_and_42_every_array_in_every_stride(name, library):
    try_every_stride(CASES[name], library, negative=library is of_numpy)


def test_the_calls_are_all_there():
    """A new function, or a new argument, must be among the calls above."""
    tried = {}
    for case in CASES.values():
        tried.setdefault(case.function, set()).update(n.split(".")[0] for n in case.arrays())
    with_arrays = ("Array", "Matrices", "Rows", "ZeroExperts", "LossGradients", "Routing", "Tuple",
                   "tuple", "Gradients", "Weights", "ExpertChoice")  # fmt: skip
    of_routing = {"load", "routing"}  # of losses: its arrays are named one by one
    for name in shunt.__all__:
        function = getattr(shunt, name)
        if not inspect.isfunction(function):
            continue
        for argument, about in inspect.signature(function).parameters.items():
            is_array = any(kind in str(about.annotation) for kind in with_arrays)
            if not is_array or argument in ("pairs", "plan"):
                continue
            named = argument in tried.get(name, set())
            assert named or argument in of_routing and name in tried, f"{name}: {argument}"
