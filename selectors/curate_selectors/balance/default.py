"""The method that is meant to be right without thinking: gate, deduplicate, share out among classes, draw by gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1, F32, I64
from curate_selectors.balance.shares import shared_order
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.sampling import inclusion
from curate_selectors.types import Candidates, Selection

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Default:
    """Rows that pass the gate and duplicate none before them, water-filled among classes, by InfoGrowth's draw in each.

    Provisional: benchmarks have not chosen it yet. The gate is `pvi` ≥ 0, or else `pvi_label` ≥ 0, where that score is
    at hand. Duplicates are sought where embeddings are read: a pool has gains, so its own deduplication counts. What is
    refused comes last, by gain, duplicates before gated ones. Without labels all rows are one class.

    k: neighbours in the gain; epsilon: distance (1 - cosine) within which a row duplicates one that is kept
    power: shares of the classes ∝ size ** power, 0: equal ones; floor: rows that each class gets first
    """

    k: int = 4
    epsilon: float = 1e-4
    power: float = 0.0
    floor: int = 0

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the information gain, probability that of the draw in the own class.

        O(n) time, or O(n²d) where gains are not given; memory O(n).
        """
        check_count(data, count)
        drawn = InfoGrowth(k=self.k).select(data, data.n, seed)
        gain = np.empty(data.n, dtype=np.float32)
        gain[drawn.index] = drawn.gain
        label = np.zeros(data.n, dtype=np.int64) if data.label is None else data.label
        passed = _gated(data)
        group = np.where(label < 0, label.max(initial=0) + 1, label)  # rows without a label share one class
        kept = passed.copy()
        if data.x is not None:
            kept[passed] = ~_duplicates(need_rows(data, "default")[passed], self.epsilon)
        good = drawn.index[kept[drawn.index]]
        place: I64 = shared_order(group[good], np.arange(good.size), self.power, self.floor, 0)
        rest = drawn.index[~kept[drawn.index]]
        rest = rest[np.argsort(~passed[rest], kind="stable")]
        index = np.concatenate([good[place], rest])[:count]
        chance = np.ones(count, dtype=np.float32)  # what was refused is taken when all else is, by no chance
        taken = min(count, good.size)
        chance[:taken] = _chances(gain, group, good, index[:taken])
        return Selection(index, gain[index], np.ones(count, dtype=np.float32), chance)


def _chances(gain: F32, group: I64, good: I64, picks: I64) -> F32:
    """Return the chance of each pick among the good rows of its class, in as many draws as the class was given."""
    top = float(np.quantile(gain, InfoGrowth().quantile)) if gain.size else 1.0
    weight = np.clip(gain / top, 0.0, 1.0).astype(np.float64) if top > 0 else np.ones(gain.size)
    chance = np.ones(gain.size, dtype=np.float32)
    for number in np.unique(group[picks]):
        mine = good[group[good] == number]
        chance[mine] = inclusion(weight[mine], int((group[picks] == number).sum()))
    return chance[picks]


def _gated(data: Candidates) -> B1:
    """Return which rows pass: a row without the score (a row without a caption, say) does."""
    for name in ("pvi", "pvi_label"):
        if name in data.scores:
            return np.asarray(~(data.scores[name] < 0))
    return np.ones(data.n, dtype=np.bool_)


def _duplicates(x: F32, epsilon: float) -> B1:
    """Return which rows (n, d) lie within epsilon of an earlier one that is no duplicate itself."""
    n = x.shape[0]
    out = np.zeros(n, dtype=np.bool_)
    bar = 1.0 - epsilon
    for start in range(0, n, _BLOCK):
        block = x[start : start + _BLOCK]
        for low in range(0, start, 8 * _BLOCK):
            tile = slice(low, min(low + 8 * _BLOCK, start))
            near = (block @ x[tile].T >= bar) & ~out[tile]
            out[start : start + _BLOCK] |= near.any(axis=1)
        own = block @ block.T >= bar
        for row in range(block.shape[0]):
            if not out[start + row] and (own[row, :row] & ~out[start : start + row]).any():
                out[start + row] = True
    return out
