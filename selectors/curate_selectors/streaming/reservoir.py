"""Reservoir sampling: a uniform sample of a stream of unknown length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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
        rng = np.random.default_rng(seed)
        kept = Reservoir(count)
        for start in range(0, data.n, TILE):
            b = min(TILE, data.n - start)
            kept.add(rng.gumbel(size=b), np.zeros(b), np.ones(b, dtype=np.float32))
        chance = np.full(count, count / max(data.n, 1), dtype=np.float32)
        return replace(kept.chosen(), probability=chance)
