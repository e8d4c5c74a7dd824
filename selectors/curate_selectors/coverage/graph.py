"""Exact nearest neighbours of every row among all others, tile by tile."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_kernels.topk import push_topk

_TILE = 1024


def nearest_rows(x: F32, k: int) -> tuple[F32, I64]:
    """Return the cosine to the k nearest other rows and which they are, both (n, k), nearest first.

    -inf and -1 where there are fewer than k. Of equals the lowest row. x: (n, d) float32 unit rows

    Each pair is multiplied once. O(n²d / 2) time, O(nk) memory and two tiles of 4 MiB.
    """
    n = x.shape[0]
    sim = np.full((n, k), -np.inf, dtype=np.float32)
    row = np.full((n, k), -1, dtype=np.int64)
    alive = np.ones(min(_TILE, n), dtype=np.bool_)
    for low in range(0, n, _TILE):
        block = x[low : low + _TILE]
        b = block.shape[0]
        for base in range(low, n, _TILE):
            tile = x[base : base + _TILE]
            product = block @ tile.T
            if base == low:
                np.fill_diagonal(product, -np.inf)
            push_topk(product, alive[: tile.shape[0]], base, sim[low : low + b], row[low : low + b])
            if base > low:
                push_topk(
                    np.ascontiguousarray(product.T), alive[:b], low, sim[base : base + _TILE], row[base : base + _TILE]
                )
    return sim, row
