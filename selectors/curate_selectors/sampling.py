"""Random draws without replacement: in proportion to weights, all at once or in one pass, and how likely each was."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.types import Selection

_LEAST = 65_536  # keys gathered before a reservoir sorts them: sorting costs little per row then


def draw(log_weight: F64, count: int, seed: int) -> tuple[I64, F32]:
    """Return `count` successive draws without replacement in proportion to exp(log_weight), and their chances.

    The first draw is the first index; a smaller count is a prefix. Rows of weight 0 (-inf) come last, in order.
    They are the largest of log w + Gumbel noise, an exponential race: Efraimidis and Spirakis, IPL 2006.

    log_weight: (n,) float64, finite or -inf. Returns index (count,) int64 and probability (count,) float32.
    """
    race = log_weight + np.random.default_rng(seed).gumbel(size=log_weight.shape[0])
    index = np.argsort(-race, kind="stable")[:count].astype(np.int64)
    top = log_weight.max(initial=-np.inf)
    weight = np.exp(log_weight - (top if np.isfinite(top) else 0.0))
    return index, inclusion(weight, count)[index]


def inclusion(weight: F64, count: int) -> F32:
    """Return each row's chance to be among `count` successive draws: 1 - exp(-w t), t such that they sum to count.

    Rosén 1972 (asymptotically exact). Rows of weight 0 are taken after all others, in order, by no chance: 1.
    """
    if count >= np.count_nonzero(weight):
        return np.ones(weight.shape[0], dtype=np.float32)
    low, high = 0.0, 1.0
    while -np.expm1(-weight * high).sum() < count:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-weight * middle).sum() < count else (low, middle)
    return (-np.expm1(-weight * high)).astype(np.float32)


class Reservoir:
    """The `count` rows of a stream with the largest keys, in O(count) memory; equal keys go to the first row."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._rows = np.zeros((3, 0))  # key, log weight, gain; the row after the last pick stays too: it sets the bar
        self._index: I64 = np.zeros(0, dtype=np.int64)
        self._bar = -np.inf

    def add(self, key: F64, log_weight: F64, gain: F32) -> None:
        """Offer the next b rows of the stream; all arrays have shape (b,)."""
        # A row with a key at the bar came after those that set it.
        better = np.flatnonzero((key > self._bar) | (self._index.size <= self._count))
        self._rows = np.hstack([self._rows, np.stack([key, log_weight, gain])[:, better]])
        self._index = np.concatenate([self._index, self._seen + better])
        self._seen += key.shape[0]
        if self._index.size > 2 * self._count + _LEAST:
            self._sort()

    def _sort(self) -> None:
        order = np.argsort(-self._rows[0], kind="stable")[: self._count + 1]
        self._rows, self._index = self._rows[:, order], self._index[order]
        if self._index.size > self._count:
            self._bar = float(self._rows[0, -1])

    def chosen(self) -> Selection:
        """Return the picks, largest key first.

        For keys log w + Gumbel noise, probability is the chance given all other rows' keys, 1 - exp(-w exp(-bar)) with
        the first key that was not taken as the bar: sums weighted by its inverse are unbiased (Cohen and Kaplan,
        PODC 2007, rank conditioning), and no row that was let go is needed. Rows of weight 0 were taken by no chance.
        """
        self._sort()
        key, log_weight, gain = self._rows[:, : self._count]
        with np.errstate(over="ignore"):
            chance = -np.expm1(-np.exp(log_weight - self._bar)) if np.isfinite(self._bar) else np.ones_like(key)
        ones = np.ones(key.size, dtype=np.float32)
        return Selection(self._index[: self._count], gain.astype(np.float32), ones, chance.astype(np.float32))
