"""D2 pruning: messages along a graph of neighbours weigh difficulty against redundancy (Maharana et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.greedy import pick_by_messages
from curate_selectors.coverage.graph import nearest_rows
from curate_selectors.coverage.rank import EL2N, difficulty
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class D2:
    """Hard rows among hard neighbours first; each pick makes its neighbours less wanted.

    Forward: s_i + Σ_j exp(-d_ij) s_j over the nearest neighbours j, d the Euclidean distance of unit rows. Then the
    highest is picked again and again, and s_j falls by exp(-gamma d_ij) max(s_i, 0). Scores below 0 are shifted to 0
    first: a message of a negative score would reward likeness.

    score: column that says how hard a row is, higher is harder
    neighbors: of each row; gamma: how fast a pick's message fades
    """

    score: str = EL2N
    neighbors: int = 5
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.neighbors < 1 or self.gamma < 0:
            raise SelectorError(f"neighbors is {self.neighbors}, gamma {self.gamma}; at least 1 and 0 are needed")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the score when picked. Time O(n² d / 2), memory O(n neighbors)."""
        check_count(data, count)
        x = need_rows(data, "d2")
        start = difficulty(data, self.score, "d2", seed)
        start = start - min(float(start.min(initial=0.0)), 0.0)
        sim, row = nearest_rows(x, self.neighbors)
        there = row >= 0
        distance = np.sqrt(np.maximum(2 - 2 * np.where(there, sim, 0), 0))
        score = start + np.where(there, np.exp(-distance) * start[row], 0).sum(axis=1) if data.n else start
        picked, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float64)
        pick_by_messages(row, np.exp(-self.gamma * distance).astype(np.float32), score, picked, gain)
        return in_order(picked, gain.astype(np.float32))
