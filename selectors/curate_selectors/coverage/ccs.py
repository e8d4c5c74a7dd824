"""Coverage-centric selection: every difficulty has its share (Zheng et al., ICLR 2023, arXiv:2210.15809)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.balance.shares import drawn_share
from curate_selectors.coverage.rank import EL2N, difficulty
from curate_selectors.errors import SelectorError
from curate_selectors.fill import in_turns
from curate_selectors.inputs import check_count
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Ccs:
    """Without the hardest rows, strata of equal width in difficulty share the budget; rows of one are drawn at random.

    A stratum with fewer rows than its share gives all. What whole shares leave over goes one each to the largest strata
    (algorithm 1 gives to the smallest first, rounding down), between equal ones by chance: fewer rows than strata leave
    the smallest none. Once all strata are empty the hardest follow, easier ones first.

    score: column that says how hard a row is, higher is harder
    hardest: share that is put aside; published: none where a third of the data goes, .3 to .4 where nine tenths go
    strata: how many
    """

    score: str = EL2N
    hardest: float = 0.1
    strata: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.hardest < 1 or self.strata < 1:
            raise SelectorError(f"hardest is {self.hardest}, strata {self.strata}; [0, 1) and at least 1 are needed")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is minus the difficulty; probability that of a draw in strata of that size.

        Memory O(n).
        """
        check_count(data, count)
        hard = difficulty(data, self.score, "ccs", seed)
        easy_first = np.argsort(hard, kind="stable")
        left = np.sort(easy_first[: data.n - int(self.hardest * data.n)])
        stratum = np.zeros(data.n, dtype=np.int64)
        if left.size:
            low, high = hard[left].min(), hard[left].max()
            place = (hard[left] - low) / (high - low) * self.strata if high > low else np.zeros(left.size)
            stratum[left] = np.minimum(place.astype(np.int64), self.strata - 1)
        rng = np.random.default_rng(seed)
        order = rng.permutation(left)
        size = np.bincount(stratum[left], minlength=self.strata)
        by_size = np.lexsort((rng.permutation(self.strata), -size))  # the largest first
        order = in_turns(stratum, order, np.argsort(by_size))
        index = np.concatenate([order, easy_first[left.size :]])[:count].astype(np.int64)
        chance = np.ones(count, dtype=np.float32)
        # Strata of one size are alike before the draw, and how many rows they give together is certain.
        kind = np.full(data.n, -1, dtype=np.int64)
        kind[left] = size[stratum[left]]
        chance[: left.size] = drawn_share(kind, index[: left.size])
        return Selection(index, -hard[index].astype(np.float32), np.ones(count, dtype=np.float32), chance)
