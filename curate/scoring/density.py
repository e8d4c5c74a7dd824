"""Density of rows, exactly: kernel sums and nearest neighbours; and the chances of being drawn that undo density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, I64, as_rows, unit_rows
from curate_kernels.density import angular_sums, gaussian_sums

_TILE = 1024  # rows and columns of one tile of similarities: 4 MB


def kde(
    x: Any,
    queries: Any = None,
    *,
    kernel: str = "gaussian",
    bandwidth: float,
    centre: Any = None,
    offset: float = 0.0,
    exclude_self: bool = False,
) -> F64:
    """Return the exact density (q,) float64 at each query: Σ_x k(x, query), not divided by n. Higher means denser.

    gaussian: k = exp(-|x - y|²/(2 bandwidth²)); angular: k = (1 - θ/π)^bandwidth, θ the angle of (x - centre, offset)
    and (y - centre, offset): what a `Race` of `bandwidth` bits estimates (arXiv 1912.02283). With offset 0 a row at the
    centre is at right angles to everything. Float32 resolves angles to 5e-4, so equal rows count ≥ 1 - 2e-4 bandwidth.
    Time O(q n d), half of it without queries; memory O(q) and a tile.

    x: (n, d), queries: (q, d), float32 or float16; without queries, x itself; centre: (d,), else 0; offset: angular
    exclude_self: query i is row i of x, and is left out of its own sum

    Raises:
        UsageError: shapes do not fit, the kernel is unknown, or the bandwidth is not positive (angular: not whole).
        ValueError: x or queries hold NaN or infinity.
    """
    others = x if queries is None else queries
    _check_shapes(x, others, exclude_self)
    _check_kernel(kernel, bandwidth)
    origin = np.zeros(x.shape[1], dtype=np.float32) if centre is None else np.asarray(centre, dtype=np.float32)

    def prepared(rows: F32) -> F32:
        rows = rows - origin
        if kernel == "gaussian":
            return rows
        return unit_rows(np.hstack([rows, np.full((rows.shape[0], 1), offset, dtype=np.float32)]))

    def add(sim: F32, left: F32, right: F32, row_sum: F64, column_sum: F64) -> None:
        if kernel == "angular":
            angular_sums(sim, int(bandwidth), row_sum, column_sum)
        else:
            gaussian_sums(sim, _square(left), _square(right), 0.5 / bandwidth**2, row_sum, column_sum)

    return _sums(x, others, prepared, add, queries is None, exclude_self)


def _sums(
    x: Any,
    queries: Any,
    prepared: Callable[[F32], F32],
    add: Callable[[F32, F32, F32, F64, F64], None],
    symmetric: bool,
    exclude_self: bool,
) -> F64:
    """Sum tile by tile; where the queries are the rows, each tile above the diagonal serves both of its sides."""
    out = np.zeros(queries.shape[0])
    for start in range(0, queries.shape[0], _TILE):
        left = prepared(as_rows(queries[start : start + _TILE], f"tile of queries from row {start}"))
        for base in range(start if symmetric else 0, x.shape[0], _TILE):
            right = prepared(as_rows(x[base : base + _TILE], f"tile of x from row {base}"))
            sim = left @ right.T
            if exclude_self and base == start:
                np.fill_diagonal(sim, -np.inf)
            across = np.zeros(sim.shape[1])
            add(sim, left, right, out[start : start + _TILE], across)
            if symmetric and base != start:
                out[base : base + _TILE] += across
    return out


def _square(rows: F32) -> F32:
    norm: F32 = np.einsum("ij,ij->i", rows, rows)
    return norm


def _check_kernel(kernel: str, bandwidth: float) -> None:
    angular = kernel == "angular" and float(bandwidth).is_integer()
    if not 0 < bandwidth < np.inf or not (angular or kernel == "gaussian"):
        raise UsageError(f"kernel {kernel!r}, bandwidth {bandwidth}: gaussian (> 0) or angular (a whole number ≥ 1)")


def _check_shapes(x: Any, queries: Any, exclude_self: bool) -> None:
    if np.ndim(x) != 2 or np.ndim(queries) != 2:
        raise UsageError(f"rows of shape {np.shape(x)}, queries {np.shape(queries)}; (n, d) arrays are needed")
    if queries.shape[1] != x.shape[1] or (exclude_self and queries.shape[0] > x.shape[0]):
        raise UsageError(f"queries of shape {queries.shape} do not fit rows of shape {x.shape}")


def median_distance(x: Any, sample: int = 2000, seed: int = 0) -> float:
    """Return the median Euclidean distance of pairs of rows x (n, d), of at most `sample` of them: a usual bandwidth.

    0 where there are fewer than two rows.
    """
    n = x.shape[0]
    if n > sample:
        x = x[np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))]
    rows = np.asarray(x, dtype=np.float32)
    norm = np.einsum("ij,ij->i", rows, rows)
    square = norm[:, None] + norm[None, :] - 2 * (rows @ rows.T)
    pairs = square[np.triu_indices(rows.shape[0], 1)]
    return float(np.sqrt(max(np.median(pairs), 0.0))) if pairs.size else 0.0


def knn_density(sim: F32) -> F64:
    """Return the mean cosine similarity (n,) float64 to the k nearest others. Higher means denser.

    sim: (n, k) similarities, descending, -inf where there are fewer than k (`nearest` gives them); -1 without any other
    """
    found = np.isfinite(sim)
    total = np.where(found, sim, 0.0).sum(axis=1, dtype=np.float64)
    count = found.sum(axis=1)
    mean: F64 = np.where(count > 0, total / np.maximum(count, 1), -1.0)
    return mean


def inclusion(density: F64, count: int) -> F64:
    """Return the chance (n,) float64 of each row to be drawn: inverse to density, summing to `count`.

    π_i = min(1, c / S_i) with Σπ = min(count, n), solved exactly (arXiv 2402.09668, text and theorem A.2: p ∝ 1/S; the
    printed algorithm 2 has p ∝ S). Lower density means a higher chance. Rows of density 0 come first, equally.

    density: (n,) ≥ 0, higher means denser; below 0 counts as 0

    Raises:
        UsageError: count is negative, or a density is NaN or infinite.
    """
    density = np.maximum(np.asarray(density, dtype=np.float64), 0.0)
    if count < 0 or not np.isfinite(density).all():
        raise UsageError(f"count {count} with {np.sum(~np.isfinite(density))} densities that are not finite numbers")
    if count >= density.shape[0]:
        return np.ones(density.shape[0])
    empty = density <= 1e-200 * density.max()  # beyond that, ratios overflow
    free = int(empty.sum())
    if free >= count:
        return np.where(empty, count / max(free, 1), 0.0)
    chance = np.ones(density.shape[0])
    chance[~empty] = _water_fill(density[~empty], count - free)
    return chance


def _water_fill(density: F64, count: int) -> F64:
    """Solve Σ min(1, c / S) = count < n: with the m thinnest rows full, c = (count - m) / Σ_others 1/S."""
    order: I64 = np.argsort(density, kind="stable")
    thin = density[order] / density[order[0]]
    rest = np.cumsum((1.0 / thin)[::-1])[::-1]
    level = (count - np.arange(thin.shape[0])) / rest
    full = min(int(np.argmax(thin >= level)), count - 1)  # the first row that its level does not fill, but for rounding
    chance: F64 = np.minimum(1.0, level[full] / (density / density[order[0]]))
    return chance
