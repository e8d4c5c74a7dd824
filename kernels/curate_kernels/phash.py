"""Perceptual hash: a picture shrunk as PIL shrinks it, and the signs of its low frequencies.

pHash: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), section 3.2.1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from curate_kernels._jit import kernel
from curate_kernels.arrays import F64, I64, U8

U64 = NDArray[np.uint64]

_PRECISION = 1 << 22  # PIL keeps 22 binary places of a weight, so that a sum of bytes fits 32 bits
_LOBES = 3.0


def lanczos_taps(size: int, out_size: int) -> tuple[I64, I64, F64]:
    """Return first pixel, number of pixels and weights for each of `out_size` pixels that shrink or enlarge a line.

    w(x) = sinc(x) sinc(x/3) for |x| < 3, stretched by size / out_size where the line shrinks, cut at the borders,
    normalised, in units of 2^-22 and rounded half away from zero: PIL's table for 8-bit images.

    size: length of the line, ≥ 1; first, count: (out_size,) int64; weights: (out_size, k) float64 integers, 0 behind
    """
    scale = size / out_size
    stretch = max(scale, 1.0)
    centre = (np.arange(out_size) + 0.5) * scale
    first = np.maximum((centre - _LOBES * stretch + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + _LOBES * stretch + 0.5).astype(np.int64), size) - first
    tap = np.arange(math.ceil(_LOBES * stretch) * 2 + 1)
    # PIL multiplies by the reciprocal; a division would round elsewhere.
    x = (tap + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch)
    weights = np.where((x >= -_LOBES) & (x < _LOBES), _sinc(x) * _sinc(x / _LOBES), 0.0)
    weights[tap >= count[:, None]] = 0.0
    # One after the other, as PIL adds them; np.sum adds pairwise.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    scaled: F64 = np.trunc(weights * _PRECISION + np.copysign(0.5, weights))
    return first, count, scaled


def _sinc(x: F64) -> F64:
    angle = x * np.pi
    return np.divide(np.sin(angle), angle, out=np.ones_like(x), where=x != 0)


def cosine_basis(size: int, low: int) -> F64:
    """Return the first `low` rows of the DCT-II of a line, 2 cos(pi k (2n + 1) / 2 size): (low, size) float64."""
    k, n = np.arange(low)[:, None], np.arange(size)[None, :]
    basis: F64 = 2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * size))
    return basis


@kernel
def _fill_luma(pixels: U8, i: int, line: F64) -> None:
    row = pixels[i]
    for j in range(line.shape[0]):
        red, green, blue = np.uint32(row[j, 0]), np.uint32(row[j, 1]), np.uint32(row[j, 2])
        line[j] = np.int32((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)


@kernel
def _round_bytes(values: F64, out: F64) -> None:
    for j in range(values.shape[0]):
        out[j] = min(max(np.floor((values[j] + 2097152.0) * (1.0 / 4194304.0)), 0.0), 255.0)


@kernel
def _squeeze(line: F64, first: I64, count: I64, weights: F64, out: F64) -> None:
    for c in range(out.shape[0]):
        part, weight = line[first[c] : first[c] + count[c]], weights[c, : count[c]]
        total = 0.0
        for t in range(part.shape[0]):
            total += part[t] * weight[t]
        out[c] = total
    _round_bytes(out, out)


@kernel
def _stack(lines: F64, first: int, weights: F64, out: F64) -> None:
    out[:] = 0.0
    for t in range(weights.shape[0]):
        line, weight = lines[first + t], weights[t]
        for j in range(out.shape[0]):
            out[j] += line[j] * weight
    _round_bytes(out, out)


@kernel
def shrink_luma(
    pixels: U8, first_x: I64, count_x: I64, weight_x: F64, first_y: I64, count_y: I64, weight_y: F64, out: U8
) -> None:
    """Luminance of an RGB picture, resized along x and along y, each rounded to 8 bits, exactly as PIL 13 does it.

    L = (19595 R + 38470 G + 7471 B + 2^15) >> 16. x comes first, unless y shrinks by more than twice as many pixels.
    Sums of bytes times 22-bit weights are exact in float64, in any order, so the loops may be vectorised.

    pixels: (H, W, 3) uint8; first, count, weight: `lanczos_taps` of W and of H; out: (h, w) uint8
    """
    height, width = pixels.shape[0], pixels.shape[1]
    rows, columns = out.shape
    short = np.empty(columns)
    if height > rows and height - rows > 2 * (width - columns):
        lines, wide = np.empty((height, width)), np.empty(width)
        for i in range(height):
            _fill_luma(pixels, i, lines[i])
        for r in range(rows):
            _stack(lines, first_y[r], weight_y[r, : count_y[r]], wide)
            _squeeze(wide, first_x, count_x, weight_x, short)
            for c in range(columns):
                out[r, c] = np.uint8(short[c])
        return
    line, narrow = np.empty(width), np.empty((height, columns))
    for i in range(height):
        _fill_luma(pixels, i, line)
        _squeeze(line, first_x, count_x, weight_x, narrow[i])
    for r in range(rows):
        _stack(narrow, first_y[r], weight_y[r, : count_y[r]], short)
        for c in range(columns):
            out[r, c] = np.uint8(short[c])


@kernel
def phash_bits(small: U8, basis: F64, out: U64) -> float:
    """Set each bit whose low frequency lies above their median; return the gap between the two around the median.

    C = B P B^T; bit (u, v) is C_uv > median(C), the first the most significant. A gap of at least 1e-6 exceeds every
    rounding error, so that the bits are certain; below it they hang on the order of the additions.

    small: (s, s) uint8; basis: (8, s) float64, `cosine_basis`; out: (1,) uint64
    """
    low, size = basis.shape
    half = np.zeros((low, size))
    value = np.empty(low * low)
    for u in range(low):
        for i in range(size):
            for j in range(size):
                half[u, j] += basis[u, i] * small[i, j]
    for u in range(low):
        for v in range(low):
            total = 0.0
            for j in range(size):
                total += half[u, j] * basis[v, j]
            value[u * low + v] = total
    ordered = np.sort(value)
    middle = low * low // 2
    median = 0.5 * (ordered[middle - 1] + ordered[middle])
    bits = np.uint64(0)
    for i in range(low * low):
        bits = (bits << np.uint64(1)) | np.uint64(value[i] > median)
    out[0] = bits
    return float(ordered[middle] - ordered[middle - 1])


@kernel
def _bits_set(word: np.uint64) -> np.uint64:
    # The usual sums of 1, 2 and 4 bits side by side; LLVM turns them into the processor's own instruction.
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel
def nearest_hash(queries: U64, stored: U64, position: I64, distance: I64) -> None:
    """Position of the stored hash that differs from each query in the fewest bits, the first of equals.

    queries: (m,) uint64; stored: (n,) uint64; position, distance: (m,) int64, out; -1 and 65 where nothing is stored
    """
    for i in range(queries.shape[0]):
        # Position and distance in one word, so that the inner loop is a minimum, which is vectorised.
        best = np.uint64(65) << np.uint64(48)
        for j in range(stored.shape[0]):
            best = min(best, (_bits_set(queries[i] ^ stored[j]) << np.uint64(48)) | np.uint64(j))
        distance[i] = np.int64(best >> np.uint64(48))
        position[i] = np.int64(best & np.uint64(0xFFFFFFFFFFFF)) if distance[i] < 65 else -1


@kernel
def hash_matches(queries: U64, stored: U64, radius: int, out: I64) -> int:
    """Pairs (query, stored) that differ in at most `radius` bits, in order; return how many there are.

    queries: (m,) uint64; stored: (n,) uint64; out: (r, 2) int64, the first r of them
    """
    found = 0
    for i in range(queries.shape[0]):
        for start in range(0, stored.shape[0], 256):
            part = stored[start : start + 256]
            near = np.int64(0)
            for j in range(part.shape[0]):  # counted, as that is vectorised
                near += np.int64(_bits_set(queries[i] ^ part[j]) <= np.uint64(radius))
            if near == 0:
                continue
            for j in range(part.shape[0]):
                if np.int64(_bits_set(queries[i] ^ part[j])) <= radius:
                    if found < out.shape[0]:
                        out[found, 0], out[found, 1] = i, start + j
                    found += 1
    return found


@kernel
def hash_pairs(hashes: U64, radius: int, out: I64) -> int:
    """Pairs i < j of hashes that differ in at most `radius` bits, in order; return how many there are.

    hashes: (n,) uint64; out: (r, 2) int64, the first r of them
    """
    found = 0
    for i in range(hashes.shape[0]):
        for j in range(i + 1, hashes.shape[0]):
            if np.int64(_bits_set(hashes[i] ^ hashes[j])) <= radius:
                if found < out.shape[0]:
                    out[found, 0], out[found, 1] = i, j
                found += 1
    return found
