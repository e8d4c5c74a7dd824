"""RACE: codes of rows under sign random projections, and the counters that they hit.

RACE: Coleman and Shrivastava, WWW 2020 (arXiv 1912.02283); sign projections: Charikar, STOC 2002.
Projections by Hadamard matrices and random signs, not by a Gaussian matrix: Andoni et al., NeurIPS 2015 (1509.02897).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64

U16 = NDArray[np.uint16]

_LANES = 16  # samples side by side, so that every butterfly is a whole vector
_BLOCK = 256  # samples counted hash by hash, so that one hash's counters stay in the nearest cache


@kernel
def sign_codes(x: F32, centre: F32, flips: F32, limit: F32, bits: int, codes: U16) -> None:
    """Hash each centred row `rows` times to `bits` signs of random projections.

    With H the Hadamard matrix and D_i = diag(flips[i]), projection g = b size + o of a row v, padded with zeros, is
    z_g = (H D_{2+b} H D_1 H D_0 v)_o, and bit j of hash r is [z_g > limit_g] with g = j rows + r.
    Each row's arithmetic is its own and in a fixed order: its codes depend on no companion, thread or library.

    x: (n, d) float32; centre: (d,) float32; flips: (2 + blocks, size) float32 of ±1, size a power of two ≥ d,
    blocks size ≥ bits rows; limit: (bits rows,) float32; codes: (n, rows) uint16, out
    """
    n, d = x.shape
    size = flips.shape[1]
    rows = codes.shape[1]
    spread = np.empty(size * _LANES, dtype=np.float32)
    work = np.empty(size * _LANES, dtype=np.float32)
    found = np.empty(rows * _LANES, dtype=np.float32)  # exact up to 2^24, and as wide as the projections
    for start in range(0, n, _LANES):
        count = min(n - start, _LANES)
        spread[:] = 0.0
        found[:] = 0.0
        for lane in range(count):
            for i in range(d):
                spread[i * _LANES + lane] = x[start + lane, i] - centre[i]
        for turn in range(2):
            _flip(spread, flips[turn], spread)
            _hadamard(spread)
        for block in range(flips.shape[0] - 2):
            _flip(spread, flips[2 + block], work)
            _hadamard(work)
            _set_bits(work, block * size, limit[block * size : (block + 1) * size], found)
        for lane in range(count):
            for r in range(rows):
                codes[start + lane, r] = np.uint16(found[r * _LANES + lane])


@kernel
def _flip(x: F32, sign: F32, out: F32) -> None:
    for i in range(sign.shape[0]):
        left, right = x[i * _LANES : (i + 1) * _LANES], out[i * _LANES : (i + 1) * _LANES]
        for lane in range(_LANES):
            right[lane] = left[lane] * sign[i]


@kernel
def _set_bits(projection: F32, first: int, limit: F32, found: F32) -> None:
    """Set the bits that projections first, first + 1, … decide, as many as there are limits."""
    rows = found.shape[0] // _LANES
    r = first % rows
    weight = np.float32(1 << (first // rows))
    for i in range(limit.shape[0]):
        z, code = projection[i * _LANES : (i + 1) * _LANES], found[r * _LANES : (r + 1) * _LANES]
        for lane in range(_LANES):
            code[lane] += weight if z[lane] > limit[i] else np.float32(0.0)
        r += 1
        if r == rows:
            r, weight = 0, np.float32(2.0) * weight


@kernel
def _hadamard(x: F32) -> None:
    """Multiply by the Hadamard matrix in place, unscaled; x: (size * lanes,) with size a power of two.

    Two levels in one pass. Slices, because numba cannot prove offset indices positive and would not vectorise: 10x.
    """
    half = _LANES
    while 2 * half < x.shape[0]:
        for start in range(0, x.shape[0], 4 * half):
            p, q = x[start : start + half], x[start + half : start + 2 * half]
            r, s = x[start + 2 * half : start + 3 * half], x[start + 3 * half : start + 4 * half]
            for i in range(half):
                a, b, c, d = p[i] + q[i], p[i] - q[i], r[i] + s[i], r[i] - s[i]
                p[i], q[i], r[i], s[i] = a + c, b + d, a - c, b - d
        half *= 4
    if half < x.shape[0]:
        p, q = x[:half], x[half:]
        for i in range(half):
            p[i], q[i] = p[i] + q[i], p[i] - q[i]


@kernel
def add_codes(codes: U16, sign: float, counts: F64) -> None:
    """Add `sign` to the counter that each code hits. codes: (n, rows) uint16; counts: (rows, 2^bits) float64."""
    for start in range(0, codes.shape[0], _BLOCK):
        part = codes[start : start + _BLOCK]
        for r in range(codes.shape[1]):
            counter = counts[r]
            for i in range(part.shape[0]):
                counter[part[i, r]] += sign


@kernel
def mean_counts(codes: U16, counts: F64, out: F64) -> None:
    """Mean over the hashes of the counter that each code hits: Σ_x P[h(x) = h(y)] in expectation.

    codes: (n, rows) uint16; counts: (rows, 2^bits) float64; out: (n,) float64
    """
    rows = codes.shape[1]
    out[:] = 0.0
    for start in range(0, codes.shape[0], _BLOCK):
        part, total = codes[start : start + _BLOCK], out[start : start + _BLOCK]
        for r in range(rows):
            counter = counts[r]
            for i in range(part.shape[0]):
                total[i] += counter[part[i, r]]
    for i in range(out.shape[0]):
        out[i] /= rows
