"""Spherical k-means."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32, I64, unit_rows
from curate_kernels.codes import add_rows

_TILE = 2048
_PER_CENTRE = 64  # rows a centre that training reads


def assign(x: F32, centre: F32) -> tuple[I64, F32]:
    """Return each row's nearest centre, the lowest of equals, and the cosine to it; memory O(n) and one tile."""
    at = np.empty(x.shape[0], dtype=np.int64)
    sim = np.empty(x.shape[0], dtype=np.float32)
    tile = max(1, _TILE * 1024 // max(centre.shape[0], 1024))
    for start in range(0, x.shape[0], tile):
        product = x[start : start + tile] @ centre.T
        best = product.argmax(axis=1)
        at[start : start + tile] = best
        sim[start : start + tile] = product[np.arange(best.size), best]
    return at, sim


def spherical_centres(x: F32, clusters: int, rounds: int, rng: np.random.Generator) -> F32:
    """Return at most `clusters` unit centres, (k, d) float32, of Lloyd's rounds on unit rows (Dhillon & Modha 2001).

    They read at most 64 rows a cluster. A centre that no row is nearest to moves to the row that is farthest from its
    own.
    """
    clusters = min(clusters, x.shape[0])
    if x.shape[0] > clusters * _PER_CENTRE:
        x = x[training_rows(x.shape[0], clusters, rng)]
    return lloyd(x, x[_first_rows(x, clusters, rng)], rounds)


def training_rows(n: int, clusters: int, rng: np.random.Generator) -> I64:
    """Return which of n rows so many centres are trained on, ascending: 64 a cluster, or all where there are fewer."""
    most = clusters * _PER_CENTRE
    return np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)


def _first_rows(x: F32, clusters: int, rng: np.random.Generator) -> I64:
    """Return rows to start at: as many again as there are, in proportion to 1 - cosine to the nearest so far.

    k-means++ (Arthur & Vassilvitskii 2007) in doubling portions, as k-means|| draws (Bahmani et al. 2012): the cost is
    one assignment's.
    """
    chosen = rng.integers(x.shape[0], size=min(clusters, x.shape[0]))[:1]
    far = np.full(x.shape[0], np.inf)
    fresh = chosen
    while chosen.size < clusters:
        far = np.minimum(far, np.maximum(1 - assign(x, x[fresh])[1].astype(np.float64), 1e-7))
        far[chosen] = 0
        # The largest of log w + Gumbel noise are successive draws in proportion to w.
        with np.errstate(divide="ignore"):
            race = np.log(far) + rng.gumbel(size=far.size)
        fresh = np.argsort(-race, kind="stable")[: min(chosen.size, clusters - chosen.size)]
        chosen = np.concatenate([chosen, fresh])
    return np.sort(chosen).astype(np.int64)


def lloyd(x: F32, centre: F32, rounds: int) -> F32:
    """Return the centres (k, d) after so many rounds on the rows x (n, d), or once 1 in 100 rows or fewer changes."""
    before = np.full(x.shape[0], -1, dtype=np.int64)
    for _ in range(rounds):
        at, sim = assign(x, centre)
        centre = _means(x, at, sim, centre)
        if 100 * np.count_nonzero(at != before) <= x.shape[0]:
            break
        before = at
    return centre


def _means(x: F32, at: I64, sim: F32, centre: F32) -> F32:
    total = np.zeros(centre.shape, dtype=np.float64)
    add_rows(x, at, total)
    moved = unit_rows(total.astype(np.float32))
    empty = np.flatnonzero(np.bincount(at, minlength=centre.shape[0]) == 0)
    far = np.argsort(sim, kind="stable")[: empty.size]  # fewer than are empty where there are fewer rows than that
    moved[empty[: far.size]] = x[far]
    return moved
