"""The package as it is installed."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shunt
import shunt.across

HOME = Path(shunt.__file__).parent


def test_stubs_and_marker_are_there():
    assert (HOME / "py.typed").exists()
    stub = ast.parse((HOME / "_host.pyi").read_text())
    functions = {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}
    assert {"moe_layer", "moe_layer_backward", "route", "grouped_gemm", "combine"} <= functions
    if (HOME / "_cuda.pyi").exists():
        of_cuda = {n.name for n in ast.parse((HOME / "_cuda.pyi").read_text()).body
                   if isinstance(n, ast.FunctionDef)}  # fmt: skip
        of_host_alone = {"make_route_options", "make_layer_options", "presets", "repeat", "narrow_ids",
                         "moe_layer_across", "moe_layer_across_backward", "sum_across",
                         "gradient_norm_across", "place_on_survivors"}  # fmt: skip
        assert functions - of_cuda == of_host_alone


def test_every_public_name_is_there_and_documented():
    things = {n: getattr(module, n) for module in (shunt, shunt.across) for n in module.__all__}
    for name, thing in things.items():
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert thing.__doc__, name
    functions = [thing for thing in things.values() if inspect.isfunction(thing)]
    assert len(functions) > 30
    for f in functions:
        assert inspect.signature(f).return_annotation is not inspect.Signature.empty, f.__name__


def test_presets():
    assert len(shunt.presets) >= 20
    for name, p in shunt.presets.items():
        assert p.name == name and 1 <= p.top_k <= p.experts
        assert p.options().top_k == p.top_k
    v3 = shunt.presets["DeepSeek-V3"]
    assert (v3.experts, v3.top_k, v3.route.score, v3.route.groups) == (256, 8, "sigmoid", 8)
    gpt_oss = shunt.presets["gpt-oss-20b"]
    assert gpt_oss.interleaved and gpt_oss.act == shunt.activation("swiglu_clamped", None, 7.0)
    assert v3.options(z_loss=0.5).z_loss == 0.5


def test_options_do_not_change():
    options = shunt.layer_options(top_k=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.top_k = 2
    assert options.replace(top_k=2) == shunt.layer_options(top_k=2) != options
    assert eval(repr(options), vars(shunt)) == options
    w = shunt.Weights(np.zeros((2, 3), np.float32), np.zeros((2, 4, 3), np.float32),
                      np.zeros((2, 3, 2), np.float32))  # fmt: skip
    with pytest.raises(AttributeError, match="make a new Weights"):
        w.up = None


WITHOUT_A_DEVICE = """
import numpy as np, shunt
from shunt import _cuda

logits = np.eye(2, dtype=np.float32)
assert shunt.route(logits, 1).expert.tolist() == [[0], [1]]
for on in (shunt.on_cuda(), shunt.on_cuda(device=0)):
    try:
        shunt.route(logits, 1, on=on)
    except RuntimeError as error:
        print(error)
"""


def test_where_no_device_is_the_host_works_and_a_sentence_says_so():
    pytest.importorskip("shunt._cuda", reason="the module was built without CUDA")
    done = subprocess.run([sys.executable, "-c", WITHOUT_A_DEVICE], capture_output=True, text=True,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
    for_arrays, named = done.stdout.splitlines()
    assert for_arrays.startswith("there is no CUDA device to work on: CUDA says: ")
    assert named.startswith("on_cuda.device is 0: CUDA says: ")
