"""Uniform sampling without replacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.inputs import check_count
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Random:
    """The first `count` of a seeded permutation of the candidates."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` uniform picks; peak memory 8 bytes a candidate."""
        check_count(data, count)
        index = np.random.default_rng(seed).permutation(data.n)[:count].astype(np.int64)
        share = count / data.n if data.n else 1.0
        return Selection(
            index=index,
            gain=np.ones(count, dtype=np.float32),
            weight=np.ones(count, dtype=np.float32),
            probability=np.full(count, share, dtype=np.float32),
        )
