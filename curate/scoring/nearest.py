"""Nearest rows by cosine similarity, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.processor import has_bfloat16_units
from curate_kernels.arrays import B1, F32, I64, as_rows
from curate_kernels.density import recheck_topk
from curate_kernels.topk import push_topk

_QUERIES = 512
_ROWS = 4096
# Both factors and the product rounded to 8 bits of mantissa: 2^-9 each and their product, 2^-9 of the result.
_BF16_ERROR = 2.0**-8 + 2.0**-9 + 2.0**-16
_WORTH_TORCH = 1e11  # multiplications (about 2 s in float32) from which importing torch pays


def nearest(
    x: Any, queries: Any = None, *, k: int, exclude_self: bool = False, product: str | None = None
) -> tuple[F32, I64]:
    """Return the k nearest rows of x of each query: similarities (q, k) float32, descending, and rows (q, k) int64.

    Similarities are inner products in float32: cosines where rows have norm 1. Empty places (fewer than k rows) hold
    -inf and -1; ties go to the lowest row. Memory: the result and one tile.

    x: (n, d), queries: (q, d), float16 or float32; without queries, x itself
    exclude_self: query i is row i of x, and is not its own neighbour
    product: "float32", or "bfloat16": a product in bfloat16 finds the candidates, which are computed again in float32.
    Its rounding error has a bound, so both give the same rows up to ties in float32. None: bfloat16 where the processor
    has units for it and the problem is large.

    Raises:
        UsageError: k < 1, shapes that do not fit, or an unknown product.
        ValueError: x or queries hold NaN or infinity.
    """
    others = x if queries is None else queries
    if k < 1 or np.ndim(x) != 2 or np.ndim(others) != 2 or x.shape[1] != others.shape[1]:
        raise UsageError(f"k = {k} nearest of rows {np.shape(x)} to queries {np.shape(others)}: k ≥ 1, equal d needed")
    if exclude_self and others.shape[0] > x.shape[0]:
        raise UsageError(f"{others.shape[0]} queries cannot all be among {x.shape[0]} rows; leave out exclude_self")
    if product is None:
        large = float(x.shape[0]) * others.shape[0] * x.shape[1] >= _WORTH_TORCH
        product = "bfloat16" if large and has_bfloat16_units() else "float32"
    if product not in ("float32", "bfloat16"):
        raise UsageError(f"product {product!r} is unknown; float32 or bfloat16")
    best = np.full((others.shape[0], k), -np.inf, dtype=np.float32)
    row = np.full((others.shape[0], k), -1, dtype=np.int64)
    search = _search_float32 if product == "float32" else _search_bfloat16
    search(x, others, exclude_self, best, row)
    return best, row


def _search_float32(x: Any, queries: Any, exclude_self: bool, best: F32, row: I64) -> None:
    alive: B1 = np.ones(_ROWS, dtype=np.bool_)
    for base in range(0, x.shape[0], _ROWS):
        rows = as_rows(x[base : base + _ROWS], f"tile of x from row {base}")
        for start in range(0, queries.shape[0], _QUERIES):
            part = slice(start, start + _QUERIES)
            sim = as_rows(queries[part], f"tile of queries from row {start}") @ rows.T
            if exclude_self:
                _hide_self(sim, start, base)
            push_topk(sim, alive[: sim.shape[1]], base, best[part], row[part])


def _search_bfloat16(x: Any, queries: Any, exclude_self: bool, best: F32, row: I64) -> None:
    import torch

    longest = max((_norm(queries[start : start + _ROWS]) for start in range(0, queries.shape[0], _ROWS)), default=0.0)
    error = _BF16_ERROR + 2.0**-23 * x.shape[1]  # and the float32 sums of both products
    for base in range(0, x.shape[0], _ROWS):
        rows = as_rows(x[base : base + _ROWS], f"tile of x from row {base}")
        margin = error * longest * _norm(rows)
        short = torch.from_numpy(rows).bfloat16().T
        for start in range(0, queries.shape[0], _QUERIES):
            part = slice(start, start + _QUERIES)
            query = as_rows(queries[part])
            sim: F32 = torch.mm(torch.from_numpy(query).bfloat16(), short).float().numpy()
            if exclude_self:
                _hide_self(sim, start, base)
            recheck_topk(sim, margin, query, rows, base, best[part], row[part])


def _norm(x: Any) -> float:
    """Return the norm of the longest row, in float64."""
    rows = as_rows(x).astype(np.float64)
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)))


def _hide_self(sim: F32, start: int, base: int) -> None:
    """Set the similarity of query start + i to row base + j = start + i to -inf."""
    row = np.arange(max(start, base), min(start + sim.shape[0], base + sim.shape[1]))
    sim[row - start, row - base] = -np.inf
