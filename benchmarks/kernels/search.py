"""Searching the kept set and farthest-point traversal against named baselines."""

from __future__ import annotations

import faiss
import numpy as np

from benchmarks.paired import Ratio, paired
from curate.neighbors import KeptIndex
from curate_kernels.arrays import F32, unit_rows
from curate_selectors.kcenter import KCenter
from curate_selectors.types import Candidates


def clustered(n: int, d: int, seed: int = 0) -> F32:
    """Return unit rows in 1,000 Zipf-sized clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1000, d))
    which = np.minimum(rng.zipf(1.3, n) - 1, 999)
    return unit_rows((centres[which] + rng.normal(size=(n, d)) * 0.6).astype(np.float32))


def plain_kcenter(x: F32, count: int) -> list[int]:
    picks = [int(np.argmax(x @ x.mean(axis=0)))]
    dist = 1.0 - x @ x[picks[0]]
    for _ in range(count - 1):
        picks.append(int(np.argmax(dist)))
        np.minimum(dist, 1.0 - x @ x[picks[-1]], out=dist)
    return picks


def kcenter(n: int = 20_000, d: int = 512) -> Ratio:
    x = clustered(n, d)
    data = Candidates(n, x)
    return paired(
        f"kcenter {n} x {d}, 10 %", lambda: KCenter().select(data, n // 10, 0), lambda: plain_kcenter(x, n // 10)
    )


def search(n: int = 30_000, d: int = 512, b: int = 256) -> Ratio:
    x, queries = clustered(n, d), clustered(b, d, seed=1)
    index, flat = KeptIndex(), faiss.IndexFlatIP(d)
    nothing, none = np.zeros((n, 0), np.float32), np.zeros(n, dtype=np.bool_)
    index.add([str(i) for i in range(n)], x, nothing, none, [""] * n)
    flat.add(x)
    return paired(
        f"search {b} in {n} x {d}, k = 4",
        lambda: index.search(queries, nothing[:b], none[:b], [""] * b, 4, 0.05, 2.0),
        lambda: flat.search(queries, 4),
    )


BENCHMARKS = (kcenter, search)
