"""Inverse-propensity sampling by density, in one pass.

Coleman and Shrivastava, WWW 2020, arXiv:1912.02283 (the sketch, query and add); Sachdeva et al., 2024,
arXiv:2402.09668 (chances in inverse proportion to the density).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import Reservoir
from curate_selectors.sketch import Sketch
from curate_selectors.tiles import TILE, Tiled, row_tiles
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
        seen = _Densities(self, count, seed)
        for _, rows in row_tiles(data, "density-online"):
            seen.take(rows)
        return seen.chosen(count)

    def begin(self, most: int | None, seed: int) -> Tiled:
        """Return the pass over rows that arrive."""
        return Tiled(_Densities(self, most, seed))


class _Densities:
    """The sketch of the rows so far, and those that were drawn."""

    def __init__(self, made: DensityOnline, most: int | None, seed: int) -> None:
        self._made, self._seed = made, seed
        self._rng = np.random.default_rng(seed)
        self._kept = Reservoir(most)
        self._sketch: Sketch | None = None

    def take(self, rows: F32) -> None:
        self._sketch = sketch = self._sketch or Sketch(rows, self._made.hashes, self._made.bits, self._seed)
        codes = sketch.codes(rows)
        sketch.add(codes)
        weight = 1.0 / ((sketch.query(codes) - 1.0) / max(sketch.n - 1, 1) + 1.0 / TILE)
        keys = np.log(weight) + self._rng.gumbel(size=weight.size)
        self._kept.add(keys, np.log(weight), weight.astype(np.float32))

    def chosen(self, count: int) -> Selection:
        return self._kept.chosen(count)
