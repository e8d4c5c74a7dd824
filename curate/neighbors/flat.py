"""Exact search: a rough product of each tile of kept rows, and the rows that it leaves open computed one by one."""

from __future__ import annotations

import numpy as np

from curate.neighbors.products import TILE, WholeTiles, bfloat16_tiles, fastest_product, float32_tiles, int8_tiles
from curate_kernels.arrays import B1, F32
from curate_kernels.kept import near_tile
from curate_kernels.search import Asked, Kept

_WORTH_TORCH = 4e6  # kept numbers (8,000 rows of 512) from which importing torch pays


def asked(queries: F32, k: int, captions: F32, captioned: B1, least: tuple[float, float]) -> Asked:
    """Return queries (b, d), with captions (b, t), for which nothing was found yet; least: see `Asked`."""
    b = queries.shape[0]
    return Asked(  # copies: a kernel would be compiled again for arrays that cannot be written
        np.array(queries, dtype=np.float32, order="C"),
        np.array(captions, dtype=np.float32, order="C"),
        np.array(captioned, dtype=np.bool_),
        np.array(least, dtype=np.float64),
        np.full((b, k), -np.inf, dtype=np.float32),
        np.full(b, -np.inf, dtype=np.float32),
        np.full(b, -1, dtype=np.int64),
    )


def search_tiles(
    kept: Kept, longest: float, ask: Asked, start: int, stop: int, tiles: WholeTiles, product: str | None = None
) -> None:
    """Enter rows start … stop-1 into what was found; none is missed.

    longest: norm of the longest kept row; tiles: of these rows
    product: "float32", "int8" or "bfloat16", the rough one; None: the fastest. The answer does not depend on it.
    """
    if product is None:
        product = fastest_product() if (stop - start) * kept.rows.shape[1] >= _WORTH_TORCH else "float32"
    if product == "int8":
        rough = int8_tiles(kept.rows, longest, ask.queries, tiles)
    else:
        rough = {"float32": float32_tiles, "bfloat16": bfloat16_tiles}[product](kept.rows, longest, ask.queries)
    for base in range(start, stop, TILE):
        near_tile(*rough(base, min(TILE, stop - base)), base, ask, kept)
