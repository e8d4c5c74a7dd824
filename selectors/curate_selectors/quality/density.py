"""Density sampling: Sachdeva et al., How to Train Data-Efficient LLMs, 2024, arXiv:2402.09668, section 3.2.

p(y) ∝ 1/S(y) with S(y) = Σ_x k(x, y) over all rows, as their text and theorem A.2 have it; the printed algorithm 2 has
p ∝ S, which prefers what is common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_score
from curate_selectors.sampling import draw
from curate_selectors.sketch import Sketch
from curate_selectors.tiles import row_tiles, sample_tile
from curate_selectors.types import Candidates, Selection

_SAMPLE = 16_384  # rows that the sketch's centre is taken from


@dataclass(frozen=True, slots=True)
class Density:
    """Inverse-propensity sampling: a uniform draw over what there is, not over how often it is there.

    The density is the score `density` where there is one, else sketched (RACE, Coleman and Shrivastava, WWW 2020).

    hashes, bits: size of the sketch, 8 · hashes · 2^bits bytes; its error falls with 1 / √hashes
    """

    hashes: int = 1000
    bits: int = 8

    def __post_init__(self) -> None:
        if self.hashes < 1 or not 1 <= self.bits <= 16:
            raise SelectorError(f"hashes {self.hashes}, bits {self.bits}: needed are hashes ≥ 1 and bits 1-16")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` draws; gain is 1/S. Reads the embeddings twice by tiles; memory O(n) and the sketch."""
        check_count(data, count)
        if "density" in data.scores:
            share = need_score(data, "density", "density").astype(np.float64)
            mass = np.maximum(share, 0.0) * max(data.n - 1, 0) + 1.0  # k(y, y) = 1 is part of S
        else:
            mass = self._mass(data)
        index, chance = draw(-np.log(mass), count, seed)
        gain = (1.0 / mass[index]).astype(np.float32)
        return Selection(index, gain, np.ones(count, dtype=np.float32), chance)

    def _mass(self, data: Candidates) -> F64:
        sample = sample_tile(data, "density", _SAMPLE)
        mass = np.ones(data.n)
        if not data.n:
            return mass
        sketch = Sketch(sample, self.hashes, self.bits, seed=0)
        for _, rows in row_tiles(data, "density"):
            sketch.add(sketch.codes(rows))
        for start, rows in row_tiles(data, "density"):
            mass[start : start + rows.shape[0]] = sketch.query(sketch.codes(rows))
        return mass
