"""One array in every stride that a caller may have, for NumPy and torch alike."""

from __future__ import annotations

import numpy as np


def _wider(a, axis, step):
    """`a` as every step-th part of an array that is larger along `axis`; the rest is NaN or -7."""
    shape = list(a.shape)
    shape[axis] *= step
    buffer = np.full(shape, {"f": np.nan, "i": -7}.get(a.dtype.kind, 7), a.dtype)
    at = [slice(None)] * a.ndim
    at[axis] = slice(None, None, step)
    buffer[tuple(at)] = a
    return buffer[tuple(at)]


def _part(a):
    """`a` as the middle of an array with longer rows, and with more of them."""
    buffer = np.full([n + 3 for n in a.shape], 7).astype(a.dtype)
    at = tuple(slice(1, 1 + n) for n in a.shape)
    buffer[at] = a
    return buffer[at]


def _backward(a, axis):
    return np.flip(np.flip(a, axis).copy(), axis)


def _one_for_all(a, axis):
    first = np.take(a, [0], axis)
    return np.broadcast_to(first, a.shape)


#: name: (what it makes of an array, what it needs of its axes, whether it can be written to).
VARIANTS = {
    "part": (_part, 1, True),
    "every other first": (lambda a: _wider(a, 0, 2), 2, True),
    "backward": (lambda a: _backward(a, 0), 2, True),
    "one for all": (lambda a: _one_for_all(a, 0), 2, False),
    "every other column": (lambda a: _wider(a, -1, 2), 1, True),
    "columns backward": (lambda a: _backward(a, -1), 1, True),
    "one column for all": (lambda a: _one_for_all(a, -1), 1, False),
    "transposed": (lambda a: np.swapaxes(np.swapaxes(a, -1, -2).copy(), -1, -2), 2, True),
    "axes turned": (lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0), 3, True),
}


def variants(a, *, written=False, negative=True):
    """(name, array) for each variant that `a` has; the elements, but for those of "… for all", are
    those of `a`."""
    for name, (make, axes, writable) in VARIANTS.items():
        backward = "backward" in name
        if a.ndim >= axes and (writable or not written) and (negative or not backward):
            yield name, make(a)


def rows_contiguous(a):
    return a.ndim == 0 or a.shape[-1] <= 1 or a.size == 0 or a.strides[-1] == a.itemsize
