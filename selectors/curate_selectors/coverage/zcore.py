"""Zero-shot coreset scores: coverage and redundancy in random planes (Griffin et al. 2024, arXiv:2411.15349)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_kernels.probes import probe_cells
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class ZCore:
    """Probes draw two dimensions and a point in them, triangular over each one's minimum, median and maximum.

    The row nearest to a probe (L1) scores 1; the rows nearest to that one lose 1 together, by distance^-power. Where
    some lie at distance 0 these alone lose, evenly, which is the limit. Scores start in (0, 1) at random.

    probes: how many; 0: 20 a row, at most a million, as published
    near: rows that share a penalty
    """

    probes: int = 0
    near: int = 1000
    power: float = 4.0

    def __post_init__(self) -> None:
        if self.probes < 0 or self.near < 1 or self.power <= 0:
            raise SelectorError("probes must be at least 0, near at least 1, power above 0")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows, highest score first; gain is the score from 0 to 1. Time O(probes n), memory O(nd)."""
        check_count(data, count)
        score = self.scores(need_rows(data, "zcore"), np.random.default_rng(seed))
        index = np.argsort(-score, kind="stable")[:count]
        low, high = score.min(initial=np.inf), score.max(initial=-np.inf)
        scaled = (score[index] - low) / (high - low) if high > low else np.ones(count)
        return in_order(index, scaled.astype(np.float32))

    def scores(self, x: F32, rng: np.random.Generator) -> F64:
        """Return the score of each row of x (n, d), (n,) float64, not scaled."""
        n, d = x.shape
        score = rng.random((n,))
        if not n or not d:
            return score
        column = np.ascontiguousarray(x.T)
        low, middle, high = column.min(axis=1), np.median(column, axis=1), column.max(axis=1)
        left = self.probes or min(20 * n, 1_000_000)
        while left > 0:
            pair, at = draw_probes(low, middle, high, min(_BLOCK, left), rng)
            probe_cells(column, pair, at, self.near, self.power, score)
            left -= _BLOCK
        return score


def draw_probes(low: F32, middle: F32, high: F32, count: int, rng: np.random.Generator) -> tuple[I64, F32]:
    """Return two different dimensions of each probe (count, 2) and a point in them, triangular in each (count, 2).

    low, middle, high: (d,) ends and mode of each dimension; of one dimension, it is taken twice
    """
    d = low.shape[0]
    first = rng.integers(d, size=count)
    second = (first + (1 + rng.integers(d - 1, size=count) if d > 1 else 0)) % d
    pair = np.stack([first, second], axis=1)
    a, c, b = (values[pair].astype(np.float64) for values in (low, middle, high))
    u = rng.random((count, 2))
    below = u * (b - a) < c - a
    at = np.where(below, a + np.sqrt(u * (b - a) * (c - a)), b - np.sqrt((1 - u) * (b - a) * (b - c)))
    return pair, at.astype(np.float32)
