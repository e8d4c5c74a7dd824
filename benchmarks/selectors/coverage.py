"""Methods of coverage against their peers: packages where they install, else the published form of the code.

Baselines that would take minutes run on a tenth of the rows; `large` prints the large sizes of ours alone.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from importlib.util import find_spec

import faiss
import numpy as np
import torch

from benchmarks.paired import Ratio, paired
from curate_kernels.arrays import F32, I64, unit_rows
from curate_kernels.probes import probe_cells
from curate_selectors.coverage.clusters import assign, lloyd
from curate_selectors.coverage.d2 import D2
from curate_selectors.coverage.facility import FacilityLocation
from curate_selectors.coverage.kcenter import KCenter
from curate_selectors.coverage.logdet import LogDet
from curate_selectors.coverage.rank import clusters_of
from curate_selectors.coverage.semdedup import SemDeDup, similarity_before
from curate_selectors.coverage.zcore import draw_probes
from curate_selectors.types import Candidates


def clustered(n: int, d: int = 512, seed: int = 0) -> F32:
    """Return unit rows in 1,000 Zipf-sized clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, d), dtype=np.float32)
    x = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 10_000):
        which = np.minimum(rng.zipf(1.3, min(10_000, n - start)) - 1, 999)
        noise = rng.standard_normal((which.size, d), dtype=np.float32)
        x[start : start + which.size] = unit_rows(centres[which] + noise * np.float32(0.6))
    return x


def incremental_kcenter(x: F32, count: int) -> list[int]:
    picks = [int(np.argmax(x @ x.mean(axis=0)))]
    dist = 1.0 - x @ x[picks[0]]
    for _ in range(count - 1):
        picks.append(int(np.argmax(dist)))
        np.minimum(dist, 1.0 - x @ x[picks[-1]], out=dist)
    return picks


def published_kcenter(x: F32, count: int) -> list[int]:
    """Keep the distances of every pick to every row, and take their minimum anew for each pick."""
    dist = np.empty((count, x.shape[0]), dtype=np.float32)
    picks = [int(np.argmax(x @ x.mean(axis=0)))]
    for t in range(count - 1):
        dist[t] = 1.0 - x @ x[picks[-1]]
        picks.append(int(np.argmax(dist[: t + 1].min(axis=0))))
    return picks


def kcenter(
    n: int = 20_000, baseline: Callable[[F32, int], list[int]] = incremental_kcenter, name: str = "incremental"
) -> Ratio:
    x = clustered(n)
    data, count = Candidates(n, x), n // 10
    return paired(
        f"kcenter {n}, 10 %, {name}", lambda: KCenter().select(data, count, 0), lambda: baseline(x, count), pairs=3
    )


def kcenter_published() -> Ratio:
    return kcenter(10_000, published_kcenter, "k x n")


def facility(n: int = 10_000, count: int = 1000) -> Ratio:
    """Dense and lazy on both sides, the similarities with it; the values are equal to 1e-4."""
    from apricot import FacilityLocationSelection

    x = clustered(n)
    data = Candidates(n, x)

    def ours() -> I64:
        return FacilityLocation(neighbors=0).select(data, count, 0).index

    def theirs() -> I64:
        model = FacilityLocationSelection(count, metric="precomputed", optimizer="lazy")
        return np.asarray(model.fit(np.maximum(x @ x.T, 0).astype(np.float64)).ranking)

    values = [np.maximum(x @ x[pick()].T, 0).max(axis=1).sum() for pick in (ours, theirs)]
    assert values[0] > values[1] * (1 - 1e-4)
    return paired(f"facility-location {n} to {count}", ours, theirs, pairs=2)


def plain_map(x: F32, count: int, ridge: float) -> list[int]:
    """Chen et al. 2018 with the columns in one array."""
    left, columns, picks = np.full(x.shape[0], 1 + ridge), np.empty((count, x.shape[0]), dtype=np.float32), []
    for t in range(count):
        best = int(np.argmax(left))
        picks.append(best)
        row = x @ x[best]
        row[best] += ridge
        columns[t] = (row - columns[:t, best] @ columns[:t]) / np.sqrt(left[best])
        left -= columns[t] ** 2
        left[best] = -np.inf
    return picks


def log_det(n: int = 10_000, count: int = 1000) -> Ratio:
    x = clustered(n)
    data = Candidates(n, x)
    return paired(
        f"log-det {n} to {count}",
        lambda: LogDet(0.1).select(data, count, 0),
        lambda: plain_map(x, count, 0.1),
        pairs=2,
    )


def published_dedup(x: F32, cluster: I64, far: F32) -> F32:
    out = np.empty(x.shape[0], dtype=np.float32)
    rows = torch.from_numpy(x)
    for c in range(int(cluster.max()) + 1):
        mine = np.flatnonzero(cluster == c)
        mine = mine[np.argsort(-far[mine])]
        held = rows[torch.from_numpy(mine)]
        if mine.size:
            out[mine] = torch.triu(held @ held.T, diagonal=1).max(dim=0)[0].numpy()
    return out


