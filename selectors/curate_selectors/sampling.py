"""Random draws without replacement: in proportion to weights, all at once or in one pass, and how likely each was."""

from __future__ import annotations

import sys

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.types import Selection

_LEAST = 65_536  # keys gathered before a reservoir sorts them: sorting costs little per row then
_NEVER = -600.0  # nats below the largest weight: the chance is nothing, and its inverse no overflow yet


def draw(log_weight: F64, count: int, seed: int) -> tuple[I64, F32]:
    """Return `count` successive draws without replacement in proportion to exp(log_weight), and their chances.

    The first draw is the first index; a smaller count is a prefix. Rows of weight 0 (-inf) come last, in order.
    They are the largest of log w + Gumbel noise, an exponential race: Efraimidis and Spirakis, IPL 2006.

    log_weight: (n,) float64, finite or -inf. Returns index (count,) int64 and probability (count,) float32.
    """
    race = log_weight + np.random.default_rng(seed).gumbel(size=log_weight.shape[0])
    index = np.argsort(-race, kind="stable")[:count].astype(np.int64)
    top = log_weight.max(initial=-np.inf)
    relative = log_weight - (top if np.isfinite(top) else 0.0)
    weight = np.where(relative > -np.inf, np.exp(np.maximum(relative, _NEVER)), 0.0)
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
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-weight * middle).sum() < count else (low, middle)
    return (-np.expm1(-weight * high)).astype(np.float32)


class Reservoir:
    """The `count` rows of a stream with the largest keys, in O(count) memory; equal keys go to the first row.

    count: None for all rows, of which four numbers each are kept
    """

    def __init__(self, count: int | None) -> None:
        self._count = sys.maxsize if count is None else count
        self._seen = 0
        self._parts: list[F64] = []  # of (4, b): key, log weight, gain, row
        self._size = 0
        self._bar = -np.inf  # key of the row after the last pick

    def add(self, key: F64, log_weight: F64, gain: F32) -> None:
        """Offer the next b rows of the stream; all arrays have shape (b,)."""
        row = np.arange(self._seen, self._seen + key.shape[0])
        self._seen += key.shape[0]
        part = np.stack([key, log_weight, gain, row])
        if self._size > self._count:  # a row with a key at the bar came after those that set it
            part = part[:, key > self._bar]
        self._parts.append(part)
        self._size += part.shape[1]
        if self._size > 2 * self._count + _LEAST:
            self._sort()

    def _sort(self) -> F64:
        """Keep the picks and the row after them, which sets the bar; return them, largest key first."""
        whole = np.hstack([np.zeros((4, 0)), *self._parts])
        whole = whole[:, np.argsort(-whole[0], kind="stable")[: self._count + 1]]
        self._parts, self._size = [whole], whole.shape[1]
        if self._size > self._count:
            self._bar = float(whole[0, -1])
        return whole

    def chosen(self, count: int | None = None) -> Selection:
        """Return the picks, largest key first; given a count, those of a reservoir of that smaller size.

        For keys log w + Gumbel noise, probability is the chance given all other rows' keys, 1 - exp(-w exp(-bar)) with
        the first key that was not taken as the bar: sums weighted by its inverse are unbiased (Cohen and Kaplan,
        PODC 2007, rank conditioning), and no row that was let go is needed. Rows of weight 0 were taken by no chance.
        """
        held, count = self._sort(), self._count if count is None else count
        bar = held[0, count] if held.shape[1] > count else -np.inf
        key, log_weight, gain, row = held[:, :count]
        with np.errstate(over="ignore"):
            chance = -np.expm1(-np.exp(log_weight - bar)) if np.isfinite(bar) else np.ones_like(key)
        ones = np.ones(key.size, dtype=np.float32)
        return Selection(row.astype(np.int64), gain.astype(np.float32), ones, chance.astype(np.float32))
