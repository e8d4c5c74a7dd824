"""The method that is meant to be right without thinking: gate, deduplicate, share out among classes, draw by gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1, F32, F64, I64
from curate_selectors.balance.shares import Shares
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.sampling import inclusion
from curate_selectors.types import Candidates, Selection

_BLOCK = 512
_SAMPLE = 4096
_FEW = 20  # rows of a class that has no threshold yet
_SPREAD = 1.645 * 1.4826  # z of 95 %, and deviations of a normal in one median deviation


@dataclass(frozen=True, slots=True)
class Default:
    """Rows that pass the gate and duplicate none before them, water-filled among classes, by InfoGrowth's draw in each.

    Provisional: benchmarks have not chosen it yet. The rows of a pool were gated when they came, and are not gated
    again. Given `s1_label` or `pvi` (of plain arrays), the gate refuses what is far above the median of its class in
    the one, or below it in the other: as far as 5 % of normal scores are, by the median deviation. Half of a class
    stays whatever its scores, and classes of fewer than 20 rows are not gated. Duplicates are sought among the
    embeddings, and rows of no gain are taken for some. What is refused comes last, duplicates first. Without labels all
    rows are one class; of classes with the same claim chance says which comes first.

    k: neighbours in the gain; epsilon: distance (1 - cosine) within which a row duplicates one that is kept
    power: shares of the classes ∝ size ** power, 0: equal ones; floor: rows that each class gets first
    """

    k: int = 4
    epsilon: float = 1e-4
    power: float = 0.0
    floor: int = 0

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the information gain, probability that of the draw in the own class.

        Time O(n²d) where gains are not given, else that of the products of rows that one axis does not tell apart;
        memory O(n + pairs of duplicates).
        """
        check_count(data, count)
        drawn = InfoGrowth(k=self.k).select(data, data.n, seed)
        gain = np.empty(data.n, dtype=np.float32)
        gain[drawn.index] = drawn.gain
        label = np.zeros(data.n, dtype=np.int64) if data.label is None else data.label
        group = np.where(label < 0, label.max(initial=0) + 1, label)  # rows without a label share one class
        passed = _gated(data, group)
        kept = passed & ((gain > 0) | ~(gain > 0).any())
        if data.x is not None:
            kept[kept] = ~_duplicates(need_rows(data, "default")[kept], self.epsilon)
        good = drawn.index[kept[drawn.index]]
        shares, order = Shares(self.power, self.floor), np.arange(good.size)
        tie = np.random.default_rng([seed, 1]).permutation(int(group.max(initial=0)) + 1)
        place = shares.order(group[good], order, tie[group[good]])
        rest = drawn.index[~kept[drawn.index]]
        rest = rest[np.argsort(~passed[rest], kind="stable")]
        index = np.concatenate([good[place], rest])[:count]
        chance = np.ones(count, dtype=np.float32)  # what was refused is taken when all else is, by no chance
        taken = min(count, good.size)
        mean = shares.expected(group[good], order, taken)
        chance[:taken] = _chances(gain, group, good, mean)[index[:taken]]
        return Selection(index, gain[index], np.ones(count, dtype=np.float32), chance)


def _chances(gain: F32, group: I64, good: I64, mean: F64) -> F32:
    """Return the chance (n,) of each good row, whose class gives on average `mean` of them: draws, or one more."""
    top = float(np.quantile(gain, InfoGrowth().quantile)) if gain.size else 1.0
    weight = np.clip(gain / top, 0.0, 1.0).astype(np.float64) if top > 0 else np.ones(gain.size)
    chance = np.ones(gain.size, dtype=np.float32)
    for number in np.unique(group[good]):
        mine = good[group[good] == number]
        draws = float(mean[group[good] == number][0])
        fewer = int(draws + 1e-9)
        more = max(draws - fewer, 0.0)
        chance[mine] = (1 - more) * inclusion(weight[mine], fewer) if fewer else 0.0
        if more > 1e-9:
            chance[mine] += more * inclusion(weight[mine], fewer + 1)
    return chance


def _gated(data: Candidates, group: I64) -> B1:
    """Return which rows pass by the scores that are given; one without the score (NaN) does."""
    passed = np.ones(data.n, dtype=np.bool_)
    for name, sign in (("s1_label", 1.0), ("pvi", -1.0)):
        if name in data.scores:
            score = sign * data.scores[name].astype(np.float64)
            for number in np.unique(group):
                mine = np.flatnonzero((group == number) & np.isfinite(score))
                if mine.size >= _FEW:
                    passed[mine] &= score[mine] <= _limit(score[mine])
    return passed


def _limit(score: F64) -> float:
    """Return the 95 % quantile of the normal with the median and the median deviation of `score` (m,).

    Up to half of the scores may be wrong and move it little, where a quantile of them all moves with the share of
    those.
    """
    middle = np.median(score)
    return float(middle + _SPREAD * np.median(np.abs(score - middle)))


def _duplicates(x: F32, epsilon: float) -> B1:
    """Return which rows (n, d) lie within epsilon of an earlier one that is no duplicate itself.

    Rows that near are near on every axis, so that only those are multiplied which are on the widest one.
    """
    out = np.zeros(x.shape[0], dtype=np.bool_)
    long = np.flatnonzero(np.einsum("ij,ij->i", x, x) >= 1.0 - epsilon)  # not rows of zeros
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(x[i].tobytes(), i) for i in long.tolist()], dtype=np.int64)
    out[long[first != long]] = True  # equal rows, however many, make no pairs
    rows = long[first == long]
    on = _positions(x, rows)
    rows, on = rows[np.argsort(on, kind="stable")], np.sort(on)
    end = np.searchsorted(on, on + np.sqrt(2 * epsilon) + 1e-3, side="right")
    pairs = []
    for start in range(0, rows.size, _BLOCK):
        mine = rows[start : start + _BLOCK]
        for low in range(start, int(end[start + mine.size - 1]), 8 * _BLOCK):
            other = rows[low : min(low + 8 * _BLOCK, int(end[start + mine.size - 1]))]
            i, j = np.nonzero(x[mine] @ x[other].T >= 1.0 - epsilon)
            pairs.append(np.sort(np.stack([mine[i], other[j]], axis=1), axis=1))
    near = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    near = near[near[:, 0] < near[:, 1]]
    for early, late in near[np.argsort(near[:, 1], kind="stable")].tolist():  # what is earlier is settled
        out[late] |= not out[early]
    return out


def _positions(x: F32, rows: I64) -> F64:
    """Return where rows of x lie along an axis on which they spread widely, (m,): a few power iterations' one."""
    some = x[rows[:: max(1, rows.size // _SAMPLE)]].astype(np.float64)
    if not some.size:
        return np.zeros(rows.size)
    some -= some.mean(axis=0)
    axis: F64 = np.random.default_rng(0).normal(size=(x.shape[1],))
    for _ in range(8):
        wider: F64 = some.T @ (some @ axis) + 1e-12 * axis
        axis = wider / max(float(np.linalg.norm(wider)), 1e-300)
    return np.concatenate([x[part] @ axis for part in np.array_split(rows, rows.size // _SAMPLE + 1)])
