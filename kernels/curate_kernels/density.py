"""Sums of kernels over tiles of similarities, and exact neighbours out of rounded similarities."""

from __future__ import annotations

import math

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64, I64


@kernel
def gaussian_sums(sim: F32, left: F32, right: F32, scale: float, row_sum: F64, column_sum: F64) -> None:
    """Add exp(-scale |q - x|^2) of every pair of a tile to the sums of its rows and of its columns.

    sim: (b, m) float32, inner products q.x, -inf where a pair does not count; left: (b,), right: (m,) float32, |q|^2
    and |x|^2; row_sum: (b,), column_sum: (m,) float64, in place. Relative error 2e-6, as float32 products have.
    """
    m = sim.shape[1]
    value = np.empty(m, dtype=np.float32)
    halves = np.float32(scale / math.log(2.0))
    for i in range(sim.shape[0]):
        row, norm = sim[i], left[i]
        for j in range(m):
            z = max(norm + right[j] - np.float32(2.0) * row[j], np.float32(0.0)) * halves
            far = z > np.float32(126.0)
            z = min(z, np.float32(126.0))
            # 2^-z = 2^-whole 2^-rest with |rest| ≤ 1/2: the exponent's bits, and the Taylor series of exp(-rest ln 2).
            whole = np.int32(z + np.float32(0.5))
            f = (z - np.float32(whole)) * np.float32(-0.6931471805599453)
            series = np.float32(1 / 720) * f + np.float32(1 / 120)
            series = series * f + np.float32(1 / 24)
            series = series * f + np.float32(1 / 6)
            series = series * f + np.float32(0.5)
            series = (series * f + np.float32(1.0)) * f + np.float32(1.0)
            power = np.int32((np.int32(127) - whole) << np.int32(23)).view(np.float32)
            value[j] = np.float32(0.0) if far else series * power
        row_sum[i] += _add_up(value, column_sum)


@kernel
def angular_sums(sim: F32, power: int, row_sum: F64, column_sum: F64) -> None:
    """Add (1 - θ/π)^power of every pair of a tile to the sums of its rows and of its columns.

    sim: (b, m) float32, cosines, -inf where a pair does not count; row_sum: (b,), column_sum: (m,) float64, in place.
    arccos by Abramowitz and Stegun 4.4.46, error 2e-8.
    """
    m = sim.shape[1]
    base = np.empty(m, dtype=np.float32)
    value = np.empty(m, dtype=np.float32)
    for i in range(sim.shape[0]):
        row = sim[i]
        for j in range(m):
            c = min(max(row[j], np.float32(-1.0)), np.float32(1.0))
            a = abs(c)
            series = np.float32(-0.0012624911) * a + np.float32(0.0066700901)
            series = series * a + np.float32(-0.0170881256)
            series = series * a + np.float32(0.0308918810)
            series = series * a + np.float32(-0.0501743046)
            series = series * a + np.float32(0.0889789874)
            series = series * a + np.float32(-0.2145988016)
            series = series * a + np.float32(1.5707963050)
            angle = np.sqrt(np.float32(1.0) - a) * series * np.float32(1.0 / math.pi)
            base[j] = angle if c < np.float32(0.0) else np.float32(1.0) - angle
            value[j] = np.float32(1.0)
        left = power
        while left > 0:
            if left % 2 == 1:
                for j in range(m):
                    value[j] *= base[j]
            for j in range(m):
                base[j] *= base[j]
            left //= 2
        row_sum[i] += _add_up(value, column_sum)


@kernel
def _add_up(value: F32, column_sum: F64) -> float:
    """Add the values to the sums of their columns, and return their sum."""
    total = 0.0
    for j in range(value.shape[0]):
        column_sum[j] += value[j]
        total += value[j]
    return total


@kernel
def recheck_topk(rough: F32, margin: float, queries: F32, rows: F32, base: int, best_sim: F32, best_row: I64) -> None:
    """Merge a tile into each query's k best, in place, computing exactly what the rounded similarity leaves open.

    A row can be among the best only if its similarity, at most rough + margin, is above the worst of them.

    rough: (b, m) float32, similarities off by at most `margin`, -inf for pairs that do not count
    queries: (b, d), rows: (m, d) float32; base: number of the tile's first row
    best_sim: (b, k) float32, descending, -inf where empty; best_row: (b, k) int64, -1 where empty
    Ties keep the row that was pushed first.
    """
    k = best_sim.shape[1]
    m = rough.shape[1]
    for i in range(rough.shape[0]):
        query = queries[i]
        worst = best_sim[i, k - 1]
        for start in range(0, m, 64):
            part = rough[i, start : start + 64]
            top = np.float32(-np.inf)
            for j in range(part.shape[0]):
                top = max(top, part[j])
            if not top + margin > worst:
                continue
            for j in range(part.shape[0]):
                if part[j] + margin > worst:
                    row = rows[start + j]
                    value = np.float32(0.0)
                    for c in range(query.shape[0]):
                        value += query[c] * row[c]
                    if value > worst:
                        at = k - 1
                        while at > 0 and best_sim[i, at - 1] < value:
                            best_sim[i, at] = best_sim[i, at - 1]
                            best_row[i, at] = best_row[i, at - 1]
                            at -= 1
                        best_sim[i, at] = value
                        best_row[i, at] = base + start + j
                        worst = best_sim[i, k - 1]
