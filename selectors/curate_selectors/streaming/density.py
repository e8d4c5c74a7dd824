"""Inverse-propensity sampling by density, in one pass.

Coleman and Shrivastava, WWW 2020, arXiv:1912.02283 (the sketch, query and add); Sachdeva et al., 2024,
arXiv:2402.09668 (chances in inverse proportion to the density).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import Reservoir
from curate_selectors.sketch import Sketch
from curate_selectors.tiles import TILE, row_tiles
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class DensityOnline:
    """A row's weight is 1 / (its mean density among all rows until the end of its batch + 1/4096).

    The mean, not the sum, and a constant for the row itself: both are stationary, so that a row's chance does not
    depend on when it came.

    hashes, bits: size of the sketch, 8 · hashes · 2^bits bytes; its error falls with 1 / √hashes
    """

    hashes: int = 1000
    bits: int = 8

    def __post_init__(self) -> None:
        if self.hashes < 1 or not 1 <= self.bits <= 16:
            raise SelectorError(f"hashes {self.hashes}, bits {self.bits}: needed are hashes ≥ 1 and bits 1-16")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` draws; gain is the weight. One pass; peak memory O(count), the sketch, and a batch."""
        check_count(data, count)
        rng = np.random.default_rng(seed)
        kept = Reservoir(count)
        sketch: Sketch | None = None
        for _, rows in row_tiles(data, "density-online"):
            sketch = sketch or Sketch(rows, self.hashes, self.bits, seed)
            codes = sketch.codes(rows)
            sketch.add(codes)
            weight = 1.0 / ((sketch.query(codes) - 1.0) / max(sketch.n - 1, 1) + 1.0 / TILE)
            kept.add(np.log(weight) + rng.gumbel(size=weight.size), np.log(weight), weight.astype(np.float32))
        return kept.chosen()
