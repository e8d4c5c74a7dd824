"""What may be said of a few seeds: intervals, paired tests, ranks, and how much compute a selection saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from curate_kernels.arrays import F64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval; of one value alone the ends are NaN."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float], draws: int = 10_000, level: float = 0.95) -> Interval:
    """Return the mean with the bootstrap percentile interval, its percentiles widened for few values.

    n values vary too little under resampling, by the factor √((n-1)/n), and have the tails of Student's t: percentiles
    are taken at Φ(±√(n/(n-1)) t) (Hesterberg, The American Statistician 2015, doi:10.1080/00031305.2015.1089789).
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.size
    if n < 2:
        return Interval(float(x.mean()) if n else np.nan, np.nan, np.nan, n)
    rng = np.random.default_rng(0)
    means = np.sort(x[rng.integers(0, n, (draws, n))].mean(axis=1))
    tail = float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(x.mean()), float(low), float(high), n)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """Return the two-sided p of a paired t test of a against b on the seeds that both have; NaN of fewer than two."""
    seeds = sorted(set(a) & set(b))
    if len(seeds) < 2:
        return float("nan")
    difference = np.array([a[seed] - b[seed] for seed in seeds])
    if np.ptp(difference) < 1e-15:
        return 1.0 if abs(difference[0]) < 1e-15 else 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the order given (Holm 1979); NaN stays, and does not count."""
    values = np.asarray(p, dtype=np.float64)
    out = np.full(values.size, np.nan)
    there = np.flatnonzero(np.isfinite(values))
    order = there[np.argsort(values[there], kind="stable")]
    out[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(order.size, 0, -1)), 1.0)
    return [float(one) for one in out]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Mean rank of each of k selectors over n blocks, 1 the best; two differ if their ranks do by more than `critical`.

    p: of the Friedman test that all are alike
    """

    rank: dict[str, float]
    critical: float
    p: float
    blocks: int


def mean_ranks(scores: Mapping[str, Sequence[float]], level: float = 0.95) -> Ranks:
    """Return mean ranks with Nemenyi's critical difference (Demšar, JMLR 2006). scores: higher is better, by block."""
    names = list(scores)
    table = np.array([scores[name] for name in names], dtype=np.float64)
    k, n = table.shape
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    found = {name: float(rank) for name, rank in zip(names, ranks, strict=True)}
    if k < 2 or n < 2:
        return Ranks(found, float("nan"), float("nan"), n)
    q = float(stats.studentized_range.ppf(level, k, np.inf)) / np.sqrt(2)
    critical = q * np.sqrt(k * (k + 1) / (6 * n))
    p = float(stats.friedmanchisquare(*table).pvalue) if k > 2 else float("nan")
    return Ranks(found, float(critical), p, n)


def multiplier(budgets: Sequence[float], scores: Sequence[float], goal: float) -> float:
    """Return 1 over the least budget at which a curve reaches a goal, linear in log budget between; NaN if never.

    With steps in proportion to rows it is how many times less training reaches what the whole set gives at random.
    """
    order = np.argsort(budgets)
    x, y = np.log(np.asarray(budgets, dtype=np.float64)[order]), np.asarray(scores, dtype=np.float64)[order]
    for i in range(x.size):
        if y[i] >= goal:
            if i == 0 or y[i] == y[i - 1]:
                return float(np.exp(-x[i]))
            at: F64 = x[i - 1] + (goal - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1])
            return float(np.exp(-at))
    return float("nan")
