"""Centres of lists: training, founding new ones, and halving a list."""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.neighbors.products import whole_numbers, whole_product
from curate_kernels.arrays import B1, F32, F64, I64, unit_rows
from curate_kernels.codes import add_rows, half_to_float, half_to_int8, nearest_list
from curate_kernels.search import I8, U16

_ROUNDS = 6
_PER_LIST = 32  # rows a list that training reads
_BLOCK = 1024


class Centres:
    """Unit rows, compared in whole numbers: integer sums are the same in any order and on any machine."""

    def __init__(self, x: F32) -> None:
        """x: (c, d) float32."""
        self.x: F32 = np.zeros((0, x.shape[1]), dtype=np.float32)
        self.unit: F32 = np.zeros(0, dtype=np.float32)
        self._whole: I8 = np.zeros((0, x.shape[1]), dtype=np.int8)
        self.put(0, x)

    def put(self, at: int, x: F32) -> None:
        """Set centres at, at + 1, …; those beyond the end are added."""
        whole, unit = whole_numbers(x)
        self.x, self.unit, self._whole = (
            np.concatenate([old[:at], new, old[at + x.shape[0] :]])
            for old, new in ((self.x, x), (self.unit, unit), (self._whole, whole))
        )

    def product(self, whole: I8) -> Any:
        """Return the products (n, C) with rows of whole numbers; times `unit` they compare."""
        return whole_product(whole, self._whole)

    def nearest(self, rows: U16) -> tuple[I64, F64]:
        """Return the nearest centre of each row (n, d), bits of float16, and how far it is: 1 - cosine."""
        whole = np.empty(rows.shape, dtype=np.int8)
        unit, error, sim = (np.empty(rows.shape[0], dtype=np.float32) for _ in range(3))
        at = np.empty(rows.shape[0], dtype=np.int64)
        half_to_int8(rows, whole, unit, error)
        nearest_list(self.product(whole), self.unit, at, sim)
        return at, np.maximum(1.0 - sim.astype(np.float64) * unit, 0.0)


def training_rows(live: I64, wanted: int) -> I64:
    """Return the rows, evenly spread over the live ones, that so many centres are trained on."""
    size = min(live.size, wanted * _PER_LIST)
    return live[_even(size, live.size).astype(np.int64)]


def trained(rows: U16, sample: I64, wanted: int, live: int) -> tuple[F32, float]:
    """Return at most `wanted` centres, and the sum of all live rows' weights (see `far_ones`).

    rows: (n, d) bits of float16, of which the numbers in `sample` are read; live: how many rows these stand for

    Spherical k-means. Half of the first centres are such rows; the rest are drawn in the rounds
    that follow from the rows that no centre is near, which gives small clusters centres too: .998 instead of .990 of
    the neighbours are found then, in 1,000 Zipf-sized clusters.
    """
    size = sample.size
    centre = floats(rows, sample[_even(min(-(-wanted // 2), size), size).astype(np.int64)])
    far = np.empty(size)
    for left in range(_ROUNDS - 1, -1, -1):
        centres = Centres(unit_rows(centre))
        total = np.zeros(centre.shape)
        seen = np.zeros(centre.shape[0], dtype=np.int64)
        for start in range(0, size, _BLOCK):
            part = sample[start : start + _BLOCK]
            at, far[start : start + _BLOCK] = centres.nearest(rows[part])
            add_rows(floats(rows, part), at, total)
            seen += np.bincount(at, minlength=seen.size)
        centre = unit_rows(total[seen > 0].astype(np.float32))
        missing = min(wanted - centre.shape[0], size)
        if left > 1 and missing > 0:
            fresh = far_ones(far, -(-missing // 2) if left > 2 else missing)
            centre = np.concatenate([centre, floats(rows, sample[fresh])])
    return centre, float(weights(far).mean()) * live


def weights(far: F64) -> F64:
    """Return how much each row counts as lying far from its centre: the fourth power of 1 - cosine.

    A row at cosine .2 counts as much as 120 rows at .76.
    """
    square = far * far
    return square * square  # not a power: it rounds differently from library to library


def far_ones(far: F64, count: int) -> I64:
    """Return at most `count` rows, evenly spread over the sum of the weights."""
    total = np.cumsum(weights(far))
    return np.unique(np.searchsorted(total, _even(count, total[-1]))[: count if total[-1] > 0 else 0])


def two_sides(rows: U16, numbers: I64) -> tuple[B1, F32]:
    """Return (n,) bool, two parts of rows by their numbers, and the parts' centres, (2, d).

    Spherical 2-means of at most 4,096 of them; halves in order of preference where one part is small.
    """
    n = numbers.size
    x = floats(rows, numbers[_even(min(n, 4096), n).astype(np.int64)])
    one = int(np.argmin(x @ x.mean(axis=0)))
    pair = x[[int(np.argmin(x @ x[one])), one]]
    for _ in range(4):
        side: B1 = x @ (pair[1] - pair[0]) > 0
        pair = unit_rows(np.stack([x[~side].sum(axis=0), x[side].sum(axis=0)]))
    blocks = [slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)]
    lean = np.concatenate([floats(rows, numbers[block]) @ (pair[1] - pair[0]) for block in blocks])
    side = lean > 0
    if not n // 8 <= side.sum() <= n - n // 8:
        side = np.zeros(n, dtype=np.bool_)
        side[np.argsort(lean, kind="stable")[n // 2 :]] = True
    total = np.zeros((2, rows.shape[1]))
    for block in blocks:
        add_rows(floats(rows, numbers[block]), side[block].astype(np.int64), total)
    return side, total.astype(np.float32)


def floats(rows: U16, at: I64) -> F32:
    """Return rows by number as float32."""
    out = np.empty((at.size, rows.shape[1]), dtype=np.float32)
    half_to_float(rows[at], out)
    return out


def _even(count: int, size: float) -> F64:
    """Return `count` places spread evenly over 0 … size."""
    return (np.arange(count, dtype=np.float64) + 0.5) * float(size / max(count, 1))
