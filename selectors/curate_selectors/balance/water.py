"""Budgets shared among classes or groups: water-filling, stratified sampling, and rare classes first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import I64
from curate_selectors.balance.shares import Ranked, Shares, drawn_share, groups_of, ranked, turns
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class WaterFill:
    """Every class gives equally many, or all that it has; rows of a class are drawn, or taken by a score.

    Shares are proportional to size ** power: 0 equal, ½ between, 1 as in the data. Rows without a class come last.
    With floors, caps or a power the shares are met as nearly as whole rows allow; the count is always met, so the caps
    are passed when everything else is taken.

    by: labels or groups; score: column to rank a class by, highest first; empty: at random
    power: see above; floor: rows that each class gets first; cap: rows of a class that come before its rest, 0: all
    """

    by: str = "labels"
    score: str = ""
    power: float = 0.0
    floor: int = 0
    cap: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1 or self.floor < 0 or self.cap < 0 or 0 < self.cap < self.floor:
            told = f"power is {self.power}, floor {self.floor}, cap {self.cap}"
            raise SelectorError(f"{told}; 0 ≤ power ≤ 1 and 0 ≤ floor ≤ cap (or cap 0) are needed")

    @property
    def draws(self) -> bool:
        """Tell whether rows are taken by chance."""
        return not self.score

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the score, 1 for a draw. Memory O(n).

        Of classes with the same claim to a row chance says which has it, or their best scores where there is one.
        Probability is the mean share of the class over such chances.
        """
        check_count(data, count)
        group = groups_of(data, self.by, "water-fill")
        shares = Shares(self.power, self.floor, self.cap)
        return _shared(group, ranked(data, group, self.score, "water-fill", seed), shares, count)


@dataclass(frozen=True, slots=True)
class StratifiedRandom:
    """Uniform sampling in which each class has its share of the budget, as nearly as whole rows allow.

    Webster's method: a class too small for a first row at this count has no chance of one, and is in no weight.

    by: labels or groups; rows without one are a class of their own
    """

    by: str = "labels"

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; probability is the mean share of the class, where several claim the last rows.

        Memory O(n).
        """
        check_count(data, count)
        group = groups_of(data, self.by, "stratified-random") + 1
        return _shared(group, ranked(data, group, "", "stratified-random", seed), Shares(power=1.0), count)


@dataclass(frozen=True, slots=True)
class RareFirst:
    """All rows of the rarest class, then of the next rarest; rows of a class are drawn, or taken by a score.

    Classes of one size come in the order of their numbers, rows without a class last.

    by: labels or groups; score: column to rank a class by, highest first; empty: at random
    """

    by: str = "labels"
    score: str = ""

    @property
    def draws(self) -> bool:
        """Tell whether rows are taken by chance."""
        return not self.score

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is 1 / size of the class; probability the share of it taken. Memory O(n)."""
        check_count(data, count)
        group = groups_of(data, self.by, "rare-first")
        by_value = ranked(data, group, self.score, "rare-first", seed)
        turn, size = turns(group, by_value.order)
        index: I64 = np.lexsort((turn, group, size, group < 0))[:count].astype(np.int64)
        chance = drawn_share(group, index) if by_value.drawn else np.ones(count, dtype=np.float32)
        gain = (1.0 / size[index]).astype(np.float32)
        return Selection(index, gain, np.ones(count, dtype=np.float32), chance)


def _shared(group: I64, rows: Ranked, shares: Shares, count: int) -> Selection:
    """Return `count` rows, shared out; a drawn one's probability is its group's mean share."""
    index = shares.order(group, rows.order, rows.tie)[:count]
    chance = np.ones(count, dtype=np.float32)
    if rows.drawn:
        size = turns(group, rows.order)[1]
        chance = (shares.expected(group, rows.order, count) / size)[index].astype(np.float32)
    return Selection(index, rows.value[index], np.ones(count, dtype=np.float32), chance)