def semdedup(n: int = 50_000) -> Ratio:
    """End to end; theirs with faiss's k-means as published, 100 rounds at most."""
    x = clustered(n)
    data, clusters = Candidates(n, x), int(np.sqrt(n))

    def theirs() -> F32:
        means = faiss.Kmeans(x.shape[1], clusters, niter=100, spherical=True, seed=1)
        means.train(x)
        sim, at = means.index.search(x, 1)
        return published_dedup(x, at[:, 0], 1 - sim[:, 0])

    return paired(f"semdedup {n}", lambda: SemDeDup().select(data, n // 2, 0), theirs, pairs=1)


def dedup_stage(n: int = 100_000) -> Ratio:
    x = clustered(n)
    at, far = clusters_of(x, 0, 0)
    return paired(
        f"semdedup {n}, in clusters",
        lambda: similarity_before(x, at, far, True),
        lambda: published_dedup(x, at, far),
        pairs=3,
    )


def kmeans_pass(n: int = 50_000, clusters: int = 2000) -> Ratio:
    """One assignment and one mean of a level's finest clusters."""
    x = clustered(n)
    start = x[:clusters].copy()

    def theirs() -> None:
        means = faiss.Kmeans(x.shape[1], clusters, niter=1, spherical=True, max_points_per_centroid=n)
        means.train(x, init_centroids=start)

    assert (assign(x, start)[0][:10] == np.arange(10)).all()
    return paired(f"k-means pass {n}, {clusters}", lambda: lloyd(x, start, 1), theirs, pairs=3)


def plain_probes(x: F32, pair: I64, at: F32, near: int, score: np.ndarray) -> None:
    """ZCore as published: two sums over the rows and a sort of all distances for every probe."""
    for dims, point in zip(pair, at, strict=True):
        best = np.argmin(np.sum(np.abs(x[:, dims] - point), axis=1))
        score[best] += 1
        distance = np.sum(np.abs(x[:, dims] - x[best, dims]), axis=1)
        others = np.argsort(distance)[1:]
        if distance[others[0]] == 0:
            score[others[0]] -= 1
            continue
        penalty = 1 / distance[others[:near]].astype(np.float64) ** 4
        score[others[:near]] -= penalty / penalty.sum()


def zcore(n: int = 50_000, probes: int = 100) -> Ratio:
    x = clustered(n)
    column = np.ascontiguousarray(x.T)
    drawn = draw_probes(
        column.min(axis=1), np.median(column, axis=1), column.max(axis=1), probes, np.random.default_rng(0)
    )
    score, plain = np.zeros(n), np.zeros(n)
    return paired(
        f"zcore {n}, {probes} probes",
        lambda: probe_cells(column, *drawn, 1000, 4.0, score),
        lambda: plain_probes(x, *drawn, 1000, plain),
        pairs=3,
    )


def dense_d2(x: F32, hard: np.ndarray, count: int, k: int, gamma: float) -> list[int]:
    """All distances, all of them sorted, and the highest score searched for in every step."""
    distance = np.sqrt(np.maximum(2 - 2 * (x @ x.T), 0))
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, :k]
    d = np.take_along_axis(distance, near, axis=1)
    score = hard + (np.exp(-d) * hard[near]).sum(axis=1)
    picks = []
    for _ in range(count):
        best = int(np.argmax(score))
        picks.append(best)
        score[near[best]] -= np.exp(-gamma * d[best]) * score[best]
        score[picks] = -np.inf
    return picks


def d2(n: int = 10_000) -> Ratio:
    x = clustered(n)
    hard = np.random.default_rng(0).random(n, dtype=np.float32)
    data = Candidates(n, x, scores={"el2n": hard})
    return paired(
        f"d2 {n} to {n // 10}",
        lambda: D2().select(data, n // 10, 0),
        lambda: dense_d2(x, hard.astype(np.float64), n // 10, 5, 0.1),
        pairs=2,
    )


def large() -> None:
    """Print what the large sizes take: minutes, so not among the benchmarks."""
    x = clustered(1_000_000)
    for name, method, n, count in (
        ("kcenter", KCenter(), 50_000, 5_000),
        ("log-det", LogDet(), 50_000, 1_000),
        ("facility-location", FacilityLocation(), 100_000, 5_000),
        ("kcenter", KCenter(), 300_000, 30_000),
        ("semdedup", SemDeDup(), 1_000_000, 500_000),
    ):
        started = time.perf_counter()
        method.select(Candidates(n, x[:n]), count, 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name} {n} to {count}: {time.perf_counter() - started:.0f} s, at most {peak:.1f} GB so far", flush=True)


BENCHMARKS = (
    kcenter,
    kcenter_published,
    *((facility,) if find_spec("apricot") else ()),
    log_det,
    semdedup,
    dedup_stage,
    kmeans_pass,
    zcore,
    d2,
)
