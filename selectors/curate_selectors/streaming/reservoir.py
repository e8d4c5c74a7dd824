"""Reservoir sampling: a uniform sample of a stream of unknown length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from curate_kernels.arrays import F32
from curate_selectors.inputs import check_count
from curate_selectors.sampling import Reservoir
from curate_selectors.tiles import TILE
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class UniformReservoir:
    """The rows with the largest random keys, which any number of picks can be read from."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` uniform picks after one pass; peak memory O(count)."""
        check_count(data, count)
        seen = _Uniform(count, seed)
        for start in range(0, data.n, TILE):
            seen.draw(min(TILE, data.n - start))
        return seen.chosen(count)

    def begin(self, most: int | None, seed: int) -> _Uniform:
        """Return the pass over rows that arrive."""
        return _Uniform(most, seed)


class _Uniform:
    """How many rows there were, and those that were drawn."""

    def __init__(self, most: int | None, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._kept = Reservoir(most)
        self._seen = 0

    def add(self, rows: F32) -> None:
        self.draw(rows.shape[0])

    def draw(self, b: int) -> None:
        self._seen += b
        self._kept.add(self._rng.gumbel(size=b), np.zeros(b), np.ones(b, dtype=np.float32))

    def chosen(self, count: int) -> Selection:
        chance = np.full(count, count / max(self._seen, 1), dtype=np.float32)
        return replace(self._kept.chosen(count), probability=chance)
