"""Every array of every public function in CUDA memory, in strides that it may have."""

from __future__ import annotations

import calls
import pytest
from device import Strided, empty
from test_strides import CASES, try_every_stride

import shunt
from shunt import _backend

#: One of each kind of stride, and of the layer's, which has most arrays, two: the software device
#: needs minutes for all of them.
VARIANTS = ("part", "backward", "one for all", "transposed")


@pytest.fixture(scope="module", autouse=True)
def arrays_of_the_device():
    """What a call on the device makes for itself, which no library here would."""
    before = _backend._AS_THE_ARRAYS
    _backend._AS_THE_ARRAYS = shunt.on_cuda(empty=empty)
    yield
    _backend._AS_THE_ARRAYS = before


@pytest.fixture(scope="module")
def cases():
    return dict(zip(CASES, calls.cases(Strided)))


@pytest.mark.parametrize("name", CASES)
def test_battery29_and_42_every_array_in_every_stride_on_a_device(name, cases):
    only = VARIANTS[::3] if "moe_layer" in name else VARIANTS
    try_every_stride(cases[name], Strided, only=only)
