"""k-center: farthest-point traversal (Gonzalez 1985), the 2-approximation that Sener & Savarese (2018) use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_kernels.kcenter import pick_farthest
from curate_selectors.coverage.blocks import TAKEN, largest
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class KCenter:
    """Exact greedy k-center on cosine distance, evaluated lazily.

    A row's stored distance is an upper bound (more centres only bring it nearer), so only the rows with the largest
    bounds are brought up to date, a block at a time by one matrix product. Same picks as the plain loop, up to the
    rounding of float32 products. The first centre is the row nearest to the mean, so no seed is involved.

    block: rows brought up to date together
    """

    block: int = 512

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SelectorError(f"block is {self.block}; it must be at least 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` centres in order; gain is the distance to the nearest earlier one. Memory O(n + count d)."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "kcenter")
        index = np.empty(count, dtype=np.int64)
        gain = np.empty(count, dtype=np.float32)
        if count:
            self._traverse(x, index, gain)
        ones = np.ones(count, dtype=np.float32)
        return Selection(index, gain, ones, ones.copy())

    def _traverse(self, x: F32, index: I64, gain: F32) -> None:
        index[0] = int(np.argmax(x @ x.mean(axis=0)))
        bound = np.maximum(1.0 - x @ x[index[0]], 0.0).astype(np.float32)
        gain[0] = 1.0
        bound[index[0]] = TAKEN
        fresh = np.ones(x.shape[0], dtype=np.int64)  # centres that each bound accounts for
        done = 1
        while done < index.shape[0]:
            block, outside, outside_index = largest(bound, self.block)
            rows = x[block]
            oldest = int(fresh[block].min())
            if oldest < done:
                near = (rows @ x[index[oldest:done]].T).max(axis=1)
                np.minimum(bound[block], np.maximum(1.0 - near, 0.0), out=near)
                bound[block] = near
                fresh[block] = done
            dist = bound[block]
            picked = np.empty(index.shape[0] - done, dtype=np.int64)
            radius = np.empty(index.shape[0] - done, dtype=np.float32)
            found = pick_farthest(dist, rows @ rows.T, block, outside, outside_index, picked, radius)
            index[done : done + found] = block[picked[:found]]
            gain[done : done + found] = radius[:found]
            bound[block] = dist
            done += found
            fresh[block] = done
