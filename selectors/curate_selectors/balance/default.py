"""The method that is meant to be right without thinking: what benchmarks chose for the kind of data at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1, F32, F64, I64
from curate_selectors.balance.shares import Shares
from curate_selectors.coverage.facility import FacilityLocation
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.pairs.windowed import WindowedKCenter, joint, windowed
from curate_selectors.types import Candidates, Selection

_BLOCK = 512
_SAMPLE = 4096
_FEW, _SOME = 20, 0.1  # rows, and the share, of a class that stay whatever its scores
_LARGE = 100_000  # rows that facility location ranks together


@dataclass(frozen=True, slots=True)
class Default:
    """Each kind of data by the rule that trained best on it; docs/choosing.md has the tables.

    Pairs, which most rows are that have `pvi`: the windowed k-center. Labelled rows: those of `pvi_label` ≥ 0, drawn.
    Neither: facility location; more than 100,000 rows in parts of as many, which take turns. Labels share the budget
    equally among the classes, whatever orders the rows in each. A tenth of a class stays whatever its `pvi_label`, 20
    rows at least: it may be hard to tell, but half of a rare class may also be wrong labels of the common ones.
    Scores whose mean is not above 0 know nothing and are not used.
    What duplicates an earlier row comes after all others, what the gate refuses last. Of classes with the same claim
    chance says which comes first.

    epsilon: distance (1 - cosine) within which a row duplicates one that is kept
    power: shares of the classes ∝ size ** power, 0: equal ones; floor: rows that each class gets first
    """

    epsilon: float = 1e-4
    power: float = 0.0
    floor: int = 0

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is that of the rule within the class, `pvi_label` of drawn rows.

        Time and memory of the rule: O(count² d) for pairs, O(n² d) for facility location.
        """
        check_count(data, count)
        x = need_rows(data, "default")
        label = np.full(data.n, -1, dtype=np.int64) if data.label is None else data.label
        group = np.where(label < 0, label.max(initial=0) + 1, label)  # rows without a label share one class
        passed = _gated(data, group)
        kept = passed.copy()
        kept[kept] = ~_duplicates(x[kept], self.epsilon)
        good, gain, drawn = self._ranked(data, x, group, np.flatnonzero(kept), count, seed)
        shares, order = Shares(self.power, self.floor), np.arange(good.size)
        tie = np.random.default_rng([seed, 1]).permutation(int(group.max(initial=0)) + 1)
        place = shares.order(group[good], order, tie[group[good]])
        left = np.flatnonzero(~kept)
        rest = left[np.argsort(~passed[left], kind="stable")]
        index = np.concatenate([good[place], rest])[:count]
        chance = np.ones(count, dtype=np.float32)  # what was refused is taken when all else is, by no chance
        if drawn:
            taken = min(count, good.size)
            mean = shares.expected(group[good], order, taken) / np.bincount(group[good])[group[good]]
            chance[:taken] = mean[place[:taken]]
        return Selection(index, gain[index], np.ones(count, dtype=np.float32), chance)

    def _ranked(self, data: Candidates, x: F32, group: I64, rows: I64, count: int, seed: int) -> tuple[I64, F32, bool]:
        """Return the rows so that those of each class come in its order, their gains (n,), and whether chance did."""
        gain = np.zeros(data.n, dtype=np.float32)
        pvi = _known(data, "pvi")
        if pvi is None and (data.label is not None and (data.label >= 0).any()):
            gain[rows] = np.nan_to_num(data.scores["pvi_label"][rows]) if "pvi_label" in data.scores else 1.0
            return np.random.default_rng(seed).permutation(rows), gain, True
        parts = []
        for number in np.unique(group[rows]):
            mine = rows[group[rows] == number]
            if pvi is not None:
                both = x[mine] if data.text is None else joint(x[mine], data.text[mine])
                usual = WindowedKCenter()
                order, value = windowed(both, pvi[mine], min(count, mine.size), usual.window, usual.least)
            else:
                order, value = _covering(x[mine], min(count, mine.size), seed)
            gain[mine[order]] = value
            parts.append(np.concatenate([mine[order], np.delete(mine, order)]))  # shares are of whole classes
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts]), gain, False


def _covering(x: F32, count: int, seed: int) -> tuple[I64, F32]:
    """Return rows in the order of facility location, and their gains; of many rows, parts in turn."""
    pieces = -(-x.shape[0] // _LARGE)
    parts = np.array_split(np.arange(x.shape[0], dtype=np.int64), pieces)
    found = []
    for part in parts:
        candidates = Candidates(n=part.size, x=x[part[0] : part[-1] + 1])
        chosen = FacilityLocation().select(candidates, min(count, part.size), seed)
        turn = np.arange(chosen.index.size, dtype=np.int64)
        found.append((turn, part[chosen.index], chosen.gain))
    turn, index, gain = (np.concatenate([one[i] for one in found]) for i in range(3))
    order = np.argsort(turn, kind="stable")[:count]
    return index[order], gain[order].astype(np.float32)


def _known(data: Candidates, name: str) -> F32 | None:
    """Return a score that most rows have and that knows something: information below 0 on average is none."""
    values = data.scores.get(name)
    if values is None:
        return None
    there = np.isfinite(values)
    return values if 2 * there.sum() > data.n and float(values[there].mean()) > 0 else None


def _gated(data: Candidates, group: I64) -> B1:
    """Return which rows (n,) pass by `pvi_label`, where it is known; the best few of each class do in any case."""
    passed = np.ones(data.n, dtype=np.bool_)
    pvi = _known(data, "pvi_label")
    if pvi is None:
        return passed
    for number in np.unique(group):
        mine = np.flatnonzero((group == number) & np.isfinite(pvi))
        best = mine[np.argsort(-pvi[mine], kind="stable")]
        passed[best] = (pvi[best] >= 0) | (np.arange(best.size) < max(_FEW, _SOME * best.size))
    return passed


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
