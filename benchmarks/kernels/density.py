"""Density in one pass against exact kernel sums; kernel sums against numpy; neighbours by both products."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from benchmarks.paired import Ratio, paired
from curate.scoring.density import kde, median_distance
from curate.scoring.nearest import nearest
from curate.scoring.race import Race

D = 512


def rows(n: int) -> np.ndarray:
    """Unit rows in 200 clusters of Zipf sizes, off centre as embeddings are."""
    rng = np.random.default_rng(0)
    label = np.minimum(rng.zipf(1.3, n), 200)
    x = rng.standard_normal((201, D))[label] + rng.standard_normal((n, D)) + 0.5
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def insert_and_query(x: np.ndarray, hashes: int) -> np.ndarray:
    race = Race.around(x[:4096], hashes=hashes)
    for start in range(0, len(x), 4096):
        race.add_codes(race.codes(x[start : start + 4096]))
    return race.query(x, exclude_self=True)


def one_pass(x: np.ndarray, hashes: int) -> np.ndarray:
    """Project once for both."""
    race = Race.around(x[:4096], hashes=hashes)
    codes = race.codes(x)
    race.add_codes(codes)
    return race.query_codes(codes, exclude_self=True)


def numpy_kde(x: np.ndarray, queries: np.ndarray, bandwidth: float) -> np.ndarray:
    norm = (x * x).sum(axis=1)
    out = np.empty(len(queries))
    for start in range(0, len(queries), 1024):
        part = queries[start : start + 1024]
        square = (part * part).sum(axis=1)[:, None] + norm[None, :] - 2 * part @ x.T
        out[start : start + 1024] = np.exp(-square / (2 * bandwidth**2)).sum(axis=1)
    return out


def race_against_exact_density(n: int = 100_000, queries: int = 2048) -> Ratio:
    """The exact density of `queries` rows, times n / queries."""
    x = rows(n)
    bandwidth = median_distance(x)
    timed = paired("", lambda: one_pass(x, 200), lambda: kde(x, x[:queries], bandwidth=bandwidth), pairs=3)
    name = f"race 200, {timed.ours / n * 1e6:.1f} us/row; exact x{n / queries:.0f}"
    return scaled(timed, name, n / queries)


def default_race_against_exact_density(n: int = 100_000, queries: int = 2048) -> Ratio:
    """The defaults (1000 hashes), rows added first and hashed again for the query."""
    x = rows(n)
    bandwidth = median_distance(x)
    timed = paired("", lambda: insert_and_query(x, 1000), lambda: kde(x, x[:queries], bandwidth=bandwidth), pairs=3)
    name = f"race 1000, {timed.ours / n * 1e6:.1f} us/row; exact x{n / queries:.0f}"
    return scaled(timed, name, n / queries)


def scaled(timed: Ratio, name: str, factor: float) -> Ratio:
    return replace(timed, name=name, baseline=timed.baseline * factor, ratios=[r * factor for r in timed.ratios])


def exact_density_of_all_rows(n: int = 20_000) -> Ratio:
    x = rows(n)
    h = median_distance(x)
    return paired(f"kde of all {n} rows / numpy", lambda: kde(x, bandwidth=h), lambda: numpy_kde(x, x, h), pairs=3)


def exact_density_of_queries(n: int = 50_000, queries: int = 2048) -> Ratio:
    x = rows(n)
    q, h = x[:queries], median_distance(x)
    return paired(f"kde of {queries} queries / numpy", lambda: kde(x, q, bandwidth=h), lambda: numpy_kde(x, q, h))


def neighbours_by_bfloat16(n: int = 50_000, queries: int = 4096) -> Ratio:
    """One thread each, whatever torch would take by itself."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    x = rows(n)
    q = x[:queries]

    def by(product: str) -> object:
        return nearest(x, q, k=10, exclude_self=True, product=product)

    return paired("10 nearest, bfloat16 / float32", lambda: by("bfloat16"), lambda: by("float32"), pairs=3)


BENCHMARKS = (
    race_against_exact_density,
    default_race_against_exact_density,
    exact_density_of_all_rows,
    exact_density_of_queries,
    neighbours_by_bfloat16,
)
