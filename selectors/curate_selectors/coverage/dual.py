"""A window on difficulty that moves to easier rows as fewer are kept (Cho et al., ICML 2025, arXiv:2502.06905)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlog1py, xlogy

from curate_selectors.coverage.rank import EL2N, difficulty
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import draw
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Dual:
    """Draws without replacement, weighted by a Beta density of easiness; the mean easiness grows with what is left out.

    With r the share left out, Beta(C - b, b) with b = C (1 - mean) (1 - r^power). DUAL's own score needs the dynamics
    of a training; here easiness is a row's place among all by one score, 0 … 1.

    score: column that says how hard a row is, higher is harder
    mean: mean easiness where nearly all is kept; concentration: C; power: higher ones wait longer before moving
    """

    score: str = EL2N
    mean: float = 0.25
    concentration: float = 15.0
    power: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.mean < 1 or self.concentration <= 0 or self.power <= 0:
            raise SelectorError("mean must lie in (0, 1), concentration and power above 0")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the density, largest 1; probability the chance to be drawn. Memory O(n)."""
        check_count(data, count)
        hard = difficulty(data, self.score, "dual", seed)
        easy = np.empty(data.n)
        easy[np.argsort(-hard, kind="stable")] = (np.arange(data.n) + 0.5) / max(data.n, 1)
        left_out = 1 - count / max(data.n, 1)
        b = self.concentration * (1 - self.mean) * (1 - left_out**self.power)
        density = xlogy(self.concentration - b - 1, easy) + xlog1py(b - 1, -easy)
        density -= density.max(initial=-np.inf) if data.n else 0.0
        index, chance = draw(density, count, seed)
        return Selection(index, np.exp(density[index]).astype(np.float32), np.ones(count, dtype=np.float32), chance)
